"""Disks that are full, read-only or somebody else's: a clear error, earlier results as they were, and no litter."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
import torch
from made import IMAGES, a_run, a_state, files_of_at_most

import ddlib.ptms.pool
import ddlib.ptms.training
from ddlib.data.dataset import ImageFormat
from ddlib.ptms.pool import train_ptms
from ddlib.study.record import read_record, write_record
from ddlib.synthetic import SyntheticSet

NOBODY = 65534
FORMAT = ImageFormat(*IMAGES.shape[1:3], (0.5,), (0.25,))


def synthetic(seed):
    images = IMAGES + seed
    return SyntheticSet(images, torch.arange(3), FORMAT, ("ant", "bee", "cat"))


WRITERS = {  # what -> how to write it into a folder, another content for every seed
    "record": lambda folder, seed: write_record(folder, **a_run(ptm_passes=seed)),
    "synthetic set": lambda folder, seed: synthetic(seed).save(folder / "set.safetensors"),
    "grid": lambda folder, seed: synthetic(seed).save_grid(folder / "grid.png"),
    "reference": lambda folder, seed: synthetic(seed).save_reference(folder / "set.pt"),
    "checkpoint": lambda folder, seed: a_state(2 + seed).save(folder / ".run.checkpoint"),
}


def content(folder):
    """All files but locks, which stay."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"}


@pytest.mark.parametrize(
    ("write", "read"),
    [
        (lambda one: one.save("~/a/set.safetensors"), lambda: SyntheticSet.load("~/a/set.safetensors")),
        (lambda one: one.export("~/a/set"), lambda: SyntheticSet.from_folder("~/a/set")),
    ],
    ids=["file", "folder"],
)
def test_the_home_folder_may_be_a_tilde(tmp_path, monkeypatch, write, read):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))  # on Windows
    monkeypatch.chdir(tmp_path)
    write(synthetic(0))
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    torch.testing.assert_close(read().labels, synthetic(0).labels)


@pytest.fixture
def disk(tmp_path):
    """``disk(options)`` mounts a small file system of its own, or mounts it again with other options."""
    folder, mounted = tmp_path / "disk", set()
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
        done = subprocess.run(command, capture_output=True, text=True) if shutil.which("mount") else None
        if done is None or done.returncode:
            pytest.skip("nothing can be mounted here" + (f": {done.stderr.strip()}" if done else ""))
        mounted.add(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


def fill(folder):
    """Take all the room that is left."""
    with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    assert shutil.disk_usage(folder).free == 0


def refused(write, folder, *words):
    before = content(folder)
    with pytest.raises(OSError, match=r"cannot be written \(") as error:
        write()
    assert content(folder) == before
    for word in (str(folder), "What was there before is as it was", "DDLIB_RUNS", *words):
        assert word in str(error.value)


@pytest.mark.parametrize("what", WRITERS)
def test_a_full_disk(disk, what):
    folder, write = disk("size=256k"), WRITERS[what]
    write(folder, 0)
    fill(folder)
    refused(lambda: write(folder, 1), folder, "No space left on device", "free some space there")
    refused(lambda: write(folder / "new", 1), folder)  # nor does an empty file appear
    (folder / "filler").unlink()
    write(folder, 1)


@pytest.mark.parametrize("what", WRITERS)
def test_a_file_larger_than_allowed(tmp_path, what):
    write = WRITERS[what]
    write(tmp_path, 0)
    with files_of_at_most(100), pytest.raises(OSError, match="File too large") as error:
        write(tmp_path, 1)
    assert "free some space there" in str(error.value)
    held = content(tmp_path)
    assert len(held) == 1
    write(tmp_path, 0)
    assert len(content(tmp_path)) == 1
    assert what == "record" or content(tmp_path) == held  # a record has the time in it


@pytest.mark.parametrize("what", WRITERS)
def test_a_disk_that_is_read_only(disk, what):
    folder, write = disk("size=256k"), WRITERS[what]
    write(folder, 0)
    disk("remount,ro")
    refused(lambda: write(folder, 1), folder, "Read-only file system", "get the right to write there")
    for path in folder.glob("*.json"):
        assert read_record(path)["ptm_passes"] == 0


@contextlib.contextmanager
def without_rights():
    """As a user who owns nothing, if we are root, for whom no permission counts."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def anybodys():
    """A folder that others may enter: pytest's own may not be."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize("what", WRITERS)
def test_a_folder_of_somebody_else(anybodys, what):
    write = WRITERS[what]
    write(anybodys, 0)
    anybodys.chmod(0o555)
    with without_rights():
        refused(lambda: write(anybodys, 1), anybodys, "Permission denied", "get the right to write there")
        refused(lambda: write(anybodys / "new", 1), anybodys, "Permission denied")


# PTMs: what can be known is said before anything is trained


def train(tiny, cache, seed=0):
    return train_ptms(tiny, epochs=1, width=2, batch_size=36, seed=seed, cache=cache)


def test_ptms_need_room_before_they_are_trained(tiny, disk, no_training):
    folder = disk("size=256k")
    train(tiny, folder)
    fill(folder)
    before = content(folder)
    no_training()
    with pytest.raises(ValueError, match=r"need 0\.1 MB in .*disk, and 0\.0 MB are free\. Free some") as error:
        train(tiny, folder, seed=1)
    assert "DDLIB_CACHE" in str(error.value)
    train(tiny, folder)  # that one is there
    assert content(folder) == before


def test_a_disk_that_fills_up_during_training(tiny, disk, monkeypatch):
    folder = disk("size=256k")
    train(tiny, folder)
    fill(folder)
    monkeypatch.setattr(ddlib.ptms.pool, "make_room", lambda wanted: None)
    refused(lambda: train(tiny, folder, seed=1), folder, "No space left on device")
    (folder / "filler").unlink()
    train(tiny, folder, seed=1)
    assert len(list(folder.glob("*.safetensors"))) == 2


def test_a_cache_that_is_read_only(tiny, disk, no_training):
    folder = disk("size=256k")
    train(tiny, folder)
    disk("remount,ro")
    no_training()
    refused(lambda: train(tiny, folder, seed=1), folder, "Read-only file system", "DDLIB_CACHE")


def test_a_cache_of_somebody_else(tiny, anybodys, no_training):
    train(tiny, anybodys)
    anybodys.chmod(0o555)
    no_training()
    with without_rights():
        refused(lambda: train(tiny, anybodys, seed=1), anybodys, "Permission denied", "DDLIB_CACHE")
