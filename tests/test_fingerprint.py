"""Which code a number came from: what counts, what does not, and when."""

import shutil

import pytest

from ddlib import fingerprint
from ddlib.fingerprint import PACKAGE, code_hash
from ddlib.study import provenance
from ddlib.study.provenance import run_hash


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package to change; each look is that of a new process."""
    shutil.copytree(PACKAGE, tmp_path / "ddlib", ignore=shutil.ignore_patterns("__pycache__"))
    for module in (fingerprint, provenance):
        monkeypatch.setattr(module, "PACKAGE", tmp_path / "ddlib")
    return tmp_path / "ddlib"


def look():
    fingerprint._code_hash.cache_clear()
    provenance._run_hash.cache_clear()
    return {"core": code_hash(), "PTM": code_hash("ptms/training"), "run": run_hash()}


@pytest.mark.parametrize(
    ("file", "changed"),
    [
        ("losses.py", {"core", "run"}),
        ("data/dataset.py", {"core", "run"}),
        ("networks.py", {"core", "run", "PTM"}),
        ("augmentation.py", {"core", "run", "PTM"}),
        ("rng.py", {"core", "run", "PTM"}),
        ("training.py", {"core", "run", "PTM"}),
        ("ptms/training.py", {"core", "run", "PTM"}),
        ("ptms/pool.py", {"core", "run"}),
        ("study/run.py", {"run"}),
        ("study/pools.py", {"run"}),
        ("study/figures.py", set()),
        ("study/statistics.py", set()),
        ("disk/files.py", set()),
    ],
)
def test_a_folder_says_what_counts(package, file, changed):
    before = look()
    with (package / file).open("a") as source:
        source.write("x = 2\n")
    after = look()
    assert {name for name in before if before[name] != after[name]} == changed


def test_a_new_file_counts(package):
    before = look()
    (package / "new.py").write_text("x = 1\n")
    assert look()["core"] != before["core"]


def test_a_process_keeps_the_code_that_it_has_imported(package):
    before = look()["core"]
    (package / "losses.py").write_text("x = 2\n")
    assert code_hash() == before


def test_the_code_of_a_ptm_is_all_that_its_training_imports():
    """Followed through the files, and nothing of the losses, whose change would train every PTM again."""
    names = {path.relative_to(PACKAGE).as_posix() for path in fingerprint._closure(PACKAGE, "ptms/training")}
    assert {"ptms/training.py", "training.py", "networks.py", "augmentation.py", "rng.py"} <= names
    assert not {"losses.py", "combine.py", "distill.py", "ptms/pool.py"} & names
