"""What the records say, for the pages: where they come from, every number, and what is still missing.

A chapter reads the records of its own sweep in ``book/results/sweeps`` where there are any, else those of the smoke
sweep, which are no evidence and are shown as such. Nothing is stored: all is computed when the book is built.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import pandas as pd

from ddlib.study import cases, contrasts, runs
from ddlib.study.ablations import ABLATIONS
from ddlib.study.alphas import alpha_grid
from ddlib.study.arms import FULL_NAME, Arm, ordered
from ddlib.study.contrasts import NO_VERDICT
from ddlib.study.statistics import set_means, summary
from ddlib.study.tables import no_ceiling

from . import plans
from .chapters import CHAPTERS, Chapter, Families, Rows, usual
from .waiting import TESTS, without_early_verdicts, without_rows

SMOKE = plans.ROOT / "runs" / "sweeps" / "smoke"
DATASETS = cases.TITLES | {"digits": "handwritten digits of 8 × 8 pixels"}


@dataclass(frozen=True, eq=False)
class Findings:
    """The records of one chapter. ``lasting``: from the study's own sweep, and not from the smoke runs."""

    chapter: Chapter
    folder: Path
    lasting: bool
    plain: pd.DataFrame = field(repr=False)  # of all architectures, arms as the records name them
    failed: Mapping[str, int] = field(default_factory=dict)
    twins: int = 0  # runs of arms that another one stands for, which is the same method

    @cached_property
    def records(self) -> pd.DataFrame:
        """The same with the arms of the chapter."""
        return self.plain if self.plain.empty else self.chapter.named(self.plain)

    @cached_property
    def reference(self) -> pd.DataFrame:
        """Rows of the architecture that contrasts are about."""
        return runs.reference(self.records)

    @cached_property
    def contrasts(self) -> pd.DataFrame:
        """The planned contrasts whose arms are there; tests and verdicts once no planned run of them is missing."""
        if self.records.empty:
            return pd.DataFrame()
        table = self.chapter.compared(self, {})
        absent = without_rows(table, self.planned_families)
        if absent and self.whole:  # all runs of an arm failed
            return self.chapter.compared(self, absent)
        return without_early_verdicts(table, self.unfinished, absent)

    def other(self, key: str) -> "Findings":
        """Those of another chapter."""
        return of_chapter(key)

    @property
    def whole(self) -> bool:
        """Whether all planned runs have been made, those of the chapter beside it too."""
        beside = self.chapter.beside
        return plans.whole(self.chapter.grid) and (not beside or plans.whole(CHAPTERS[beside].grid))

    @cached_property
    def planned_families(self) -> Families:
        """How many exploratory contrasts the grid plans, by what shares a correction; of smoke runs nothing."""
        return self.chapter.families() if self.lasting else {}

    @cached_property
    def unfinished(self) -> dict[str, int]:
        """How many sets are planned of each arm that has not all of them; one that failed is there."""
        names = plans.planned(self.chapter.grid) if self.lasting else []
        wanted = Counter(map(setting_of, names))
        there = Counter(setting_of(name) for name in names if (self.folder / name).is_file())
        arms = self.records.assign(key=self.records["run"].map(setting_of)).groupby("arm")["key"].unique()
        lacking = {arm: [wanted[key] for key in keys if there[key] < wanted[key]] for arm, keys in arms.items()}
        others = self.other(self.chapter.beside).unfinished if self.chapter.beside else {}
        return others | {arm: max(sets) for arm, sets in lacking.items() if sets}

    def in_order(self, arms: Iterable[str]) -> list[str]:
        """Names of arms as tables and figures have them."""
        if self.chapter.notebook:
            return ordered(arms)
        there = [arm for arm in self.records["arm"].unique() if arm in set(arms)]
        return there + sorted(set(arms) - set(there))  # of these all runs failed

    @cached_property
    def sets(self) -> pd.DataFrame:
        """A row for each synthetic set: arm, label, seed, accuracy (%), networks, run."""
        if self.reference.empty:
            return pd.DataFrame(columns=["arm", "label", "seed", "accuracy", "networks", "run"])
        sets = set_means(self.reference, ["arm"])
        first = self.reference.drop_duplicates(["arm", "seed"]).set_index(["arm", "seed"])["run"]
        sets["run"] = [first[arm, seed] for arm, seed in zip(sets["arm"], sets["seed"], strict=True)]
        order = {arm: place for place, arm in enumerate(self.in_order(sets["arm"].unique()))}
        sets = sets.assign(accuracy=100 * sets["accuracy"], label=[Arm.named(arm).label for arm in sets["arm"]])
        return sets.sort_values("seed").sort_values("arm", key=lambda arms: arms.map(order), kind="stable")

    @cached_property
    def arms(self) -> pd.DataFrame:
        """A row for each arm: mean, low, high (%), n."""
        if self.reference.empty:
            return pd.DataFrame(columns=["arm", "label", "mean", "low", "high", "n"])
        table = summary(self.reference, ["arm"]).set_index("arm")
        table = table.loc[self.in_order(table.index)].reset_index()
        percent = {name: 100 * table[name] for name in ("mean", "std", "low", "high")}
        return table.assign(label=[Arm.named(arm).label for arm in table["arm"]], **percent)

    @cached_property
    def costs(self) -> pd.DataFrame:
        """Of each distilled arm, medians over sets: PTM ``passes``, seconds to ``distill``, and to train ``ptms``."""
        columns = {"ptm_passes": "passes", "seconds_distill": "distill", "seconds_ptms": "ptms"}
        if self.reference.empty:
            return pd.DataFrame(columns=list(columns.values()))
        distilled = self.reference[[not Arm.named(arm).selection for arm in self.reference["arm"]]]
        medians = distilled.drop_duplicates("run").groupby("arm")[list(columns)].median().fillna(0)
        return medians.rename(columns=columns).loc[self.in_order(medians.index)]

    @cached_property
    def gradients(self) -> pd.DataFrame:
        """A row for each logged pair of PTMs of the runs that are shown (``runs.load_gradients``)."""
        if self.plain.empty:
            return pd.DataFrame(columns=["arm"])
        table = runs.load_gradients(self.folder)
        return table[table["run"].isin(self.plain["run"])]

    @cached_property
    def alpha_grids(self) -> dict[str, pd.DataFrame]:
        """The grid of alphas of each case that has one, of the architecture that is distilled with."""
        if self.plain.empty:
            return {}
        by_case = cases.with_cases(self.plain, usual(), cases.SETTINGS).groupby("case", sort=False)
        grids = {case: alphas_of_case(rows) for case, rows in by_case}
        return {case: grid for case, grid in grids.items() if len(grid)}

    @cached_property
    def by_architecture(self) -> pd.DataFrame:
        """The planned contrasts of an ablation, and ``UNPLANNED``, by each architecture: no tests."""
        if self.records.empty or not self.chapter.notebook:
            return pd.DataFrame(columns=["contrast", "a", "b", "architecture", "primary"])
        row, arms = ABLATIONS[self.chapter.notebook], {Arm.named(name) for name in self.records["arm"].unique()}
        unplanned = UNPLANNED.get(self.chapter.notebook, ())
        table = contrasts.compare(self.records, row.primary(arms), [*row.exploratory(arms), *unplanned])
        named = {"contrast": table, "architecture": self.records}
        order = {name: list(those[name].unique()) for name, those in named.items()}
        table = table.sort_values(list(order), key=lambda names: names.map(order[names.name].index))
        bounds = zip(table["t_low"], table["t_high"], strict=True)
        signs = [("above",) if low > 0 else ("below",) if high < 0 else () for low, high in bounds]
        return table.assign(verdict=BY_INTERVAL, signs=signs, **dict.fromkeys(TESTS, math.nan))

    @property
    def primary(self) -> pd.DataFrame:
        """The contrasts that count as answers: those planned as primary."""
        table = self.contrasts
        return table[table["primary"].astype(bool)] if len(table) else table

    @cached_property
    def named_contrasts(self) -> dict[str, dict[str, object]]:
        """Rows of ``contrasts`` by the names of two arms; in words where a chapter has these two in several cases."""
        rows, several = self.contrasts.to_dict("records"), not (self.chapter.notebook or self.chapter.beside)
        return {row["contrast"] if several else f"{row['a']} - {row['b']}": row for row in rows}

    @cached_property
    def named_by_architecture(self) -> dict[str, dict[str, object]]:
        """Rows of ``by_architecture``, such as ``clom - cclom by VGG-11``."""
        rows = self.by_architecture.to_dict("records")
        return {f"{row['a']} - {row['b']} by {row['architecture']}": row for row in rows}


def setting_of(run: str) -> str:
    """What the name of a record says without its seed."""
    return run.rpartition("-seed")[0]


# The differences within the 2 x 2 of losses: the first two of form, the others of distance.
SIMPLE = (("clom", "ce_ratio"), ("cos_mean", "cclom"), ("clom", "cos_mean"), ("ce_ratio", "cclom"))
# By interval alone, by the notebook of an ablation.
UNPLANNED = {
    "01_guidance": (*SIMPLE, ("clom alone", "none"), ("cclom alone", "none")),
    "02_ensemble": (
        ("clom single", "cclom single"),
        ("clom random", "cclom random"),
        ("clom loss_avg", "cclom loss_avg"),
        ("clom sequential", "clom random"),
        ("clom shuffled", "clom random"),
        ("clom per_image", "clom single"),
        ("clom mgda", "clom single"),
    ),
}
BY_INTERVAL = f"{NO_VERDICT}: the interval alone"  # of one architecture


def alphas_of_case(records: Rows) -> Rows:
    """The grid of alphas of one case, with its base method."""
    method = next((name for name in records["base_method"].unique() if name != "none"), "dm")
    return runs.reference(alpha_grid(records, records["setting"].min(), method))


@cache
def of_chapter(key: str) -> Findings:
    """The records of a chapter (a key of ``CHAPTERS``), empty where nothing has been run at any scale."""
    chapter = CHAPTERS[key]
    for folder, lasting in ((plans.RESULTS / chapter.grid, True), (SMOKE, False)):
        if any(folder.glob("*.json")) and (lasting or chapter.notebook):
            records, failures = runs.load_runs(folder)
            if records.empty or not chapter.notebook:
                named = failures if failures.empty else chapter.named(failures)
                return Findings(chapter, folder, lasting, records, named["arm"].value_counts().to_dict())
            chosen = runs.choose_setting(records, 0)
            failed = runs.failed_arms(failures, chosen, 0)[chapter.notebook]
            rows = runs.ablation(chosen, chapter.notebook)
            if len(rows):
                there = chosen.loc[chosen["notebook"] == chapter.notebook, "run"].nunique()
                return Findings(chapter, folder, lasting, rows, failed, there - rows["run"].nunique())
    return Findings(chapter, plans.RESULTS / chapter.grid, False, pd.DataFrame())


def state_of_records() -> str:
    """Changes with any record or picture that a page may show, with what was planned, and with the code of pages."""
    code = [plans.ROOT / name for name in ("params", "ddlib/study", "workflow", "book/_ext")]
    folders = (plans.RESULTS, SMOKE, *code)
    files = [path for folder in folders for path in sorted(folder.rglob("*.*"))]
    paths = [path for path in files if path.suffix in (".json", ".png", ".yaml", ".py")]
    told = "".join(f"{path}{path.stat().st_mtime_ns}" for path in paths)
    return hashlib.sha256(told.encode()).hexdigest()


def reference_lines(found: Findings) -> dict[str, float]:
    """Mean accuracy (%) of no guidance and of the full data, where they were run.

    Beside strategies no guidance is that of the first ablation, in the same setting; the full data would squeeze them.
    """
    full = "full data (beaten, so no ceiling)" if no_ceiling(found.reference) else "full data"
    means, names = found.arms.set_index("arm")["mean"], {Arm().name: Arm().label, FULL_NAME: full}
    if found.chapter.notebook == "02_ensemble" and found.lasting and of_chapter("guidance").lasting:
        means, names = of_chapter("guidance").arms.set_index("arm")["mean"], {Arm().name: Arm().label}
    return {label: float(means[arm]) for arm, label in names.items() if arm in means}
