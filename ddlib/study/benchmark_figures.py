"""Figures of what was measured about speed: ratios, growth, the cost of a step."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ddlib.study.arms import MARKERS
from ddlib.study.statistics import require_columns
from ddlib.study.style import BLUE, GREY, INK, PALETTE, style


@style()
def step_costs(table: pd.DataFrame) -> Figure:
    """Seconds and graph memory of one step against the number of PTMs, one line per strategy."""
    require_columns(table, ["num_ptms", "strategy", "seconds", "graph_mb"])
    fig, axes = plt.subplots(1, 2, figsize=(8, 3.2))
    panels = {"seconds": ("time of one step (ms)", 1000), "graph_mb": ("memory of graphs (MB)", 1)}
    for ax, (column, (label, factor)) in zip(axes, panels.items(), strict=True):
        for index, (name, line) in enumerate(table.groupby("strategy", sort=False)):
            dashed = "--" if index else "-"
            ax.plot(
                line["num_ptms"],
                factor * line[column],
                dashed,
                marker=MARKERS[index % len(MARKERS)],
                color=PALETTE[index % len(PALETTE)],
                label=name,
            )
        ax.set_xlabel("number of PTMs, K")
        ax.set_ylabel(label)
        ax.set_xticks(sorted(table["num_ptms"].unique()))
        ax.set_ylim(bottom=0)
    axes[0].legend()
    return fig


@style()
def speed_ratios(rows: pd.DataFrame) -> Axes:
    """How many times faster than the time to beat, with spread and targets (``benchmark.rows_of``)."""
    require_columns(rows, ["work", "ratio", "ratio_min", "ratio_max", "target"])
    ax = plt.subplots(figsize=(7.5, 0.6 + 0.36 * len(rows)))[1]
    place = np.arange(len(rows))[::-1]
    ax.axvline(1, color=GREY, lw=1)
    ax.hlines(place, rows["ratio_min"], rows["ratio_max"], color=BLUE, lw=2)
    ax.plot(rows["ratio"], place, "o", color=BLUE, label="measured: median and range")
    ax.plot(rows["target"], place, "|", color=INK, markersize=16, markeredgewidth=2, label="target")
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_yticks(place, rows["work"])
    ax.set_xlabel("time to beat / time of ddlib (log scale)")
    ax.legend(loc="lower right")
    return ax


@style()
def growth(table: pd.DataFrame) -> Figure:
    """Seconds and graph memory of one step against the sizes of the problem, a column for each, a line for each work.

    The dashed line has slope one: cost in proportion.
    """
    require_columns(table, ["axis", "value", "work", "seconds", "graph_mb"])
    labels = {"ipc": "images per class", "num_classes": "classes", "image_size": "image side (pixels)"}
    axes_of = list(dict.fromkeys(table["axis"]))
    fig, grid = plt.subplots(2, len(axes_of), figsize=(2.9 * len(axes_of), 5), sharey="row", squeeze=False)
    for column, axis in enumerate(axes_of):
        part = table[table["axis"] == axis]
        values = np.sort(part["value"].unique())
        for row, (name, label) in enumerate({"seconds": "time of one step (s)", "graph_mb": "graphs (MB)"}.items()):
            ax = grid[row, column]
            for index, (work, line) in enumerate(part.groupby("work", sort=False)):
                ax.plot(
                    line["value"],
                    line[name],
                    marker=MARKERS[index % len(MARKERS)],
                    color=PALETTE[index % len(PALETTE)],
                    label=work,
                )
            power = 2 if axis == "image_size" else 1  # pixels grow with the square of the side
            start = part[part["value"] == values[0]][name].min() / 2
            ax.plot(values, start * (values / values[0]) ** power, "--", color=GREY, label="in proportion")
            ax.set_xscale("log")
            ax.set_yscale("log")
            ax.set_xticks(values, [f"{value:g}" for value in values])
            ax.minorticks_off()
            if column == 0:
                ax.set_ylabel(label)
        grid[1, column].set_xlabel(labels.get(axis, axis))
    fig.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return fig
