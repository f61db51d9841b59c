"""Which device a study takes and what it says about it, and the compilers that are looked for."""

import pytest
import torch

from ddlib.devices import CXX, missing_compiler
from ddlib.study.devices import pick_device


def test_an_absent_device_is_one_clear_error():
    with pytest.raises(ValueError, match="'cuda:77' is not here"):
        pick_device("cuda:77")


def test_the_device_and_the_reason_are_told_in_one_line(gpu, capsys):
    for asked, why in (("auto", "the first GPU"), ("cuda:0", "as asked for")):
        device = pick_device(asked)
        told = capsys.readouterr().out
        assert told == f"device: {device} ({torch.cuda.get_device_name(device)}), {why}\n"
    assert pick_device("cpu").type == "cpu"
    assert capsys.readouterr().out == "device: cpu, as asked for\n"


def test_a_gpu_without_kernels_is_not_taken(gpu, monkeypatch, capsys):
    def listed_and_no_more(*size, device=None, **kwargs):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nCUDA kernel ...")

    monkeypatch.setattr(torch, "ones", listed_and_no_more)  # while torch.empty, which launches none, would do
    assert pick_device().type == "cpu"
    said = "no GPU can be used: CUDA error: no kernel image is available for execution on the device"
    assert capsys.readouterr().out == f"device: cpu, {said}\n"
    with pytest.raises(ValueError, match="CUDA error: no kernel image"):
        pick_device("cuda")


def test_a_driver_that_is_too_old_is_told(monkeypatch, capsys):
    def too_old():
        raise RuntimeError("The NVIDIA driver on your system is too old (found version 11040). Please update ...")

    monkeypatch.setattr(torch.cuda, "init", too_old)
    assert pick_device().type == "cpu"
    said = "no GPU can be used: The NVIDIA driver on your system is too old (found version 11040)"
    assert capsys.readouterr().out == f"device: cpu, {said}\n"


@pytest.mark.parametrize(("kind", "name"), [("cpu", CXX), ("cuda", "clang")])
def test_a_compiler_that_is_there_is_found(monkeypatch, tmp_path, kind, name):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert missing_compiler(kind)
    (tmp_path / name).write_text("#!/bin/sh\n")
    (tmp_path / name).chmod(0o755)
    assert missing_compiler(kind) is None
