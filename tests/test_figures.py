"""Figures and pictures: each shows what its records say, and a line says why where there is nothing to draw."""

import io

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from ddlib.data.dataset import ImageFormat
from ddlib.study import benchmark_figures, figures, images, run_figures
from ddlib.study.arms import Arm
from ddlib.study.contrasts import compare
from ddlib.study.statistics import summary
from ddlib.synthetic import SyntheticSet, labels_of

ARCHITECTURES = ["AlexNet", "ConvNet-3", "VGG-11"]


def records(arms=("both", "none", "clom"), seeds=4, architectures=("ConvNet-3",), **columns):
    rng = np.random.default_rng(0)
    rows = [
        {
            "dataset": "digits",
            "base_method": "dm",
            "ipc": 1,
            "arm": name,
            "seed": seed,
            "architecture": architecture,
            "network": network,
            "accuracy": rng.uniform(0.5, 0.6),
            "ptm_passes": 100 * (index + 1),
            "seconds_distill": 2.0,
            "peak_memory_mb": 300.0,
            **columns,
        }
        for index, name in enumerate(arms)
        for seed in range(seeds)
        for architecture in architectures
        for network in range(2)
    ]
    return pd.DataFrame(rows)


def texts(labels):
    return [label.get_text() for label in labels]


def check(figure):
    """The figure renders, holds more than its background, and nothing of it lies outside the page."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    assert len(np.unique(np.asarray(Image.open(file).convert("L")))) > 5
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert drawn.x0 > -0.03, "cut off on the left"
    assert drawn.x1 < width + 0.03, "cut off on the right"
    assert drawn.y0 > -0.03, "cut off at the bottom"
    assert drawn.y1 < height + 0.03, "cut off at the top"
    assert figure.get_facecolor()[3] == 0, "the page is the ground"


def test_importing_and_drawing_leave_the_settings_alone():
    before = dict(mpl.rcParams)
    figures.accuracy_by_arm(records())
    assert dict(mpl.rcParams) == before


def test_accuracy_by_arm_shows_every_set_and_n():
    table = records(seeds=5)
    ax = figures.accuracy_by_arm(table)
    assert texts(ax.get_yticklabels()) == ["no guidance (n = 5)", "CLoM (n = 5)", "CLoM + CCLoM (n = 5)"]
    dots, interval, mean = ax.lines[:3]
    expected = table[table["arm"] == "none"].groupby("seed")["accuracy"].mean()
    assert sorted(dots.get_xdata()) == pytest.approx(sorted(100 * expected))
    assert mean.get_xdata()[0] == pytest.approx(100 * expected.mean())
    row = summary(table[table["arm"] == "none"], []).iloc[0]
    assert list(interval.get_xdata()) == pytest.approx([100 * row["low"], 100 * row["high"]])
    assert ax.get_xlabel() == "test accuracy (%)"
    assert ax.figure.get_suptitle().startswith("digits, DM, ipc 1, ConvNet-3")
    check(ax.figure)


def test_an_arm_with_failed_runs_says_so_and_one_without_any_other_has_no_bar():
    counts = {"clom": 1, "cclom": 4}
    ax = figures.accuracy_by_arm(records(seeds=3), failed=counts)
    labels = texts(ax.get_yticklabels())
    assert labels == [
        "no guidance (n = 3)",
        "CLoM (n = 3, 1 failed)",
        "CCLoM (n = 0, 4 failed)",
        "CLoM + CCLoM (n = 3)",
    ]
    assert texts(ax.texts) == ["failed"]
    assert ax.texts[0].get_position()[1] == 2
    rows = {round(y) for line in ax.lines for y in line.get_ydata()}
    assert rows == {0, 1, 3}, "nothing is drawn in the row of the arm that failed"
    check(ax.figure)


def test_only_failed_runs_are_a_figure_too():
    ax = figures.accuracy_by_arm(records().head(0), failed={"clom": 2})
    assert texts(ax.get_yticklabels()) == ["CLoM (n = 0, 2 failed)"]
    assert not ax.lines
    check(ax.figure)


def test_one_set_is_drawn_without_an_interval():
    ax = figures.accuracy_by_arm(records(seeds=1))
    assert np.isnan(ax.lines[1].get_xdata()).all()
    check(ax.figure)


def test_a_figure_of_one_architecture_refuses_several():
    for figure in (figures.accuracy_by_arm, figures.cost_accuracy, figures.alpha_curve):
        with pytest.raises(ValueError, match="architectures AlexNet, ConvNet-3, VGG-11: select one"):
            figure(records(architectures=ARCHITECTURES, alpha=1.0))


def test_an_arm_has_its_own_colour_and_marker_in_every_figure():
    names = ["none", "clom", "clom random", "clom random equal_passes", "an arm of another version"]
    dots = figures.accuracy_by_arm(records(arms=names)).lines[::3]
    drawn = {name: (tuple(line.get_color()), line.get_marker()) for name, line in zip(names, dots, strict=True)}
    assert drawn == {name: (Arm.named(name).colour, Arm.named(name).marker) for name in names}
    for some in (names, names[1::2], names[-1:]):  # the same whatever else is shown
        means = [line for line in figures.cost_accuracy(records(arms=some)).lines if len(line.get_xdata()) == 1]
        assert [(tuple(line.get_color()), line.get_marker()) for line in means] == [drawn[name] for name in some]


def test_an_arm_with_an_unknown_name_is_shown_under_it_and_last():
    table = records(arms=("zebra", "clom", "full_data"), architectures=ARCHITECTURES[:2])
    names = ["CLoM", "full data", "zebra"]
    one = table[table["architecture"] == "ConvNet-3"]
    assert texts(figures.accuracy_by_arm(one).get_yticklabels()) == [
        "CLoM (n = 4)",
        "full data (n = 1, beaten: no ceiling)",
        "zebra (n = 4)",
    ]
    counts = {"full data": 1}
    legend = [f"{name} (n = {counts.get(name, 4)})" for name in names]
    assert texts(figures.cost_accuracy(one).get_legend().get_texts()) == legend
    assert texts(figures.cross_architecture(table).get_yticklabels()) == names
    ax = figures.paired_differences(compare(one, [("zebra", "clom")]))
    assert texts(ax.get_yticklabels()) == ["zebra − CLoM (n = 4)"]


PAIRS = [("clom", "none"), ("both", "none")]


def test_paired_differences_is_a_forest_plot():
    table = compare(records(architectures=ARCHITECTURES[:2]), [], PAIRS)
    ax = figures.paired_differences(table)
    labels = texts(ax.get_yticklabels())
    assert labels == [
        "CLoM − no guidance, AlexNet (n = 4)",
        "CLoM − no guidance, ConvNet-3 (n = 4)",
        "CLoM + CCLoM − no guidance, AlexNet (n = 4)",
        "CLoM + CCLoM − no guidance, ConvNet-3 (n = 4)",
    ]
    first = table.iloc[0]
    assert ax.lines[1].get_xdata()[0] == pytest.approx(100 * first["difference"])
    assert any(list(line.get_xdata()) == [0, 0] for line in ax.lines), "the zero line"
    notes = texts(ax.child_axes[0].get_yticklabels())
    assert notes[0].endswith("]")
    assert ax.get_xlabel().endswith("no verdict (n < 6) throughout")  # once, as it is the same in each row
    mixed = figures.paired_differences(table.assign(verdict=["undecided", *table["verdict"][1:]]))
    endings = {text.split("]")[1].strip() for text in texts(mixed.child_axes[0].get_yticklabels())}
    assert endings == {"undecided", "no verdict (n < 6)"}
    assert texts(figures.paired_differences(table[::-1]).get_yticklabels()) == labels[::-1], "in the order given"
    assert f"{100 * first['difference']:+.1f}".replace("-", "−") in notes[0]
    check(ax.figure)
    check(figures.paired_differences(compare(records(seeds=1), [], PAIRS)).figure)


def test_cross_architecture_is_a_table_of_means_spreads_and_counts():
    table = records(architectures=ARCHITECTURES)
    ax = figures.cross_architecture(table)
    assert texts(ax.get_xticklabels()) == ["ConvNet-3", "VGG-11", "AlexNet"]
    assert texts(ax.get_yticklabels()) == ["no guidance", "CLoM", "CLoM + CCLoM"]
    row = summary(table, ["arm", "architecture"]).set_index(["arm", "architecture"])
    cell = row.loc[("none", "ConvNet-3")]
    assert ax.texts[0].get_text() == f"{100 * cell['mean']:.1f} ± {100 * cell['std']:.1f}"
    assert "n = 4 sets" in ax.figure.get_suptitle()
    check(ax.figure)


def test_cross_architecture_with_unequal_counts_and_a_missing_cell():
    table = records(architectures=ARCHITECTURES)
    table = table[~((table["arm"] == "clom") & (table["architecture"] == "VGG-11"))]
    table = table[~((table["arm"] == "both") & (table["seed"] > 0))]
    ax = figures.cross_architecture(table)
    shown = texts(ax.texts)
    assert len(shown) == 8, "nine cells, one without runs"
    assert sum(text.endswith("n = 4") for text in shown) == 5
    assert sum(text.endswith("n = 1") and "±" not in text for text in shown) == 3
    check(ax.figure)


@pytest.mark.parametrize("cost", sorted(figures.COSTS))
def test_cost_accuracy_names_every_arm(cost):
    table = records(["clom random", "clom single", "clom mgda"])
    ax = figures.cost_accuracy(table, cost)
    assert texts(ax.get_legend().get_texts()) == [
        "CLoM, one fixed PTM (n = 4)",
        "CLoM, one at random (n = 4)",
        "CLoM, MGDA (n = 4)",
    ]
    assert ax.get_xlabel().startswith(figures.COSTS[cost])
    markers = [line for line in ax.lines if len(line.get_xdata()) == 1]
    mean = 100 * table[table["arm"] == "clom single"]["accuracy"].mean()
    assert markers[0].get_ydata()[0] == pytest.approx(mean)
    assert len({line.get_marker() for line in markers}) == len({line.get_color() for line in markers}) == 3
    check(ax.figure)
    inside = ax.get_window_extent()
    for line in markers:
        x, _ = line.get_transform().transform(line.get_xydata()[0])
        assert inside.x0 < x < inside.x1, "every marker lies inside the axes"


def test_a_run_that_was_interrupted_moves_no_cost():
    table = records(["clom single", "clom mgda"]).assign(seconds_distill=100.0)
    table.loc[(table["arm"] == "clom mgda") & (table["seed"] == 0), "seconds_distill"] = 9999.0
    markers = [line for line in figures.cost_accuracy(table, "seconds_distill").lines if len(line.get_xdata()) == 1]
    assert {line.get_xdata()[0] for line in markers} == {100.0}


def test_cost_accuracy_refuses_an_unknown_cost():
    with pytest.raises(ValueError, match="x is 'money'; the costs of a run are ptm_passes"):
        figures.cost_accuracy(records(), "money")


def test_costs_far_apart_get_a_log_scale():
    table = records(["clom single", "clom mgda"])
    table.loc[table["arm"] == "clom mgda", "ptm_passes"] = 100_000
    assert figures.cost_accuracy(table).get_xscale() == "log"


def test_alpha_curve_draws_zero_as_a_line():
    runs = [records(arms=["none"], alpha=100.0), records(arms=["clom"], alpha=0.0)]
    runs += [records(arms=[name], alpha=a) for name in ("clom", "cclom") for a in (1.0, 10.0, 100.0)]
    table = pd.concat(runs, ignore_index=True)
    table.loc[(table["arm"] == "clom") & (table["alpha"] == 10.0), "accuracy"] += 0.2
    ax = figures.alpha_curve(table)
    assert ax.get_xscale() == "log"
    assert texts(ax.get_legend().get_texts()) == ["no guidance (n = 4)", "CLoM (n = 4)", "CCLoM (n = 4)"]
    zero, clom, ring = ax.lines[:3]
    expected = 100 * runs[0]["accuracy"].mean()
    assert zero.get_ydata()[0] == pytest.approx(expected), "alpha = 0 and 'none' are one run, not two"
    assert list(clom.get_xdata()) == [1, 10, 100]
    assert list(ring.get_xdata()) == [10]
    check(ax.figure)


def test_history_has_a_panel_for_each_column():
    frame = pd.DataFrame({"iteration": range(0, 500, 5), "base_loss": np.linspace(2, 1, 100), "cosine": 0.5})
    figure = run_figures.history(frame, ["base_loss", "cosine"])
    assert [ax.get_ylabel() for ax in figure.axes] == ["base loss", "cosine"]
    assert [len(ax.lines) for ax in figure.axes] == [2, 2], "raw values and their running mean"
    assert figure.axes[0].lines[0].get_xdata()[-1] == 495
    assert figure.axes[1].get_xlabel() == "iteration"
    check(figure)
    assert len(run_figures.history(frame.head(10), ["base_loss"]).axes[0].lines) == 1
    with pytest.raises(ValueError, match=r"columns \['loss'\] are missing"):
        run_figures.history(frame, ["loss"])


def test_gradient_cosines():
    matrix = torch.tensor([[1.0, -0.25], [-0.25, 1.0]])
    ax = run_figures.gradient_cosines(matrix, ["ConvNet-3 #0", "VGG-11 #1"])
    assert texts(ax.texts) == ["1.00", "-0.25", "-0.25", "1.00"]
    assert ax.collections[0].get_clim() == (-1, 1)
    check(ax.figure)
    with pytest.raises(ValueError, match=r"shape \[2, 2\], but there are 1 names"):
        run_figures.gradient_cosines(matrix, ["ConvNet-3"])


def test_mosaic_puts_each_class_in_its_row():
    pixels = torch.arange(4).reshape(4, 1, 1, 1).expand(4, 1, 2, 2) / 10
    picture = images.mosaic(pixels, torch.tensor([1, 0, 1, 0]), classes=[0, 1], per_class=3)
    assert picture.shape == (2 * 2 + 1, 3 * 2 + 2, 3)
    assert picture[[0, 0, 3, 3], [0, 3, 0, 3], 0] == pytest.approx([0.1, 0.3, 0.0, 0.2])
    assert (picture[:, 6:] == 1).all(), "no third image: white"
    assert (picture[2] == 1).all(), "the gap"


def test_mosaic_clips_and_keeps_colours():
    pixels = torch.tensor([-0.5, 0.25, 1.5]).reshape(1, 3, 1, 1)
    picture = images.mosaic(pixels, torch.tensor([0]), [0], 1)
    assert picture.tolist() == [[[0.0, 0.25, 1.0]]]
    for wrong in (pixels[0], torch.zeros(1, 2, 4, 4), torch.zeros(2, 3, 4, 4)):
        with pytest.raises(ValueError, match="expected pixels"):
            images.mosaic(wrong, torch.tensor([0]), [0], 1)


def test_side_by_side_shares_the_classes():
    labels = torch.arange(12).repeat_interleave(2)
    arms = {name: torch.rand(24, 3, 8, 8) for name in ("start", "CLoM grad_norm_avg", "x" * 30)}
    figure = images.side_by_side(arms, labels, [f"class {i}" for i in range(12)])
    assert [ax.get_title() for ax in figure.axes] == ["start", "CLoM grad_norm_avg", "x" * 30]
    assert texts(figure.axes[0].get_yticklabels()) == [f"class {i}" for i in range(10)]
    assert figure.get_supxlabel() == "10 of 12 classes, 1 of 2 images for each class"
    rows = figure.axes[0].images[0].get_array().shape[0]
    ticks = figure.axes[0].get_yticks()
    assert ticks[0] == pytest.approx(3.5), "the middle of an image of 8 pixels"
    assert rows - 1 - ticks[-1] == pytest.approx(3.5)
    check(figure)
    with pytest.raises(ValueError, match="`arms` is empty"):
        images.side_by_side({}, labels, [])


def test_image_grid_is_one_panel():
    labels = torch.tensor([0, 0, 2])
    ax = images.image_grid(torch.rand(3, 1, 8, 8), labels, ["cat", "dog", "eel"], title="real images")
    assert texts(ax.get_yticklabels()) == ["cat", "eel"]
    assert ax.get_title() == "real images"
    assert ax.images[0].get_array().shape == (17, 17, 3)
    assert ax.figure.get_supxlabel() == "", "nothing is left out"
    check(ax.figure)


def test_alpha_curve_without_unguided_runs_has_no_dashed_line():
    table = pd.concat([records(arms=["clom"], alpha=a) for a in (1.0, 10.0)], ignore_index=True)
    assert texts(figures.alpha_curve(table).get_legend().get_texts()) == ["CLoM (n = 4)"]


def test_step_costs_has_a_line_for_each_strategy():
    rows = [(k, name, 0.01 * k, mb) for k in (1, 2, 4) for name, mb in (("loss_avg", 10.0 * k), ("grad_avg", 10.0))]
    figure = benchmark_figures.step_costs(pd.DataFrame(rows, columns=["num_ptms", "strategy", "seconds", "graph_mb"]))
    time, memory = figure.axes
    assert [list(line.get_ydata()) for line in memory.lines] == [[10, 20, 40], [10, 10, 10]]
    assert list(time.lines[0].get_ydata()) == pytest.approx([10, 20, 40])  # milliseconds
    assert texts(time.get_legend().get_texts()) == ["loss_avg", "grad_avg"]
    check(figure)


@pytest.mark.parametrize(
    ("figure", "why"),
    [
        (figures.accuracy_by_arm, "no arm of this ablation has been run in this setting"),
        (figures.cross_architecture, "no arm of this ablation has been run in this setting"),
        (figures.cost_accuracy, "no arm of this ablation has been run in this setting"),
        (figures.paired_differences, "no planned contrast has all its arms with a common seed"),
        (figures.alpha_curve, "no arm has been run with evaluate_on = holdout at several alphas, all else as here"),
    ],
)
def test_where_there_is_nothing_to_draw_a_line_says_why(figure, why, capsys):
    assert figure(records().head(0)) is None
    assert capsys.readouterr().out == f"Nothing to draw: {why}.\n"
    assert not plt.get_fignums()


def test_show_images_takes_what_lies_beside_the_records(guidance_runs, tmp_path):
    labels = labels_of(2, 1)
    of_images = ImageFormat.of(torch.zeros(1, 1, 8, 8), torch.zeros(1), torch.ones(1))
    for arm in ("clom", "none"):
        run = guidance_runs[guidance_runs["arm"] == arm]["run"].iloc[0]
        SyntheticSet(torch.rand(2, 1, 8, 8), labels, of_images, ("a", "b")).save(tmp_path / f"{run}.safetensors")
    figure = images.show_images(guidance_runs, tmp_path)
    assert [ax.get_title() for ax in figure.axes] == ["no guidance", "CLoM"]
    with pytest.raises(FileNotFoundError, match="seed 1"):
        images.show_images(guidance_runs, tmp_path, seed=1)
    later = guidance_runs.assign(seed=guidance_runs["seed"] + 10)
    file = later.head(1).assign(arm="my set", seed=0, run="file")
    figure = images.show_images(pd.concat([later, file], ignore_index=True), tmp_path)
    assert [ax.get_title() for ax in figure.axes] == ["no guidance", "CLoM"], "the seed that most arms have"
    assert images.show_images(guidance_runs[guidance_runs["arm"] == "full_data"], tmp_path) is None, "it keeps no set"
