"""From records to tables: which runs are compared, and what the tables say about numbers known beforehand."""

import itertools

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest
import torch
from made import ROOT

from ddlib.data.dataset import ImageFormat
from ddlib.study import alphas, comparison, contrasts, figures, images, runs, tables
from ddlib.study.ablations import ABLATIONS
from ddlib.study.arms import Arm
from ddlib.study.ddranking import hlr, ior, lrs
from ddlib.study.record import read_record, write_failure, write_record
from ddlib.synthetic import SyntheticSet, labels_of

LEVELS = {"random_real": 0.30, "none": 0.40, "clom": 0.50, "cclom": 0.45, "both": 0.52, "full_data": 0.90}


def rows(notebook, arm, level, seeds=3, **changes):
    """The records of one arm: two networks of two architectures a seed, the second one 0.1 lower."""
    words = arm.split(" ")
    return [
        {
            "run": f"{notebook}-{arm}-{seed}-{changes.get('alpha_clom', 10.0)}",
            "notebook": notebook,
            "dataset": "digits",
            "dataset_hash": "d",
            "arm": arm,
            "base_method": "dm",
            "guidance": words[0],
            "strategy": words[1] if words[1:2] not in ([], ["alone"]) else "single",
            "num_ptms": 4 if words[1:2] not in ([], ["alone"]) else 1,
            "equal_passes": arm.endswith("equal_passes"),
            "ipc": 1,
            "alpha_clom": 10.0,
            "architectures": "ConvNet-3, VGG-11",
            "seed": seed,
            "architecture": architecture,
            "network": network,
            "augment": True,
            "accuracy": level + 0.01 * seed - (0.1 if architecture == "VGG-11" else 0),
            "seconds_distill": 2.0,
            "seconds_ptms": 1.0,
            "ptm_passes": 30,
            "peak_memory_mb": 300.0,
            **changes,
        }
        for seed in range(seeds)
        for architecture in ("ConvNet-3", "VGG-11")
        for network in range(2)
    ]


@pytest.fixture
def guidance():
    return pd.DataFrame([row for arm, level in LEVELS.items() for row in rows("01_guidance", arm, level)])


@pytest.fixture
def ensemble():
    levels = {"random": 0.5, "random equal_passes": 0.55, "loss_avg": 0.52, "grad_avg": 0.521, "mgda": 0.4}
    levels |= {"loss_avg every_4": 0.51}
    return pd.DataFrame([row for name, x in levels.items() for row in rows("02_ensemble", f"clom {name}", x)])


def test_settings_group_runs_that_share_all_but_the_arm(guidance, ensemble):
    other = pd.DataFrame(rows("01_guidance", "clom", 0.7, alpha_clom=100.0))
    records = runs.with_settings(pd.concat([other, guidance, ensemble], ignore_index=True))
    assert set(records.loc[records["alpha_clom"] == 10.0, "setting"]) == {0}  # the one with most runs
    assert set(records.loc[records["alpha_clom"] == 100.0, "setting"]) == {1}
    table = tables.settings_table(records)
    assert table["runs"].tolist() == [36, 3]
    assert table["alpha_clom"].tolist() == [10.0, 100.0]
    assert "ipc" in table
    assert len(runs.choose_setting(records, 1)) == 12
    with pytest.raises(ValueError, match="settings 0, 1"):
        runs.choose_setting(records, 2)


def test_arms_of_another_base_method_are_not_mixed_in(guidance):
    dsa = pd.DataFrame(rows("01_guidance", "clom", 0.7)).assign(base_method="dsa", run="dsa")
    alone = pd.DataFrame(rows("01_guidance", "clom alone", 0.6, base_method="none"))
    real = pd.DataFrame(rows("01_guidance", "herding", 0.4, base_method="herding", guidance="none"))
    records = runs.with_settings(pd.concat([guidance, dsa, alone, real], ignore_index=True))
    dm, other = (runs.choose_setting(records, 0, method) for method in ("dm", "dsa"))
    assert set(dm["arm"]) == {*LEVELS, "clom alone", "herding"}
    assert set(other["arm"]) == {"clom", "clom alone", "herding"}
    assert tables.accuracy_table(other).loc["CLoM alone", "ConvNet-3"].startswith("61.0")
    pairs = contrasts.planned_contrasts(runs.reference(dm), "01_guidance")
    assert ("clom alone", "clom") in set(zip(pairs["a"], pairs["b"], strict=True))


def test_other_data_are_another_setting(guidance):
    other = guidance.assign(dataset_hash="e", run=guidance["run"] + "e")
    assert runs.with_settings(pd.concat([guidance, other], ignore_index=True))["setting"].nunique() == 2


def test_an_ablation_has_one_row_for_the_two_averages(guidance, ensemble):
    records = pd.concat([guidance, ensemble], ignore_index=True)
    assert set(runs.ablation(records, "01_guidance")["arm"]) == set(LEVELS)
    assert "clom grad_avg" not in set(runs.ablation(records, "02_ensemble")["arm"])
    alone = records[records["strategy"] != "loss_avg"]
    assert "clom grad_avg" in set(runs.ablation(alone, "02_ensemble")["arm"])
    assert runs.ablation(records, "01_guidance", augment=False).empty


def test_the_reference_architecture_is_the_first_named(guidance):
    assert set(runs.reference(guidance)["architecture"]) == {"ConvNet-3"}


def test_accuracy_table_by_hand(guidance):
    table = tables.accuracy_table(guidance)
    # Sets of CLoM: 0.50, 0.51, 0.52; half the t interval of three: 4.302653 * 1 / sqrt(3) points.
    assert table.loc["CLoM", "ConvNet-3"] == "51.0 ± 2.5"
    assert table.loc["CLoM", "VGG-11"] == "41.0 ± 2.5"
    assert table.columns.name.endswith("n = 3 sets where nothing else is said"), "the full data are one set"
    assert tables.accuracy_table(guidance[guidance["arm"] != "full_data"]).columns.name.endswith("n = 3 sets")
    assert table.index.tolist()[0] == "random real images"
    assert table.index.tolist()[-1] == "full data"


def test_accuracy_table_shows_n_where_it_differs_and_no_interval_of_one_set(guidance):
    table = tables.accuracy_table(guidance[(guidance["arm"] != "clom") | (guidance["seed"] == 0)])
    assert table.loc["CLoM", "ConvNet-3"] == "50.0 (n = 1)"
    assert table.loc["no guidance", "ConvNet-3"] == "41.0 ± 2.5"
    assert table.columns.name.endswith("n = 3 sets where nothing else is said")


def test_sets_that_are_equal_for_all_seeds_are_one_in_tables_and_figures(guidance):
    table = tables.accuracy_table(guidance)
    assert table.loc["full data", "ConvNet-3"] == "91.0 (n = 1)"
    ax = figures.accuracy_by_arm(runs.reference(guidance))
    assert ax.get_yticklabels()[-1].get_text() == "full data (n = 1)"
    assert tables.spread_table(runs.reference(guidance)).loc["full data"].tolist() == ["–", "0.9", 1, 6, "–"]
    chosen = contrasts.compare(guidance, [("clom", "full_data"), ("clom", "none")])
    assert set(chosen["b"]) == {"none"}


def test_beside_a_longer_run_stands_one_without_guidance_that_took_as_long(ensemble):
    tested = ensemble.assign(iterations=100)
    unguided = pd.DataFrame(
        [row for n in (100, 400, 800) for row in rows("01_guidance", "none", 0.3, iterations=n, run=f"none {n}")]
    )
    other = unguided[unguided["iterations"] == 400].assign(ipc=10, run="another setting")
    records = pd.concat([tested, unguided, other], ignore_index=True)
    shown = comparison.as_long(records, tested)
    assert set(shown["arm"]) == {"no guidance, 400 iterations"}
    assert len(shown) == 12
    table = tables.accuracy_table(runs.stacked(tested, shown))
    assert table.index[-1] == "no guidance, 400 iterations"
    assert comparison.as_long(records, tested[~tested["equal_passes"]]).empty
    assert comparison.as_long(records, ensemble).empty, "records that do not say how long"
    file = unguided.head(1).assign(base_method="file", arm="my set", iterations=None)  # makes it a column of floats
    beside = comparison.as_long(pd.concat([records, file], ignore_index=True), tested)
    assert set(beside["arm"]) == {"no guidance, 400 iterations"}
    two = tested.assign(num_ptms=2, ptm_architectures="ConvNet-3, VGG-11,")
    assert set(comparison.as_long(records, two)["arm"]) == {"no guidance, 400 iterations"}


def test_full_data_that_a_distilled_set_beats_are_no_ceiling(guidance):
    assert tables.no_ceiling(guidance) == {}
    assert tables.no_ceiling(guidance[guidance["arm"] != "full_data"]) == {}
    beaten = guidance.assign(accuracy=guidance["accuracy"] - 0.5 * (guidance["arm"] == "full_data"))
    vgg = beaten[(beaten["architecture"] == "VGG-11") | (beaten["arm"] != "full_data")]
    assert tables.no_ceiling(vgg) == {
        "VGG-11": "VGG-11: CLoM + CCLoM has 43.0 %, the full data 31.0 %, which is no ceiling."
    }
    assert tables.accuracy_table(vgg).index[-1] == "full data (beaten, so no ceiling: VGG-11)"
    ax = figures.accuracy_by_arm(runs.reference(beaten))
    assert ax.get_yticklabels()[-1].get_text() == "full data (n = 1, beaten: no ceiling)"


def test_the_spread_says_whether_it_holds_that_of_pools(guidance):
    clom = runs.reference(guidance[guidance["arm"] == "clom"])
    own = clom.assign(arm="cclom", ptm_hashes=clom["seed"].map("pool {}".format))
    table = tables.spread_table(pd.concat([clom.assign(ptm_hashes="one"), own, clom.assign(arm="none", ptm_hashes="")]))
    assert table["PTMs"].tolist() == ["–", "one pool for all sets", "a pool for each set"]


def test_power_table_is_computed():
    table = tables.power_table(10, tests=13)
    assert table.index.tolist() == ["0.3", "0.5", "0.7"]
    half, found, same, near = table.loc["0.5"]
    assert half == "± 0.36"
    # all ten of one sign: the tenth root of 0.8 is 0.97793, whose normal quantile is 2.0127
    assert found == "0.50; 1.01 as one of 13"
    assert (same.split(";")[0], near.split(";")[0]) == ("100 %", "90 %")
    assert tables.power_table(10).loc["0.5"].tolist() == ["± 0.36", "0.50", "100 %", "90 %"]


def test_accuracy_table_says_which_arms_had_failed_runs(guidance):
    table = tables.accuracy_table(guidance[guidance["arm"] != "both"], {"clom": 1, "both": 3})
    assert table.loc["CLoM (1 failed)", "ConvNet-3"] == "51.0 ± 2.5"
    assert table.loc["CLoM + CCLoM (3 failed)"].tolist() == ["failed", "failed"]
    plain = tables.accuracy_table(guidance).index.tolist()
    assert [label.split(" (")[0] for label in table.index] == plain, "in the order of arms"
    alone = tables.accuracy_table(guidance.head(0), {"clom": 2})
    assert alone.to_dict() == {"accuracy": {"CLoM (2 failed)": "failed"}}


def test_of_uneven_classes_the_table_shows_each(guidance):
    """Two thirds of the test images are of one class, and CLoM knows no other."""
    even = guidance[(guidance["architecture"] == "ConvNet-3") & guidance["arm"].isin(["clom", "none"])]
    even = even.assign(balanced_accuracy=even["accuracy"] - 0.009)
    assert tables.class_table(even).empty
    assert tables.class_table(guidance).empty, "records without those of the classes"
    shares = {"clom": [1.0, 0.0], "none": [0.5, 0.25]}
    uneven = even.assign(
        class_names=[("cat", "dog")] * len(even),
        class_accuracies=even["arm"].map(shares),
        balanced_accuracy=even["arm"].map(lambda arm: sum(shares[arm]) / 2),
        accuracy=even["arm"].map(lambda arm: (2 * shares[arm][0] + shares[arm][1]) / 3),
    )
    table = tables.class_table(uneven)
    assert table.loc["CLoM"].tolist() == [66.7, 50, 100, 0]
    assert table.loc["no guidance"].tolist() == [41.7, 37.5, 50, 25]
    assert table.columns.tolist() == ["accuracy", "balanced", "cat", "dog"]


@pytest.fixture
def folder(tmp_path):
    """Three seeds of CLoM and a failed fourth; all of CCLoM failed, and runs of another alpha, of DSA, of grad_avg."""

    def write(seed, error=None, notebook="01_guidance", **changes):
        parameters = {"dataset": "digits", "base_method": "dm", "guidance": "clom", "strategy": "single", "num_ptms": 1}
        parameters |= {"ipc": 1, "alpha_clom": 10.0, "architectures": "ConvNet-3", **changes}
        about = {"notebook": notebook, "parameters": parameters, "seed": seed, "dataset_hash": "d", "ptm_hashes": []}
        about["arm"] = Arm(parameters["guidance"], parameters["strategy"] if parameters["num_ptms"] > 1 else "").name
        about |= {"peak_memory_bytes": None, "device": "cpu"}
        if error:
            return write_failure(tmp_path, error, **about)
        columns = {
            "architecture": ["ConvNet-3"],
            "network": [0],
            "augment": [True],
            "accuracy": [0.5],
            "seconds": [1.0],
        }
        empty = {"history": pd.DataFrame({"iteration": [0]}), "seconds": {}, "ptm_passes": 0, "synthetic_hash": None}
        return write_record(tmp_path, **about, **empty, accuracies=pd.DataFrame(columns))

    for seed in range(3):
        write(seed)
        write(seed, FloatingPointError("iteration 7: the base loss is nan"), guidance="cclom")
    write(3, MemoryError("x" * 100))
    for seed in range(12):  # more than all runs of the other setting, which comes first all the same
        write(seed, FloatingPointError("no"), alpha_clom=1e9)
    write(0, FloatingPointError("no"), base_method="dsa")
    write(0, FloatingPointError("no"), notebook="02_ensemble", strategy="grad_avg", num_ptms=2)
    return tmp_path, write


def test_failed_runs_have_the_setting_of_those_they_would_be_compared_with(folder):
    records, failures = runs.load_runs(folder[0])
    assert records["setting"].tolist() == [0, 0, 0]
    assert failures.groupby("alpha_clom")["setting"].unique().map(list).to_dict() == {10.0: [0], 1e9: [1]}
    chosen = runs.choose_setting(records, 0)
    failed = runs.failed_arms(failures, chosen, 0)
    assert failed == {"01_guidance": {"clom": 1, "cclom": 3}, "02_ensemble": {"clom grad_avg": 1}, "06_ptm_options": {}}
    assert runs.failed_arms(failures, chosen, 0, "dsa")["01_guidance"] == {"clom": 1}
    table = tables.accuracy_table(runs.ablation(chosen, "01_guidance"), failed["01_guidance"])
    assert table["ConvNet-3"].to_dict() == {"CLoM (1 failed)": "50.0 ± 0.0", "CCLoM (3 failed)": "failed"}


def test_a_failed_grad_avg_has_no_row_where_loss_avg_is_there(folder):
    path, write = folder
    write(0, notebook="02_ensemble", strategy="loss_avg", num_ptms=2)
    write(0, MemoryError(), notebook="02_ensemble", strategy="mgda", num_ptms=2)
    records, failures = runs.load_runs(path)
    failed = runs.failed_arms(failures, runs.choose_setting(records, 0), 0)
    assert failed["02_ensemble"] == {"clom mgda": 1}


def test_the_table_of_failed_runs_gives_whole_reasons(folder):
    _, failures = runs.load_runs(folder[0])
    styler = tables.failure_table(failures)
    table = styler.data
    assert table.columns.tolist() == ["setting", "notebook", "arm", "seed", "reason"]
    assert table["setting"].is_monotonic_increasing
    assert sorted(table.loc[table["arm"] == "CCLoM", "seed"]) == [0, 1, 2]
    assert "FloatingPointError: iteration 7: the base loss is nan" in styler.to_html()
    assert f"MemoryError: {'x' * 100}" in styler.to_html(), "not cut off"


def test_without_failed_runs_one_line_says_so(folder, recwarn, capsys):
    path = folder[0]
    for file, record in [(file, read_record(file)) for file in path.glob("*.json")]:
        if record["status"] == "failed":
            file.unlink()
    records, failures = runs.load_runs(path)
    assert len(records) == 3
    assert failures.empty
    assert tables.failure_table(failures) is None
    assert capsys.readouterr().out.startswith("No run has failed")
    assert runs.failed_arms(failures, records, 0) == {name: {} for name in ABLATIONS}
    assert not recwarn


def test_guidance_contrasts_are_those_fixed_in_advance(guidance):
    table = contrasts.planned_contrasts(runs.reference(guidance), "01_guidance")
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
    assert words["points"].tolist()[0] == "+5.0"
    assert words["planned"].tolist() == ["primary"] + ["exploratory"] * 6
    assert set(words["verdict"]) == {"no verdict (n < 6)".replace(" ", "\N{NO-BREAK SPACE}")}


def test_ensemble_contrasts_compare_at_equal_steps_and_at_equal_passes(ensemble):
    records = runs.ablation(ensemble, "02_ensemble")
    table = contrasts.planned_contrasts(runs.reference(records), "02_ensemble")
    pairs = list(zip(table["a"], table["b"], table["primary"], table["difference"].round(6), strict=True))
    assert pairs == [
        ("clom loss_avg", "clom random", True, 0.02),
        ("clom loss_avg every_4", "clom random", True, 0.01),
        ("clom mgda", "clom loss_avg", False, -0.12),
        ("clom loss_avg", "clom random equal_passes", False, -0.03),
    ]
    assert tables.contrast_table(table).index[1] == "CLoM: average of losses (every 4th update) − one at random"


def test_every_p_value_is_shown_raw_and_corrected_and_a_bootstrap_from_ten_sets_on(guidance):
    many = pd.DataFrame(
        [row for arm, level in LEVELS.items() for row in rows("01_guidance", arm, level, 10) if row["seed"] or level]
    )
    many["accuracy"] += many["seed"] * many["arm"].map({arm: 0.0001 * i for i, arm in enumerate(LEVELS)})
    table = contrasts.planned_contrasts(runs.reference(many), "01_guidance")
    words = tables.contrast_table(table)
    assert words.loc["CLoM − CCLoM", ["p", "p (Holm)", "p equal", "p equal (Holm)"]].tolist() == [
        *("0.0020", "–", "1.0", "–")
    ]
    assert words.loc["CLoM − no guidance", ["p", "p (Holm)"]].tolist() == ["0.0020", "0.012"]
    assert words["BCa interval"].str.startswith("[").all()
    few = tables.contrast_table(contrasts.planned_contrasts(runs.reference(guidance), "01_guidance"))
    assert "BCa interval" not in few
    assert few["p"].tolist()[0] == "0.25"


def test_contrasts_use_the_seeds_that_both_arms_have(guidance):
    records = guidance[(guidance["arm"] != "clom") | (guidance["seed"] < 2)]
    table = contrasts.planned_contrasts(runs.reference(records), "01_guidance").set_index(["a", "b"])
    assert table.loc[("clom", "cclom"), "n"] == 2
    assert table.loc[("both", "none"), "n"] == 3


def test_arms_without_a_common_seed_are_not_compared(guidance):
    records = guidance[(guidance["arm"] != "clom") | (guidance["seed"] == 0)]
    records = records[(records["arm"] != "cclom") | (records["seed"] == 1)]
    table = contrasts.planned_contrasts(runs.reference(records), "01_guidance")
    assert ("clom", "cclom") not in set(zip(table["a"], table["b"], strict=True))
    assert ("clom", "none") in set(zip(table["a"], table["b"], strict=True))


def test_too_few_arms_give_an_empty_table_and_a_line_that_says_so(guidance, capsys):
    table = contrasts.planned_contrasts(runs.reference(guidance[guidance["arm"] == "clom"]), "01_guidance")
    assert table.empty
    assert tables.contrast_table(table).empty
    assert figures.paired_differences(table) is None
    assert capsys.readouterr().out == "Nothing to draw: no planned contrast has all its arms with a common seed.\n"
    assert tables.unless_empty(tables.contrast_table(table), "No differences.") is None
    assert capsys.readouterr().out == "No differences.\n"


def test_an_ablation_that_was_not_run_has_lines_of_text_and_no_empty_figures(guidance, tmp_path, capsys):
    none = runs.ablation(guidance, "02_ensemble")
    assert runs.reference(none).empty
    assert tables.accuracy_table(none).empty
    assert contrasts.planned_contrasts(none, "02_ensemble").empty
    assert tables.ranking_table(none).empty
    assert tables.spread_table(none).empty
    for figure in (figures.accuracy_by_arm, figures.cross_architecture, figures.cost_accuracy):
        assert figure(none) is None
    assert images.show_images(none, tmp_path) is None
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Nothing to draw: no arm of this ablation has been run in this setting."
    assert len(lines) == 4
    assert not plt.get_fignums()


def test_a_table_with_rows_is_shown_as_it_is(guidance, capsys):
    table = tables.accuracy_table(guidance)
    assert tables.unless_empty(table, "none") is table
    assert capsys.readouterr().out == ""


def test_several_architectures_are_named(guidance):
    assert set(tables.contrast_table(contrasts.planned_contrasts(guidance, "01_guidance"))["network"]) == {
        "ConvNet-3",
        "VGG-11",
    }


def test_ranking_table(guidance):
    records = runs.reference(guidance)
    table = tables.ranking_table(records)
    expected = hlr(0.91, 0.51), ior(0.51, 0.31)
    assert table.loc["CLoM"].tolist() == pytest.approx([*expected, lrs(*expected)], abs=1e-3)
    assert "full data" not in table.index
    assert tables.ranking_table(records[records["arm"] != "full_data"]).empty


def test_cost_table_counts_runs_once(guidance):
    table = tables.cost_table(guidance)
    assert table.loc["CLoM", "PTM passes"] == 30
    assert table.loc["CLoM", "n"] == 3


def test_equal_methods_table(ensemble):
    table = tables.equal_methods_table(ensemble, "02_ensemble")
    assert table.loc["loss_avg − grad_avg, ConvNet-3"].tolist() == pytest.approx([-0.1, 0.1, 6])
    assert tables.equal_methods_table(ensemble[ensemble["strategy"] != "grad_avg"], "02_ensemble").empty
    assert tables.equal_methods_table(ensemble, "01_guidance").empty, "no two strategies are one method there"


def test_spread_table_by_hand(guidance):
    # Sets of CLoM (0.49, 0.51) and (0.52, 0.58): MSW = (0.0002 + 0.0018) / 2 = 0.001, means 0.50 and 0.55, so
    # MSB = 2 * 2 * 0.025^2 / 1 = 0.0025, and between = (0.0025 - 0.001) / 2 = 0.00075.
    clom = runs.reference(guidance[(guidance["arm"] == "clom") & (guidance["seed"] < 2)])
    one = runs.reference(guidance[(guidance["arm"] == "none") & (guidance["seed"] == 0)])
    table = tables.spread_table(pd.concat([clom.assign(accuracy=[0.49, 0.51, 0.52, 0.58]), one]))
    assert table.index.tolist() == ["no guidance", "CLoM"]
    assert table.columns.tolist() == ["between sets", "between networks of one set", "sets", "networks", "PTMs"]
    # F = 2.5 with 1 and 2 degrees of freedom: its limits are 38.51 and 1 / 799.5, so the ratio is 0 to
    # (2.5 * 799.5 - 1) / 2 = 998.9, and the standard deviation 0 to 99.9 points
    assert table.loc["CLoM"].tolist() == ["2.7 [0.0, 99.9]", "3.2", 2, 4, "–"]
    assert table.loc["no guidance"].tolist() == ["–", "0.0", 1, 2, "–"]


def alpha_runs(values=(1.0, 10.0, 100.0), **changes):
    """Hold-out runs of CLoM and CCLoM over a grid of both alphas, and one without guidance."""
    arms = [("clom", a, c) for a in values for c in (1.0, 5.0)] + [("cclom", 7.0, c) for c in (1.0, 5.0)]
    arms += [("none", 7.0, 1.0), ("both", 1.0, 1.0), ("both", 10.0, 1.0)]
    shared = {"evaluate_on": "holdout", "dataset_hash": "held out", **changes}
    made = [
        row
        for arm, a, c in arms
        for row in rows("01_guidance", arm, 0.5 + a / 1000, alpha_clom=a, alpha_cclom=c, **shared)
    ]
    return pd.DataFrame(made).assign(run=lambda table: table["run"] + table["alpha_cclom"].astype(str))


def test_the_alpha_grid_collects_hold_out_runs_that_share_all_else(guidance):
    tested = guidance.assign(evaluate_on="test", alpha_cclom=1000.0)
    other = alpha_runs(ipc=10)
    real = alpha_runs().query("arm == 'none'").assign(arm="random_real", base_method="random")
    records = runs.with_settings(pd.concat([tested, alpha_runs(), other, real], ignore_index=True))
    grid = alphas.alpha_grid(records, 0)
    assert grid.groupby("arm")["alpha"].unique().map(sorted).loc[["clom", "cclom"]].to_dict() == {
        "clom": [1.0, 10.0, 100.0],
        "cclom": [1.0, 5.0],
    }
    assert set(grid["arm"]) == {"clom", "cclom", "none"}, "with both losses there are two alphas"
    assert set(grid["ipc"]) == {1}
    assert set(grid["evaluate_on"]) == {"holdout"}
    assert grid[grid["arm"] == "none"]["alpha"].isna().all()
    assert len(grid[grid["arm"] == "clom"]) == 3 * 12, "once, whatever the alpha that it does not use"
    ax = figures.alpha_curve(runs.reference(grid))
    assert [line.get_label() for line in ax.lines if "n =" in line.get_label()] == [
        "no guidance (n = 3)",
        "CLoM (n = 3)",
        "CCLoM (n = 3)",
    ]


def test_the_hold_out_runs_may_lie_in_a_folder_of_their_own_and_be_judged_by_fewer_networks(guidance):
    tested = runs.with_settings(guidance.assign(evaluate_on="test", alpha_cclom=1000.0, judges=1))
    fewer = alpha_runs(architectures="ConvNet-3", judges=0).query("architecture == 'ConvNet-3'")
    held_out = runs.with_settings(fewer)
    grid = alphas.alpha_grid(tested, 0, held_out=held_out)
    assert set(grid["arm"]) == {"clom", "cclom", "none"}
    assert set(grid["evaluate_on"]) == {"holdout"}
    assert alphas.alpha_grid(tested, 0, held_out=pd.DataFrame()).empty
    assert len(alphas.alpha_grid(held_out, 0)) == len(grid), "a folder of hold-out runs alone has a grid too"


def test_where_the_hold_out_runs_of_a_sweep_lie(folder):
    path, _ = folder
    above = path / "sweeps"
    assert alphas.alpha_folders(above / "desk-ensemble") == []
    assert alphas.load_held_out(above / "desk-ensemble").empty
    for name in ("desk-ensemble-alpha", "desk-alpha", "paper-alpha"):
        (above / name).mkdir(parents=True)
        for record in path.glob("*.json"):
            (above / name / record.name).write_bytes(record.read_bytes())
    found = {name: [path.name for path in alphas.alpha_folders(above / name)] for name in ("desk-ensemble", "paper")}
    assert found == {"desk-ensemble": ["desk-ensemble-alpha", "desk-alpha"], "paper": ["paper-alpha"]}
    assert len(alphas.load_held_out(above / "desk-ensemble")) == 2 * len(alphas.load_held_out(above / "paper")) == 6


def curve(arm, accuracies):
    """Hold-out runs of one arm: for each alpha the means of its sets."""
    return [
        {"arm": arm, "alpha": alpha, "seed": seed, "architecture": "ConvNet-3", "network": 0, "accuracy": mean}
        for alpha, means in accuracies.items()
        for seed, mean in enumerate(means)
    ]


def test_the_alpha_with_the_best_mean_is_chosen_and_of_equal_ones_the_smallest():
    grid = [
        *curve("none", {float("nan"): [0.3, 0.4]}),
        *curve("clom", {1000.0: [0.2, 0.2], 10.0: [0.4, 0.5], 100.0: [0.5, 0.4]}),
        *curve("cclom", {1.0: [0.1, 0.2], 10.0: [0.3, 0.3]}),
        *curve("clom alone", {5.0: [0.9, 0.1], 50.0: [0.52, 0.5], 500.0: [0.4, 0.4]}),
    ]
    chosen = alphas.chosen_alphas(pd.DataFrame(grid))
    assert chosen["alpha"].to_dict() == {"clom": 10.0, "cclom": 10.0, "clom alone": 50.0}
    assert chosen["edge"].to_dict() == {"clom": True, "cclom": True, "clom alone": False}
    assert chosen["parameter"].to_dict() == {"clom": "alpha_clom", "cclom": "alpha_cclom", "clom alone": "alpha_clom"}
    assert alphas.chosen_alphas(pd.DataFrame(grid).head(2)).empty
    table = tables.alpha_table(pd.DataFrame(grid))
    assert table.index.tolist() == ["no guidance", *["CLoM"] * 3, *["CLoM alone"] * 3, *["CCLoM"] * 2]
    assert table["alpha"].tolist() == ["–", "10", "100", "1,000", "5", "50", "500", "1", "10"]
    assert table[""].tolist() == [
        *("", "chosen, at the edge of the grid", "", ""),
        *("", "chosen", "", "", "chosen, at the edge of the grid"),
    ]
    assert tables.alpha_table(pd.DataFrame()).empty
    assert figures.alpha_curve(pd.DataFrame(grid).assign(augment=True)) is not None


def test_a_half_run_grid_compares_alphas_on_the_seeds_that_all_have():
    grid = pd.DataFrame(
        [
            {
                "arm": "clom",
                "alpha": alpha,
                "seed": seed,
                "architecture": "ConvNet-3",
                "network": 0,
                "accuracy": share,
            }
            for alpha, accuracies in {1.0: [0.5, 0.5], 10.0: [0.4, 0.9], 100.0: [0.45]}.items()
            for seed, share in enumerate(accuracies)
        ]
    )
    row = alphas.chosen_alphas(grid).loc["clom"]
    assert (row["alpha"], row["accuracy"], row["n"]) == (1.0, 0.5, 1), "10 is best on seed 1 alone, which 100 lacks"
    apart = grid[(grid["alpha"] == 1.0) & (grid["seed"] == 0) | (grid["alpha"] == 10.0) & (grid["seed"] == 1)]
    assert alphas.chosen_alphas(apart).empty


def test_an_arm_at_another_alpha_than_the_chosen_one_is_named():
    chosen = pd.DataFrame({"alpha": {"clom": 10.0, "cclom": 100.0, "clom alone": 1000.0}})
    there = pd.DataFrame(
        [
            {"arm": arm, "evaluate_on": "test", "alpha_clom": clom, "alpha_cclom": 30.0, "alpha_ce_ratio": 1.0}
            for arm, clom in {
                **{"none": 1.0, "clom": 10.0, "clom alone": 1000.0, "clom random": 20.0},
                **{"both": 10.0, "ce_ratio": 5.0},
            }.items()
        ]
    )
    assert alphas.unchosen_alphas(there, chosen) == [
        "CLoM, one at random: alpha_clom is 20, and the hold-out chose 10",
        "CE ratio: alpha_ce_ratio 1 was not chosen on a hold-out",
        "CLoM + CCLoM: alpha_cclom is 30, and the hold-out chose 100",
    ]
    assert alphas.unchosen_alphas(there.assign(evaluate_on="holdout"), chosen) == []
    assert alphas.unchosen_alphas(there.drop(columns="evaluate_on"), chosen) == []
    assert len(alphas.unchosen_alphas(there, chosen.head(0))) == 6


def test_guidance_alone_has_an_alpha_of_its_own_on_the_test_images(guidance):
    tested = guidance.assign(evaluate_on="test")
    alone = pd.DataFrame(
        rows("01_guidance", "clom alone", 0.6, base_method="none", alpha_clom=100.0, evaluate_on="test")
    )
    records = runs.with_settings(pd.concat([tested, alone], ignore_index=True))
    assert set(records["setting"]) == {0}
    held_out = runs.with_settings(pd.concat([tested, alone], ignore_index=True).assign(evaluate_on="holdout"))
    assert set(held_out["setting"]) == {0, 1}, "there alphas are compared"


def test_another_number_of_ptms_in_one_ablation_is_another_setting(guidance, ensemble):
    more = pd.DataFrame(rows("02_ensemble", "clom random", 0.7, num_ptms=10)).assign(run="more")
    records = runs.with_settings(pd.concat([guidance, ensemble, more], ignore_index=True))
    assert records.groupby("num_ptms")["setting"].unique().map(list).to_dict() == {1: [0], 4: [0], 10: [1]}
    assert "unusual_pool" not in records


def test_a_run_has_the_alpha_of_its_own_loss_and_counts_once_whatever_the_other_three():
    losses = ("clom", "ce_ratio", "cos_mean", "cclom")
    made = []
    for place, loss in enumerate(losses):
        for own, others in itertools.product((1.0, 10.0), (2.0, 3.0)):
            given = {f"alpha_{name}": own if name == loss else others for name in losses}
            made += rows("01_guidance", loss, 0.5, **given, evaluate_on="holdout", judges=place)
    table = pd.DataFrame(made)
    table = runs.with_settings(
        table.assign(run=[f"{row.run} {row.alpha_clom} {row.alpha_cclom}" for row in table.itertuples()])
    )
    grid = alphas.alpha_grid(table, 0)
    assert grid.groupby("arm")["alpha"].unique().map(sorted).to_dict() == {loss: [1.0, 10.0] for loss in losses}
    assert (grid.groupby("arm").size() == len(table) / len(losses) / 2).all()


def test_without_several_alphas_there_is_no_grid(guidance):
    records = runs.with_settings(guidance.assign(alpha_cclom=1.0))
    assert alphas.alpha_grid(records, 0).empty, "records that do not say what they were evaluated on"
    tested = guidance.assign(evaluate_on="test", alpha_cclom=1.0)
    one = alpha_runs((10.0,)).query("arm in ('clom', 'none')")
    assert alphas.alpha_grid(runs.with_settings(pd.concat([tested, one], ignore_index=True)), 0).empty


def test_only_the_arm_that_has_a_twin_is_left_out():
    """Arms of the second ablation without guidance carry its default strategy, loss_avg, in their parameters."""
    unguided = rows("02_ensemble", "none", 0.4, strategy="loss_avg")
    both = rows("02_ensemble", "both loss_avg", 0.5) + rows("02_ensemble", "both grad_avg", 0.5)
    records = pd.DataFrame(unguided + both + rows("02_ensemble", "clom grad_avg", 0.5))
    assert set(runs.ablation(records, "02_ensemble")["arm"]) == {"none", "both loss_avg", "clom grad_avg"}


def test_each_ablation_is_a_notebook_with_its_title_and_a_part_of_the_comparison():
    notebooks = ROOT / "notebooks"
    headings = [
        line.strip()
        for cell in nbformat.read(notebooks / "03_compare.ipynb", as_version=4).cells
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
    ]
    for name, row in ABLATIONS.items():
        first = nbformat.read(notebooks / f"{name}.ipynb", as_version=4).cells[0].source.splitlines()[0]
        assert first == f"# {row.title}"
        # what plans contrasts has a part of its own, all else is among the further ones
        assert (f"## {row.title}" in headings) == bool(row.primary([]))


def test_a_folder_of_failed_runs_alone_has_a_report():
    nothing = pd.DataFrame(columns=["setting", "arm"])
    assert tables.settings_table(nothing).empty
    with pytest.raises(ValueError, match="no run has accuracies: all failed"):
        runs.choose_setting(nothing, 0)


def test_show_images_takes_what_lies_beside_the_records(guidance, tmp_path):
    labels = labels_of(2, 1)
    of_images = ImageFormat.of(torch.zeros(1, 1, 8, 8), torch.zeros(1), torch.ones(1))
    for arm in ("clom", "none"):
        run = guidance[guidance["arm"] == arm]["run"].iloc[0]
        SyntheticSet(torch.rand(2, 1, 8, 8), labels, of_images, ("a", "b")).save(tmp_path / f"{run}.safetensors")
    figure = images.show_images(guidance, tmp_path)
    assert [ax.get_title() for ax in figure.axes] == ["no guidance", "CLoM"]
    with pytest.raises(FileNotFoundError, match="seed 1"):
        images.show_images(guidance, tmp_path, seed=1)
    later = guidance.assign(seed=guidance["seed"] + 10)
    file = later.head(1).assign(arm="my set", seed=0, run="file")
    figure = images.show_images(pd.concat([later, file], ignore_index=True), tmp_path)
    assert [ax.get_title() for ax in figure.axes] == ["no guidance", "CLoM"], "the seed that most arms have"
    assert images.show_images(guidance[guidance["arm"] == "full_data"], tmp_path) is None, "it keeps no set"
