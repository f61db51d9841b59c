"""What the records say, for the pages: where they come from, every number, and what is still missing.

A chapter reads the records of its own sweep in ``book/results/sweeps`` where there are any, else those of the smoke
sweep, which are no evidence and are shown as such. Nothing is stored: all is computed when the book is built.
"""

import hashlib
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from types import SimpleNamespace

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[2]))

from ddlib.study import cases, contrasts, runs
from ddlib.study.ablations import ABLATIONS, Contrast
from ddlib.study.alphas import alpha_grid, chosen_alphas
from ddlib.study.arms import FULL_NAME, Arm, ordered
from ddlib.study.contrasts import NO_VERDICT
from ddlib.study.statistics import set_means, summary
from workflow.grid import read_grid, read_profile
from workflow.plan import Job

ROOT = Path(__file__).parents[2]
RESULTS, SMOKE = ROOT / "book" / "results" / "sweeps", ROOT / "runs" / "sweeps" / "smoke"
GRIDS = ROOT / "params" / "sweeps"
DATASETS = cases.TITLES | {"digits": "handwritten digits of 8 × 8 pixels"}
Rows = pd.DataFrame
Facts = dict[str, dict[str, object]]  # what prose may name, by arm or contrast


@cache
def usual() -> dict[str, object]:
    """The parameters around which the study varies others."""
    return read_profile("desk") | {"num_ptms": 1, "base_method": "dm"}


def as_options(records: Rows) -> Rows:
    """Arms by what their PTMs have of their own."""
    return cases.options(records, usual())


def of_options(found: "Findings") -> Rows:
    """Each option against the usual PTM."""
    return cases.options_against_usual(found.records)


def of_settings(found: "Findings") -> Rows:
    """The contrasts of the ablations in each setting, those of the ablations themselves among them."""
    here = [findings(key).contrasts for key in ("guidance", "ensemble") if findings(key).lasting]
    arms = set(found.plain["arm"])
    there = [table[table["a"].isin(arms) & table["b"].isin(arms)] for table in here if len(table)]
    return cases.elsewhere(found.plain, usual(), there)


@dataclass(frozen=True)
class Chapter:
    """One chapter with results: the sweep that it waits for, and what it makes of its records."""

    title: str
    grid: str  # in params/sweeps, and of its folder below book/results/sweeps
    page: str
    notebook: str = ""  # a key of ABLATIONS; empty: whatever the sweep holds
    named: Callable[[Rows], Rows] = lambda records: records  # its arms, where their names do not tell them apart
    compared: Callable[["Findings"], Rows] = lambda found: Rows()


CHAPTERS = {
    "guidance": Chapter("which guidance", "desk-guidance", "ablation_1", "01_guidance"),
    "ensemble": Chapter("how to combine several PTMs", "desk-ensemble", "ablation_2", "02_ensemble"),
    "alpha": Chapter("how alpha was chosen", "desk-alpha", "alpha"),
    "alphas": Chapter("alphas of strategies", "desk-ensemble-alpha", "alpha"),
    "alphas_elsewhere": Chapter("alphas of other settings", "desk-elsewhere-alpha", "alpha"),
    "options": Chapter("the paper's options", "desk-options", "options", named=as_options, compared=of_options),
    "elsewhere": Chapter(
        "does it hold elsewhere",
        "desk-elsewhere",
        "elsewhere",
        named=lambda records: cases.named_by_case(records, usual()),
        compared=of_settings,
    ),
}


@dataclass(frozen=True)
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
    def shown(self) -> pd.DataFrame:
        """Rows of the architecture that contrasts are about."""
        return runs.reference(self.records)

    @cached_property
    def contrasts(self) -> pd.DataFrame:
        """The planned contrasts whose arms are there; tests and verdicts once no planned run of them is missing."""
        if self.records.empty:
            return pd.DataFrame()
        if not self.chapter.notebook:
            table = self.chapter.compared(self)
        else:
            table = contrasts.planned_contrasts(self.shown, self.chapter.notebook)
        return without_early_verdicts(table, self.unfinished, self.lasting and lacks_planned(table, self.chapter))

    @cached_property
    def unfinished(self) -> dict[str, int]:
        """How many sets are planned of each arm that has not all of them; one that failed is there."""
        names = (planned(self.chapter.grid) if self.lasting else None) or []
        wanted = Counter(map(setting_of, names))
        there = Counter(setting_of(name) for name in names if (self.folder / name).is_file())
        arms = self.records.assign(key=self.records["run"].map(setting_of)).groupby("arm")["key"].unique()
        lacking = {arm: [wanted[key] for key in keys if there[key] < wanted[key]] for arm, keys in arms.items()}
        return {arm: max(sets) for arm, sets in lacking.items() if sets}

    def in_order(self, arms: Iterable[str]) -> list[str]:
        """Names of arms as tables and figures have them."""
        if self.chapter.notebook:
            return ordered(arms)
        there = [arm for arm in self.records["arm"].unique() if arm in set(arms)]
        return there + sorted(set(arms) - set(there))  # of these all runs failed

    @cached_property
    def sets(self) -> pd.DataFrame:
        """A row for each synthetic set: arm, label, seed, accuracy (%), networks, run."""
        if self.shown.empty:
            return pd.DataFrame(columns=["arm", "label", "seed", "accuracy", "networks", "run"])
        sets = set_means(self.shown, ["arm"])
        first = self.shown.drop_duplicates(["arm", "seed"]).set_index(["arm", "seed"])["run"]
        sets["run"] = [first[arm, seed] for arm, seed in zip(sets["arm"], sets["seed"], strict=True)]
        order = {arm: place for place, arm in enumerate(self.in_order(sets["arm"].unique()))}
        sets = sets.assign(accuracy=100 * sets["accuracy"], label=[Arm.named(arm).label for arm in sets["arm"]])
        return sets.sort_values("seed").sort_values("arm", key=lambda arms: arms.map(order), kind="stable")

    @cached_property
    def cells(self) -> pd.DataFrame:
        """A row for each arm: mean, low, high (%), n."""
        if self.shown.empty:
            return pd.DataFrame(columns=["arm", "label", "mean", "low", "high", "n"])
        table = summary(self.shown, ["arm"]).set_index("arm")
        table = table.loc[self.in_order(table.index)].reset_index()
        percent = {name: 100 * table[name] for name in ("mean", "std", "low", "high")}
        return table.assign(label=[Arm.named(arm).label for arm in table["arm"]], **percent)

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
        unplanned = UNPLANNED if self.chapter.notebook == "01_guidance" else ()
        table = contrasts.compare(self.records, row.primary(arms), [*row.exploratory(arms), *unplanned])
        named = {"contrast": table, "architecture": self.records}
        order = {name: list(those[name].unique()) for name, those in named.items()}
        table = table.sort_values(list(order), key=lambda names: names.map(order[names.name].index))
        return table.assign(verdict=BY_INTERVAL, **dict.fromkeys(TESTS, math.nan))

    @property
    def primary(self) -> pd.DataFrame:
        """The contrasts that count as answers: those planned as primary."""
        table = self.contrasts
        return table[table["primary"].astype(bool)] if len(table) else table

    @cached_property
    def arm_facts(self) -> Facts:
        """Per cent, by arm, and by arm and architecture, such as ``clom by VGG-11``."""
        facts = {
            row["arm"]: {key: row[key] for key in ("mean", "low", "high", "n")} for _, row in self.cells.iterrows()
        }
        if self.records.empty:
            return facts
        by_name = summary(self.records, ["arm", "architecture"]).to_dict("records")
        return facts | {f"{row['arm']} by {row['architecture']}": {"mean": 100 * row["mean"]} for row in by_name}

    @cached_property
    def named_contrasts(self) -> dict[str, dict[str, object]]:
        """Rows of ``contrasts`` by the names of two arms; in words where a chapter has these two in several cases."""
        rows, several = self.contrasts.to_dict("records"), not self.chapter.notebook
        return {row["contrast"] if several else f"{row['a']} - {row['b']}": row for row in rows}

    @cached_property
    def contrast_facts(self) -> Facts:
        """Points, by contrast."""
        return {name: numbers(row) for name, row in self.named_contrasts.items()}

    @cached_property
    def named_by_architecture(self) -> dict[str, dict[str, object]]:
        """Rows of ``by_architecture``, such as ``clom - cclom by VGG-11``."""
        rows = self.by_architecture.to_dict("records")
        return {f"{row['a']} - {row['b']} by {row['architecture']}": row for row in rows}

    @cached_property
    def judged_facts(self) -> Facts:
        """Points, by contrast and architecture."""
        return {name: numbers(row) for name, row in self.named_by_architecture.items()}

    @cached_property
    def alpha_facts(self) -> Facts:
        """Of the best alpha of each arm on the hold-out: per cent, its gain over no guidance, and the next larger."""
        grid = self.alpha_grids.get(cases.USUAL)
        return {} if grid is None else best_alphas(grid)


def setting_of(run: str) -> str:
    """What the name of a record says without its seed."""
    return run.rpartition("-seed")[0]


# The differences within the 2 x 2 of losses: the first two of form, the others of distance.
SIMPLE = (("clom", "ce_ratio"), ("cos_mean", "cclom"), ("clom", "cos_mean"), ("ce_ratio", "cclom"))
UNPLANNED = (*SIMPLE, ("clom alone", "none"), ("cclom alone", "none"))  # of the first ablation, by interval alone
BY_INTERVAL = f"{NO_VERDICT}: the interval alone"  # of one architecture
TESTS = ["p_value", "p_holm", "p_equivalence", "p_equivalence_holm"]


def without_early_verdicts(table: Rows, unfinished: Mapping[str, int], others: bool = False) -> Rows:
    """Contrasts, where those of unfinished arms have an interval alone: a test at every look finds too much.

    Exploratory ones wait for all that share their correction (``family``, else all of the table), and for ``others``
    that are not in the table yet.
    """
    if table.empty or not (unfinished or others):
        return table
    wanted = pd.Series([most_wanted(row, unfinished) for row in table.to_dict("records")], table.index)
    shared = table["family"] if "family" in table else pd.Series("", table.index)
    exploratory = ~table["primary"].astype(bool)
    waiting = exploratory & (shared.isin(shared[exploratory & (wanted > 0)]) | others)
    own = [f"{NO_VERDICT} yet (n = {n} of {sets})" for n, sets in zip(table["n"], wanted, strict=True)]
    verdict = table["verdict"].mask(waiting, f"{NO_VERDICT} yet (those of its correction are not whole)")
    table = table.assign(verdict=verdict.mask(wanted > 0, pd.Series(own, table.index)))
    return table.assign(**{name: table[name].mask(waiting | (wanted > 0)) for name in TESTS})


def lacks_planned(table: Rows, chapter: Chapter) -> bool:
    """Whether an exploratory contrast that a grid can answer has no row, since an arm has no run."""
    if not chapter.notebook or planned(chapter.grid) is None:
        return False
    wanted = {c.words for c, kind, _ in planned_for(chapter.notebook, chapter.grid) if kind == "exploratory"}
    return not wanted <= set(table["contrast"] if len(table) else ())


def most_wanted(row: Mapping[str, object], unfinished: Mapping[str, int]) -> int:
    """The sets planned of the unfinished arms of a contrast; 0 without any."""
    arms = {name for side in (row["a"], row["b"]) for name in (side, *side.split(" + "))}
    if "case" in row:
        arms |= {f"{row['case']}: {Arm.named(arm).label}" for arm in arms}
    return max((unfinished[arm] for arm in arms if arm in unfinished), default=0)


def numbers(row: Mapping[str, object]) -> dict[str, object]:
    """Of a contrast, in points; ``size`` is without a sign."""
    points = {"points": row["difference"], "low": row["t_low"], "high": row["t_high"]}
    rest = {
        "size": abs(100 * row["difference"]),
        "n": row["n"],
        "p": row["p_value"],
        "above": row["improvement"],
        "verdict": row["verdict"],
    }
    return {**{key: 100 * value for key, value in points.items()}, **rest}


def best_alphas(grid: Rows) -> Facts:
    """Of guided arms ``alpha``, ``mean`` (per cent), ``n``, ``gain``, ``beyond`` and ``short`` (points, what the next
    larger and smaller alpha change); of ``none`` the mean."""
    sets = set_means(grid.fillna({"alpha": 0}), ["arm", "alpha"])
    sets = 100 * sets.pivot_table(index="seed", columns=["arm", "alpha"], values="accuracy")
    facts: Facts = {"none": {"mean": sets["none"].mean().iloc[0]}} if "none" in sets else {}
    for arm, row in chosen_alphas(grid).iterrows():
        line = sets[arm].dropna()  # the seeds that all its alphas have
        best = line[row["alpha"]]
        larger, smaller = line.columns[line.columns > row["alpha"]], line.columns[line.columns < row["alpha"]]
        facts[arm] = {"alpha": row["alpha"], "mean": best.mean(), "n": row["n"]}
        facts[arm]["gain"] = (best - sets["none"].squeeze(axis=1)).mean() if "none" in sets else math.nan
        facts[arm]["beyond"] = (line[larger.min()] - best).mean() if len(larger) else math.nan
        facts[arm]["short"] = (line[smaller.max()] - best).mean() if len(smaller) else math.nan
    return facts


def alphas_of_case(records: Rows) -> Rows:
    """The grid of alphas of one case, with its base method."""
    method = next((name for name in records["base_method"].unique() if name != "none"), "dm")
    return runs.reference(alpha_grid(records, records["setting"].min(), method))


@cache
def findings(key: str) -> Findings:
    """The records of a chapter (a key of ``CHAPTERS``), empty where nothing has been run at any scale."""
    chapter = CHAPTERS[key]
    for folder, lasting in ((RESULTS / chapter.grid, True), (SMOKE, False)):
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
    return Findings(chapter, RESULTS / chapter.grid, False, pd.DataFrame())


@cache
def jobs_of(grid: str) -> list[Job] | None:
    """What a sweep will run; None where its grid is not written yet."""
    path = GRIDS / f"{grid}.yaml"
    return read_grid(path).jobs if path.is_file() else None


def planned(grid: str) -> list[str] | None:
    """The records that a sweep will write; None where its grid is not written yet."""
    jobs = jobs_of(grid)
    return None if jobs is None else [name for job in jobs for name in job.records]


def planned_for(notebook: str, grid: str) -> list[tuple[Contrast, str, int]]:
    """Each contrast of an ablation that a grid can answer, whether it is primary or exploratory, and its pairs.

    Without arms that are one method with another, or the same set for every seed.
    """
    row, sets = ABLATIONS[notebook], {Arm.named(name): count for name, count in arms_of(grid).items()}
    there = {arm.name: count for arm, count in sets.items() if arm.replicated and arm.strategy not in row.one_method}
    arms = [Arm.named(name) for name in there]
    return [
        (contrast, kind, min(there[arm] for arm in contrast.arms))
        for kind, contrasts_of in (("primary", row.primary), ("exploratory", row.exploratory))
        for contrast in contrasts_of(arms)
        if set(contrast.arms) <= set(there)
    ]


def arms_of(grid: str) -> dict[str, int]:
    """The arms of a grid with the number of their sets."""
    found: dict[str, set[int]] = {}
    for job in jobs_of(grid):
        p = SimpleNamespace(**job.parameters)
        found.setdefault(Arm.of(p, p.num_ptms).name, set()).update(range(p.seed, p.seed + p.num_sets))
    return {name: len(seeds) for name, seeds in found.items()}


def progress(chapter: Chapter) -> tuple[int, int | None]:
    """How many of the planned runs of a chapter have been made, failed ones too, and how many are planned, or None."""
    names, folder = planned(chapter.grid), RESULTS / chapter.grid
    if names is None:
        return len(list(folder.glob("*.json"))), None
    return sum((folder / name).is_file() for name in names), len(names)


def whole(chapter: Chapter) -> bool:
    """Whether all planned runs of a chapter have been made."""
    done, wanted = progress(chapter)
    return done == wanted


def state(chapter: Chapter) -> str:
    """How many of its planned runs are there, in words."""
    done, wanted = progress(chapter)
    return f"{done} of {wanted} planned runs are there" if wanted else f"the sweep {chapter.grid} is not planned yet"


def state_of_records() -> str:
    """Changes with any record or picture that a page may show, with what was planned, and with the code of pages."""
    folders = (RESULTS, SMOKE, ROOT / "params", ROOT / "ddlib" / "study", ROOT / "workflow", ROOT / "book" / "_ext")
    files = [path for folder in folders for path in sorted(folder.rglob("*.*"))]
    paths = [path for path in files if path.suffix in (".json", ".png", ".yaml", ".py")]
    told = "".join(f"{path}{path.stat().st_mtime_ns}" for path in paths)
    return hashlib.sha256(told.encode()).hexdigest()


def reference_lines(found: Findings) -> dict[str, float]:
    """Mean accuracy (%) of no guidance and of the full data, where they were run.

    Beside strategies no guidance is that of the first ablation, in the same setting; the full data would squeeze them.
    """
    means, names = found.cells.set_index("arm")["mean"], {"none": "no guidance", FULL_NAME: "full data"}
    if found.chapter.notebook == "02_ensemble" and found.lasting and findings("guidance").lasting:
        means, names = findings("guidance").cells.set_index("arm")["mean"], {"none": "no guidance"}
    return {label: float(means[arm]) for arm, label in names.items() if arm in means}
