"""The files around the library agree: versions, README, Makefile, notebooks as committed."""

import re
import subprocess
import tomllib
from importlib.metadata import version
from itertools import chain

import nbformat
import pytest
import yaml
from made import ROOT
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"].values()
BOUNDS = [Requirement(text) for text in chain(PROJECT["dependencies"], *EXTRAS)]
CONSTRAINTS = (ROOT / "constraints.txt").read_text()
PINS = {canonicalize_name(pin.name): pin for pin in map(Requirement, re.findall(r"(?m)^\w.*", CONSTRAINTS))}
KEEP_OUTPUT = "# NBVAL_CHECK_OUTPUT"


def conda_environment() -> tuple[list[str], list[str]]:
    """The conda and the pip part of environment.yml."""
    *conda, pip = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    return conda, pip["pip"]


def test_environment_yml_repeats_the_bounds_of_pyproject():
    _, pip = conda_environment()
    assert [r for r in pip if r[0] == "-"] == ["-c constraints.txt", "-e ."]
    assert sorted(str(Requirement(r)) for r in pip if r[0] != "-") == sorted(map(str, BOUNDS))


def test_environment_yml_has_a_python_that_pyproject_allows():
    conda, _ = conda_environment()
    python = next(part.removeprefix("python=") for part in conda if part.startswith("python="))
    assert SpecifierSet(PROJECT["requires-python"]).contains(python)


@pytest.mark.parametrize("bound", BOUNDS, ids=lambda bound: bound.name)
def test_pinned_and_installed_versions_are_within_the_bounds(bound):
    pin = PINS[canonicalize_name(bound.name)]
    [exact] = pin.specifier
    assert exact.operator == "=="
    assert bound.specifier.contains(exact.version, prereleases=True)
    assert bound.specifier.contains(version(bound.name), prereleases=True)


def test_constraints_are_exact_plain_and_name_no_place():
    assert all([s.operator for s in pin.specifier] == ["=="] for pin in PINS.values())
    assert not [pin for pin in PINS.values() if pin.url or Version(next(iter(pin.specifier)).version).local]
    assert not re.search(r"://|/home|file:|@", CONSTRAINTS)


def test_bounds_with_odd_values_carry_their_reason():
    text = (ROOT / "pyproject.toml").read_text()
    for name in ("ipykernel", "jupyter-book", "ruff", "sphinx-mathjax-offline", "torchvision"):
        assert re.search(rf'"{name}[^"]*",\s+# \w', text), f"{name} has no comment"


def test_readme_links_and_commands_point_to_files_that_exist():
    text = (ROOT / "README.md").read_text()
    linked = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    named = re.findall(r"\b(?:notebooks|params)/[\w.]+\.(?:ipynb|yaml)", text)
    assert len(linked) >= 5
    assert len(set(named)) >= 5
    assert not [target for target in linked + named if not (ROOT / target).exists()]


def test_readme_names_only_targets_that_make_has():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert {"book", "test"} <= named <= targets


@pytest.mark.parametrize("command", [["make"], ["make", "help"]], ids=" ".join)
def test_make_help_lists_every_target(command):
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    phony = re.findall(r"^\.PHONY: (\w+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert re.findall(r"^  make (\w+) +\S", shown, re.MULTILINE) == phony


def plan_of(*command: str) -> str:
    """What make would do."""
    make = ["make", "--dry-run", "--always-make", *command]
    return subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_make_book_is_the_smoke_sweep_two_notebooks_and_the_build():
    tools = r"workflow/\S+|book/fold\.py|jupyter-book build"
    lines = [line for line in plan_of("book").splitlines() if re.search(tools, line)]
    done = [re.search(rf"({tools})(?: (\S+))?", line).groups() for line in lines]
    assert done == [
        ("workflow/sweep.py", "params/sweeps/smoke.yaml"),
        ("workflow/execute.py", "notebooks/00_tour.ipynb"),
        ("workflow/execute.py", "notebooks/04_costs.ipynb"),
        ("book/fold.py", "runs/sweeps/smoke/plan/plan.json"),
        ("jupyter-book build", "-q"),
    ]
    assert all(f'DDLIB_{name}="{ROOT}/runs' in lines[0] for name in ("RUNS", "CACHE"))  # nothing outside the project


@pytest.mark.parametrize(("options", "sweep"), [([], "smoke"), (["SWEEP=laptop"], "laptop")])
def test_make_book_shows_the_comparison_of_the_smoke_runs_or_of_a_sweep(options, sweep):
    assert re.findall(r"\S+03_compare\.ipynb", plan_of("book", *options)) == [
        f"runs/sweeps/{sweep}/notebooks/03_compare.ipynb"
    ]


def test_make_published_is_a_sweep_of_its_grid():
    assert "workflow/sweep.py params/sweeps/published.yaml" in plan_of("published")


def test_arms_stand_in_grids_alone():
    """No strategy in the Makefile, the Snakefile or the engine; a benchmark may time one, and lists none."""
    from ddlib.combine import STRATEGIES

    english = {"single", "random", "sequential", "shuffled"}
    engine = [ROOT / "Makefile", *(path for path in (ROOT / "workflow").rglob("*") if path.is_file())]
    benchmarks = list((ROOT / "benchmarks").glob("*.py"))
    assert {"Makefile", "Snakefile", "grid.py", "rows.py"} <= {path.name for path in engine + benchmarks}
    for path in (path for path in engine + benchmarks if path.suffix != ".pyc"):
        named = (STRATEGIES.keys() - english) & set(re.findall(r"\w+", path.read_text()))
        assert len(named) <= (1 if path in benchmarks else 0), f"{path} names {named}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_has_one_parameters_cell_with_typed_explained_defaults(path):
    cells = [c for c in nbformat.read(path, as_version=4).cells if "parameters" in c.metadata.get("tags", [])]
    assert len(cells) == 1
    lines = [line for line in cells[0].source.splitlines() if line and not line.startswith("#")]
    odd = [line for line in lines if not re.fullmatch(r"\w+: [\w\[\], |]+ = .+  # .+", line)]
    assert not odd, f"not 'name: type = default  # meaning': {odd}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_committed_with_the_outputs_that_nbval_compares_alone(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type != "code":
            continue
        if cell.source.startswith(KEEP_OUTPUT):
            texts = [output.name for output in cell.outputs]
            assert texts == ["stdout"], f"run and save: one text, to compare with, of {cell.source[:60]!r}"
            assert cell.execution_count, "nbval takes a cell without a number for one that never ran"
            assert "keep_output" in cell.metadata.tags, "nbstripout goes by this tag"
        else:
            assert not cell.outputs, f"run `make format`: outputs of {cell.source[:60]!r}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_defines_nothing(path):
    """A cell that wants a def belongs in ddlib, with a test."""
    sources = [c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
    assert not re.search(r"^\s*(def|class) ", "\n".join(sources), re.MULTILINE)


def test_there_are_notebooks():
    assert [path.name[:2] for path in NOTEBOOKS] == ["00", "01", "02", "03", "04", "05", "06"]
