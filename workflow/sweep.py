"""Start a sweep, go on with it, or say how far it is: ``python workflow/sweep.py GRID [snakemake's options]``.

``--dry-run`` says what would be done, ``--status`` how far it is; both change nothing. Whatever ended an earlier sweep,
the same command goes on: what is whole is kept, what is missing, damaged or out of date is made again.
"""

import argparse
import fcntl
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import mean

from filelock import FileLock, Timeout

sys.path.insert(0, str(Path(__file__).parents[1]))

from ddlib.disk.paths import cache_folder
from ddlib.study.record import read_record
from workflow.grid import PROJECT, Grid, GridError, Job, Pool, read_grid
from workflow.markers import read_marker, why_stale, wrong_with
from workflow.run_job import FAILED, PER_GPU, gpus, lock_of

STATES = ("done", "running", "failed", "left")


@dataclass(frozen=True)
class State:
    """Where a job stands."""

    work: Job | Pool
    state: str  # one of STATES
    why: str = ""  # what keeps it from being done, if it once was; or why it failed
    damaged: bool = False


def states(grid: Grid) -> list[State]:
    """Where every pool and every job stands. Changes nothing."""
    pools = [state_of(grid, pool) for pool in grid.pools]
    missing = {state.work.marker for state in pools if state.state != "done"}
    jobs = [state_of(grid, job) for job in grid.jobs]
    again = "its PTMs are made again"
    return pools + [
        State(state.work, "left", again)
        if state.state in ("done", "failed") and state.work.pool and state.work.pool.marker in missing
        else state
        for state in jobs
    ]


def state_of(grid: Grid, work: Job | Pool) -> State:
    """Where one pool or job stands."""
    marker, is_pool = grid.folder / work.marker, isinstance(work, Pool)
    if held(lock_of(grid.folder, work.name)):
        return State(work, "running")
    if marker.is_file():
        wrong = wrong_with(marker, cache_folder() if is_pool else grid.folder, absent_is_fine=is_pool)
        if wrong:
            return State(work, "left", wrong, damaged=True)
        diverged = [] if is_pool else failures(grid, work)
        return State(work, "failed" if diverged else "done", "; ".join(diverged))
    if why := said_in_log(grid, work):
        return State(work, "failed", why)
    return State(work, "left", why_stale(marker, work.identity))


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


def held(lock: Path) -> bool:
    """Whether a process holds a lock. Looking at it takes no lock that another could meet, and writes nothing."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


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
    if part == "pools":
        return [name, "pools"]
    arm = name[: name.rindex("-seed")]
    return [arm, arm.partition("-")[0]]


def estimate(grid: Grid, found: Sequence[State]) -> tuple[float, float, int]:
    """Seconds (of one job at a time), bytes, and the number of jobs without an estimate, for all that is left."""
    known, total, size, unknown = costs(grid), 0.0, 0.0, 0
    for state in found:
        if state.state in ("left", "failed"):
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
        arm = f"PTMs {work.name}" if isinstance(work, Pool) else f"{work.notebook} {work.arm}"
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
    left = sum(state.state in ("left", "failed") for state in found)
    total, size, unknown = estimate(grid, found)
    if not left:
        return "nothing is left to do"
    if unknown == left:
        return f"{left} jobs left; no earlier record says how long they take"
    more = f"; of {unknown} of them no record says it" if unknown else ""
    took = timedelta(seconds=round(total / workers))
    return f"{left} jobs left: about {took} with {workers} at a time, {size / 1e6:.1f} MB{more}"


def forget_damaged(grid: Grid, found: Sequence[State]) -> None:
    """Remove the markers of jobs whose files are damaged, so that they are made again."""
    for state in found:
        if state.damaged:
            (grid.folder / state.work.marker).unlink(missing_ok=True)


def sweep_away(grid: Grid) -> None:
    """Remove the logs of jobs that have changed: nobody will read them again."""
    current = {Path(work.marker).stem for work in (*grid.pools, *grid.jobs)} | {"comparison"}
    for log in grid.folder.glob("logs/*.log"):
        if log.stem not in current:
            log.unlink(missing_ok=True)


def snakemake(grid: Grid, options: Sequence[str], *config: str) -> int:
    """Call the engine. Its own locks know of no death; ours do, and markers are whole or absent."""
    devices = 0 if elsewhere(options) else gpus()
    command = [sys.executable, "-m", "snakemake", "--snakefile", PROJECT / "Snakefile", "--directory", PROJECT]
    command += ["--nolock", "--ignore-incomplete", "--keep-going", "--rerun-triggers", "mtime", "input"]
    command += ["--quiet", "rules", "host", "reason"]
    command += ["--resources", f"gpu_slots={PER_GPU * devices}"] if devices else []
    return subprocess.run([*command, *options, "--config", f"grid={grid.path.absolute()}", *config]).returncode


def elsewhere(options: Sequence[str]) -> bool:
    """Whether the jobs run on other machines than this one."""
    return any("profile" in option or "executor" in option or option == "-e" for option in options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Plan, run, summarise."""
    parser = argparse.ArgumentParser(prog="python workflow/sweep.py", description=__doc__)
    parser.add_argument("grid", help="a file such as params/sweeps/smoke.yaml")
    parser.add_argument("-n", "--dry-run", action="store_true", help="say what would be done")
    parser.add_argument("--status", action="store_true", help="say how far it is")
    parser.add_argument("-j", "--jobs", type=int, help="how many cores, or jobs on a cluster; default: all cores")
    given, options = parser.parse_known_args(arguments)
    try:
        grid = read_grid(given.grid)
    except (GridError, OSError) as error:
        sys.exit(str(error))
    found, workers = states(grid), max(1, (given.jobs or os.cpu_count() or 1) // grid.threads)
    print("\n".join([table(found), *reasons(found), outlook(grid, found, workers)]), flush=True)
    if given.dry_run or given.status:
        return 0
    lock = FileLock(grid.folder / "locks" / "sweep.lock", timeout=0)
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        sys.exit(f"another sweep is running in {grid.folder}: `make progress GRID={grid.path}` says how far it is")
    except OSError as error:
        sys.exit(f"{grid.folder} cannot be written ({error}): set DDLIB_RUNS to a folder that can")
    with lock:
        forget_damaged(grid, states(grid))
        sweep_away(grid)
        if given.jobs or not elsewhere(options):  # a cluster's profile has its own number
            options = ["--jobs", str(given.jobs or os.cpu_count() or 1), *options]
        status = snakemake(grid, options)
        if status:
            snakemake(grid, [*options, "--forcerun", "comparison"], "so_far=true")
        else:
            snakemake(grid, ["--report", str(grid.folder / "report.html")])
    found = states(grid)
    ends = [f"The comparison: {grid.folder / 'comparison.html'}"]
    if grid.folder.parent == PROJECT / "runs" / "sweeps":
        ends += [f"Into the book:  make book SWEEP={grid.folder.name}"]
    print("\n".join(["", table(found), *reasons(found), *ends]))
    return int(bool(status) or any(state.state != "done" for state in found))


if __name__ == "__main__":
    sys.exit(main())
