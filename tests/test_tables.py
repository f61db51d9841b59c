"""Tables of records, against numbers known beforehand."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from made import LEVELS, records_of

from ddlib.study import contrasts, figures, images, runs, tables
from ddlib.study.ablations import ABLATIONS
from ddlib.study.ddranking import hlr, ior, lrs
from ddlib.study.record import read_record


def test_accuracy_table_by_hand(guidance_runs):
    table = tables.accuracy_table(guidance_runs)
    # Sets of CLoM: 0.50, 0.51, 0.52; half the t interval of three: 4.302653 * 1 / sqrt(3) points.
    assert table.loc["CLoM", "ConvNet-3"] == "51.0 ± 2.5"
    assert table.loc["CLoM", "VGG-11"] == "41.0 ± 2.5"
    assert table.columns.name.endswith("n = 3 sets where nothing else is said"), "the full data are one set"
    assert tables.accuracy_table(guidance_runs[guidance_runs["arm"] != "full_data"]).columns.name.endswith("n = 3 sets")
    assert table.index.tolist()[0] == "random real images"
    assert table.index.tolist()[-1] == "full data"


def test_accuracy_table_shows_n_where_it_differs_and_no_interval_of_one_set(guidance_runs):
    table = tables.accuracy_table(guidance_runs[(guidance_runs["arm"] != "clom") | (guidance_runs["seed"] == 0)])
    assert table.loc["CLoM", "ConvNet-3"] == "50.0 (n = 1)"
    assert table.loc["no guidance", "ConvNet-3"] == "41.0 ± 2.5"
    assert table.columns.name.endswith("n = 3 sets where nothing else is said")


def test_sets_that_are_equal_for_all_seeds_are_one_in_tables_and_figures(guidance_runs):
    table = tables.accuracy_table(guidance_runs)
    assert table.loc["full data", "ConvNet-3"] == "91.0 (n = 1)"
    ax = figures.accuracy_by_arm(runs.reference(guidance_runs))
    assert ax.get_yticklabels()[-1].get_text() == "full data (n = 1)"
    assert tables.spread_table(runs.reference(guidance_runs)).loc["full data"].tolist() == ["–", "0.9", 1, 6, "–"]
    chosen = contrasts.compare(guidance_runs, [("clom", "full_data"), ("clom", "none")])
    assert set(chosen["b"]) == {"none"}


def test_full_data_that_a_distilled_set_beats_are_no_ceiling(guidance_runs):
    assert tables.no_ceiling(guidance_runs) == {}
    assert tables.no_ceiling(guidance_runs[guidance_runs["arm"] != "full_data"]) == {}
    beaten = guidance_runs.assign(accuracy=guidance_runs["accuracy"] - 0.5 * (guidance_runs["arm"] == "full_data"))
    vgg = beaten[(beaten["architecture"] == "VGG-11") | (beaten["arm"] != "full_data")]
    assert tables.no_ceiling(vgg) == {
        "VGG-11": "VGG-11: CLoM + CCLoM has 43.0 %, the full data 31.0 %, which is no ceiling."
    }
    assert tables.accuracy_table(vgg).index[-1] == "full data (beaten, so no ceiling: VGG-11)"
    ax = figures.accuracy_by_arm(runs.reference(beaten))
    assert ax.get_yticklabels()[-1].get_text() == "full data (n = 1, beaten: no ceiling)"


def test_the_spread_says_whether_it_holds_that_of_pools(guidance_runs):
    clom = runs.reference(guidance_runs[guidance_runs["arm"] == "clom"])
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


def test_accuracy_table_says_which_arms_had_failed_runs(guidance_runs):
    table = tables.accuracy_table(guidance_runs[guidance_runs["arm"] != "both"], {"clom": 1, "both": 3})
    assert table.loc["CLoM (1 failed)", "ConvNet-3"] == "51.0 ± 2.5"
    assert table.loc["CLoM + CCLoM (3 failed)"].tolist() == ["failed", "failed"]
    plain = tables.accuracy_table(guidance_runs).index.tolist()
    assert [label.split(" (")[0] for label in table.index] == plain, "in the order of arms"
    alone = tables.accuracy_table(guidance_runs.head(0), {"clom": 2})
    assert alone.to_dict() == {"accuracy": {"CLoM (2 failed)": "failed"}}


def test_of_uneven_classes_the_table_shows_each(guidance_runs):
    """Two thirds of the test images are of one class, and CLoM knows no other."""
    even = guidance_runs[(guidance_runs["architecture"] == "ConvNet-3") & guidance_runs["arm"].isin(["clom", "none"])]
    even = even.assign(balanced_accuracy=even["accuracy"] - 0.009)
    assert tables.class_table(even).empty
    assert tables.class_table(guidance_runs).empty, "records without those of the classes"
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


def test_the_table_of_failed_runs_gives_whole_reasons(failed_runs):
    _, failures = runs.load_runs(failed_runs[0])
    styler = tables.failure_table(failures)
    table = styler.data
    assert table.columns.tolist() == ["setting", "notebook", "arm", "seed", "reason"]
    assert table["setting"].is_monotonic_increasing
    assert sorted(table.loc[table["arm"] == "CCLoM", "seed"]) == [0, 1, 2]
    assert "FloatingPointError: iteration 7: the base loss is nan" in styler.to_html()
    assert f"MemoryError: {'x' * 100}" in styler.to_html(), "not cut off"


def test_without_failed_runs_one_line_says_so(failed_runs, recwarn, capsys):
    path = failed_runs[0]
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


def test_every_p_value_is_shown_raw_and_corrected_and_a_bootstrap_from_ten_sets_on(guidance_runs):
    many = pd.DataFrame([row for arm, level in LEVELS.items() for row in records_of("01_guidance", arm, level, 10)])
    many["accuracy"] += many["seed"] * many["arm"].map({arm: 0.0001 * i for i, arm in enumerate(LEVELS)})
    table = contrasts.planned_contrasts(runs.reference(many), "01_guidance")
    words = tables.contrast_table(table)
    assert words.loc["CLoM − CCLoM", ["p", "p (Holm)", "p equal", "p equal (Holm)"]].tolist() == [
        *("0.0020", "–", "1.0", "–")
    ]
    assert words.loc["CLoM − no guidance", ["p", "p (Holm)"]].tolist() == ["0.0020", "0.012"]
    assert words["BCa interval"].str.startswith("[").all()
    few = tables.contrast_table(contrasts.planned_contrasts(runs.reference(guidance_runs), "01_guidance"))
    assert "BCa interval" not in few
    assert few["p"].tolist()[0] == "0.25"


def test_an_ablation_that_was_not_run_has_lines_of_text_and_no_empty_figures(guidance_runs, tmp_path, capsys):
    none = runs.ablation(guidance_runs, "02_ensemble")
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


def test_a_table_with_rows_is_shown_as_it_is(guidance_runs, capsys):
    table = tables.accuracy_table(guidance_runs)
    assert tables.unless_empty(table, "none") is table
    assert capsys.readouterr().out == ""


def test_several_architectures_are_named(guidance_runs):
    assert set(tables.contrast_table(contrasts.planned_contrasts(guidance_runs, "01_guidance"))["network"]) == {
        "ConvNet-3",
        "VGG-11",
    }


def test_ranking_table(guidance_runs):
    records = runs.reference(guidance_runs)
    table = tables.ranking_table(records)
    expected = hlr(0.91, 0.51), ior(0.51, 0.31)
    assert table.loc["CLoM"].tolist() == pytest.approx([*expected, lrs(*expected)], abs=1e-3)
    assert "full data" not in table.index
    assert tables.ranking_table(records[records["arm"] != "full_data"]).empty


def test_cost_table_counts_runs_once(guidance_runs):
    table = tables.cost_table(guidance_runs)
    assert table.loc["CLoM", "PTM passes"] == 30
    assert table.loc["CLoM", "n"] == 3


def test_equal_methods_table(ensemble_runs):
    table = tables.equal_methods_table(ensemble_runs, "02_ensemble")
    assert table.loc["loss_avg − grad_avg, ConvNet-3"].tolist() == pytest.approx([-0.1, 0.1, 6])
    assert tables.equal_methods_table(ensemble_runs[ensemble_runs["strategy"] != "grad_avg"], "02_ensemble").empty
    assert tables.equal_methods_table(ensemble_runs, "01_guidance").empty, "no two strategies are one method there"


def test_spread_table_by_hand(guidance_runs):
    # Sets of CLoM (0.49, 0.51) and (0.52, 0.58): MSW = (0.0002 + 0.0018) / 2 = 0.001, means 0.50 and 0.55, so
    # MSB = 2 * 2 * 0.025^2 / 1 = 0.0025, and between = (0.0025 - 0.001) / 2 = 0.00075.
    clom = runs.reference(guidance_runs[(guidance_runs["arm"] == "clom") & (guidance_runs["seed"] < 2)])
    one = runs.reference(guidance_runs[(guidance_runs["arm"] == "none") & (guidance_runs["seed"] == 0)])
    table = tables.spread_table(pd.concat([clom.assign(accuracy=[0.49, 0.51, 0.52, 0.58]), one]))
    assert table.index.tolist() == ["no guidance", "CLoM"]
    assert table.columns.tolist() == ["between sets", "between networks of one set", "sets", "networks", "PTMs"]
    # F = 2.5 with 1 and 2 degrees of freedom: its limits are 38.51 and 1 / 799.5, so the ratio is 0 to
    # (2.5 * 799.5 - 1) / 2 = 998.9, and the standard deviation 0 to 99.9 points
    assert table.loc["CLoM"].tolist() == ["2.7 [0.0, 99.9]", "3.2", 2, 4, "–"]
    assert table.loc["no guidance"].tolist() == ["–", "0.0", 1, 2, "–"]
