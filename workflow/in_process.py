"""A sweep without notebooks and Snakemake: many arms in one process, or in a few side by side.

Records and markers are those of any sweep, so that one on another machine finds the work done; only the executed
notebooks are absent. A process opens torch, data and PTMs once for all its arms.
"""

import contextlib
import multiprocessing
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch

from ddlib.study import run as study
from workflow import published
from workflow.gpus import gpu_slot
from workflow.plan import Grid, Job, Pool
from workflow.run_job import failure, recorded, run, train_pool

DATA = ("dataset", "image_size", "evaluate_on", "device")
OPEN: dict[str, tuple[object, object]] = {}  # the data set and the PTMs of the latest arm, which the next may share
WHOLE_LIFE = ExitStack()


def run_all(grid: Grid, jobs: Sequence[Job], workers: int = 1) -> None:
    """All pools, then these jobs: in this process, or in ``workers`` others, each of which takes the next that is left.

    One that fails leaves its reason in its log, and the others go on.
    """
    with mapping(grid.threads, workers) as each:
        trained = each(partial(run_pool, grid), grid.pools)
        there = {pool.marker for pool, done in zip(grid.pools, trained, strict=True) if done}
        jobs = sorted(jobs, key=own_seed)
        for job in jobs:
            if job.pool and job.pool.marker not in there:
                print(f"{job.name}: left, because its PTMs failed", flush=True)
        list(each(partial(run_job, grid), [job for job in jobs if not job.pool or job.pool.marker in there]))


def own_seed(job: Job) -> int:
    """The first seed of a job whose sets have pools of their own: arms of one seed, which share them, come together."""
    return job.parameters["seed"] if job.parameters["ptm_seed"] is None else 0


@contextlib.contextmanager
def mapping(threads: int, workers: int) -> Iterator[Callable[..., Iterable]]:
    """A ``map`` in this process, or over ``workers`` others that live as long as the block.

    Ends the program in a sentence if one of them is killed: the others end with it.
    """
    with ExitStack() as held:
        if workers == 1:
            begin(threads, held)
            yield map
            return
        fresh = multiprocessing.get_context("spawn")
        others = ProcessPoolExecutor(workers, fresh, initializer=begin, initargs=(threads,))
        try:
            yield held.enter_context(others).map
        except BrokenProcessPool:
            sys.exit("A process was killed, perhaps because memory was short. Start again, with fewer --jobs if so.")


def begin(threads: int, held: ExitStack = WHOLE_LIFE) -> None:
    """What a process needs before its first job: its threads, and its share of a GPU for as long as ``held`` lasts."""
    torch.set_num_threads(threads)
    held.callback(OPEN.clear)
    held.enter_context(gpu_slot())


def run_pool(grid: Grid, pool: Pool) -> bool:
    """Train the PTMs of a pool; whether they are there."""
    return done(grid, pool, lambda _, pool: train_pool(pool))


def run_job(grid: Grid, job: Job) -> None:
    """Run one arm, and tell what it is beside published numbers."""
    if done(grid, job, run_arm) and job.published:
        print(published.published_text(published.published_table(grid)), flush=True)


def done(grid: Grid, work: Pool | Job, carry_out: Callable[[Grid, Pool | Job], list[Path]]) -> bool:
    """Do the work, unless it was done; whether it is. A line on the terminal says how long it took or what failed."""
    if (grid.folder / work.marker).is_file():  # the sweep has looked at it
        return True
    start = time.perf_counter()
    try:
        run(grid, work, carry_out)
    except Exception as error:
        told = failure(error)
        log = grid.folder / "logs" / f"{Path(work.marker).stem}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("\n".join(["".join(traceback.format_exception(error)), *told, ""]), encoding="utf-8")
        print(f"{work.name}: {told[-1]}", flush=True)
        return False
    print(f"{work.name}: {time.perf_counter() - start:.0f} s", flush=True)
    return True


def still_open(kind: str, key: object, open_it: Callable[[], object]) -> object:
    """What this process holds open of a kind, if it is that of the key, or else what ``open_it`` gives in its place."""
    if kind not in OPEN or OPEN[kind][0] != key:
        OPEN.pop(kind, None)  # first: there may be no room for two
        OPEN[kind] = (key, open_it())
    return OPEN[kind][1]


def run_arm(grid: Grid, job: Job) -> list[Path]:
    """Run one arm; the files that it left."""
    p = SimpleNamespace(**job.parameters | {"runs_folder": str(grid.folder)})
    which = [job.parameters[name] for name in DATA]
    data = still_open("data", which, lambda: study.open_dataset(p))
    pool, asked = ("PTMs", job.pool.marker) if job.pool else ("no PTMs", "")  # arms without keep those of others open
    ptms = still_open(pool, (which, asked), lambda: study.open_ptms(p, data))
    grid.executed(job).unlink(missing_ok=True)  # of a run that this one replaces
    return recorded(grid, job, lambda: study.run_arm(p, data, ptms, job.notebook))[0]
