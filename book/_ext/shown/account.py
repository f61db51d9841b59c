"""What has been run: sweeps and arms, with their runs, days and hours; and what was made twice."""

import json
from pathlib import Path

import pandas as pd

from ddlib.study.arms import Arm
from ddlib.study.runs import load_runs
from ddlib.study.words import signed

from . import plans
from .chapters import CHAPTERS
from .findings import of_chapter
from .sentences import OF_A_RUN, commits_of, span

# Chapters and their arms, two by two, that are one synthetic set for each seed.
ONE_SET = (
    (("guidance", "clom"), ("ensemble", "clom single")),
    (("guidance", "cclom"), ("ensemble", "cclom single")),
    (("guidance", "none"), ("options", Arm().label)),
    (("guidance", "clom"), ("options", "CLoM")),
    (("guidance", "cclom"), ("options", "CCLoM")),
    (("ensemble", "clom random"), ("options", "CLoM, 5 PTMs")),
)


def sweeps() -> list[list[str]]:
    """For each sweep in the book: name, days, runs, arms, commits."""
    rows = []
    for folder in sorted(plans.RESULTS.glob("*")):
        table = load_runs(folder)[0] if any(folder.glob("*.json")) else pd.DataFrame()
        if len(table):
            table = table.drop_duplicates("run")
            days = span(sorted({str(day)[:10] for day in table["created"]}))
            commits = span(commits_of(table)) or "unknown"
            rows.append([folder.name, days, str(len(table)), str(table["parameter_hash"].nunique()), commits])
    return rows


def record_at(path: Path) -> dict[str, object] | None:
    """A record as it stands in its file, unchecked; None where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def arms() -> list[list[str]]:
    """For each arm of each grid of the study: sweep, arm, runs that are there and that are planned, hours."""
    rows = []
    for grid in sorted(path.stem for path in plans.GRIDS.glob("desk-*.yaml")):
        by_arm: dict[str, list[Path]] = {}
        for job in plans.jobs_of(grid):
            by_arm.setdefault(job.arm, []).extend(plans.RESULTS / grid / name for name in job.records)
        for arm, records in by_arm.items():
            there = [record for record in map(record_at, records) if record]
            done = sum(record["status"] == "ok" for record in there)
            seconds = sum(record["seconds"].get(part, 0) for record in there for part in OF_A_RUN)
            took = f"{seconds / 3600:.1f}" if there else "–"
            failed = f", {len(there) - done} failed" if done < len(there) else ""
            rows.append([grid, arm, f"{done} of {len(records)}{failed}", took])
    return rows


def twice() -> list[list[str]]:
    """For each arm that two sweeps made: its name in both, and what ``again`` says."""
    rows = []
    for sides in ONE_SET:
        if not all(of_chapter(key).lasting for key, _ in sides):
            continue
        tables = [of_chapter(key).records.query("arm == @arm") for key, arm in sides]
        if set(tables[0]["seed"]) & set(tables[1]["seed"]):
            names = [f"{Arm.named(arm).label}: {CHAPTERS[key].title}" for key, arm in sides]
            rows.append(names + again(*tables))
    return rows


def again(first: pd.DataFrame, second: pd.DataFrame) -> list[str]:
    """Of the sets of an arm with a seed in both: how many there are, how many have the same bits, how far the others
    are apart (second minus first, in points: the mean, and from the least to the most), and how many of all were made
    on another kind of processor."""
    one_network = ["seed", "architecture", "network", "augment"]
    pairs = first.merge(second, on=one_network, suffixes=("", "_again"))
    pairs["points"] = 100 * (pairs["accuracy_again"] - pairs["accuracy"])
    pairs["same"] = pairs["synthetic_hash_again"] == pairs["synthetic_hash"]
    pairs["moved"] = pairs["device_name_again"] != pairs["device_name"]
    sets = pairs.groupby("seed").agg({"points": "mean", "same": "first", "moved": "first"})
    apart = sets.loc[~sets["same"], "points"]
    told = f"{signed(apart.mean())}, {signed(apart.min())} to {signed(apart.max())}" if len(apart) else "–"
    return [str(len(sets)), str(sets["same"].sum()), told, str(sets["moved"].sum())]
