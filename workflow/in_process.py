"""A sweep in this one process: without notebooks, Snakemake and a comparison, for machines that lack them.

Records and markers are those of any sweep, so that one on another machine finds the work done; only the executed
notebooks are absent.
"""

import os
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from ddlib.study import run as study
from workflow import published
from workflow.plan import Grid, Job, Pool
from workflow.run_job import failure, gpu_slot, recorded, run, train_pool

DATA = ("dataset", "image_size", "evaluate_on", "device")


def run_all(grid: Grid) -> None:
    """All pools, then all jobs, one after the other. One that fails leaves its reason in its log; the rest go on."""
    with gpu_slot(Path(tempfile.gettempdir()) / f"ddlib-gpus-{os.getuid()}"):
        missing = {pool.marker for pool in grid.pools if not done(grid, pool, lambda _, pool: train_pool(pool))}
        latest = Latest()
        for job in grid.jobs:
            if job.pool and job.pool.marker in missing:
                print(f"{job.name}: left, because its PTMs failed", flush=True)
            elif done(grid, job, partial(run_arm, latest)) and job.published:
                print(published.text(published.published_table(grid)), flush=True)


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


class Latest:
    """The data set and the PTMs of the latest arm, which the next may share."""

    def __init__(self):
        self.held: dict[str, tuple[object, object]] = {}

    def get(self, kind: str, key: object, open_it: Callable[[], object]) -> object:
        """What is held under this key, or else what ``open_it`` gives in its place."""
        if kind not in self.held or self.held[kind][0] != key:
            self.held.pop(kind, None)  # first: there may be no room for two
            self.held[kind] = (key, open_it())
        return self.held[kind][1]


def run_arm(latest: Latest, grid: Grid, job: Job) -> list[Path]:
    """Run one arm; the files that it left."""
    p = SimpleNamespace(**job.parameters | {"runs_folder": str(grid.folder)})
    which = [job.parameters[name] for name in DATA]
    data = latest.get("data", which, lambda: study.open_dataset(p))
    ptms = latest.get("PTMs", job.pool and (which, job.pool.marker), lambda: study.open_ptms(p, data))
    grid.executed(job).unlink(missing_ok=True)  # of a run that this one replaces
    return recorded(grid, job, lambda: study.run_arm(p, data, ptms, job.notebook))[0]
