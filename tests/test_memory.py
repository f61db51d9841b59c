"""Freed memory stays in the process on glibc, a user's own setting wins, and too little of it is explained."""

import contextlib
import importlib
import os
import platform
import subprocess
import sys

import numpy as np
import pytest
import torch

import ddlib
from ddlib.memory import ADVICE, out_of_memory_explained

GLIBC = platform.libc_ver()[0] == "glibc"
# Page faults of making and freeing tensors of 1, 2, ..., 31 MiB: by itself glibc maps each anew, because it is larger
# than all before it.
# Pages are of 4 KiB, whatever the machine prefers: 41 is PR_SET_THP_DISABLE.
FAULTS = """
import ctypes, resource, torch
ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)
from ddlib.memory import keep_freed_memory
{before}
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = faults()
for size in range(1, 32): torch.zeros(size * 2**18)
print(faults() - before)
"""


def run(code, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run([sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(not GLIBC, reason="needs glibc")
def test_freed_memory_is_used_again_if_asked_and_an_import_does_not_ask():
    kept, by_import = (int(run(FAULTS.format(before=before))) for before in ("keep_freed_memory()", "import ddlib"))
    assert 0 < 5 * kept < by_import  # 31 MiB against 496 MiB


@pytest.mark.skipif(not GLIBC, reason="needs glibc")
def test_the_environment_wins():
    kept, others = (
        int(run(FAULTS.format(before="keep_freed_memory()"), **environment))
        for environment in ({}, {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "0"})
    )
    assert 0 < 5 * kept < others


def test_long_work_asks(tiny, monkeypatch):
    asked = []
    for work, call in {
        "distill": lambda: ddlib.distill(tiny, ipc=1, iterations=1, width=4),
        "evaluate": lambda: ddlib.evaluate(ddlib.select_real(tiny, 1), tiny, num_eval=1, eval_epochs=1, width=4),
        "ptms.pool": lambda: ddlib.train_ptms(tiny, num_ptms=0),
    }.items():
        module = importlib.import_module(f"ddlib.{work}")
        monkeypatch.setattr(module, "keep_freed_memory", lambda work=work: asked.append(work))
        with contextlib.suppress(ValueError):
            call()
    assert asked == ["distill", "evaluate", "ptms.pool"]


def test_nothing_happens_on_other_systems(monkeypatch):
    from ddlib import memory

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert memory.keep_freed_memory() is False


@pytest.mark.skipif(not GLIBC, reason="needs glibc")
def test_it_says_that_it_did():
    from ddlib import memory

    assert memory.keep_freed_memory() is True


@pytest.mark.parametrize("allocate", [lambda: torch.empty(2**46), lambda: np.empty(2**50)], ids=["torch", "numpy"])
def test_a_true_shortage_on_the_cpu_says_what_to_change(allocate):
    with pytest.raises((RuntimeError, MemoryError)) as plain:
        allocate()
    with pytest.raises(plain.type) as error, out_of_memory_explained():
        allocate()
    assert error.value.__notes__ == [ADVICE]
    assert str(error.value) == str(plain.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_a_shortage_on_a_gpu_says_what_to_change(error):
    with pytest.raises(type(error)) as raised, out_of_memory_explained():
        raise error
    assert raised.value is error
    assert error.__notes__ == [ADVICE]
    for knob in ("batch_real", "ipc", "width", "grad_avg instead of loss_avg", "num_eval", "architectures"):
        assert knob in ADVICE


@pytest.mark.parametrize(
    "error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory")]
)
def test_other_errors_pass_as_they_are(error):
    with pytest.raises(type(error)), out_of_memory_explained():
        raise error
    assert not hasattr(error, "__notes__")
