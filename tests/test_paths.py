"""Where things lie: argument, then environment, then default; always absolute, never created."""

from pathlib import Path

import platformdirs
import pytest

from ddlib.disk.paths import cache_folder, data_folder
from ddlib.study.places import project_root, runs_folder

CACHE = Path(platformdirs.user_cache_dir("ddlib", appauthor=False))


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in ("DDLIB_DATA", "DDLIB_CACHE", "DDLIB_RUNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def project(tmp_path):
    (tmp_path / "project" / "notebooks" / "deep").mkdir(parents=True)
    (tmp_path / "project" / "pyproject.toml").touch()
    return tmp_path / "project"


def test_data_folder_takes_argument_then_environment_then_cache(monkeypatch, tmp_path):
    assert data_folder() == CACHE / "data"
    monkeypatch.setenv("DDLIB_DATA", str(tmp_path / "environment"))
    assert data_folder() == tmp_path / "environment"
    assert data_folder(tmp_path / "argument") == tmp_path / "argument"
    assert not list(tmp_path.iterdir())


def test_cache_folder_takes_environment_then_cache(monkeypatch, tmp_path):
    assert cache_folder() == CACHE / "ptms"
    monkeypatch.setenv("DDLIB_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path


def test_runs_folder_takes_argument_then_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("DDLIB_RUNS", str(tmp_path / "environment"))
    assert runs_folder() == tmp_path / "environment"
    assert runs_folder(tmp_path / "argument") == tmp_path / "argument"


@pytest.mark.parametrize("inside", [".", "notebooks", "notebooks/deep"])
def test_runs_folder_is_the_same_anywhere_in_the_project(monkeypatch, project, inside):
    monkeypatch.chdir(project / inside)
    assert runs_folder() == project / "runs"


def test_the_nearest_project_wins(monkeypatch, project):
    inner = project / "inner"
    (inner / "notebooks").mkdir(parents=True)
    monkeypatch.chdir(inner)
    assert project_root() == project  # no pyproject.toml of its own
    (inner / "pyproject.toml").touch()
    assert project_root() == inner


def test_runs_folder_outside_of_a_project(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert runs_folder() == tmp_path / "runs"


def test_a_user_that_is_not_there_is_no_riddle(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert data_folder("~nobody-of-that-name/x") == tmp_path / "~nobody-of-that-name" / "x"


def test_empty_variables_count_as_unset(monkeypatch, project):
    for name in ("DDLIB_DATA", "DDLIB_CACHE", "DDLIB_RUNS"):
        monkeypatch.setenv(name, "")
    monkeypatch.chdir(project)
    assert (data_folder(), cache_folder()) == (CACHE / "data", CACHE / "ptms")
    assert runs_folder() == project / "runs"


def test_paths_are_absolute_and_know_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDLIB_CACHE", "~/ptms")
    assert data_folder("sets") == tmp_path / "sets"
    assert cache_folder() == Path.home() / "ptms"
