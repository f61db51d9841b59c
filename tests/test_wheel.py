"""What is installed: a wheel with the library and nothing else, under a name that is not somebody else's."""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes

import pytest
from made import ROOT

import ddlib
from ddlib.study import provenance

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
INSTALLED = {one.metadata["Name"] for one in importlib.metadata.distributions()}
MISSING = sorted({"pip", "setuptools"} - INSTALLED)  # looking for the modules would change what setuptools does


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy of what is needed, without network: setuptools is here."""
    if MISSING:
        pytest.skip(f"needs {', '.join(MISSING)}")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("ddlib", "benchmarks", "workflow"):  # the latter must not be taken along
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    (source / "tests").mkdir()
    (source / "tests" / "test_nothing.py").touch()
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", out]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, source], check=True, capture_output=True)
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_the_library_as_it_is_and_no_test(wheel):
    code = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert code == {path.relative_to(ROOT).as_posix() for path in (ROOT / "ddlib").rglob("*.py")}
    assert all(wheel.read(name) == (ROOT / name).read_bytes() for name in code)


def test_what_the_wheel_says_of_itself(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    about = message_from_bytes(wheel.read(name))
    assert about["Name"] == PROJECT["name"] != "ddlib"
    assert [requirement for requirement in about.get_all("Requires-Dist") if "extra ==" not in requirement]
    pythons = {text.rpartition(" ")[2] for text in about.get_all("Classifier") if ":: Python :: 3" in text}
    assert pythons == {"3.11", "3.12", "3.13"}
    assert any(name.endswith("/LICENSE") for name in wheel.namelist())


def test_the_wheel_is_imported_from_where_it_lies(wheel, tmp_path):
    wheel.extractall(tmp_path)
    code = "import ddlib, ddlib.study.provenance as p; print(ddlib.__file__, p.run_hash())"
    command = [sys.executable, "-c", code]
    shown = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert shown.stdout.split() == [str(tmp_path / "ddlib" / "__init__.py"), provenance.run_hash()], shown.stderr


def test_records_tell_the_version_of_this_distribution(monkeypatch):
    versions = {PROJECT["name"]: "1.2.3", "ddlib": "of somebody else"}
    monkeypatch.setattr(importlib.metadata, "version", lambda name: versions.get(name, "9"))
    assert provenance.environment()["ddlib"] == "1.2.3"


def test_no_file_tells_to_install_somebody_else_s_package():
    for path in (ROOT / name for name in ("README.md", "CONTRIBUTING.md", "Dockerfile", "environment.yml")):
        assert not re.search(r"pip install [^\n]*\bddlib(?!-ptm)\b", path.read_text())


def test_the_snippet_of_the_readme_runs(tmp_path, monkeypatch):
    """With less of everything."""
    monkeypatch.setenv("DDLIB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (snippet,) = re.findall(r"(?s)```python\n(import ddlib\n.*?)```", (ROOT / "README.md").read_text())
    less = re.sub(r"(epochs|iterations)=\d+", r"\1=1", snippet).replace("width=16", "width=4")
    assert less != snippet
    names = {}
    exec(compile(less, "README.md", "exec"), names)
    assert len(names["accuracies"]) == 2
    assert len(ddlib.SyntheticSet.load("ten_images.safetensors").images) == 10
