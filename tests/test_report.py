"""From records to tables: which runs are compared, and what the tables say about numbers known beforehand."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch

from ddlib.study import contrasts, figures, images, runs, tables
from ddlib.study.ddranking import hlr, ior, lrs
from ddlib.study.record import read_record, write_failure, write_record
from ddlib.synthetic import SyntheticSet, labels_of

mpl.use("Agg")

LEVELS = {"random_real": 0.30, "none": 0.40, "clom": 0.50, "cclom": 0.45, "both": 0.52, "full_data": 0.90}


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


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
            "strategy": words[1] if len(words) > 1 else "single",
            "num_ptms": 4 if len(words) > 1 else 1,
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
    return pd.DataFrame([row for name, x in levels.items() for row in rows("02_ensemble", f"clom {name}", x)])


def test_settings_group_runs_that_share_all_but_the_arm(guidance, ensemble):
    other = pd.DataFrame(rows("01_guidance", "clom", 0.7, alpha_clom=100.0))
    records = runs.with_settings(pd.concat([other, guidance, ensemble], ignore_index=True))
    assert set(records.loc[records["alpha_clom"] == 10.0, "setting"]) == {0}  # the one with most runs
    assert set(records.loc[records["alpha_clom"] == 100.0, "setting"]) == {1}
    table = tables.settings_table(records)
    assert table["runs"].tolist() == [33, 3]
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
    pairs = contrasts.guidance_contrasts(runs.first_architecture(dm))
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


def test_first_architecture_is_the_first_named(guidance):
    assert set(runs.first_architecture(guidance)["architecture"]) == {"ConvNet-3"}


def test_accuracy_table_by_hand(guidance):
    table = tables.accuracy_table(guidance)
    # Sets of CLoM: 0.50, 0.51, 0.52; half the t interval of three: 4.302653 * 1 / sqrt(3) points.
    assert table.loc["CLoM", "ConvNet-3"] == "51.0 ± 2.5"
    assert table.loc["CLoM", "VGG-11"] == "41.0 ± 2.5"
    assert table.columns.name.endswith("n = 3 sets")
    assert table.index.tolist()[0] == "random real images"
    assert table.index.tolist()[-1] == "full data"


def test_accuracy_table_shows_n_where_it_differs_and_no_interval_of_one_set(guidance):
    table = tables.accuracy_table(guidance[(guidance["arm"] != "clom") | (guidance["seed"] == 0)])
    assert table.loc["CLoM", "ConvNet-3"] == "50.0 (n = 1)"
    assert table.loc["no guidance", "ConvNet-3"].endswith("(n = 3)")


def test_accuracy_table_says_which_arms_had_failed_runs(guidance):
    table = tables.accuracy_table(guidance[guidance["arm"] != "both"], {"clom": 1, "both": 3})
    assert table.loc["CLoM (1 failed)", "ConvNet-3"] == "51.0 ± 2.5"
    assert table.loc["CLoM + CCLoM (3 failed)"].tolist() == ["failed", "failed"]
    plain = tables.accuracy_table(guidance).index.tolist()
    assert [label.split(" (")[0] for label in table.index] == plain, "in the order of arms"
    alone = tables.accuracy_table(guidance.head(0), {"clom": 2})
    assert alone.to_dict() == {"accuracy": {"CLoM (2 failed)": "failed"}}


@pytest.fixture
def folder(tmp_path):
    """Three seeds of CLoM and a failed fourth; all of CCLoM failed, and runs of another alpha, of DSA, of grad_avg."""

    def write(seed, error=None, notebook="01_guidance", **changes):
        parameters = {"dataset": "digits", "base_method": "dm", "guidance": "clom", "strategy": "single", "num_ptms": 1}
        parameters |= {"ipc": 1, "alpha_clom": 10.0, "architectures": "ConvNet-3", **changes}
        about = {"notebook": notebook, "parameters": parameters, "seed": seed, "dataset_hash": "d", "ptm_hashes": []}
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
    assert failed == {"01_guidance": {"clom": 1, "cclom": 3}, "02_ensemble": {"clom grad_avg": 1}}
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


def test_without_failed_runs_one_line_says_so(folder, recwarn):
    path = folder[0]
    for file, record in [(file, read_record(file)) for file in path.glob("*.json")]:
        if record["status"] == "failed":
            file.unlink()
    records, failures = runs.load_runs(path)
    assert len(records) == 3
    assert failures.empty
    assert "No run has failed" in tables.failure_table(failures).to_html()
    assert runs.failed_arms(failures, records, 0) == {"01_guidance": {}, "02_ensemble": {}}
    assert not recwarn


def test_guidance_contrasts_are_those_fixed_in_advance(guidance):
    table = contrasts.guidance_contrasts(runs.first_architecture(guidance))
    pairs = list(zip(table["a"], table["b"], table["primary"], table["difference"].round(6), strict=True))
    assert pairs == [
        ("clom", "cclom", True, 0.05),
        ("clom", "none", False, 0.10),
        ("cclom", "none", False, 0.05),
        ("both", "none", False, 0.12),
        ("none", "random_real", False, 0.10),
    ]
    words = tables.contrast_table(table)
    assert words.index[0] == "CLoM − CCLoM"
    assert words["points"].tolist()[0] == "+5.0"
    assert words["planned"].tolist() == ["primary"] + ["exploratory"] * 4
    assert set(words["verdict"]) == {"no verdict (n < 6)".replace(" ", "\N{NO-BREAK SPACE}")}


def test_ensemble_contrasts_compare_at_equal_steps_and_at_equal_passes(ensemble):
    records = runs.ablation(ensemble, "02_ensemble")
    table = contrasts.ensemble_contrasts(runs.first_architecture(records))
    pairs = list(zip(table["a"], table["b"], table["primary"], table["difference"].round(6), strict=True))
    assert pairs == [
        ("clom loss_avg", "clom random", True, 0.02),
        ("clom loss_avg", "clom random equal_passes", True, -0.03),
        ("clom mgda", "clom loss_avg", False, -0.12),
    ]
    assert tables.contrast_table(table).index[1] == "CLoM: loss_avg − random (equal passes)"


def test_contrasts_use_the_seeds_that_both_arms_have(guidance):
    records = guidance[(guidance["arm"] != "clom") | (guidance["seed"] < 2)]
    table = contrasts.guidance_contrasts(runs.first_architecture(records)).set_index(["a", "b"])
    assert table.loc[("clom", "cclom"), "n"] == 2
    assert table.loc[("both", "none"), "n"] == 3


def test_arms_without_a_common_seed_are_not_compared(guidance):
    records = guidance[(guidance["arm"] != "clom") | (guidance["seed"] == 0)]
    records = records[(records["arm"] != "cclom") | (records["seed"] == 1)]
    table = contrasts.guidance_contrasts(runs.first_architecture(records))
    assert ("clom", "cclom") not in set(zip(table["a"], table["b"], strict=True))
    assert ("clom", "none") in set(zip(table["a"], table["b"], strict=True))


def test_too_few_arms_give_an_empty_table_and_a_figure_that_says_so(guidance):
    table = contrasts.guidance_contrasts(runs.first_architecture(guidance[guidance["arm"] == "clom"]))
    assert table.empty
    assert tables.contrast_table(table).empty
    assert "Nothing to compare yet" in figures.paired_differences(table).texts[0].get_text()


def test_an_ablation_that_was_not_run_is_shown_as_such(guidance, tmp_path):
    none = runs.ablation(guidance, "02_ensemble")
    assert runs.first_architecture(none).empty
    assert tables.accuracy_table(none).empty
    assert contrasts.ensemble_contrasts(none).empty
    assert tables.ranking_table(none).empty
    for axes in (
        figures.accuracy_by_arm(none, "arm"),
        figures.cross_architecture(none, "arm"),
        figures.cost_accuracy(none),
    ):
        assert "Nothing to compare yet" in axes.texts[0].get_text()
    assert "Nothing to compare yet" in images.show_images(none, tmp_path).axes[0].texts[0].get_text()


def test_several_architectures_are_named(guidance):
    assert set(tables.contrast_table(contrasts.guidance_contrasts(guidance))["network"]) == {"ConvNet-3", "VGG-11"}


def test_ranking_table(guidance):
    records = runs.first_architecture(guidance)
    table = tables.ranking_table(records)
    expected = hlr(0.91, 0.51), ior(0.51, 0.31)
    assert table.loc["CLoM"].tolist() == pytest.approx([*expected, lrs(*expected)], abs=1e-3)
    assert "full data" not in table.index
    assert tables.ranking_table(records[records["arm"] != "full_data"]).empty


def test_cost_table_counts_runs_once(guidance):
    table = tables.cost_table(guidance)
    assert table.loc["CLoM", "PTM passes"] == 30
    assert table.loc["CLoM", "n"] == 3


def test_rounding_table(ensemble):
    table = tables.rounding_table(ensemble)
    assert table.loc["ConvNet-3"].tolist() == pytest.approx([-0.1, 0.1, 6])
    assert tables.rounding_table(ensemble[ensemble["strategy"] != "grad_avg"]).empty


def test_show_images_takes_what_lies_beside_the_records(guidance, tmp_path):
    labels = labels_of(2, 1)
    moments = torch.zeros(1), torch.ones(1)
    for arm in ("clom", "none"):
        run = guidance[guidance["arm"] == arm]["run"].iloc[0]
        SyntheticSet(torch.rand(2, 1, 8, 8), labels, *moments, ("a", "b")).save(tmp_path / f"{run}.safetensors")
    figure = images.show_images(guidance, tmp_path)
    assert [ax.get_title() for ax in figure.axes] == ["no guidance", "CLoM"]
    with pytest.raises(FileNotFoundError, match="seed 1"):
        images.show_images(guidance, tmp_path, seed=1)
