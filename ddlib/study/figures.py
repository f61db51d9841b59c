"""Figures of results, one function each: tidy tables in (``runs``, ``contrasts``), Axes out.

Accuracies are drawn in per cent, means over synthetic sets with a 95 % t interval (``statistics.summary``). An arm has
its own colour and marker (``Arm``), the same in every figure. From a table without rows no figure is drawn: a line of
text says why, and None is returned. Every function draws inside ``style()``; importing this module changes no setting
of matplotlib.
"""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.transforms import ScaledTranslation

from ddlib.study.alphas import chosen_alphas, unguided
from ddlib.study.arms import FULL_NAME, Arm, ordered, ordered_networks
from ddlib.study.statistics import MARGIN, require_columns, set_means, summary
from ddlib.study.style import GREY, INK, PAIR, caption, captions, nothing_to_draw, style
from ddlib.study.tables import no_ceiling
from ddlib.study.words import interval, plural, signed

NOT_RUN = "no arm of this ablation has been run in this setting"
COSTS = {
    "ptm_passes": "PTM passes over the synthetic set",
    "seconds_distill": "distillation time (s)",
    "peak_memory_mb": "peak memory (MB)",
}


@style()
def accuracy_by_arm(records: pd.DataFrame, failed: Mapping[str, int] | None = None) -> Axes | None:
    """One mark for each synthetic set (mean of its networks), below it the mean over sets and its interval.

    ``records`` holds one evaluation architecture.
    ``failed`` counts the runs of arms that failed: a row says so, and has nothing else if all of them did. Sets that
    are equal for all seeds are one, without an interval; full data that some arm beats say that they are no ceiling.
    """
    failed, beaten = failed or {}, bool(no_ceiling(records))
    if records.empty and not failed:
        return nothing_to_draw(NOT_RUN)
    sets, cells = pd.DataFrame(columns=["arm", "accuracy"]), pd.DataFrame(columns=["mean", "low", "high", "n"])
    if not records.empty:
        _require_one_architecture(records)
        sets, cells = set_means(records, ["arm"]), summary(records, ["arm"]).set_index("arm")
    arms = ordered({*cells.index, *failed})
    _, ax = plt.subplots(figsize=(7, 1.0 + 0.55 * len(arms)))
    labels = []
    for y, name in enumerate(arms):
        arm, values = Arm.named(name), 100 * sets.loc[sets["arm"] == name, "accuracy"]
        losses = f", {failed[name]} failed" if name in failed else ""
        losses += ", beaten: no ceiling" if beaten and name == FULL_NAME else ""
        labels.append(f"{caption(arm.label)} (n = {len(values)}{losses})")
        if values.empty:
            ax.text(0.01, y, "failed", color=GREY, va="center", transform=ax.get_yaxis_transform())
            continue
        cell = 100 * cells.loc[name]
        heights = np.full(len(values), y - 0.14)
        ax.plot(values, heights, marker=arm.marker, ls="", color=arm.colour, markersize=7, mec="white", mew=0.7)
        _interval(ax, cell["mean"], y + 0.14, cell["low"], cell["high"])
    ax.set_yticks(range(len(arms)), labels)
    ax.set_ylim(len(arms) - 0.5, -0.5)
    ax.grid(visible=False, axis="y")
    ax.set_xlabel("test accuracy (%)")
    _title(ax, records, "one mark a synthetic set; mean and 95 % interval")
    return ax


@style()
def paired_differences(table: pd.DataFrame) -> Axes | None:
    """Forest plot of ``contrasts.compare``: a row for each contrast, its mean over seeds and its t interval.

    The grey band is the margin of equivalence, one percentage point; numbers and verdicts stand on the right, a
    verdict that all rows share under the axis.
    """
    if table.empty:
        return nothing_to_draw("no planned contrast has all its arms with a common seed")
    require_columns(table, ["contrast", "n", "difference", "t_low", "t_high", "verdict"])
    several = "architecture" in table and table["architecture"].nunique() > 1
    _, ax = plt.subplots(figsize=(8, 1.0 + 0.42 * len(table)))
    names, notes, same = [], [], table["verdict"].nunique() == 1
    for y, row in enumerate(table.to_dict("records")):
        difference, low, high = (100 * row[key] for key in ("difference", "t_low", "t_high"))
        _interval(ax, difference, y, low, high)
        place = f", {row['architecture']}" if several else ""
        names.append(f"{caption(row['contrast'], PAIR)}{place} (n = {row['n']})")
        verdict = "" if same else f" {row['verdict']}"
        notes.append(" ".join(filter(None, (signed(difference), interval(low, high), verdict))))
    ax.axvspan(-100 * MARGIN, 100 * MARGIN, color="0.93", zorder=0, lw=0)
    ax.axvline(0, color=INK, lw=1)
    ax.set_yticks(range(len(table)), names)
    ax.set_ylim(len(table) - 0.5, -0.5)
    right = ax.secondary_yaxis("right")
    right.set_yticks(range(len(table)), notes)
    right.tick_params(length=0)
    right.spines["right"].set_visible(False)
    ax.grid(visible=False, axis="y")
    remark = f"\n{table['verdict'].iloc[0]} throughout" if same and len(table) > 1 else ""
    ax.set_xlabel(f"difference of test accuracy (percentage points), pairs share a seed{remark}")
    return ax


@style()
def cross_architecture(records: pd.DataFrame) -> Axes | None:
    """Heat map of mean accuracies, arms by evaluation architectures, with the spread over sets and n."""
    if records.empty:
        return nothing_to_draw(NOT_RUN)
    cells = summary(records, ["arm", "architecture"])
    arms = ordered(cells["arm"].unique())
    architectures = ordered_networks(cells["architecture"].unique())
    table = cells.set_index(["arm", "architecture"]).reindex(pd.MultiIndex.from_product([arms, architectures]))
    counts = sorted(cells["n"].unique())

    def text(cell: pd.Series) -> str:
        if np.isnan(cell["mean"]):
            return ""
        spread = "" if np.isnan(cell["std"]) else f" ± {100 * cell['std']:.1f}"
        return f"{100 * cell['mean']:.1f}{spread}" + (f"\nn = {cell['n']:.0f}" if len(counts) > 1 else "")

    texts = np.array([text(cell) for _, cell in table.iterrows()]).reshape(len(arms), len(architectures))
    values = 100 * table["mean"].to_numpy().reshape(texts.shape)
    labels = captions(Arm.named(name).label for name in arms)
    left = 2.2 + 0.11 * max(0, max(map(len, labels)) - 25)
    _, ax = plt.subplots(figsize=(left + 1.4 * len(architectures), 1.2 + 0.5 * len(arms)))
    sns.heatmap(
        values,
        annot=texts,
        fmt="",
        cmap="crest",
        linewidths=1.5,
        ax=ax,
        xticklabels=architectures,
        yticklabels=False,
        cbar_kws={"label": "test accuracy (%)"},
    )
    ax.set_yticks(np.arange(len(arms)) + 0.5, labels)  # not above: there they would be upright, and too long
    ax.tick_params(length=0, rotation=0)
    ax.grid(visible=False)
    ax.set_facecolor("0.94")  # a cell without runs
    spread = "mean" if cells["std"].isna().all() else "mean ± standard deviation"
    sets = "n sets" if len(counts) > 1 else f"n = {plural(counts[0], 'set')}"
    _title(ax, records, f"{spread}, {sets}")
    return ax


@style()
def cost_accuracy(records: pd.DataFrame, x: str = "ptm_passes") -> Axes | None:
    """Accuracy and its 95 % interval against a cost of the run (a key of ``COSTS``), one marker for each arm.

    Markers of arms with equal cost stand side by side around it.
    """
    if x not in COSTS:
        raise ValueError(f"x is {x!r}; the costs of a run are {', '.join(COSTS)}")
    if records.empty:
        return nothing_to_draw(NOT_RUN)
    _require_one_architecture(records)
    cells = summary(records, ["arm"]).set_index("arm")
    cost = records.drop_duplicates(["arm", "seed"]).groupby("arm")[x].median()  # a run may have been interrupted
    fig, ax = plt.subplots(figsize=(7.5, 4))
    arms = ordered(cost.dropna().index)
    for name in arms:
        arm, cell = Arm.named(name), 100 * cells.loc[name]
        label = f"{caption(arm.label)} (n = {cells.loc[name, 'n']:.0f})"
        equal = [other for other in arms if cost[other] == cost[name]]
        shift = (equal.index(name) - (len(equal) - 1) / 2) / 8  # inches
        place = ax.transData + ScaledTranslation(shift, 0, fig.dpi_scale_trans)
        ax.plot([cost[name]] * 2, [cell["low"], cell["high"]], color=arm.colour, lw=1.5, transform=place)
        about = {"marker": arm.marker, "markersize": 8, "color": arm.colour, "ls": "", "label": label}
        ax.plot(cost[name], cell["mean"], transform=place, **about)
        # Artists with a transform of their own do not stretch the axes.
        ends = cell[["low", "mean", "high"]].dropna()
        ax.update_datalim(np.column_stack([np.full(len(ends), cost[name]), ends]))
    ax.margins(x=0.25)  # room for the markers beside the outermost costs
    ax.autoscale_view()
    if cost.min() > 0 and cost.max() > 10 * cost.min():
        ax.set_xscale("log")
    ax.set_xlabel(f"{COSTS[x]}, median over sets")
    ax.set_ylabel("test accuracy (%), 95 % interval")
    _title(ax, records)
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return ax


@style()
def alpha_curve(grid: pd.DataFrame) -> Axes | None:
    """Hold-out accuracy against alpha (log scale), a line for each arm, the best alpha ringed (``alphas.alpha_grid``).

    Runs without guidance and runs with alpha = 0 are the same thing, and have no place on a log scale: they
    are the dashed line.
    """
    if grid.empty:
        return nothing_to_draw("no arm has been run with evaluate_on = holdout at several alphas, all else as here")
    _require_one_architecture(grid)
    plain = unguided(grid)
    cells = summary(grid[~plain], ["arm", "alpha"])
    _, ax = plt.subplots(figsize=(7, 4))
    if plain.any():
        # "none" and "clom with alpha 0" are one run seen twice: keep each network of each set once.
        base = grid[plain].drop_duplicates(["seed", "architecture", "network"])
        row = summary(base, []).iloc[0]
        ax.axhline(100 * row["mean"], color=Arm().colour, ls="--", label=f"{Arm().label} (n = {row['n']:.0f})")
        ax.axhspan(100 * row["low"], 100 * row["high"], color=Arm().colour, alpha=0.12, lw=0)
    best = chosen_alphas(grid)
    best = best.assign(percent=100 * best["accuracy"].astype(float))
    for name in ordered(cells["arm"].unique()):
        arm, line = Arm.named(name), cells[cells["arm"] == name].sort_values("alpha")
        x, (mean, low, high) = line["alpha"], (100 * line[key] for key in ("mean", "low", "high"))
        label = f"{caption(arm.label)} (n = {_span(line['n'])})"
        ax.plot(x, mean, marker=arm.marker, color=arm.colour, label=label)
        ax.fill_between(x, low, high, color=arm.colour, alpha=0.15, lw=0)
        if name in best.index and best.loc[name, "alpha"] > 0:
            ax.plot(*best.loc[name, ["alpha", "percent"]], "o", mfc="none", mec=arm.colour, markersize=14)
    ax.set_xscale("log")
    ax.set_xlabel("alpha (weight of the guidance loss)")
    ax.set_ylabel("hold-out accuracy (%)")
    _title(ax, grid, "mean and 95 % interval, best alpha ringed")
    ax.legend()
    return ax


def _interval(ax: Axes, mean: float, y: float, low: float, high: float) -> None:
    ax.plot([low, high], [y, y], color=INK, lw=1.8, solid_capstyle="butt")
    ax.plot(mean, y, "D", color=INK, markersize=5)


def _require_one_architecture(records: pd.DataFrame) -> None:
    require_columns(records, ["arm", "seed", "architecture", "accuracy"])
    names = sorted(records["architecture"].unique())
    if len(names) > 1:
        raise ValueError(f"records hold the architectures {', '.join(names)}: select one for this figure")


def _title(ax: Axes, records: pd.DataFrame, remark: str = "") -> None:
    """Over the whole figure: what all rows have in common (data set, base method, ipc, architecture)."""
    parts = []
    for column, form in {"dataset": "{}", "base_method": "{}", "ipc": "ipc {}", "architecture": "{}"}.items():
        if column in records and records[column].nunique() == 1:
            value = records[column].dropna().iloc[0]
            told = f"{value:g}" if column == "ipc" else caption(value)  # beside files it is a column of floats
            parts.append(form.format(value.upper() if column == "base_method" else told))
    text = ": ".join(part for part in (", ".join(parts), remark) if part)
    ax.figure.suptitle(text, x=0.01, ha="left")


def _span(numbers: pd.Series) -> str:
    low, high = numbers.min(), numbers.max()
    return f"{low}" if low == high else f"{low} to {high}"
