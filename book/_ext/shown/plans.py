"""What the grids of the study plan, by the name of a grid in ``params/sweeps``, and how much of it has been run."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pandas as pd

from ddlib.study.ablations import ABLATIONS, Contrast
from ddlib.study.arms import Arm
from workflow.grid import read_grid
from workflow.plan import Job

ROOT = Path(__file__).parents[3]
GRIDS, RESULTS = ROOT / "params" / "sweeps", ROOT / "book" / "results" / "sweeps"


@cache
def jobs_of(grid: str) -> list[Job]:
    """What a sweep will run."""
    return read_grid(GRIDS / f"{grid}.yaml").jobs


def planned(grid: str) -> list[str]:
    """The records that a sweep will write."""
    return [name for job in jobs_of(grid) for name in job.records]


def planned_for(notebook: str, grid: str) -> list[tuple[Contrast, str, int]]:
    """Each contrast of an ablation that a grid can answer, whether it is primary or exploratory, and its pairs."""
    return contrasts_among(notebook, arms_of(grid))


def contrasts_among(notebook: str, arms: Mapping[str, int]) -> list[tuple[Contrast, str, int]]:
    """Those of an ablation among some arms, whether they are primary or exploratory, and their pairs.

    ``arms`` says how many sets each has. Without arms that are one method with another, or the same set for every seed.
    """
    row, sets = ABLATIONS[notebook], {Arm.named(name): count for name, count in arms.items()}
    there = {arm.name: count for arm, count in sets.items() if arm.replicated and arm.strategy not in row.one_method}
    arms = [Arm.named(name) for name in there]
    return [
        (contrast, kind, min(there[arm] for arm in contrast.arms))
        for kind, contrasts_of in (("primary", row.primary), ("exploratory", row.exploratory))
        for contrast in contrasts_of(arms)
        if set(contrast.arms) <= set(there)
    ]


def sets_of(grid: str) -> pd.DataFrame:
    """A row for each set that a grid plans: all its parameters, its own seed, its notebook and its arm."""
    rows = []
    for job in jobs_of(grid):
        p = SimpleNamespace(**job.parameters)
        about = job.parameters | {"notebook": job.notebook, "arm": Arm.planned(p).name}
        rows += [about | {"seed": seed} for seed in range(p.seed, p.seed + p.num_sets)]
    return pd.DataFrame(rows)


def arms_of(grid: str) -> dict[str, int]:
    """The arms of a grid with the number of their sets."""
    return sets_of(grid).groupby("arm", sort=False)["seed"].nunique().to_dict()


def progress(grid: str) -> tuple[int, int]:
    """How many of its planned runs have been made, failed ones too, and how many are planned."""
    names = planned(grid)
    return sum((RESULTS / grid / name).is_file() for name in names), len(names)


def whole(grid: str) -> bool:
    """Whether all its planned runs have been made."""
    done, wanted = progress(grid)
    return done == wanted


def state(grid: str) -> str:
    """How many of its planned runs are there, in words."""
    done, wanted = progress(grid)
    return f"{done} of {wanted} planned runs are there"
