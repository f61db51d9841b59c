"""Carry out one job of a sweep: what the rules of the Snakefile call.

``python workflow/run_job.py PLAN MARKER``, the name of the marker of a pool or an arm in the plan. One process at a
time: a second that wants the same job waits for the first, which may be an orphan of a killed sweep, and then finds
the work done. Only a pool needs torch here; an arm has it in the kernel of its notebook.
"""

import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import yaml
from filelock import FileLock

sys.path.insert(0, str(Path(__file__).parents[1]))

from workflow.gpus import gpu_slot
from workflow.inputs import changed
from workflow.locks import lock_of
from workflow.markers import write_marker, wrong_with
from workflow.plan import ROOT, Grid, GridError, Job, Pool, read_plan

FAILED = "FAILED: "  # begins the last line of the log of a job that failed; a killed one has none
ERROR_LINE = re.compile(r"[\w.]*(Error|Exception|Interrupt)\b.*")


def run(grid: Grid, work: Pool | Job, carry_out: Callable[[Grid, Pool | Job], list[Path]]) -> None:
    """Do the work and write its marker, unless it is done. ``carry_out`` gives the files that the work left."""
    marker, base = grid.folder / work.marker, base_of(grid, work)
    lock = lock_of(grid.folder, work.name)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        if marker.is_file() and not wrong_with(marker, base):
            print(f"{work.name}: done already")
            return
        if what := changed(grid, work):
            raise GridError(f"{', '.join(what)} changed since the sweep began: start it again")
        start = time.perf_counter()
        files = carry_out(grid, work)
        write_marker(marker, work.identity, files, time.perf_counter() - start, base)


def base_of(grid: Grid, work: Pool | Job) -> Path:
    """Where the files lie that the marker of a pool or a job names."""
    if isinstance(work, Job):
        return grid.folder
    from ddlib.disk.paths import cache_folder  # here and below: ddlib imports torch

    return cache_folder()


def with_notebook(grid: Grid, work: Pool | Job) -> list[Path]:
    """Train the PTMs, or execute the notebook; on this machine's GPUs, if there are any, beside others."""
    with gpu_slot():
        return train_pool(work) if isinstance(work, Pool) else run_notebook(grid, work)


def run_notebook(grid: Grid, job: Job) -> list[Path]:
    """Execute the notebook of an arm; the files that it left."""
    os.environ["DDLIB_RUNS"] = str(grid.folder)
    executed, parameters = grid.executed(job), yaml.safe_dump(dict(job.parameters))
    source = ROOT / "notebooks" / f"{job.notebook}.ipynb"
    executed.unlink(missing_ok=True)  # of a run that this one replaces
    files, diverged = recorded(grid, job, lambda: execute(source, executed, "-y", parameters))
    whole = executed.with_name(f".{executed.name}") if diverged else executed
    return [*files, *filter(Path.is_file, [whole])]


def execute(*arguments: object) -> None:
    """Execute a notebook. Machines without papermill can import the rest of this module."""
    from workflow.execute import main

    main(*arguments)


def recorded(grid: Grid, job: Job, act: Callable[[], object]) -> tuple[list[Path], bool]:
    """Let ``act`` run an arm: the records and synthetic sets that it wrote, and whether a run diverged.

    Raises what ``act`` raises, and RuntimeError if a record was not written, or by other code.
    """
    records, diverged = [grid.folder / name for name in job.records], False
    before = {record: stamp(record) for record in records}
    try:
        act()
    except (FloatingPointError, SystemExit):
        # A run that diverged would do so again: it has its record, which says so, and counts as done.
        if any(stamp(record) == before[record] for record in records) or not all(map(ended, records)):
            raise
        print(f"{job.name}: diverged; its record says so")
        diverged = True
    for record in records:
        if stamp(record) == before[record]:
            raise RuntimeError(f"{record.name} was not written, although the run came to its end")
        if said(record)["code_hash"] != job.made_with["code"]:
            raise RuntimeError("the code of ddlib changed before or during the run: start the sweep again")
    synthetic = [record.with_suffix(".safetensors") for record in records]
    return [*records, *filter(Path.is_file, synthetic)], diverged


def said(record: Path) -> dict[str, object]:
    """What a record says that was just written; the sweep checks all of it when it reads it."""
    return json.loads(record.read_text(encoding="utf-8"))


def stamp(path: Path) -> tuple[int, int] | None:
    """What changes when a file is replaced; None if there is none."""
    return (path.stat().st_ino, path.stat().st_mtime_ns) if path.is_file() else None


def ended(record: Path) -> bool:
    """Whether a record says that its run came to an end that it would come to again: a result, or divergence."""
    status, error = said(record)["status"], said(record).get("error")
    return status == "ok" or str(error).startswith("FloatingPointError")


def train_pool(pool: Pool) -> list[Path]:
    """Train PTMs, or find them in the cache; their files."""
    from ddlib.ptms.pool import cached_file
    from ddlib.study import pools
    from ddlib.study.run import open_dataset

    p = SimpleNamespace(**pool.parameters)
    data = open_dataset(p)
    ptms = [ptm for seed in pools.pool_seeds(p) for ptm in pools.open_pool(pools.for_set(p, seed), data)]
    return [path for path in map(cached_file, ptms) if path.is_file()]  # ImageNet's weights are torchvision's


def main(path: str, marker: str) -> None:
    """Find the work in the plan and do it. What fails ends in one line that begins with FAILED."""
    try:
        grid = read_plan(path)
        works = {Path(work.marker).stem: work for work in (*grid.pools, *grid.jobs)}
        if marker not in works:
            raise GridError(f"{marker} is not in {path} any more, because another sweep has begun there")
        run(grid, works[marker], with_notebook)
    except (Exception, SystemExit) as error:
        print(*failure(error), sep="\n")
        sys.exit(1)


def failure(error: BaseException) -> list[str]:
    """The lines of a log that end with the reason."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return [*lines, f"{FAILED}{reason(lines) or type(error).__name__}"]


def reason(lines: list[str]) -> str:
    """What happened, in one line: of a traceback, the last line that names an error, with what it says next."""
    places = [index for index, line in enumerate(lines) if ERROR_LINE.match(line)]
    place = places[-1] if places else len(lines) - 1
    told = [line.strip() for line in lines[place : place + 2]] if lines else [""]
    return " ".join(told if told[0].endswith(("because", ":")) else told[:1])


if __name__ == "__main__":
    main(*sys.argv[1:])
