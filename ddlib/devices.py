"""What a GPU asks of its host: few waits, clocks that wait for it, and a word where it cannot do what is asked."""

import os
import shlex
import shutil
import sys

import torch
from torch import Tensor

CXX = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
COMPILERS = {"cpu": ("CXX", "a C++ compiler", (CXX,)), "cuda": ("CC", "a C compiler", ("gcc", "clang"))}
"""What ``torch.compile`` calls on a kind of device: the variable that names it, what it is, and by which names."""


def moved(tensor: Tensor, device: torch.device | str) -> Tensor:
    """``tensor`` on ``device``. From the CPU to a GPU without a wait: the host goes on while the copy is under way.

    A plain copy would let the host wait for all that the GPU has still to do, and then the GPU for the host.
    """
    if tensor.device.type == "cpu" and torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has done what it was told, as a clock must; a CPU is done already."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def refuse_strict_determinism(device: torch.device, because: str) -> None:
    """Raise RuntimeError if PyTorch was told to use deterministic algorithms alone, and ``because`` has none on a GPU.

    With ``torch.use_deterministic_algorithms(True, warn_only=True)`` it passes.
    """
    strict = torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
    if strict and device.type == "cuda":
        raise RuntimeError(
            f"torch.use_deterministic_algorithms(True) is set, and on a GPU PyTorch has no deterministic gradient of "
            f"{because}. Set it with warn_only=True: then all else is deterministic, and equal runs agree up to "
            "rounding; or compute on the CPU, where they agree bit by bit."
        )


def missing_compiler(kind: str) -> str | None:
    """The compiler that ``torch.compile`` would miss on a ``cpu`` or a ``cuda`` device, in words; None: it is there."""
    variable, what, names = COMPILERS[kind]
    names = shlex.split(os.environ.get(variable, ""))[:1] or names
    return None if any(map(shutil.which, names)) else f"{what} ({' or '.join(names)}; another one: set {variable})"
