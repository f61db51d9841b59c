"""From a grid file to a sweep: one job is one notebook, one arm and one group of seeds.

What a job must redo when it changes is its *identity*: its parameters, the code of ddlib that computes, the cells of
the notebook that compute, and the data. A hash of it stands in the name of the job's marker, the file that says that
the job is done; so a job with another identity is another file, and Snakemake makes it.
"""

import importlib.metadata
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import yaml

from ddlib.data.readers import DATASETS, content_hash, dataset_name
from ddlib.fingerprint import code_hash
from ddlib.study.ablations import ABLATIONS
from ddlib.study.alphas import alpha_folders
from ddlib.study.arms import Arm
from ddlib.study.contradictions import IMAGENET
from ddlib.study.parameters import ParameterError, check, declared
from ddlib.study.places import runs_folder
from ddlib.study.pools import needs_ptms
from ddlib.study.provenance import run_files, run_hash
from ddlib.study.record import record_path
from ddlib.study.run import recorded
from ddlib.study.runs import ALPHAS
from workflow.inputs import cells, files_hashes, folder_hash, notebook_hash, reader_hash
from workflow.plan import NOT_SHAPING, ROOT, Grid, GridError, Job, Pool, digest, seeds_word, without, word
from workflow.published import PUBLISHED, wrong_with_published

SEEDS = "seeds"  # of an arm: instead of the grid's
KEYS = {"profile", SEEDS, "arms", "threads", "folder"}
FOR_POOL = ("dataset", "image_size", "evaluate_on", "width", "num_ptms", "source_dataset", "ptm_image_size")
FOR_POOL += ("ptm_architectures", "ptm_epochs", "ptm_epoch", "ptm_seed", "precision", "compile", "device")
OF_EACH_SET = ("seed", "num_sets")  # shape a pool too where each set has its own
TORCH = importlib.metadata.version("torch")


def read_grid(path: str | Path) -> Grid:
    """The jobs of a grid file (see params/sweeps/smoke.yaml), all checked as the notebooks would check them.

    Raises GridError that names the file and lists all that is wrong.
    """
    path = Path(path)
    if not path.is_file():
        known = ", ".join(str(p.relative_to(ROOT)) for p in sorted((ROOT / "params" / "sweeps").glob("*.yaml")))
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
        own = read_seeds(arm[SEEDS]) if SEEDS in arm else groups
        try:
            jobs += jobs_of(notebook, without(arm, [SEEDS]), profile, own, fingerprints)
        except ParameterError as error:
            problems.append(f"{notebook} {arm}: {error}")
    problems += [*twice(jobs), *alphas_on_test(jobs)]
    if problems:
        raise GridError("\n".join(["no job was started, because", *problems]))
    held_out = [record for of in alpha_folders(runs / folder) for record in sorted(of.glob("*.json"))]
    reader = digest([reader_hash(), files_hashes(held_out)])  # the comparison shows those records too
    return Grid(path, runs / folder, threads, jobs, fingerprints.began, reader)


def twice(jobs: Iterable[Job]) -> Iterator[str]:
    """What two jobs would both write."""
    writers: dict[str, str] = {}
    for job in jobs:
        for record in (job.name, *job.records):
            if record in writers:
                yield f"{writers[record]} and {job.name} would write the same record: leave one out"
                break
            writers[record] = job.name


def alphas_on_test(jobs: Iterable[Job]) -> Iterator[str]:
    """What would choose an alpha on the test images: arms that differ in nothing but the weight of a loss."""
    seen: dict[str, dict[str, object]] = {}
    for job in jobs:
        if job.parameters["evaluate_on"] == "test":
            alphas = {name: float(job.parameters[name]) for name in ALPHAS.values()}
            rest = digest(without(job.parameters, {*alphas, "seed", "num_sets"}) | {"notebook": job.notebook})
            if seen.setdefault(rest, alphas) != alphas:
                yield (
                    f"{job.name} and another arm differ in alpha alone, and evaluate_on is test: "
                    "alpha is chosen on the hold-out (evaluate_on: holdout), and the test images are read once"
                )


def jobs_of(
    notebook: str,
    arm: Mapping[str, object],
    profile: Mapping[str, object],
    groups: Sequence[tuple[int, int]],
    fingerprints: "Fingerprints",
) -> list[Job]:
    """A job for each group of seeds; the parameters checked as the notebook checks them. Raises ParameterError.

    An arm whose set is the same for every seed has one job, of the first seed.
    """
    published, arm = arm.get(PUBLISHED, {}), without(arm, [PUBLISHED])
    given, defaults = {**profile, **arm}, declared(cells(notebook)[0])
    parameters = vars(check({name: given.get(name, default) for name, default in defaults.items()}, given))
    if problem := wrong_with_published(published, parameters):
        raise ParameterError(problem)
    data = ", ".join(map(fingerprints.data, sources(parameters)))
    made_with = {"code": fingerprints.code, "notebook": fingerprints.notebook(notebook), "data": data, "torch": TORCH}
    shown = all(defaults[name] == value for name, value in arm.items())
    name, jobs = word("-".join(map(word_of, arm, arm.values()))), []
    if not Arm.planned(SimpleNamespace(**parameters)).replicated:
        groups = [(groups[0][0], 1)]
    for first, count in groups:
        of_these = parameters | {"seed": first, "num_sets": count}
        written = records(notebook, of_these, fingerprints.folder_files)
        pool = pool_of(of_these, made_with | {"code": fingerprints.pool_code})
        jobs.append(Job(notebook, name, of_these, pool, made_with, written, shown, published))
    return jobs


def word_of(parameter: str, value: object) -> str:
    """What a parameter of an arm adds to its name: a text stands for itself, a switch is named if it is on."""
    if isinstance(value, str):
        return value
    return parameter if value is True else f"{parameter}{value}"


def sources(parameters: Mapping[str, object]) -> list[str]:
    """The data sets that are read: that of the run, and that of its PTMs if it is another."""
    other = parameters["source_dataset"]
    return [parameters["dataset"]] + ([other] if other not in (None, IMAGENET) else [])


def records(
    notebook: str, parameters: Mapping[str, object], hash_of: Callable[[str], str | None] = content_hash
) -> list[str]:
    """Names of the records of a job, one for each seed."""
    p = SimpleNamespace(**parameters)
    shared = recorded(p, dataset_name(p.dataset), hash_of)
    return [record_path("", notebook, shared, seed).name for seed in range(p.seed, p.seed + p.num_sets)]


def pool_of(parameters: Mapping[str, object], made_with: Mapping[str, str]) -> Pool | None:
    """The PTMs that a job asks for: one pool for all sets, or those of its own group of seeds, trained together."""
    if not needs_ptms(SimpleNamespace(**parameters)):
        return None
    shared = {name: parameters[name] for name in FOR_POOL}
    seeds = {name: parameters[name] for name in OF_EACH_SET} if shared["ptm_seed"] is None else {}
    source = shared["source_dataset"] or dataset_name(shared["dataset"])
    shaping = digest(without(shared, NOT_SHAPING))  # pools that differ in anything but code and data have two names
    name = word(f"{source}-{shared['ptm_architectures']}-x{shared['num_ptms']}-{shaping}")
    name += f"-{seeds_word(*seeds.values())}" if seeds else ""
    return Pool(name, shared | seeds, without(made_with, ["notebook"]))


class Fingerprints:
    """Hashes that many jobs share, each computed once."""

    def __init__(self):
        self.code, self.pool_code = run_hash(), code_hash("ptms/training")
        self.folders: dict[str, str] = {}
        self.notebooks: dict[str, str] = {}
        self.folder_files = cache(content_hash)

    def data(self, dataset: str) -> str:
        """Of a data set: its name (records hold a hash of its content); of an image folder: all that is in it."""
        if dataset not in DATASETS and dataset not in self.folders:
            if not Path(dataset).expanduser().is_dir():
                known = ", ".join(DATASETS)
                raise ParameterError(f"dataset is {dataset!r}; expected one of {known}, or an image folder")
            self.folders[dataset] = folder_hash(dataset)
        return self.folders.get(dataset, dataset)

    def notebook(self, notebook: str) -> str:
        """Of the code in a notebook up to where its records are written."""
        if notebook not in self.notebooks:
            self.notebooks[notebook] = notebook_hash(notebook)
        return self.notebooks[notebook]

    @property
    def began(self) -> dict[str, dict[str, str]]:
        """What the jobs compare with what they find."""
        return {"code": files_hashes(sorted(run_files())), "folders": self.folders}


def read_profile(profile: object) -> dict[str, object]:
    """The parameters that all arms share: a name in params/ (without .yaml), or a mapping with ``base`` and changes."""
    changes = {}
    if isinstance(profile, dict):
        changes = without(profile, ["base"])
        refuse_reserved("profile", changes)
        profile = profile.get("base")
    path = ROOT / "params" / f"{profile}.yaml"
    if not isinstance(profile, str) or not re.fullmatch(r"\w+", profile) or not path.is_file():
        known = ", ".join(sorted(p.stem for p in (ROOT / "params").glob("*.yaml")))
        raise GridError(f"profile is {profile!r}; expected a name in params/: {known}")
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise GridError(f"{path} holds {type(values).__name__}; expected parameters and their values")
    return {**values, **changes}


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
        values |= {SEEDS: [arm[SEEDS]]} if SEEDS in arm else {}  # groups of seeds are a list, and no arms
        notebook = arm.get("notebook")
        if not isinstance(notebook, str) or notebook not in ABLATIONS:
            raise GridError(f"notebook is {notebook!r}; expected one of {', '.join(ABLATIONS)}")
        refuse_reserved("an arm", arm)
        if empty := [name for name, value in values.items() if not value]:
            raise GridError(f"an arm has no value for {', '.join(empty)}")
        if PUBLISHED in arm and any(len(value) > 1 for value in values.values()):
            raise GridError(f"an arm with {PUBLISHED} accuracies has lists; these belong to one arm: {arm}")
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


def inside(path: Path, folder: Path) -> bool:
    """Whether a path lies below a folder, links and ``..`` followed."""
    return folder.resolve() in path.resolve().parents
