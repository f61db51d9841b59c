"""What a sweep is made of, and the file that says it to its jobs.

A grid file becomes a :class:`Grid` in workflow/grid.py, which needs the whole of ddlib to check the parameters. A sweep
writes it down once, as its plan; the Snakefile and the jobs read only that. So nothing here imports torch, which would
cost each of hundreds of jobs seconds.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOT_SHAPING = ("device", "runs_folder")
PLAN = Path("plan", "plan.json")  # in the folder of the sweep, where *.json are records
SO_FAR = "plan/comparison.so_far.json"  # the marker of a comparison without the jobs that failed


class GridError(ValueError):
    """A grid file that makes no sweep: all that is wrong with it."""


@dataclass(frozen=True)
class Pool:
    """PTMs that arms share, trained once before them."""

    name: str  # of its marker and in tables
    parameters: Mapping[str, object]
    made_with: Mapping[str, str]  # what else shapes the PTMs: code, data, version of torch

    @cached_property
    def identity(self) -> dict[str, object]:
        """What shapes the PTMs."""
        return {"parameters": without(self.parameters, NOT_SHAPING), **self.made_with}

    @cached_property
    def marker(self) -> str:
        """The file that says that they are there, in the folder of the sweep."""
        return f"pools/{self.name}.{digest(self.identity)}.json"


@dataclass(frozen=True)
class Job:
    """One notebook, one arm, one group of seeds."""

    notebook: str
    arm: str
    parameters: Mapping[str, object]  # all that the notebook declares
    pool: Pool | None
    made_with: Mapping[str, str]  # what else shapes the records: code, cells of the notebook, data, version of torch
    records: list[str]  # names of those that it writes
    shown: bool = False  # whether it is what the notebook does by default: the arm that the book shows
    published: Mapping[str, float] = field(default_factory=dict)  # accuracy in percent by evaluation; shapes nothing

    @property
    def name(self) -> str:
        """Of its marker, its log and its executed notebook."""
        return f"{self.notebook}-{self.arm}-{seeds_word(self.parameters['seed'], self.parameters['num_sets'])}"

    @cached_property
    def identity(self) -> dict[str, object]:
        """What shapes the records."""
        return {"parameters": without(self.parameters, NOT_SHAPING), **self.made_with}

    @cached_property
    def marker(self) -> str:
        """The file that says that it is done, in the folder of the sweep."""
        return f"jobs/{self.name}.{digest(self.identity)}.json"


@dataclass(frozen=True)
class Grid:
    """A sweep: its folder and its jobs."""

    path: Path
    folder: Path
    threads: int
    jobs: list[Job]
    began: Mapping[str, Mapping[str, str]]  # hashes of code and of image folders: see workflow/inputs.py
    reader: str  # hash of what makes the comparison out of records, and of what else it shows

    @property
    def pools(self) -> list[Pool]:
        """Each once, in the order of the first job that needs it."""
        return list({job.pool.marker: job.pool for job in self.jobs if job.pool}.values())

    @cached_property
    def comparison_identity(self) -> dict[str, object]:
        """What shapes the comparison."""
        return {"jobs": digest(sorted(job.marker for job in self.jobs)), "reader": self.reader}

    @property
    def comparison(self) -> str:
        """The marker of the comparison, in the folder of the sweep."""
        return f"plan/comparison.{digest(self.comparison_identity)}.json"

    def executed(self, job: Job) -> Path:
        """Where the executed notebook of a job lies."""
        return self.folder / "notebooks" / f"{job.name}.ipynb"


def plan_text(grid: Grid) -> str:
    """The plan of a sweep as JSON; it names no folder, since its own place says it."""
    places = {pool.marker: index for index, pool in enumerate(grid.pools)}
    jobs = [fields(job) | {"pool": places[job.pool.marker] if job.pool else None} for job in grid.jobs]
    plan = without(fields(grid), ["folder"]) | {"path": str(grid.path), "jobs": jobs}
    return json.dumps(plan | {"pools": [fields(pool) for pool in grid.pools]})


def read_plan(path: str | Path) -> Grid:
    """The sweep that a plan describes. Raises GridError, naming the file, if it cannot be read."""
    path = Path(path)
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        pools = [Pool(**pool) for pool in plan.pop("pools")]
        jobs = [Job(**job | {"pool": None if job["pool"] is None else pools[job["pool"]]}) for job in plan.pop("jobs")]
        return Grid(**plan | {"path": Path(plan["path"]), "folder": path.absolute().parents[1], "jobs": jobs})
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise GridError(f"{path} is not the plan of a sweep ({error!r:.200}): start the sweep again") from error


def fields(value: object) -> dict[str, object]:
    """The fields of a dataclass by their names, those inside as they are."""
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def digest(value: object) -> str:
    """Eight hex digits for a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def without(values: Mapping[str, object], names: Iterable[str]) -> dict[str, object]:
    """A mapping without some names."""
    return {name: value for name, value in values.items() if name not in names}


def seeds_word(first: int, count: int) -> str:
    """A group of seeds as the end of a name."""
    return f"seed{first}" if count == 1 else f"seeds{first}-{first + count - 1}"


def word(text: str) -> str:
    """The text as part of a file name."""
    return re.sub(r"[^\w.-]+", "_", text) or "arm"
