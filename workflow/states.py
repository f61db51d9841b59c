"""Where the pools and jobs of a sweep stand: done, running, failed or left, why, and what that will cost.

Nothing here changes anything.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import mean

from ddlib.study.record import read_record
from ddlib.study.words import plural
from workflow.inputs import reads_as
from workflow.locks import held, lock_of
from workflow.markers import read_marker, why_stale, wrong_with
from workflow.plan import Grid, Job, Pool
from workflow.run_job import FAILED, base_of

STATES = ("done", "running", "failed", "left")


@dataclass(frozen=True)
class State:
    """Where a job stands."""

    work: Job | Pool
    state: str  # one of STATES
    why: str = ""  # what keeps it from being done, if it once was; or why it failed


def states(grid: Grid, notebooks: bool = False) -> list[State]:
    """Where every pool and every job stands.

    With ``notebooks``, a job that the book shows is left if it ran without its notebook, or if the text has changed.
    """
    pools = [state_of(grid, pool) for pool in grid.pools]
    missing = {state.work.marker for state in pools if state.state != "done"}
    jobs = [state_of(grid, job, notebooks) for job in grid.jobs]
    again = "its PTMs are made again"
    return pools + [
        State(state.work, "left", again)
        if state.state in ("done", "failed") and state.work.pool and state.work.pool.marker in missing
        else state
        for state in jobs
    ]


def state_of(grid: Grid, work: Job | Pool, notebooks: bool = False) -> State:
    """Where one pool or job stands."""
    marker, is_pool = grid.folder / work.marker, isinstance(work, Pool)
    if held(lock_of(grid.folder, work.name)):
        return State(work, "running")
    if marker.is_file():
        if wrong := wrong_with(marker, base_of(grid, work), absent_is_fine=is_pool):
            return State(work, "left", wrong)
        if notebooks and not is_pool and work.shown and (why := why_not_shown(grid, work)):
            return State(work, "left", why)
        diverged = [] if is_pool else failures(grid, work)
        return State(work, "failed" if diverged else "done", "; ".join(diverged))
    if why := said_in_log(grid, work):
        return State(work, "failed", why)
    return State(work, "left", why_stale(marker, work.identity))


def why_not_shown(grid: Grid, job: Job) -> str:
    """Why the executed notebook of a job that is done cannot be shown; empty if it can."""
    if not any(name.endswith(".ipynb") for name in read_marker(grid.folder / job.marker)["files"]):
        return "it ran without its notebook"
    if grid.executed(job).is_file() and not reads_as(grid.executed(job), job.notebook):
        return "the text of its notebook has changed"
    return ""


def said_in_log(grid: Grid, work: Job | Pool) -> str:
    """Why a job without marker failed; empty if it never ran, or was killed."""
    log = grid.folder / "logs" / f"{Path(work.marker).stem}.log"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    return lines[-1].removeprefix(FAILED) if lines and lines[-1].startswith(FAILED) else ""


def failures(grid: Grid, job: Job) -> list[str]:
    """What its failed records say."""
    found = []
    for name in job.records:
        try:
            record = read_record(grid.folder / name)
        except (OSError, ValueError):
            continue
        if record["status"] == "failed":
            found.append(f"seed {record['seed']}: {record.get('error') or 'no reason recorded'}")
    return found


def costs(grid: Grid) -> dict[str, tuple[float, float]]:
    """Mean seconds and bytes of a job, from the markers of this sweep: by arm, by notebook, and of pools."""
    found: dict[str, list[tuple[float, float]]] = {}
    for path in sorted([*grid.folder.glob("jobs/*.json"), *grid.folder.glob("pools/*.json")]):
        try:
            marker = read_marker(path)
        except (OSError, ValueError):
            continue
        measured = (marker["seconds"], marker["bytes"])
        for name in kinds(path.parent.name, path.name.rsplit(".", 2)[0]):
            found.setdefault(name, []).append(measured)
    return {name: tuple(map(mean, zip(*values, strict=True))) for name, values in found.items()}


def kinds(part: str, name: str) -> list[str]:
    """Under what the cost of a job is looked up, the nearest first."""
    arm = without_seeds(name)
    return [arm, "pools" if part == "pools" else arm.partition("-")[0]]


def without_seeds(name: str) -> str:
    """The name of a job, or of a pool, which may be of all seeds, without its group of them."""
    return re.sub(r"-seeds?\d+(-\d+)?$", "", name)


def estimate(grid: Grid, found: Sequence[State]) -> tuple[float, float, int]:
    """Seconds (of one job at a time), bytes, and the number of jobs without an estimate, for all that is left."""
    known, total, size, unknown = costs(grid), 0.0, 0.0, 0
    for state in found:
        if open_still(grid, state):
            part = "pools" if isinstance(state.work, Pool) else "jobs"
            cost = next((known[kind] for kind in kinds(part, state.work.name) if kind in known), None)
            if cost:
                total, size = total + cost[0], size + cost[1]
            else:
                unknown += 1
    return total, size, unknown


def table(found: Sequence[State]) -> str:
    """Done, running, failed and left, per arm."""
    counts: dict[str, Counter] = {}
    for state in found:
        work = state.work
        arm = f"PTMs {without_seeds(work.name)}" if isinstance(work, Pool) else f"{work.notebook} {work.arm}"
        counts.setdefault(arm, Counter())[state.state] += 1
    width = max(map(len, counts))
    lines = [f"{'':{width}}  " + "".join(f"{name:>9}" for name in STATES)]
    lines += [f"{arm:{width}}  " + "".join(f"{count[s] or '·':>9}" for s in STATES) for arm, count in counts.items()]
    total = sum(counts.values(), Counter())
    return "\n".join([*lines, f"{'all':{width}}  " + "".join(f"{total[s]:>9}" for s in STATES)])


def reasons(found: Sequence[State]) -> list[str]:
    """Why jobs that were there are made again, and why others failed: one line for each reason."""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for state in found:
        if state.why:
            by_reason.setdefault((state.state, state.why), []).append(state.work.name)
    lines = []
    for (state, why), names in by_reason.items():
        which = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
        lines.append(f"made again: {which}, because {why}" if state == "left" else f"{state}: {which}: {why}")
    return lines


def outlook(grid: Grid, found: Sequence[State], workers: int) -> str:
    """One line: what is left, and how long and large that will be."""
    left = sum(open_still(grid, state) for state in found)
    total, size, unknown = estimate(grid, found)
    if nothing_left(grid, found):
        return "nothing is left to do" + ("" if comparison_is_current(grid) else " but the comparison")
    if not left:
        return f"{plural(sum(state.state == 'running' for state in found), 'job')} running, none left to start"
    if unknown == left:
        return f"{plural(left, 'job')} left; no earlier record says how long"
    more = f"; of {unknown} of them no record says it" if unknown else ""
    took = timedelta(seconds=round(total / min(workers, left)))
    return f"{plural(left, 'job')} left: about {took} with {workers} at a time, {size / 1e6:.1f} MB{more}"


def nothing_left(grid: Grid, found: Sequence[State]) -> bool:
    """Whether all is done: whole markers are there, also those of runs that diverged."""
    return not any(state.state == "running" or open_still(grid, state) for state in found)


def open_still(grid: Grid, state: State) -> bool:
    """Whether a job is to be run; one that diverged has a marker, and is not."""
    return state.state == "left" or (state.state == "failed" and not (grid.folder / state.work.marker).is_file())


def comparison_is_current(grid: Grid) -> bool:
    """Whether the comparison is whole, and was made after all jobs, by the code of today."""
    marker = grid.folder / grid.comparison
    made_of = [path for job in grid.jobs if (path := grid.folder / job.marker).is_file()]
    return (
        marker.is_file()
        and not wrong_with(marker, grid.folder)
        and all(path.stat().st_mtime_ns <= marker.stat().st_mtime_ns for path in made_of)
    )
