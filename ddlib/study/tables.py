"""From the table of all records to the tables of the report: settings, accuracies, contrasts, alphas, costs."""

import math
from collections.abc import Callable, Iterable, Mapping

import pandas as pd
from pandas.io.formats.style import Styler

from ddlib.study.ablations import ABLATIONS
from ddlib.study.alphas import chosen_alphas
from ddlib.study.arms import FULL_NAME, Arm, ordered, ordered_networks
from ddlib.study.ddranking import hlr, ior, lrs
from ddlib.study.runs import keys_of, setting_columns
from ddlib.study.statistics import (
    MARGIN,
    PILOT_STD,
    POWER,
    STUDY_SETS,
    detectable,
    equality_power,
    half_width,
    own_pools,
    summary,
    variance_components,
)
from ddlib.study.words import interval, p_value, plural, signed, weight

Order = Callable[[Iterable[str]], list[str]]  # of names of arms


def settings_table(records: pd.DataFrame) -> pd.DataFrame:
    """A row for each setting: data set, number of runs and of arms, and the parameters in which settings differ.

    Where the data of one name are not the same, a hash of their images stands beside the name. No rows without records.
    """
    if records.empty:
        return pd.DataFrame()
    columns = [name for name in setting_columns(records) if records[name].astype(str).nunique() > 1]
    columns = [name for name in columns if name != "dataset_files"]
    groups = records.assign(dataset=_told_apart(records)).groupby("setting")
    table = groups.agg(
        dataset=("dataset", "first"), ipc=("ipc", "first"), runs=("run", "nunique"), arms=("arm", "nunique")
    )
    table = table.join(groups[[name for name in columns if name not in table]].first())
    return table.rename_axis(None).rename(index="setting {}".format)


def _told_apart(records: pd.DataFrame) -> pd.Series:
    """Names of data sets; with a hash where equal names, sizes and splits have several."""
    same = keys_of(records, [name for name in ("dataset", "image_size", "evaluate_on") if name in records])
    several = records["dataset_hash"].groupby(same).transform("nunique") > 1
    return records["dataset"].where(~several, records["dataset"] + " (" + records["dataset_hash"].str[:8] + ")")


def failure_table(failures: pd.DataFrame) -> Styler | None:
    """The failed runs of all settings with their reasons, which are not cut off; a line of text if there are none."""
    if failures.empty:
        return unless_empty(failures, "No run has failed (one that was killed or interrupted leaves no record).")
    table = failures.sort_values(["setting", "notebook", "run"], kind="stable").set_index("run")
    table = table[["setting", "notebook", "arm", "seed", "error"]].assign(arm=table["arm"].map(_label))
    styler = table.rename(columns={"error": "reason"}).rename_axis(None).style.set_uuid("failures")
    return styler.set_properties(subset=["reason"], **{"white-space": "normal", "text-align": "left"})


def accuracy_table(
    records: pd.DataFrame, failed: Mapping[str, int] | None = None, order: Order = ordered
) -> pd.DataFrame:
    """Mean accuracy (%) with half of its 95 % t interval: arms by architectures; n where it is not that of most cells.

    One set, and sets that are the same for all seeds, have n = 1 and no interval. ``failed`` counts the runs of arms
    that failed: their rows say so, and hold nothing else if all of them did. The row of the full data says where it is
    beaten (``no_ceiling``). ``order`` sorts arms that are named otherwise.
    """
    table = pd.DataFrame(columns=["accuracy"] if failed else []) if records.empty else _accuracies(records)
    failed, beaten = failed or {}, list(no_ceiling(records))
    remarks = {arm: f" ({count} failed)" for arm, count in failed.items()}
    if beaten:
        remarks[FULL_NAME] = remarks.get(FULL_NAME, "") + f" (beaten, so no ceiling: {', '.join(beaten)})"
    rows = table.reindex(order({*table.index, *failed})).fillna("failed")
    return rows.rename(index=lambda arm: _label(arm) + remarks.get(arm, ""))


def _accuracies(records: pd.DataFrame) -> pd.DataFrame:
    cells = summary(records, ["arm", "architecture"])
    usual = cells["n"].mode().max()

    def words(cell: pd.Series) -> str:
        half = "" if pd.isna(cell["low"]) else f" ± {50 * (cell['high'] - cell['low']):.1f}"
        return f"{100 * cell['mean']:.1f}{half}" + (f" (n = {cell['n']:.0f})" if cell["n"] != usual else "")

    cells = cells.assign(accuracy=cells.apply(words, axis=1))
    table = cells.pivot(index="arm", columns="architecture", values="accuracy").fillna("–")
    sets = f", n = {plural(usual, 'set')}" + ("" if cells["n"].nunique() == 1 else " where nothing else is said")
    return table[ordered_networks(table.columns)].rename_axis(index=None, columns=f"% ± half the 95 % interval{sets}")


def no_ceiling(records: pd.DataFrame) -> dict[str, str]:
    """For each architecture on which some arm has a higher mean accuracy than the full data, a sentence that says so.

    Full data that a small set beats were not trained to convergence, and are no ceiling.
    """
    if records.empty or FULL_NAME not in set(records["arm"]):
        return {}
    means = summary(records, ["arm", "architecture"]).pivot(index="arm", columns="architecture", values="mean")
    found = {}
    for architecture in ordered_networks(means.columns):
        of_all, full = means[architecture].drop(FULL_NAME).dropna(), means.loc[FULL_NAME, architecture]
        if len(of_all) and of_all.max() > full:
            best = f"{_label(of_all.idxmax())} has {100 * of_all.max():.1f} %"
            found[architecture] = f"{architecture}: {best}, the full data {100 * full:.1f} %, which is no ceiling."
    return found


def contrast_table(table: pd.DataFrame) -> pd.DataFrame:
    """Contrasts in words, differences in percentage points, each p value raw and (of exploratory rows) by Holm.

    The column of the BCa interval is there if some row has one, from ``STUDY_SETS`` seeds on.
    """
    rows = list(table.itertuples())
    columns = {
        "contrast": [row.contrast for row in rows],
        "network": table.get("architecture", "all"),
        "planned": ["primary" if row.primary else "exploratory" for row in rows],
        "points": [signed(100 * row.difference) for row in rows],
        "95 % interval": [_span(row.t_low, row.t_high) for row in rows],
        "BCa interval": [_span(row.bca_low, row.bca_high) for row in rows] if "bca_low" in table else "–",
        "P(>0)": [f"{row.improvement:.2f}" for row in rows],
        "n": table["n"],
        "p": [p_value(row.p_value) for row in rows],
        "p (Holm)": [p_value(None if row.primary else row.p_holm) for row in rows],
        "p equal": [p_value(row.p_equivalence) for row in rows],
        "p equal (Holm)": [p_value(None if row.primary else row.p_equivalence_holm) for row in rows],
        "verdict": [row.verdict.replace(" ", "\N{NO-BREAK SPACE}") for row in rows],
    }
    if "architecture" not in table or table["architecture"].nunique() == 1:
        del columns["network"]
    if not any(span != "–" for span in columns["BCa interval"]):
        del columns["BCa interval"]
    return pd.DataFrame(columns).set_index("contrast").rename_axis(None)


def _span(low: float, high: float) -> str:
    return interval(100 * low, 100 * high) or "–"


def alpha_table(grid: pd.DataFrame) -> pd.DataFrame:
    """Hold-out accuracy of each alpha of a grid (``alphas.alpha_grid``, of one architecture), and which is chosen.

    The first row is that without guidance. One that is chosen at the edge of what was run says so.
    """
    if grid.empty:
        return pd.DataFrame()
    best, unguided = chosen_alphas(grid), grid[grid["alpha"].isna()]
    cells = [{"arm": Arm().name, "alpha": math.nan, **summary(unguided, []).iloc[0]}] if len(unguided) else []
    cells += summary(grid[grid["alpha"].notna()], ["arm", "alpha"]).to_dict("records")
    rows = []
    for cell in sorted(cells, key=lambda cell: (Arm.named(cell["arm"]).order, cell["alpha"])):
        chosen = cell["arm"] in best.index and best.loc[cell["arm"], "alpha"] == cell["alpha"]
        edge = ", at the edge of the grid" if chosen and best.loc[cell["arm"], "edge"] else ""
        half = "" if pd.isna(cell["low"]) else f" ± {50 * (cell['high'] - cell['low']):.1f}"
        rows.append(
            {
                "alpha": "–" if pd.isna(cell["alpha"]) else weight(cell["alpha"]),
                "hold-out accuracy (%)": f"{100 * cell['mean']:.1f}{half}",
                "n": int(cell["n"]),
                "": f"chosen{edge}" if chosen else "",
            }
        )
    labels = [_label(arm) for arm in sorted((cell["arm"] for cell in cells), key=lambda arm: Arm.named(arm).order)]
    return pd.DataFrame(rows, index=labels)


def power_table(n: int = STUDY_SETS, tests: int = 1) -> pd.DataFrame:
    """What ``n`` sets an arm can find, in points, for each spread of paired differences that a pilot saw.

    ``tests`` is the number of contrasts that share a correction: 1 for a primary one. Beside each number of a primary
    contrast stands the least favourable one of an exploratory contrast: that of Holm's first step.
    """

    rows = {}
    for spread in PILOT_STD:
        each = {
            k: {
                f"found with {100 * POWER:.0f} % power": f"{100 * detectable(spread, n, k):.2f}",
                "called equal if there is no difference": f"{100 * equality_power(0, spread, n, k):.0f} %",
                "called equal if it is half a point": f"{100 * equality_power(MARGIN / 2, spread, n, k):.0f} %",
            }
            for k in {1, tests}
        }
        more = {} if tests == 1 else {name: f"; {cell} as one of {tests}" for name, cell in each[tests].items()}
        rows[f"{100 * spread:.1f}"] = {"half of the 95 % interval": f"± {100 * half_width(spread, n):.2f}"} | {
            name: cell + more.get(name, "") for name, cell in each[1].items()
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(columns="standard deviation of differences, points")


def ranking_table(records: pd.DataFrame) -> pd.DataFrame:
    """DD-Ranking (arXiv 2505.13300) of each arm: hard-label recovery, improvement over random, label-robust score.

    No rows unless the arms ``full_data`` and ``random_real`` are there. ``records`` holds one architecture.
    """
    random = Arm(selection="random").name
    if not {FULL_NAME, random} <= set(records["arm"]):
        return pd.DataFrame(columns=["HLR", "IOR", "LRS"])
    means = summary(records, ["arm"]).set_index("arm")["mean"]
    rows = {}
    for arm in ordered(means.index.drop(FULL_NAME)):
        accuracy = means[arm]
        recovery, improvement = hlr(means[FULL_NAME], accuracy), ior(accuracy, means[random])
        rows[_label(arm)] = {"HLR": recovery, "IOR": improvement, "LRS": lrs(recovery, improvement)}
    return pd.DataFrame.from_dict(rows, orient="index").round(3)


def cost_table(records: pd.DataFrame) -> pd.DataFrame:
    """What each arm costs, medians over its sets: seconds of distillation, PTM passes, peak memory, PTM training.

    Medians, since a run that was interrupted or disturbed counts its seconds all the same.
    """
    runs = records.drop_duplicates("run")
    columns = {
        "seconds_distill": "distillation (s)",
        "seconds_ptms": "PTM training (s)",
        "ptm_passes": "PTM passes",
        "peak_memory_mb": "peak memory (MB)",
        "run": "n",
    }
    how = {name: "nunique" if name == "run" else "median" for name in columns}
    table = runs.groupby("arm").agg(how).rename(columns=columns).round(1)
    return table.loc[ordered(table.index)].rename(index=_label).rename_axis(index=None)


def spread_table(records: pd.DataFrame, order: Order = ordered) -> pd.DataFrame:
    """Where the spread of accuracies comes from, as standard deviations in points: a row for each arm.

    ``records`` holds one architecture. A dash stands where a part cannot be estimated: that between sets needs two of
    them, and both need two networks in some set. The column ``PTMs`` says what a set's spread contains: where each set
    has a pool of its own, set and pool vary together and cannot be told apart; where all share one, that of pools is
    in no interval. In brackets stand 95 % limits: a lower one of 0 means that networks alone may explain the spread.
    """
    parts = variance_components(records, ["arm"]).set_index("arm") if len(records) else pd.DataFrame()
    columns = {"between": "between sets", "within": "between networks of one set", "n": "sets", "networks": "networks"}
    table = parts.reindex(columns=columns)
    points = 100 * parts.reindex(columns=["between", "within", "low", "high"]).astype(float) ** 0.5
    table["within"] = ["–" if math.isnan(each) else f"{each:.1f}" for each in points["within"]]
    table["between"] = [
        "–" if math.isnan(row.between) else f"{row.between:.1f} [{row.low:.1f}, {row.high:.1f}]"
        for row in points.itertuples()
    ]
    words = {None: "–", False: "one pool for all sets", True: "a pool for each set"}
    table["PTMs"] = [words[own_pools(records[records["arm"] == arm])] for arm in table.index]
    table = table.loc[order(table.index)].rename(index=_label, columns=columns)
    return table.rename_axis(index=None, columns="standard deviation in points [95 % limits]")


def equal_methods_table(records: pd.DataFrame, notebook: str) -> pd.DataFrame:
    """How far strategies that are one method lie apart, in points: what rounding alone does to an accuracy.

    Pairs (``Ablation.one_method``) are single networks, equal in guidance, seed, architecture and number. No rows if no
    two such strategies have been run.
    """
    index = ["guidance", "seed", "architecture", "network", "augment"]
    rows = records[records["notebook"] == notebook]
    plain = [arm for arm in map(Arm.named, rows["arm"].unique()) if arm == Arm(arm.guidance, arm.strategy)]
    rows, tables = rows[rows["arm"].isin([arm.name for arm in plain])], []
    for b, a in ABLATIONS[notebook].one_method.items():
        pairs = rows[rows["strategy"].isin([a, b])].pivot_table(index=index, columns="strategy", values="accuracy")
        if {a, b} <= set(pairs):
            gaps = (100 * (pairs[a] - pairs[b])).dropna().groupby(level="architecture", sort=False)
            parts = {"mean": gaps.mean(), "largest": gaps.apply(lambda gap: gap.abs().max()), "networks": gaps.size()}
            tables.append(pd.DataFrame(parts).rename(index=f"{a} − {b}, {{}}".format))
    return pd.concat(tables).round(2).rename_axis(index=None, columns="points") if tables else pd.DataFrame()


def unless_empty(table: pd.DataFrame, line: str) -> pd.DataFrame | None:
    """The table; if it has no rows, the line is printed instead, and a cell of a notebook shows nothing else."""
    if not table.empty:
        return table
    print(line)
    return None


def _label(arm: object) -> str:
    return Arm.named(arm).label


def class_table(records: pd.DataFrame) -> pd.DataFrame:
    """Of uneven classes: balanced accuracy and that of each class, means in %: arms by classes, plain accuracy first.

    No rows where it makes no difference: where the balanced accuracy of every network is within ``MARGIN`` of the
    accuracy, as it is for even classes. ``records`` holds one architecture.
    """
    rows = records[records["balanced_accuracy"].notna()] if "balanced_accuracy" in records else records.head(0)
    if rows.empty or (rows["balanced_accuracy"] - rows["accuracy"]).abs().max() <= MARGIN:
        return pd.DataFrame()
    classes = pd.DataFrame(
        rows["class_accuracies"].tolist(), rows.index, rows["class_names"].iloc[0] or None, dtype=float
    )
    shares = rows[["accuracy", "balanced_accuracy"]].rename(columns={"balanced_accuracy": "balanced"}).join(classes)
    means = (100 * shares).groupby([rows["arm"], rows["seed"]]).mean().groupby(level="arm").mean().round(1)
    return means.loc[ordered(means.index)].rename(index=_label).rename_axis(index=None, columns="%")
