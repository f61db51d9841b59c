"""The study that the book reports: run what it lacks, and keep what came out.

``python workflow/study.py GRID ... [--jobs N]`` runs the jobs whose records do not lie in ``book/results/sweeps`` yet,
as a sweep in ``runs/``, and puts each record there when it is whole; so any checkout goes on where the last stopped.
PTMs lie in ``book/results/ptms``. Of the first seed of a grid that is judged on test images, and of the second in the
two ablations, the synthetic sets are kept too, each as one picture: whole in the ablations, else the
first images of each class (``FEW``).
"""

import argparse
import dataclasses
import os
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from ddlib.disk.files import replacing
from ddlib.study.record import synthetic_path
from ddlib.synthetic import SyntheticSet
from workflow import in_process
from workflow.grid import read_grid
from workflow.locks import alone
from workflow.markers import wrong_with
from workflow.plan import ROOT, Grid, GridError, Job
from workflow.sittings import sittings
from workflow.states import State, states, table
from workflow.sweep import forget, from_one

RESULTS = ROOT / "book" / "results"
PICTURED = {"desk-guidance": 2, "desk-ensemble": 2, "desk-ensemble-own": 1}  # seeds of an arm; in other sweeps one
FEW = 3  # images of each class that are pictured in other sweeps: all pictures have to fit into a small repository


def kept_in(grid: Grid) -> Path:
    """Where the records of a grid are kept."""
    return RESULTS / "sweeps" / grid.path.stem


def lacking(grid: Grid) -> Grid:
    """The grid with those of its jobs whose records are not kept, in their turn."""
    there = kept_in(grid)
    jobs = [job for job in grid.jobs if not all((there / record).is_file() for record in job.records)]
    return dataclasses.replace(grid, jobs=sorted(jobs, key=turn))


def turn(job: Job) -> tuple[bool, int]:
    """Seed by seed, so that all arms grow alike; the full data, to train on which takes hours, at the end."""
    return job.parameters["base_method"] == "full", job.parameters["seed"]


def keep(grid: Grid, job: Job) -> None:
    """Copy the records of a job that is done, and a picture of each set of the first seeds (``PICTURED``)."""
    marker = grid.folder / job.marker
    if not marker.is_file() or wrong_with(marker, grid.folder):
        return
    first, name = min(other.parameters["seed"] for other in grid.jobs), grid.path.stem
    pictured = range(first, first + PICTURED.get(name, 1)) if job.parameters["evaluate_on"] == "test" else ()
    for record in job.records:
        seed, saved = int(Path(record).stem.rpartition("-seed")[2]), synthetic_path(grid.folder / record)
        if seed in pictured and saved.is_file():
            synthetic = SyntheticSet.load(saved)
            shown = synthetic if name in PICTURED else first_of_each_class(synthetic, FEW)
            shown.save_grid((kept_in(grid) / record).with_suffix(".png"), gap=0)
        with replacing(kept_in(grid) / record) as temporary:
            shutil.copy2(grid.folder / record, temporary)


def first_of_each_class(synthetic: SyntheticSet, count: int) -> SyntheticSet:
    """The first ``count`` images of each class, or as many as it has."""
    classes = synthetic.classes
    kept = torch.cat([(classes == label).nonzero()[:count, 0] for label in classes.unique()])
    return dataclasses.replace(synthetic, images=synthetic.images[kept], labels=synthetic.labels[kept])


def run_and_keep(grid: Grid, job: Job) -> None:
    """One job, in as many sittings as it takes; its PTMs are trained when it asks for them."""
    so_far = grid.folder / "sittings" / Path(job.marker).stem  # which changes with the version of torch
    with sittings(so_far):
        in_process.run_job(grid, job)
    keep(grid, job)
    if (grid.folder / job.marker).is_file():
        shutil.rmtree(so_far, ignore_errors=True)


def states_alone(grid: Grid) -> list[State]:
    """Where the jobs stand; their PTMs are trained when a job asks for them, so no marker of a pool is waited for."""
    return states(dataclasses.replace(grid, jobs=[dataclasses.replace(job, pool=None) for job in grid.jobs]))


def study(path: str, workers: int) -> bool:
    """Run what a grid lacks; whether all of it is kept then."""
    grid = read_grid(path)
    with alone(grid):
        for job in lacking(grid).jobs:
            keep(grid, job)  # of one that was ended between its last step and this one
        left = lacking(grid)
        print(f"{path}: {len(grid.jobs) - len(left.jobs)} of {len(grid.jobs)} jobs are kept", flush=True)
        if left.jobs:
            forget(left, states_alone(left))
            with in_process.mapping(grid.threads, workers) as each:
                list(each(partial(run_and_keep, grid), left.jobs))
            print(table(states_alone(left)), flush=True)
    return not lacking(grid).jobs


def main(arguments: Sequence[str] | None = None) -> int:
    """Grid after grid; not 0 if something is still missing."""
    parser = argparse.ArgumentParser(prog="python workflow/study.py", description=__doc__)
    parser.add_argument("grids", nargs="+", help="files such as params/sweeps/desk-guidance.yaml")
    parser.add_argument("-j", "--jobs", type=from_one, default=1, help="processes side by side")
    given = parser.parse_args(arguments)
    os.environ["DDLIB_CACHE"] = str(RESULTS / "ptms")  # whatever the user's own is: records are kept with their PTMs
    try:
        whole = [study(path, given.jobs) for path in given.grids]
    except (GridError, OSError) as error:
        sys.exit(str(error))
    return int(not all(whole))


if __name__ == "__main__":
    sys.exit(main())
