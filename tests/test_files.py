"""Files are whole or absent, one process at a time writes them, and no damaged bit is read as data."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
import time

import pytest
import safetensors.torch
import torch

import ddlib.disk.files
from ddlib.disk.files import locked, replacing
from ddlib.disk.tensors import read_tensors, tensor_hash, write_tensors

TENSORS = {"weight": torch.tensor([[1.0, -2.0, 0.5]]), "steps": torch.tensor(7)}
ABOUT = {"accuracy": 0.8125, "name": "ConvNet-3", "none": None, "list": [1, 2]}

HOLD = """
import runpy, sys
with runpy.run_path(sys.argv[1])["locked"](sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


# replacing


def test_replacing_makes_the_folder_and_the_file(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    with replacing(path) as temporary:
        assert temporary.parent == path.parent  # os.replace is atomic only inside one file system
        assert not path.exists()
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644  # others may read it


def test_replacing_shows_the_old_file_until_the_end(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("old", ["old", None])
def test_an_error_leaves_what_was_there_and_no_litter(tmp_path, old):
    path = tmp_path / "file.txt"
    if old:
        path.write_text(old)
    before = list(tmp_path.iterdir())

    def fail():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == before
    assert not old or path.read_text() == old


# locked


def waiter(path):
    """A started thread that takes the lock of ``path``, and the event that says that it has it."""
    obtained = threading.Event()

    def wait():
        with locked(path):
            obtained.set()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread, obtained


def test_a_second_thread_waits_for_the_lock(tmp_path):
    path = tmp_path / "new" / "file"
    with locked(path):
        thread, obtained = waiter(path)
        assert not obtained.wait(0.2)
        with locked(tmp_path / "other"):  # another file is free
            pass
    thread.join(10)
    assert obtained.is_set()
    assert not path.exists()  # the lock lies beside it


def test_another_process_waits_and_a_dead_holder_lets_go(tmp_path):
    path = tmp_path / "file"
    command = [sys.executable, "-c", HOLD, ddlib.disk.files.__file__, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        thread, obtained = waiter(path)
        assert not obtained.wait(0.2)
        holder.kill()
    thread.join(10)
    assert obtained.is_set()


# tensors


def test_round_trip(tmp_path):
    path = tmp_path / "new" / "file.safetensors"
    tensors = {
        "strided": torch.arange(12.0).view(3, 4).T,
        "trained": torch.ones(2, requires_grad=True),
        "scalar": torch.tensor(3),
        "empty": torch.empty(0, 5),
        "double": torch.tensor([0.1, float("nan"), float("inf")], dtype=torch.float64),
        "mask": torch.tensor([True, False]),
    }
    write_tensors(path, tensors, {"tuple": (1, 2), "text": "é", "small": 1e-7, "deep": {"1": None}})
    found, about = read_tensors(path)
    assert about == {"tuple": [1, 2], "text": "é", "small": 1e-7, "deep": {"1": None}}
    assert sorted(found) == sorted(tensors)
    for name, tensor in tensors.items():
        torch.testing.assert_close(found[name], tensor.detach(), rtol=0, atol=0, equal_nan=True)
        assert not found[name].requires_grad
    assert tensor_hash(found) == tensor_hash(tensors)
    assert list(path.parent.iterdir()) == [path]


def test_what_json_cannot_hold_leaves_the_old_file(tmp_path):
    path = tmp_path / "file.safetensors"
    write_tensors(path, TENSORS, ABOUT)
    with pytest.raises(TypeError, match="JSON"):
        write_tensors(path, TENSORS, {"device": torch.device("cpu")})
    assert read_tensors(path)[1] == ABOUT
    assert list(tmp_path.iterdir()) == [path]


def test_every_flipped_bit_is_found(tmp_path):
    """In the tensors, their names, types and shapes, in what is said about them, and in the checksum itself."""
    path = tmp_path / "file.safetensors"
    write_tensors(path, TENSORS, ABOUT)
    whole = path.read_bytes()
    unnoticed = []
    for place in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            with contextlib.suppress(ValueError):
                read_tensors(path)
                unnoticed.append((place, bit))
    assert unnoticed == []


def test_a_truncated_file_is_found(tmp_path):
    path = tmp_path / "file.safetensors"
    write_tensors(path, TENSORS, ABOUT)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        verdict = "is damaged; delete it" if length > 31 else "was not written by ddlib"  # the header's name is there
        with pytest.raises(ValueError, match=rf"file\.safetensors {verdict}"):
            read_tensors(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"ddlib": "[]"}, {"ddlib": "{}"}, {"ddlib": "no JSON"}])
def test_a_foreign_file_is_refused(tmp_path, metadata):
    path = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file(TENSORS, path, metadata=metadata)
    verdict = "is damaged; delete it" if metadata and "ddlib" in metadata else "was not written by ddlib"
    with pytest.raises(ValueError, match=rf"foreign\.safetensors {verdict}"):
        read_tensors(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no file .*absent\.safetensors"):
        read_tensors(tmp_path / "absent.safetensors")
    with pytest.raises(FileNotFoundError):
        read_tensors(tmp_path)  # a folder


# tensor_hash


def test_tensor_hash_is_of_names_types_shapes_and_bits():
    plain = hashlib.sha256()
    plain.update(b"a torch.int64 []\n" + (258).to_bytes(8, sys.byteorder))
    plain.update(b"b torch.uint8 [1, 2]\n" + bytes([3, 4]))
    tensors = {"b": torch.tensor([[3, 4]], dtype=torch.uint8), "a": torch.tensor(258)}
    assert tensor_hash(tensors) == plain.hexdigest()[:16]


def test_tensor_hash_does_not_depend_on_order_strides_or_gradients():
    matrix = torch.arange(6.0).view(2, 3)
    first = tensor_hash({"a": matrix, "b": torch.ones(2)})
    strided = matrix.T.contiguous().T.requires_grad_()
    assert tensor_hash({"b": torch.ones(2), "a": strided}) == first


@pytest.mark.parametrize(
    "other",
    [
        {"b": torch.zeros(2, 3)},
        {"a": torch.zeros(2, 3, dtype=torch.int32)},  # the same bytes
        {"a": torch.zeros(3, 2)},
        {"a": torch.zeros(6)},
        {"a": torch.tensor([[0.0, 0, 0], [0, 0, -0.0]])},  # equal, but one bit is not
        {"a": torch.zeros(2, 3), "b": torch.zeros(0)},
        {},
    ],
)
def test_tensor_hash_sees_every_difference(other):
    assert tensor_hash(other) != tensor_hash({"a": torch.zeros(2, 3)})


# What a killed writer leaves

KILLED = """
import json, os, random, runpy, signal, sys, time
from pathlib import Path
import torch
files, tensors = (runpy.run_path(path) for path in json.loads(sys.argv[1]))
target, draw, stages = Path(sys.argv[2]), random.Random(0), []

def killed(work, ready):
    child = os.fork()
    if child == 0:
        while True:
            work()
    while not ready():
        time.sleep(0.001)
    time.sleep(draw.uniform(0, 0.02))
    os.kill(child, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    whole = {float(value) for value in tensors["read_tensors"](target)[0]["a"].unique()}
    stages.append([sorted(whole), len(list(target.parent.glob(".*.tmp")))])

def write(value):
    tensors["write_tensors"](target, {"a": torch.full((500_000,), float(value))}, {"value": value})

def write_half():
    with files["replacing"](target) as temporary:
        temporary.write_bytes(b"half")
        time.sleep(60)

write(0)
for number in range(1, 11):  # at any moment of a write
    killed(lambda: write(number), lambda: list(target.parent.glob(".*.tmp")))
before = set(os.listdir(target.parent))
for number in range(10):  # surely in the middle of one
    killed(write_half, lambda: any(path.stat().st_size == 4 for path in target.parent.glob(".*.tmp")
                                    if path.name not in before))
    before = set(os.listdir(target.parent))
write(99)
print(json.dumps([stages, os.listdir(target.parent)]))
"""


def test_twenty_killed_writers_leave_a_whole_file_and_never_more_than_one_other(tmp_path):
    modules = json.dumps([ddlib.disk.files.__file__, ddlib.disk.tensors.__file__])
    command = [sys.executable, "-c", KILLED, modules, str(tmp_path / "run.safetensors")]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}  # a fork of a process with more threads would wait for them for ever
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=alone)
    assert done.returncode == 0, done.stderr
    stages, at_the_end = json.loads(done.stdout)
    assert len(stages) == 20
    assert all(len(values) == 1 for values, _ in stages)  # one version of the file, not a mixture
    assert max(left for _, left in stages) == 1
    assert all(left == 1 for _, left in stages[10:])  # those were killed before they could clean up
    assert at_the_end == ["run.safetensors"]


def temporary_of(folder, place, process, age=0.0):
    path = folder / f".run-{place}-{process}-abcd1234.tmp"
    path.write_text("half")
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_only_files_of_dead_writers_are_removed(tmp_path):
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    here, day = ddlib.disk.files._place(), 24 * 3600
    gone = [
        temporary_of(tmp_path, here, dead.pid),
        temporary_of(tmp_path, here, 10**30),
        temporary_of(tmp_path, "0" * 8, os.getpid(), age=2 * day),  # another machine, the day before yesterday
    ]
    kept = [
        temporary_of(tmp_path, here, os.getpid()),
        temporary_of(tmp_path, here, os.getppid()),
        temporary_of(tmp_path, "0" * 8, dead.pid, age=day / 2),  # another machine: who knows
    ]
    foreign = tmp_path / ".notes.tmp"
    foreign.write_text("not ours")
    os.utime(foreign, (0, 0))
    with replacing(tmp_path / "other.txt") as temporary:
        temporary.write_text("new")
    assert not [path for path in gone if path.exists()]
    assert sorted(tmp_path.iterdir()) == sorted([*kept, foreign, tmp_path / "other.txt"])


def test_two_writers_at_once_do_not_disturb_each_other(tmp_path):
    path = tmp_path / "file.txt"
    with replacing(path) as first:
        first.write_text("first")
        with replacing(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]
