"""Jobs side by side share the GPUs of a machine, those that they may use."""

import contextlib
import os
import sys
from types import SimpleNamespace

import pytest

from workflow import gpus, sweep

FOUR = "".join(f"GPU {i}: H100 (UUID: GPU-{i}{i}{i})\n  MIG 1g.10gb Device 0: (UUID: MIG-{i})\n" for i in range(4))


@pytest.fixture
def four_gpus(tmp_path, monkeypatch):
    """A machine with four GPUs, as far as nvidia-smi says."""
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{FOUR}END\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@contextlib.contextmanager
def jobs(folder, count, monkeypatch, given):
    """So many jobs at once: the GPUs that they see, and the slots that they hold."""
    seen = []
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            if given is None:
                monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
            else:
                monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
            stack.enter_context(gpus.gpu_slot(folder))
            seen.append(os.environ.get("CUDA_VISIBLE_DEVICES"))
        yield seen, sorted(path.stem for path in folder.glob("*.lock"))


@pytest.mark.parametrize(
    ("given", "seen", "first_slots"),
    [
        (None, ["0", "1", "2", "3"], ["GPU-000-0", "GPU-111-0", "GPU-222-0", "GPU-333-0"]),
        ("2,3", ["2", "3", "2", "3"], ["GPU-222-0", "GPU-222-1", "GPU-333-0", "GPU-333-1"]),
        ("1", ["1"] * 4, ["GPU-111-0", "GPU-111-1", "GPU-111-2", "GPU-111-3"]),
        ("GPU-333", ["GPU-333"] * 4, ["GPU-333-0", "GPU-333-1", "GPU-333-2", "GPU-333-3"]),
        ("", [""] * 4, []),
        ("-1", ["-1"] * 4, []),
    ],
)
def test_jobs_share_the_gpus_that_they_may_use(four_gpus, tmp_path, monkeypatch, given, seen, first_slots):
    for _ in range(2):  # what was held is free again
        with jobs(tmp_path / "slots", 4, monkeypatch, given) as found:
            assert found == (seen, first_slots)


def test_the_engine_counts_the_gpus_that_it_may_use(four_gpus, tmp_path, monkeypatch):
    program, seen = tmp_path / "python", tmp_path / "seen"
    program.write_text(f'#!/bin/sh\necho "$@" > {seen}\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    for given, slots in ((None, 16), ("2,3", 8), ("1", 4)):
        if given:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
        sweep.snakemake(SimpleNamespace(folder=tmp_path), [])
        assert f"--resources gpu_slots={slots} " in seen.read_text()


def test_a_machine_without_gpus_holds_no_slot(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with gpus.gpu_slot(tmp_path / "slots"):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    assert not (tmp_path / "slots").exists()
