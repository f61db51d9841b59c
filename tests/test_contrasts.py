"""The contrasts that are planned, and between which runs they are made."""

from ddlib.study import contrasts, figures, runs, tables


def test_guidance_contrasts_are_those_fixed_in_advance(guidance_runs):
    table = contrasts.planned_contrasts(runs.reference(guidance_runs), "01_guidance")
    pairs = list(zip(table["a"], table["b"], table["primary"], table["difference"].round(6), strict=True))
    assert pairs == [
        ("clom", "cclom", True, 0.05),
        ("both", "clom", False, 0.02),
        ("both", "cclom", False, 0.07),
        ("clom", "none", False, 0.10),
        ("cclom", "none", False, 0.05),
        ("both", "none", False, 0.12),
        ("none", "random_real", False, 0.10),
    ]
    words = tables.contrast_table(table)
    assert words.index[0] == "CLoM − CCLoM"
    assert words["points"].tolist()[0] == "+5.00"
    assert words["planned"].tolist() == ["primary"] + ["exploratory"] * 6
    assert set(words["verdict"]) == {"no verdict (n < 6)".replace(" ", "\N{NO-BREAK SPACE}")}


def test_ensemble_contrasts_compare_at_equal_steps_and_at_equal_passes(ensemble_runs):
    records = runs.ablation(ensemble_runs, "02_ensemble")
    table = contrasts.planned_contrasts(runs.reference(records), "02_ensemble")
    pairs = list(zip(table["a"], table["b"], table["primary"], table["difference"].round(6), strict=True))
    assert pairs == [
        ("clom loss_avg", "clom random", True, 0.02),
        ("clom loss_avg every_4", "clom random", True, 0.01),
        ("clom mgda", "clom loss_avg", False, -0.12),
        ("clom loss_avg", "clom random equal_passes", False, -0.03),
    ]
    assert tables.contrast_table(table).index[1] == "CLoM: average of losses (every 4th update) − one at random"


def test_contrasts_use_the_seeds_that_both_arms_have(guidance_runs):
    records = guidance_runs[(guidance_runs["arm"] != "clom") | (guidance_runs["seed"] < 2)]
    table = contrasts.planned_contrasts(runs.reference(records), "01_guidance").set_index(["a", "b"])
    assert table.loc[("clom", "cclom"), "n"] == 2
    assert table.loc[("both", "none"), "n"] == 3


def test_arms_without_a_common_seed_are_not_compared(guidance_runs):
    records = guidance_runs[(guidance_runs["arm"] != "clom") | (guidance_runs["seed"] == 0)]
    records = records[(records["arm"] != "cclom") | (records["seed"] == 1)]
    table = contrasts.planned_contrasts(runs.reference(records), "01_guidance")
    assert ("clom", "cclom") not in set(zip(table["a"], table["b"], strict=True))
    assert ("clom", "none") in set(zip(table["a"], table["b"], strict=True))


def test_too_few_arms_give_an_empty_table_and_a_line_that_says_so(guidance_runs, capsys):
    table = contrasts.planned_contrasts(runs.reference(guidance_runs[guidance_runs["arm"] == "clom"]), "01_guidance")
    assert table.empty
    assert tables.contrast_table(table).empty
    assert figures.paired_differences(table) is None
    assert capsys.readouterr().out == "Nothing to draw: no planned contrast has all its arms with a common seed.\n"
    assert tables.unless_empty(tables.contrast_table(table), "No differences.") is None
    assert capsys.readouterr().out == "No differences.\n"
