"""The notebooks as commands: their guard under papermill, and that profiles and defaults agree."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml
from made import ROOT

from ddlib.study.parameters import PARAMETERS, allowed_of, check, check_parameters, declared, type_of
from workflow.inputs import cells

ARMS = [ROOT / "notebooks" / f"{name}.ipynb" for name in ("01_guidance", "02_ensemble", "06_ptm_options")]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PROFILES = sorted((ROOT / "params").glob("*.yaml"))
OF_THE_ARM = {"guidance", "strategy", "num_ptms", "equal_passes", "guide_every", "base_method", "device", "runs_folder"}


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def parameters_cell(path: Path) -> str:
    return cells(path.stem)[0]


def defaults(path: Path) -> dict[str, object]:
    return declared(parameters_cell(path))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_guard_is_the_first_statement_after_the_parameters(path):
    sources = [cell.source for cell in code_cells(path)]
    place = sources.index(parameters_cell(path))
    assert place == 0
    before, guard, _ = sources[1].partition("p = check_parameters(globals())")
    assert guard
    assert set(before.split("\n")) == {"from ddlib.study.parameters import check_parameters", ""} | (
        {"import ddlib"} & set(before.split("\n"))
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_defaults_pass_the_guard(path):
    values = defaults(path)
    p = check_parameters({"In": ["", parameters_cell(path)], **values})
    assert vars(p) == values


def test_notebooks_that_run_an_arm_have_the_same_parameters():
    first, *others = (defaults(path) for path in ARMS)
    differ = [{name for name in first if first[name] != other[name]} for other in others]
    assert all(list(other) == list(first) for other in others)
    assert differ == [{"strategy", "num_ptms"}] * 2


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_a_profile_sets_all_but_the_arm_and_passes_the_guard(path):
    profile = yaml.safe_load(path.read_text())
    assert set(profile) == set(defaults(ARMS[0])) - OF_THE_ARM
    for notebook in ARMS:
        assert vars(check(defaults(notebook) | profile, given=profile)) == defaults(notebook) | profile


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_every_key_of_a_profile_is_commented(path):
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    blocks = path.read_text().split("\n\n")
    for line in lines:
        key = line.split(":")[0]
        block = next(block for block in blocks if f"\n{key}:" in f"\n{block}")
        assert "#" in line or block.startswith("#"), f"{key} has no comment"


def test_the_defaults_of_the_notebooks_are_the_smoke_profile():
    profile = yaml.safe_load((ROOT / "params" / "smoke.yaml").read_text())
    for notebook in ARMS:
        assert {name: defaults(notebook)[name] for name in profile} == profile


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_cell_says_what_the_declaration_says(path):
    """Types, defaults and meanings stand once, in the model; papermill and readers need them in the cells too."""
    other_meaning = {("03_compare", "base_method")}
    for line in parameters_cell(path).splitlines():
        name, kind, _, comment = re.fullmatch(r"(\w+): ([^=]+) = (.+?)  # (.+)", line).groups()
        field, unset = PARAMETERS[name], allowed_of(name).none
        assert kind == type_of(name)
        if (path.stem, name) not in other_meaning:
            assert comment.startswith(field.description)
        assert comment.endswith(f"; None: {unset}") == (unset is not None)


def test_the_defaults_of_the_model_are_those_of_the_first_ablation():
    for path in (ARMS[0], *(path for path in NOTEBOOKS if path.stem[:2] in ("03", "04"))):
        assert {name: PARAMETERS[name].default for name in defaults(path)} == defaults(path)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_papermill_finds_every_parameter(path):
    """It lists them on demand, and logs a warning for others; it reads annotations with a pattern of its own."""
    found = papermill.inspect_notebook(path)
    assert list(found) == list(defaults(path))
    assert [about["inferred_type_name"] for about in found.values()] == [type_of(name) for name in found]
    assert all(about["help"] for about in found.values())


def test_every_parameter_is_declared_by_a_notebook():
    assert {name for path in NOTEBOOKS for name in defaults(path)} == set(PARAMETERS)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (("stratgey", "random"), "num_ptms"),
        (("lr_img", "0.0"), "or None for"),
    ],
    ids=lambda value: "-p " + " ".join(value) if isinstance(value, tuple) else "",
)
def test_papermill_fails_on_bad_parameters_before_any_work(tmp_path, option, says):
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", str(ARMS[1]), str(tmp_path / "out.ipynb")]
    run = subprocess.run([*command, "-p", *option], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode != 0
    assert "ParameterError" in run.stderr
    assert says in run.stderr
    executed = [cell for cell in code_cells(tmp_path / "out.ipynb") if cell.execution_count and cell.source]
    assert len(executed) <= 4  # papermill's own error notice, parameters, injected, guard
    assert not (tmp_path / "runs").exists()


def test_an_arm_runs_in_any_folder_and_leaves_a_record(tmp_path, folders):
    """The shortest true run: papermill, one set, one network; far from the project's folder."""
    short = {"iterations": 2, "num_sets": 1, "num_eval": 1, "eval_epochs": 2, "ptm_epochs": 1, "width": 4}
    options = [word for name, value in short.items() for word in ("-p", name, str(value))]
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", str(ARMS[1]), str(tmp_path / "out.ipynb")]
    options += ["-p", "architectures", "ConvNet-3", "-p", "image_size", "None"]
    run = subprocess.run([*command, *options], capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr[-3000:]
    assert len(list((tmp_path / "runs").glob("02_ensemble-*-seed0.json"))) == 1
    assert len(list((tmp_path / "runs").glob("02_ensemble-*-seed0.safetensors"))) == 1
    assert not list((tmp_path / "runs").glob(".*"))
