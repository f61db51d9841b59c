"""From a grid file to jobs: one job is one notebook, one arm and one group of seeds.

What a job must redo when it changes is its *identity*: its parameters, the code of ddlib that computes, the cells of
the notebook that compute, and the data. A hash of it stands in the name of the job's marker, the file that says that
the job is done; so a job with another identity is another file, and Snakemake makes it.
"""

import ast
import hashlib
import importlib.metadata
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from types import SimpleNamespace

import nbformat
import yaml

from ddlib.data.readers import DATASETS, dataset_name
from ddlib.fingerprint import code_hash
from ddlib.study import run as study
from ddlib.study.cells import INJECTED
from ddlib.study.contradictions import IMAGENET
from ddlib.study.parameters import ParameterError, check_parameters
from ddlib.study.places import runs_folder
from ddlib.study.provenance import run_hash
from ddlib.study.record import record_path

PROJECT = Path(__file__).parents[1]
NOTEBOOKS = ("01_guidance", "02_ensemble")
KEYS = {"profile", "seeds", "arms", "threads", "folder"}
FOR_POOL = ("dataset", "image_size", "evaluate_on", "width", "num_ptms", "source_dataset", "ptm_image_size")
FOR_POOL += ("ptm_architectures", "ptm_epochs", "ptm_epoch", "ptm_seed", "device")
NOT_SHAPING = ("device", "runs_folder")
TORCH = importlib.metadata.version("torch")
COMPUTES = "run.run_arm"  # the last cell of a notebook that shapes a record calls this


class GridError(ValueError):
    """A grid file that makes no sweep: all that is wrong with it."""


def digest(value: object) -> str:
    """Eight hex digits for a value that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Pool:
    """PTMs that arms share, trained once before them."""

    parameters: Mapping[str, object]
    data: str
    code: str

    @cached_property
    def identity(self) -> dict[str, object]:
        """What shapes the PTMs."""
        return {
            "parameters": without(self.parameters, NOT_SHAPING),
            "code": self.code,
            "data": self.data,
            "torch": TORCH,
        }

    @property
    def name(self) -> str:
        """Of its marker and in tables."""
        of = self.parameters
        source = of["source_dataset"] or dataset_name(of["dataset"])
        shaping = digest(without(of, NOT_SHAPING))  # pools that differ in anything but code and data have two names
        return word(f"{source}-{of['ptm_architectures']}-x{of['num_ptms']}-{shaping}")

    @property
    def marker(self) -> str:
        """The file that says that it is there, in the folder of the sweep."""
        return f"pools/{self.name}.{digest(self.identity)}.json"


@dataclass(frozen=True)
class Job:
    """One notebook, one arm, one group of seeds."""

    notebook: str
    arm: str
    parameters: Mapping[str, object]  # all that the notebook declares
    pool: Pool | None
    identity: Mapping[str, object]

    @property
    def name(self) -> str:
        """Of its marker, its log and its executed notebook."""
        first, count = self.parameters["seed"], self.parameters["num_sets"]
        seeds = f"seed{first}" if count == 1 else f"seeds{first}-{first + count - 1}"
        return f"{self.notebook}-{self.arm}-{seeds}"

    @cached_property
    def marker(self) -> str:
        """The file that says that it is done, in the folder of the sweep."""
        return f"jobs/{self.name}.{digest(self.identity)}.json"

    @property
    def records(self) -> list[str]:
        """Names of the records that it writes."""
        p = SimpleNamespace(**self.parameters)
        shared = study.recorded(p, dataset_name(p.dataset))
        seeds = range(p.seed, p.seed + p.num_sets)
        return [record_path("", self.notebook, shared, seed).name for seed in seeds]


@dataclass(frozen=True)
class Grid:
    """A sweep: its folder and its jobs."""

    path: Path
    folder: Path
    threads: int
    jobs: list[Job]

    @property
    def pools(self) -> list[Pool]:
        """Each once, in the order of the first job that needs it."""
        return list({job.pool.marker: job.pool for job in self.jobs if job.pool}.values())


def read_grid(path: str | Path) -> Grid:
    """The jobs of a grid file (see params/sweeps/smoke.yaml), all checked as the notebooks would check them.

    Raises GridError that names the file and lists all that is wrong.
    """
    path = Path(path)
    if not path.is_file():
        known = ", ".join(str(p.relative_to(PROJECT)) for p in sorted((PROJECT / "params" / "sweeps").glob("*.yaml")))
        raise GridError(f"there is no grid {path}; known: {known}")
    grid = read_yaml(path)
    try:
        return _grid(path, grid)
    except GridError as error:
        raise GridError(f"{path}: {error}") from error


def _grid(path: Path, grid: object) -> Grid:
    if not isinstance(grid, dict) or not {"profile", "seeds", "arms"} <= set(grid) <= KEYS:
        found = sorted(map(str, grid)) if isinstance(grid, dict) else type(grid).__name__
        raise GridError(f"holds {found}; expected profile, seeds, arms, and perhaps threads and folder")
    threads, folder = grid.get("threads", 1), grid.get("folder") or f"sweeps/{path.stem}"
    if type(threads) is not int or threads < 1:
        raise GridError(f"threads is {threads!r}; expected a whole number from 1")
    runs = runs_folder()
    if not isinstance(folder, str) or not inside(runs / folder, runs):
        raise GridError(f"folder is {folder!r}; expected a folder inside {runs}")
    profile = read_profile(grid["profile"])
    arms, groups, fingerprints = list(read_arms(grid["arms"])), read_seeds(grid["seeds"]), Fingerprints()
    jobs, problems = [], []
    for notebook, arm in arms:
        try:
            jobs += jobs_of(notebook, arm, profile, groups, fingerprints)
        except ParameterError as error:
            problems.append(f"{notebook} {arm}: {error}")
    writers: dict[str, str] = {}
    for job in jobs:
        for record in (job.name, *job.records):
            if record in writers:
                problems.append(f"{writers[record]} and {job.name} would write the same record: leave one out")
                break
            writers[record] = job.name
    if problems:
        raise GridError("\n".join(["no job was started, because", *problems]))
    return Grid(path, runs / folder, threads, jobs)


def jobs_of(
    notebook: str,
    arm: Mapping[str, object],
    profile: Mapping[str, object],
    groups: Sequence[tuple[int, int]],
    fingerprints: "Fingerprints",
) -> list[Job]:
    """A job for each group of seeds; the parameters checked as the notebook checks them. Raises ParameterError."""
    given = {**profile, **arm}
    source = cells(notebook)[0]
    declared = {line.target.id: ast.literal_eval(line.value) for line in ast.parse(source).body}
    injected = "\n".join([INJECTED, *(f"{name} = {value!r}" for name, value in given.items())])
    parameters = vars(check_parameters({"In": [source, injected], **declared, **given}))
    data, pool = fingerprints.of(parameters["dataset"]), None
    if parameters["source_dataset"] not in (None, IMAGENET):
        data += f", {fingerprints.of(parameters['source_dataset'])}"
    if study.needs_ptms(SimpleNamespace(**parameters)):
        pool = Pool({name: parameters[name] for name in FOR_POOL}, data, fingerprints.pool_code)
    code = {"code": fingerprints.code, "notebook": fingerprints.cells(notebook), "data": data, "torch": TORCH}
    words = [v if isinstance(v, str) else name if v is True else f"{name}{v}" for name, v in arm.items()]
    jobs = []
    for first, count in groups:
        of_these = parameters | {"seed": first, "num_sets": count}
        identity = {"parameters": without(of_these, NOT_SHAPING), **code}
        jobs.append(Job(notebook, word("-".join(words)), of_these, pool, identity))
    return jobs


class Fingerprints:
    """Hashes that many jobs share, each computed once."""

    def __init__(self):
        self.code, self.pool_code = run_hash(), code_hash("ptms/training")
        self.folders: dict[str, str] = {}
        self.notebooks: dict[str, str] = {}

    def of(self, dataset: str) -> str:
        """Of a data set: its name (records hold a hash of its content); of an image folder: all that is in it."""
        if dataset not in DATASETS and dataset not in self.folders:
            if not Path(dataset).expanduser().is_dir():
                raise ParameterError(
                    f"dataset is {dataset!r}; expected one of {', '.join(DATASETS)} or an image folder"
                )
            self.folders[dataset] = folder_hash(Path(dataset).expanduser())
        return self.folders.get(dataset, dataset)

    def cells(self, notebook: str) -> str:
        """Of the code in a notebook up to where its records are written; comments do not count."""
        if notebook not in self.notebooks:
            code = cells(notebook)[1:]  # without the defaults: they are among the parameters
            last = max(index for index, source in enumerate(code) if COMPUTES in source)
            self.notebooks[notebook] = digest([ast.dump(ast.parse(source)) for source in code[: last + 1]])
        return self.notebooks[notebook]


def folder_hash(folder: Path) -> str:
    """Eight hex digits for the names and bytes of all files in a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return digest.hexdigest()[:8]


def cells(notebook: str) -> list[str]:
    """The code cells of a notebook of the project, that with the parameters first."""
    return read_cells(PROJECT / "notebooks" / f"{notebook}.ipynb")


@cache
def read_cells(path: Path) -> list[str]:
    """The same by the path, read once."""
    try:
        found = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    except (OSError, ValueError, nbformat.ValidationError) as error:
        raise GridError(f"{path} cannot be read ({type(error).__name__}); take it from the repository again") from error
    found.sort(key=lambda cell: "parameters" not in cell.metadata.get("tags", []))
    return [cell.source for cell in found]


def read_profile(profile: object) -> dict[str, object]:
    """The parameters that all arms share: a name in params/ (without .yaml), or a mapping with ``base`` and changes."""
    changes = {}
    if isinstance(profile, dict):
        changes = without(profile, ["base"])
        refuse_reserved("profile", changes)
        profile = profile.get("base")
    path = PROJECT / "params" / f"{profile}.yaml"
    if not isinstance(profile, str) or not re.fullmatch(r"\w+", profile) or not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) if isinstance(profile, str) else ""
        raise GridError(f"profile is {profile!r}; expected a name in params/: {known}")
    return {**read_yaml(path), **changes}


def read_yaml(path: Path) -> object:
    """What a YAML file holds. Raises GridError that names it."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise GridError(f"{path}: not YAML ({' '.join(str(error).split())})") from error


def refuse_reserved(where: str, names: Iterable[object]) -> None:
    """Raise GridError for names that the grid sets by itself, and for keys that are no words."""
    if bad := sorted(map(str, {"seed", "num_sets", *NOT_SHAPING} & set(names))):
        raise GridError(f"{where} sets {', '.join(bad)}: the grid sets seeds and folder, and each job takes its device")
    if odd := [name for name in names if not isinstance(name, str)]:
        raise GridError(f"{where} has the keys {odd}; expected names of parameters")


def read_arms(arms: object) -> Iterator[tuple[str, dict[str, object]]]:
    """(notebook, what distinguishes the arm): a list in the grid stands for one arm for each of its values."""
    if not isinstance(arms, list) or not arms or not all(isinstance(arm, dict) for arm in arms):
        raise GridError("arms is no list of mappings, such as - {notebook: 01_guidance, guidance: [clom, cclom]}")
    for arm in arms:
        values = {name: value if isinstance(value, list) else [value] for name, value in arm.items()}
        notebook = arm.get("notebook")
        if notebook not in NOTEBOOKS:
            raise GridError(f"notebook is {notebook!r}; expected one of {', '.join(NOTEBOOKS)}")
        refuse_reserved("an arm", arm)
        if empty := [name for name, value in values.items() if not value]:
            raise GridError(f"an arm has no value for {', '.join(empty)}")
        del values["notebook"]
        for chosen in itertools.product(*values.values()):
            yield notebook, dict(zip(values, chosen, strict=True))


def read_seeds(seeds: object) -> list[tuple[int, int]]:
    """Groups of seeds as (first, number): ``[0-2, 3]`` are two groups, the seeds 0 to 2 and the seed 3."""
    groups = []
    for group in seeds if isinstance(seeds, list) else []:
        found = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", str(group))
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if isinstance(group, bool) or first > last:
            raise GridError(f"a group of seeds is {group!r}; expected a seed or a range such as 0-2")
        groups.append((first, last - first + 1))
    taken = [seed for first, count in groups for seed in range(first, first + count)]
    if not taken or len(set(taken)) < len(taken):
        raise GridError(f"seeds is {seeds!r}; expected a list of seeds and ranges without repeats, such as [0-2, 3]")
    return groups


def without(values: Mapping[str, object], names: Iterable[str]) -> dict[str, object]:
    """A mapping without some names."""
    return {name: value for name, value in values.items() if name not in names}


def inside(path: Path, folder: Path) -> bool:
    """Whether a path lies below a folder, links and ``..`` followed."""
    return folder.resolve() in path.resolve().parents


def word(text: str) -> str:
    """The text as part of a file name."""
    return re.sub(r"[^\w.-]+", "_", text) or "arm"
