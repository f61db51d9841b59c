"""Figures that a notebook shows of its own run, in the look of ``figures``: losses on the way, gradients of PTMs."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ddlib.study.run import Run
from ddlib.study.statistics import require_columns
from ddlib.study.style import CLASS, PALETTE, captions, nothing_to_draw, style


def curves(run: Run) -> Figure | None:
    """How the losses of one run went; baselines have none."""
    if run.distilled is None:
        return nothing_to_draw("this arm is a baseline of real images, and nothing was distilled")
    columns = [name for name in ("base_loss", "guidance_loss") if run.distilled.history[name].any()]
    return history(run.distilled.history, columns)


@style()
def history(history: pd.DataFrame, columns: Sequence[str]) -> Figure:
    """Curves of one run over its iterations, a panel for each column, for their scales differ.

    From 40 points on, a running mean over a twentieth of them is drawn over the raw values.
    """
    require_columns(history, columns)
    iterations = history["iteration"] if "iteration" in history else pd.Series(history.index)
    fig, axes = plt.subplots(len(columns), 1, figsize=(7, 0.6 + 1.7 * len(columns)), sharex=True, squeeze=False)
    smooth = len(history) >= 40
    for ax, column, color in zip(axes[:, 0], columns, PALETTE, strict=False):
        there = history[column].notna()  # not in iterations without a guided update
        x, values = iterations[there], history.loc[there, column]
        ax.plot(x, values, color=color, alpha=0.35 if smooth else 1, lw=1 if smooth else 1.5)
        if smooth:
            running = values.rolling(max(3, len(values) // 20), center=True, min_periods=1).mean()
            ax.plot(x, running, color=color, lw=1.8)
        ax.set_ylabel(column.replace("_", " "))
    axes[-1, 0].set_xlabel("iteration")
    fig.align_ylabels()
    return fig


@style()
def gradient_cosines(matrix: np.ndarray, names: Sequence[str]) -> Axes:
    """Heat map of cosines [K, K] between the gradients of K PTMs: 1 = they agree, below 0 = they conflict."""
    if (matrix := np.asarray(matrix, dtype=float)).shape != (len(names), len(names)):
        raise ValueError(f"matrix has shape {list(matrix.shape)}, but there are {len(names)} names")
    names = captions(names, CLASS)
    side = 1.8 + 0.62 * len(names) + 0.16 * max(0, max(map(len, names)) - 16)
    _, ax = plt.subplots(figsize=(side + 1, side))
    sns.heatmap(
        matrix,
        vmin=-1,
        vmax=1,
        cmap="vlag",
        annot=len(names) <= 10,
        fmt=".2f",
        square=True,
        linewidths=1,
        ax=ax,
        xticklabels=names,
        yticklabels=names,
        cbar_kws={"label": "cosine of gradients", "shrink": 0.75},
    )
    ax.tick_params(length=0, rotation=0)
    ax.tick_params(axis="x", rotation=45)
    plt.setp(ax.get_xticklabels(), ha="right", rotation_mode="anchor")
    return ax
