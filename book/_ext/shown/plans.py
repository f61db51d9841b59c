"""What the grids of the study plan, by the name of a grid in ``params/sweeps``, and how much of it has been run."""

import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parents[3]))

from ddlib.study.ablations import ABLATIONS, Contrast
from ddlib.study.arms import Arm
from workflow.grid import read_grid
from workflow.plan import Job

ROOT = Path(__file__).parents[3]
GRIDS, RESULTS = ROOT / "params" / "sweeps", ROOT / "book" / "results" / "sweeps"


@cache
def jobs_of(grid: str) -> list[Job] | None:
    """What a sweep will run; None where its grid is not written yet."""
    path = GRIDS / f"{grid}.yaml"
    return read_grid(path).jobs if path.is_file() else None


def planned(grid: str) -> list[str] | None:
    """The records that a sweep will write; None where its grid is not written yet."""
    jobs = jobs_of(grid)
    return None if jobs is None else [name for job in jobs for name in job.records]


def planned_for(notebook: str, grid: str) -> list[tuple[Contrast, str, int]]:
    """Each contrast of an ablation that a grid can answer, whether it is primary or exploratory, and its pairs.

    Without arms that are one method with another, or the same set for every seed.
    """
    row, sets = ABLATIONS[notebook], {Arm.named(name): count for name, count in arms_of(grid).items()}
    there = {arm.name: count for arm, count in sets.items() if arm.replicated and arm.strategy not in row.one_method}
    arms = [Arm.named(name) for name in there]
    return [
        (contrast, kind, min(there[arm] for arm in contrast.arms))
        for kind, contrasts_of in (("primary", row.primary), ("exploratory", row.exploratory))
        for contrast in contrasts_of(arms)
        if set(contrast.arms) <= set(there)
    ]


def arms_of(grid: str) -> dict[str, int]:
    """The arms of a grid with the number of their sets."""
    found: dict[str, set[int]] = {}
    for job in jobs_of(grid):
        p = SimpleNamespace(**job.parameters)
        found.setdefault(Arm.planned(p).name, set()).update(range(p.seed, p.seed + p.num_sets))
    return {name: len(seeds) for name, seeds in found.items()}


def progress(grid: str) -> tuple[int, int | None]:
    """How many of its planned runs have been made, failed ones too, and how many are planned, or None."""
    names, folder = planned(grid), RESULTS / grid
    if names is None:
        return len(list(folder.glob("*.json"))), None
    return sum((folder / name).is_file() for name in names), len(names)


def whole(grid: str) -> bool:
    """Whether all its planned runs have been made."""
    done, wanted = progress(grid)
    return done == wanted


def state(grid: str) -> str:
    """How many of its planned runs are there, in words."""
    done, wanted = progress(grid)
    return f"{done} of {wanted} planned runs are there" if wanted else f"the sweep {grid} is not planned yet"
