"""What the records say, for the pages: where they come from, every number of the prose, and what is still missing.

A chapter reads the records of its own sweep in ``book/results/sweeps`` where there are any, else those of the smoke
sweep, which are no evidence and are shown as such. Nothing is stored: all is computed when the book is built.
"""

import hashlib
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import pandas as pd
import yaml

sys.path.insert(0, str(Path(__file__).parents[2]))

from ddlib.study import cases, contrasts, runs
from ddlib.study.alphas import alpha_grid
from ddlib.study.arms import FULL_NAME, Arm, ordered
from ddlib.study.run_tables import recorded_ptm_table
from ddlib.study.statistics import MARGIN, MIN_PAIRS, set_means, summary
from ddlib.study.words import plural
from workflow.grid import read_grid, read_profile

ROOT = Path(__file__).parents[2]
RESULTS, SMOKE = ROOT / "book" / "results" / "sweeps", ROOT / "runs" / "sweeps" / "smoke"
GRIDS = ROOT / "params" / "sweeps"
DATASETS = cases.TITLES | {"digits": "handwritten digits of 8 × 8 pixels"}
Rows = pd.DataFrame


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
    here = [findings(key).plain for key in ("guidance", "ensemble") if findings(key).lasting]
    there = [rows[rows["arm"].isin(found.plain["arm"].unique())] for rows in here]
    return cases.elsewhere(runs.stacked(*there, found.plain), usual())


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
PAGES = dict.fromkeys(chapter.page for chapter in CHAPTERS.values())


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
        """The planned contrasts whose arms are there."""
        if self.records.empty:
            return pd.DataFrame()
        if not self.chapter.notebook:
            return self.chapter.compared(self)
        return contrasts.planned_contrasts(self.shown, self.chapter.notebook)

    def in_order(self, arms: Iterable[str]) -> list[str]:
        """Names of arms as tables and figures have them."""
        if self.chapter.notebook:
            return ordered(arms)
        return [arm for arm in self.records["arm"].unique() if arm in set(arms)]

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
        """A row for each logged pair of PTMs (``runs.load_gradients``)."""
        return runs.load_gradients(self.folder) if len(self.plain) else pd.DataFrame(columns=["arm"])

    @cached_property
    def alpha_grids(self) -> dict[str, pd.DataFrame]:
        """The grid of alphas of each case that has one, of the architecture that is distilled with."""
        if self.plain.empty:
            return {}
        by_case = cases.with_cases(self.plain, usual(), cases.SETTINGS).groupby("case", sort=False)
        grids = {case: alphas_of_case(rows) for case, rows in by_case}
        return {case: grid for case, grid in grids.items() if len(grid)}

    @property
    def primary(self) -> pd.DataFrame:
        """The contrasts that count as answers: those planned as primary."""
        table = self.contrasts
        return table[table["primary"].astype(bool)] if len(table) else table

    @cached_property
    def facts(self) -> dict[str, object]:
        """Every number that prose may name; per cent and points."""
        arms = {row["arm"]: {key: row[key] for key in ("mean", "low", "high", "n")} for _, row in self.cells.iterrows()}
        several = not self.chapter.notebook  # cases or options: the same two arms in each, so words tell them apart
        rows = {row.contrast if several else f"{row.a} - {row.b}": numbers(row) for row in self.contrasts.itertuples()}
        return {"arms": arms, "contrasts": rows}


def numbers(row: tuple) -> dict[str, object]:
    """Of a contrast, in points."""
    points = {"points": row.difference, "low": row.t_low, "high": row.t_high}
    rest = {"n": row.n, "p": row.p_value, "above": row.improvement, "verdict": row.verdict}
    return {**{key: 100 * value for key, value in points.items()}, **rest}


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
def planned(grid: str) -> dict[str, list[str]] | None:
    """The records that a sweep will write, by the names of its jobs; None where its grid is not written yet."""
    path = GRIDS / f"{grid}.yaml"
    return {job.name: list(job.records) for job in read_grid(path).jobs} if path.is_file() else None


def record_at(path: Path) -> dict[str, object] | None:
    """A record as it stands in its file, unchecked; None where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def progress(chapter: Chapter) -> tuple[int, int | None]:
    """How many of the planned runs of a chapter have a result, and how many are planned; None without a grid."""
    jobs = planned(chapter.grid)
    folder = RESULTS / chapter.grid
    paths = folder.glob("*.json") if jobs is None else [folder / name for names in jobs.values() for name in names]
    found = [record_at(path) for path in paths]
    done = sum(record is not None and record["status"] == "ok" for record in found)
    return done, None if jobs is None else len(found)


def state_of_records() -> str:
    """Changes with any record or picture that a page may show."""
    files = [path for folder in (RESULTS, SMOKE) for path in sorted(folder.rglob("*.*"))]
    paths = [path for path in files if path.suffix in (".json", ".png")]
    told = "".join(f"{path}{path.stat().st_mtime_ns}" for path in paths)
    return hashlib.sha256(told.encode()).hexdigest()


def number(text: str) -> str:
    """What ``{num}`` writes: ``guidance.arms.clom.mean``, ``guidance.contrasts.clom - cclom.points:+.1f``.

    An arm or a contrast that makes sense and has not been run is "not measured yet". Raises KeyError for anything else.
    """
    path, _, spec = text.partition(":")
    key, kind, name, what = (*path.strip().split("."), "", "", "", "")[:4]
    if key not in CHAPTERS or kind not in ("arms", "contrasts"):
        raise KeyError(f"{path!r}; expected <{'|'.join(CHAPTERS)}>.<arms|contrasts>.<name>.<what>")
    found = findings(key)
    known = found.facts[kind].get(name)
    if known is None:
        if found.chapter.notebook:
            require_arms(name)
        elif len(set(progress(found.chapter))) == 1:  # all is there, under other names
            raise KeyError(f"{name!r}; known: {', '.join(found.facts[kind])}")
        return "not measured yet"
    value = known[what]
    if isinstance(value, str):
        return value
    if math.isnan(value):
        return "–"
    return format(value, spec or ("z.1f" if isinstance(value, float) else "")).replace("-", "−")


def require_arms(name: str) -> None:
    """Raises KeyError unless all words are names of arms."""
    for arm in re.split(r" [-+] ", name):
        try:
            Arm.parse(arm)
        except ValueError as error:
            raise KeyError(str(error)) from error


def scale_in_words(found: Findings) -> str:
    """Data, images per class, base method, width: what the shown runs share."""

    def values(name: str) -> list[object]:
        return sorted(found.plain[name].dropna().unique())

    data = either([DATASETS.get(name, str(name)) for name in values("dataset")])
    method = either([str(name).upper() for name in values("base_method") if name in ("dm", "dc", "dsa")])
    numbers = {name: either([f"{int(value)}" for value in values(name)]) for name in ("ipc", "iterations", "width")}
    images = "image" if numbers["ipc"] == "1" else "images"
    parts = [data, f"{numbers['ipc']} {images} per class", method, f"{numbers['iterations']} iterations"]
    return ", ".join(filter(None, [*parts, f"networks of width {numbers['width']}"]))


def arms_in_words(found: Findings) -> str:
    """How many arms have how many sets."""
    counts = found.plain.groupby(found.records["arm"].reindex(found.plain.index))["seed"].nunique()
    if counts.nunique() > 3:
        return f"{len(counts)} arms of {counts.min()} to {counts.max()} sets"
    numbers = counts.value_counts().sort_index(ascending=False)
    parts = [f"{plural(arms, 'arm')} of {plural(sets, 'set')}" for sets, arms in numbers.items()]
    return either(parts).replace(" or ", " and ")


def either(words: list[str]) -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    return " or ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


OF_A_RUN = ("distill", "evaluate")  # seconds of its own: PTMs are shared by runs


def training_in_words(runs_there: Rows) -> str:
    """What PTMs took, each counted once; the median, since an interrupted training counts the time between too."""
    seconds = recorded_ptm_table(runs_there)["training (s)"].dropna()
    if seconds.empty:
        return "no PTM trained for it"
    return f"without the training of {plural(len(seconds), 'PTM')}, {seconds.median() / 60:.1f} minutes each (median)"


def evidence(key: str) -> list[str]:
    """Sentences on what a chapter rests on; the first is the verdict."""
    found = findings(key)
    done, wanted = progress(found.chapter)
    of = (
        f"{done} of {wanted} planned runs are there" if wanted else f"the sweep {found.chapter.grid} is not planned yet"
    )
    missing = f"Still missing: {wanted - done} of {wanted} runs of {found.chapter.grid}." if wanted else ""
    failed = sum(found.failed.values())
    lost = [f"{plural(failed, 'run')} failed, and {'is' if failed == 1 else 'are'} no part of any mean."] * bool(failed)
    if found.records.empty:
        return ["Evidence: none yet.", f"For this chapter, {of}.", *lost]
    table = found.records.drop_duplicates("run")
    commits = sorted({str(commit)[:9] for commit in table["git_commit"].dropna()})
    days = sorted({str(day)[:10] for day in table["created"]})
    hours = float(table[[f"seconds_{part}" for part in OF_A_RUN]].sum().sum()) / 3600
    lines = [
        "Evidence: from the study's runs." if found.lasting else "Evidence: none yet. These are smoke runs.",
        f"Scale: {scale_in_words(found)}. {len(table)} runs: {arms_in_words(found)}; {hours:.1f} hours of computing,"
        f" {training_in_words(table)}.",
        f"Run {span(days)}, with the code of commit {span(commits) or 'unknown'}.",
    ]
    if found.lasting and found.twins:
        lines.append(f"{found.twins} more runs check that averaging gradients is averaging losses.")
    lines += lost
    if not found.lasting:
        lines.append(f"They show that every part works, and say nothing on the question. For that, {of}.")
    elif done != wanted:
        lines.append(missing or f"So far, {of}.")
    return lines


def span(words: list[str]) -> str:
    """The first and the last."""
    return "" if not words else words[0] if len(words) == 1 else f"{words[0]} to {words[-1]}"


def headline(rows: list[pd.Series], lasting: bool) -> str:
    """What the primary contrasts of a question say together: the advice of one, or the verdicts of all."""
    if len(rows) == 1 or not lasting or any(row["n"] < MIN_PAIRS for row in rows):
        return advice(rows[0], lasting)
    shares = ["passes" if Arm.named(row["a"]).guide_every > 1 else "updates" for row in rows]
    says = "; ".join(f"at equal {share}: {row['verdict']}" for share, row in zip(shares, rows, strict=True))
    cost = "One at random takes one pass an update, averaging in every update one for each PTM."
    return f"{says[0].upper()}{says[1:]}. {cost}"


def advice(row: pd.Series, lasting: bool) -> str:
    """One sentence for somebody who has to choose, from the verdict on a contrast."""
    verdict = str(row["verdict"])
    if not lasting:
        return "Not measured yet: smoke runs are no ground for a choice."
    if row["n"] < MIN_PAIRS or verdict.startswith("no verdict"):
        return "Too few sets so far for a choice."
    if "better" in verdict:
        size = ", though by less than a point" if "within" in verdict else ""
        return f"{verdict.split(' better')[0]} is the better choice here{size}."
    if verdict.startswith("undecided"):
        return "These runs do not tell the two apart: choose by cost."
    return "No difference larger than a point: choose the cheaper one."


SIGNS = {"above": "above 0", "below": "below 0", "equal": "equal"}


@cache
def expectations(key: str) -> dict[str, tuple[str, ...]]:
    """What was expected of each contrast of an ablation before its first run, in one or more words of ``SIGNS``."""
    written = yaml.safe_load((ROOT / "book" / "expectations.yaml").read_text(encoding="utf-8"))[key]
    return {name: tuple(those) if isinstance(those, list) else (those,) for name, those in written.items()}


def outcome(expected: Iterable[str], row: Mapping[str, object]) -> str:
    """Whether a contrast came out as expected, by its verdict: ``open`` where that decides nothing.

    A difference that is clear and within the margin agrees with its sign and with ``equal``.
    """
    verdict = str(row["verdict"])
    if verdict.startswith(("no verdict", "undecided")):
        return "open"
    within = f"±{100 * MARGIN:g} points" in verdict
    found = {"equal"} if within else set()
    if not within or ", within" in verdict:
        found.add("above" if row["difference"] > 0 else "below")
    return "as expected" if found & set(expected) else "otherwise"


def reference_lines(found: Findings) -> dict[str, float]:
    """Mean accuracy (%) of no guidance and of the full data, where they were run.

    Beside strategies no guidance is that of the first ablation, in the same setting; the full data would squeeze them.
    """
    means, names = found.cells.set_index("arm")["mean"], {"none": "no guidance", FULL_NAME: "full data"}
    if found.chapter.notebook == "02_ensemble" and found.lasting and findings("guidance").lasting:
        means, names = findings("guidance").cells.set_index("arm")["mean"], {"none": "no guidance"}
    return {label: float(means[arm]) for arm, label in names.items() if arm in means}
