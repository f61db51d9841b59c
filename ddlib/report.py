"""From the table of all records to the tables of the report: settings, ablations, contrasts, pictures."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from pandas.io.formats.style import Styler

from ddlib.comparison import contrasts
from ddlib.ddranking import hlr, ior, lrs
from ddlib.parameters import BASELINES, PARAMETERS
from ddlib.pictures import side_by_side
from ddlib.plots import arm_label, nothing_yet, ordered, pair_label
from ddlib.records import load_failures, load_records, synthetic_path
from ddlib.statistics import summary
from ddlib.synthetic import SyntheticSet

GUIDANCE_NOTEBOOK, ENSEMBLE_NOTEBOOK = "01_guidance", "02_ensemble"
# What tells arms of one ablation apart; everything else that was set is the setting they share.
ARM_COLUMNS = ("base_method", "guidance", "strategy", "num_ptms", "equal_passes", "seed", "setting")


def load_runs(folder: str | Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The records of a folder and its failed runs (``load_failures``), both with the column ``setting``."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "runs without accuracies")  # they are the second table
        records, failures = load_records(folder), load_failures(folder)
    together = pd.concat([table for table in (records, failures) if not table.empty], ignore_index=True)
    settings = with_settings(together)["setting"].to_numpy()
    return records.assign(setting=settings[: len(records)]), failures.assign(setting=settings[len(records) :])


def with_settings(records: pd.DataFrame) -> pd.DataFrame:
    """The records with a column ``setting``: 0 for the setting with most runs, then 1, 2, ...

    Runs of one setting share the data and every parameter but those that make the arm, so they can be compared. Failed
    runs, which have no accuracy, do not count.
    """
    columns = [*_setting_columns(records), "dataset_hash"]
    keys = records[columns].astype(str).agg("|".join, axis=1)
    runs = records["run"].where(records["accuracy"].notna())
    order = runs.groupby(keys).nunique().sort_values(ascending=False, kind="stable").index
    return records.assign(setting=keys.map({key: index for index, key in enumerate(order)}))


def settings_table(records: pd.DataFrame) -> pd.DataFrame:
    """A row for each setting: data set, number of runs and of arms, and the parameters in which settings differ."""
    columns = [name for name in _setting_columns(records) if records[name].astype(str).nunique() > 1]
    groups = records.groupby("setting")
    table = groups.agg(
        dataset=("dataset", "first"), ipc=("ipc", "first"), runs=("run", "nunique"), arms=("arm", "nunique")
    )
    table = table.join(groups[[name for name in columns if name not in table]].first())
    return table.rename_axis(None).rename(index="setting {}".format)


def choose_setting(records: pd.DataFrame, setting: int, base_method: str = "dm") -> pd.DataFrame:
    """The records of one setting and base method, with its baselines and with guidance alone, which need none.

    Raises ValueError, naming the settings there are, for another number.
    """
    known = sorted(records["setting"].unique())
    if setting not in known:
        raise ValueError(f"setting is {setting}; the records have the settings {', '.join(map(str, known))}.")
    return _of_setting(records, setting, base_method)


def failed_arms(
    failures: pd.DataFrame, chosen: pd.DataFrame, setting: int, base_method: str = "dm"
) -> dict[str, dict[str, int]]:
    """How many runs failed, by notebook and arm, in what ``choose_setting`` and ``ablation`` select (``chosen``)."""
    failures = _of_setting(failures, setting, base_method)
    rows = {notebook: failures[failures["notebook"] == notebook] for notebook in (GUIDANCE_NOTEBOOK, ENSEMBLE_NOTEBOOK)}
    if "loss_avg" in set(ablation(chosen, ENSEMBLE_NOTEBOOK)["strategy"]):
        averages = rows[ENSEMBLE_NOTEBOOK]
        rows[ENSEMBLE_NOTEBOOK] = averages[averages["strategy"] != "grad_avg"]
    return {notebook: failed["arm"].value_counts().to_dict() for notebook, failed in rows.items()}


def failure_table(failures: pd.DataFrame) -> Styler:
    """The failed runs of all settings with their reasons, which are not cut off; a caption alone if there are none."""
    if failures.empty:
        none = "No run has failed (one that was killed or interrupted leaves no record)."
        return pd.DataFrame().style.set_caption(none).set_uuid("failures")
    table = failures.sort_values(["setting", "notebook", "run"], kind="stable").set_index("run")
    table = table[["setting", "notebook", "arm", "seed", "error"]].assign(arm=table["arm"].map(arm_label))
    styler = table.rename(columns={"error": "reason"}).rename_axis(None).style.set_uuid("failures")
    return styler.set_properties(subset=["reason"], **{"white-space": "normal", "text-align": "left"})


def ablation(records: pd.DataFrame, notebook: str, augment: bool = True) -> pd.DataFrame:
    """The rows of one notebook (``01_guidance``, ``02_ensemble``), of networks trained with augmentation or without.

    ``grad_avg`` is left out where ``loss_avg`` is there: they are one method, and get one row.
    """
    rows = records[(records["notebook"] == notebook) & (records["augment"] == augment)]
    averages = set(rows["strategy"]) >= {"loss_avg", "grad_avg"}
    return rows[rows["strategy"] != "grad_avg"] if averages and notebook == ENSEMBLE_NOTEBOOK else rows


def first_architecture(records: pd.DataFrame) -> pd.DataFrame:
    """The rows of the architecture that the parameter ``architectures`` names first: the one distilled with."""
    if records.empty:
        return records
    first = records["architectures"].iloc[0].split(",")[0].strip()
    return records[records["architecture"] == first]


def accuracy_table(records: pd.DataFrame, failed: Mapping[str, int] | None = None) -> pd.DataFrame:
    """Mean accuracy (%) with half of its 95 % t interval: arms by architectures; n where it is not the same for all.

    ``failed`` counts the runs of arms that failed: their rows say so, and hold nothing else if all of them did.
    """
    table = pd.DataFrame(columns=["accuracy"] if failed else []) if records.empty else _accuracies(records)
    failed = failed or {}
    rows = table.reindex(ordered({*table.index, *failed})).fillna("failed")
    return rows.rename(index=lambda arm: arm_label(arm) + (f" ({failed[arm]} failed)" if arm in failed else ""))


def _accuracies(records: pd.DataFrame) -> pd.DataFrame:
    cells = summary(records, ["arm", "architecture"])
    counts = sorted(cells["n"].unique())

    def words(cell: pd.Series) -> str:
        half = "" if pd.isna(cell["low"]) else f" ± {50 * (cell['high'] - cell['low']):.1f}"
        return f"{100 * cell['mean']:.1f}{half}" + (f" (n = {cell['n']:.0f})" if len(counts) > 1 else "")

    cells = cells.assign(accuracy=cells.apply(words, axis=1))
    table = cells.pivot(index="arm", columns="architecture", values="accuracy").fillna("–")
    sets = f", n = {counts[0]} sets" if len(counts) == 1 else ""
    return table[ordered(table.columns)].rename_axis(index=None, columns=f"% ± half the 95 % interval{sets}")


def guidance_contrasts(records: pd.DataFrame, by: Sequence[str] = ("architecture",)) -> pd.DataFrame:
    """Ablation 1: the primary contrast CLoM - CCLoM, and the exploratory ones against no guidance."""
    exploratory = [("clom", "none"), ("cclom", "none"), ("both", "none"), ("none", "random_real")]
    exploratory += [("clom alone", "clom"), ("cclom alone", "cclom")]
    return contrasts(records, "arm", [("clom", "cclom")], exploratory, by)


def ensemble_contrasts(records: pd.DataFrame, by: Sequence[str] = ("architecture",)) -> pd.DataFrame:
    """Ablation 2: averaging - random at equal steps and at equal PTM passes; the other strategies - averaging."""
    primary, exploratory = [], []
    for guidance in ("clom", "cclom", "both"):
        average, random = f"{guidance} loss_avg", f"{guidance} random"
        primary += [(average, random), (average, f"{random} equal_passes")]
        arms = ordered({arm for arm in records["arm"] if arm.startswith(f"{guidance} ")} - {average, random})
        exploratory += [(arm, average) for arm in arms if not arm.endswith("equal_passes")]
    return contrasts(records, "arm", primary, exploratory, by)


def contrast_table(table: pd.DataFrame) -> pd.DataFrame:
    """Contrasts in words, differences in percentage points."""
    spans = ["–" if pd.isna(row.t_low) else _points(row.t_low, row.t_high) for row in table.itertuples()]
    columns = {
        "contrast": [pair_label(row.a, row.b) for row in table.itertuples()],
        "network": table.get("architecture", "all"),
        "planned": ["primary" if row.primary else "exploratory" for row in table.itertuples()],
        "points": [_points(row.difference) for row in table.itertuples()],
        "95 % interval": spans,
        "P(>0)": [f"{row.improvement:.2f}" for row in table.itertuples()],
        "n": table["n"],
        "verdict": [verdict.replace(" ", "\N{NO-BREAK SPACE}") for verdict in table["verdict"]],
    }
    if "architecture" not in table or table["architecture"].nunique() == 1:
        del columns["network"]
    return pd.DataFrame(columns).set_index("contrast").rename_axis(None)


def ranking_table(records: pd.DataFrame) -> pd.DataFrame:
    """DD-Ranking (arXiv 2505.13300) of each arm: hard-label recovery, improvement over random, label-robust score.

    Empty unless the arms ``full_data`` and ``random_real`` are there. ``records`` holds one architecture.
    """
    if not {"full_data", "random_real"} <= set(records["arm"]):
        return pd.DataFrame(columns=["HLR", "IOR", "LRS"])
    means = summary(records, ["arm"]).set_index("arm")["mean"]
    rows = {}
    for arm in ordered(means.index.drop("full_data")):
        accuracy = means[arm]
        recovery, improvement = hlr(means["full_data"], accuracy), ior(accuracy, means["random_real"])
        rows[arm_label(arm)] = {"HLR": recovery, "IOR": improvement, "LRS": lrs(recovery, improvement)}
    return pd.DataFrame.from_dict(rows, orient="index").round(3)


def cost_table(records: pd.DataFrame) -> pd.DataFrame:
    """What each arm costs, means over its sets: seconds of distillation, PTM passes, peak memory, PTM training."""
    runs = records.drop_duplicates("run")
    columns = {
        "seconds_distill": "distillation (s)",
        "seconds_ptms": "PTM training (s)",
        "ptm_passes": "PTM passes",
        "peak_memory_mb": "peak memory (MB)",
        "run": "n",
    }
    how = {name: "nunique" if name == "run" else "mean" for name in columns}
    table = runs.groupby("arm").agg(how).rename(columns=columns).round(1)
    return table.loc[ordered(table.index)].rename(index=arm_label).rename_axis(index=None)


def rounding_table(records: pd.DataFrame, a: str = "loss_avg", b: str = "grad_avg") -> pd.DataFrame:
    """How far two strategies that are one method lie apart, in points: what rounding alone does to an accuracy.

    Pairs are single networks, equal in guidance, seed, architecture and number. No rows if one of the two is absent.
    """
    index = ["guidance", "seed", "architecture", "network", "augment"]
    both = records[records["strategy"].isin([a, b]) & (records["notebook"] == ENSEMBLE_NOTEBOOK)]
    pairs = both.pivot_table(index=index, columns="strategy", values="accuracy")
    if not {a, b} <= set(pairs):
        return pd.DataFrame()
    gaps = (100 * (pairs[a] - pairs[b])).dropna().groupby(level="architecture", sort=False)
    table = pd.DataFrame(
        {"mean": gaps.mean(), "largest": gaps.apply(lambda gap: gap.abs().max()), "networks": gaps.size()}
    )
    return table.round(2).rename_axis(index=None, columns=f"{a} − {b}, points")


def show_images(records: pd.DataFrame, folder: str | Path, seed: int | None = None, per_class: int = 1) -> Figure:
    """The synthetic sets of all arms side by side, for one seed (by default the smallest).

    The arm ``full_data`` keeps no set. Raises FileNotFoundError if no set is there.
    """
    if records.empty:
        return nothing_yet().figure
    seed = int(records["seed"].min()) if seed is None else seed
    runs = records[records["seed"] == seed].drop_duplicates("arm").set_index("arm")["run"]
    paths = {arm: synthetic_path(Path(folder) / f"{runs[arm]}.json") for arm in ordered(runs.index)}
    sets = {arm: SyntheticSet.load(path) for arm, path in paths.items() if path.is_file()}
    if not sets:
        raise FileNotFoundError(
            f"no synthetic sets of seed {seed} lie beside the records in {folder}: run an arm again."
        )
    first = next(iter(sets.values()))
    pixels = {arm: synthetic.pixels for arm, synthetic in sets.items()}
    return side_by_side(pixels, first.labels, first.class_names, per_class)


def _points(*fractions: float) -> str:
    """Signed percentage points, several as an interval."""
    texts = [f"{100 * fraction:+z.1f}".replace("-", "−") for fraction in fractions]
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"


def _of_setting(runs: pd.DataFrame, setting: int, base_method: str) -> pd.DataFrame:
    methods = runs["base_method"].isin([base_method, "none", *BASELINES])
    return runs[(runs["setting"] == setting) & methods]


def _setting_columns(records: pd.DataFrame) -> list[str]:
    return [name for name in records if name in PARAMETERS and name not in ARM_COLUMNS]
