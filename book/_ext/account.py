"""What has been run: sweeps and arms, with their runs, days and hours."""

import json
from pathlib import Path

import pandas as pd
import plans
from sentences import OF_A_RUN, commits_of, span

from ddlib.study.runs import load_runs


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
            hours = sum(record["seconds"].get(part, 0) for record in there for part in OF_A_RUN)
            took = f"{hours / 3600:.1f}" if there else "–"
            failed = f", {len(there) - done} failed" if done < len(there) else ""
            rows.append([grid, arm, f"{done} of {len(records)}{failed}", took])
    return rows
