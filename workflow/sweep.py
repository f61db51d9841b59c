"""Start a sweep, go on with it, or say how far it is: ``python workflow/sweep.py GRID [snakemake's options]``.

``--dry-run`` says what would be done, ``--status`` how far it is; both change nothing. Whatever ended an earlier sweep,
the same command goes on: what is whole is kept, what is missing, damaged or out of date is made again. ``--in-process``
needs neither Snakemake nor Jupyter, and starts no process for each job.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from workflow import in_process
from workflow.gpus import PER_GPU, gpus
from workflow.grid import read_grid
from workflow.locks import alone
from workflow.markers import write_whole
from workflow.plan import PLAN, ROOT, Grid, GridError, plan_text
from workflow.published import published_table, published_text, write_published
from workflow.states import State, comparison_is_current, nothing_left, outlook, reasons, states, table

SNAKEFILE = ROOT / "workflow" / "Snakefile"


def forget(grid: Grid, found: Sequence[State]) -> None:
    """Remove the markers of what is to be made again."""
    for state in found:
        if state.state == "left":
            (grid.folder / state.work.marker).unlink(missing_ok=True)
    if not comparison_is_current(grid):
        (grid.folder / grid.comparison).unlink(missing_ok=True)


def sweep_away(grid: Grid) -> None:
    """Remove the logs of jobs that have changed: nobody will read them again."""
    current = {Path(work.marker).stem for work in (*grid.pools, *grid.jobs)} | {"comparison"}
    for log in grid.folder.glob("logs/*.log"):
        if log.stem not in current:
            log.unlink(missing_ok=True)


def snakemake(grid: Grid, options: Sequence[str], *config: str) -> int:
    """Call the engine. Its own locks know of no death; ours do, and markers are whole or absent."""
    devices = 0 if elsewhere(options) else len(gpus())
    command = [sys.executable, "-m", "snakemake", "--snakefile", SNAKEFILE, "--directory", ROOT]
    command += ["--nolock", "--ignore-incomplete", "--keep-going", "--rerun-triggers", "mtime", "input"]
    command += ["--quiet", "rules", "host", "reason"]
    command += ["--resources", f"gpu_slots={PER_GPU * devices}"] if devices else []
    return subprocess.run([*command, *options, "--config", f"plan={grid.folder / PLAN}", *config]).returncode


def elsewhere(options: Sequence[str]) -> bool:
    """Whether the jobs run on other machines than this one."""
    return any("profile" in option or "executor" in option or option == "-e" for option in options)


def engine(grid: Grid, given: argparse.Namespace, options: Sequence[str]) -> int:
    """Let Snakemake do what is left, then the comparison of what there is; not 0 if something failed."""
    if given.jobs or not elsewhere(options):  # a cluster's profile has its own number
        options = ["--jobs", str(given.jobs or os.cpu_count() or 1), *options]
    status = snakemake(grid, options)
    if status:
        snakemake(grid, [*options, "--forcerun", "comparison"], "so_far=true")
    elif not given.in_process:  # Snakemake's report is of the jobs that it has started
        snakemake(grid, ["--report", str(grid.folder / "report.html")])
    return status


def go_on(grid: Grid, given: argparse.Namespace, options: Sequence[str]) -> int:
    """Do what is left; not 0 if something failed."""
    with alone(grid):
        found = states(grid, given.notebooks)
        forget(grid, found)
        sweep_away(grid)
        write_whole(grid.folder / PLAN, plan_text(grid))
        if given.in_process:
            in_process.run_all(grid, [job for job in grid.jobs if not (given.notebooks and job.shown)], given.jobs or 1)
            if not given.notebooks:
                return 0
            found = states(grid, given.notebooks)
        if not options and nothing_left(grid, found) and comparison_is_current(grid):
            return 0
        return engine(grid, given, options)


def ends(grid: Grid, for_book: bool) -> Iterator[str]:
    """Where to look at the end."""
    page = grid.folder / "comparison.html"
    if page.is_file():
        markers = [path for job in grid.jobs if (path := grid.folder / job.marker).is_file()]
        older = any(path.stat().st_mtime_ns > page.stat().st_mtime_ns for path in markers)
        yield f"The comparison{', older than some of these runs' if older else ''}: {page}"
        if grid.folder.parent == ROOT / "runs" / "sweeps" and not for_book:
            yield f"Into the book:  make book SWEEP={grid.folder.name}"
    if any(job.published for job in grid.jobs):
        yield from ("", published_text(published_table(grid)), f"As a table:     {write_published(grid)}")


def from_one(text: str) -> int:
    """A number of processes. Raises ArgumentTypeError for less than one, ValueError for what is no whole number."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of processes; expected a whole number from 1")
    return number


def arguments_of(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Our own, and those for Snakemake."""
    parser = argparse.ArgumentParser(prog="python workflow/sweep.py", description=__doc__)
    parser.add_argument("grid", help="a file such as params/sweeps/smoke.yaml")
    parser.add_argument("-n", "--dry-run", action="store_true", help="say what would be done")
    parser.add_argument("--status", action="store_true", help="say how far it is")
    parser.add_argument("-j", "--jobs", type=from_one, help="how many cores, or jobs on a cluster; default: all cores")
    parser.add_argument("--in-process", action="store_true", help="without notebooks; by default one after the other")
    parser.add_argument("--notebooks", action="store_true", help="but with those that the book shows, as they are now")
    return parser.parse_known_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Plan, run, summarise."""
    given, options = arguments_of(arguments)
    try:
        grid = read_grid(given.grid)
    except (GridError, OSError) as error:
        sys.exit(str(error))
    found, cores = states(grid, given.notebooks), given.jobs or (1 if given.in_process else os.cpu_count() or 1)
    workers = cores if given.in_process else max(1, cores // grid.threads)
    print("\n".join([table(found), *reasons(found), outlook(grid, found, workers)]), flush=True)
    if given.dry_run or given.status:
        if any(job.published for job in grid.jobs):
            print(f"\n{published_text(published_table(grid))}")
        return 0
    status = go_on(grid, given, options)
    before, found = found, states(grid, given.notebooks)
    print("\n".join([*([] if found == before else ["", table(found), *reasons(found)]), *ends(grid, given.notebooks)]))
    return int(bool(status) or any(state.state != "done" for state in found))


if __name__ == "__main__":
    sys.exit(main())
