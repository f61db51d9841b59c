"""Timing two ways in turns, checking that they agree, and the least time the machine would need."""

import ctypes
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ddlib.compute import Compute, has_bf16
from ddlib.devices import missing_compiler, synchronise
from ddlib.memory import SETTINGS, keep_freed_memory

Work = Callable[[], Sequence[Tensor | float] | None]


class Against(NamedTuple):
    """A part of the time to beat."""

    factor: float
    work: Work
    plain: bool = True  # the field's way, with memory as the field's code finds it; False: ddlib's own


@dataclass(frozen=True)
class Row:
    """One line of the table: ddlib's way, what it is measured against, and the ratio that is wanted."""

    name: str
    ours: Work
    against: Sequence[Against]  # the time to beat: a weighted sum of times, most often 1 x the plain way
    targets: dict[str, float]  # least ratio of that time to ours, by device type
    tolerance: float | None = 1e-4  # of the difference, as norms; None: not the same thing
    needed: Work | None = None  # the least work that gives the result, for the floor; None: that of the plain way
    note: str = ""
    repeats: int = 5
    floats_read: int = 0  # float32 numbers of images that must be read at least once
    compute: Compute = field(default_factory=Compute)  # of ddlib's way

    def why_not(self, device: torch.device) -> str:
        """Why this machine cannot measure it; empty if it can."""
        if self.compute.precision == "bf16" and not has_bf16(device):
            return "this machine has no bf16 of its own"
        wanted = self.compute.compile != "never" and missing_compiler(device.type)
        return f"compiling needs {wanted}" if wanted else ""


@dataclass(frozen=True)
class Machine:
    """What the hardware does at best, measured: operations a second by precision, and bytes a second."""

    flops: dict[str, float]
    bandwidth: float

    @classmethod
    def measured(cls, device: torch.device) -> "Machine":
        """In float32, and in bf16 where that is a type of the device; bytes by copying a large tensor."""
        large = torch.randn(2**26, device=device)
        copy = torch.empty_like(large)
        types = {"float32": torch.float32, **({"bf16": torch.bfloat16} if has_bf16(device) else {})}
        flops = {name: operations_a_second(dtype, device) for name, dtype in types.items()}
        return cls(flops, 2 * large.numel() * 4 / best_of(lambda: copy.copy_(large), device))

    def floor(self, work: Work, bytes_read: float, precision: str = "float32") -> tuple[float, float]:
        """Operations of ``work``, and the seconds that they take at the best rates measured."""
        with Operations() as counted:
            work()
        return counted.total, max(counted.total / self.flops[precision], bytes_read / self.bandwidth)


def operations_a_second(dtype: torch.dtype, device: torch.device) -> float:
    """By the fastest of a large matrix product and a wide convolution, in either layout of memory."""
    scale = 1 if device.type == "cpu" else 4  # enough work to hide the start of a kernel
    side, batch = 2048 * scale, 32 * scale**3
    a = torch.randn(side, side, device=device, dtype=dtype)
    maps = torch.randn(batch, 128, 16, 16, device=device, dtype=dtype)
    weight = torch.randn(128, 128, 3, 3, device=device, dtype=dtype)
    rates = [2 * side**3 / best_of(lambda: a @ a, device)]
    for layout in (torch.contiguous_format, torch.channels_last):
        laid = [tensor.contiguous(memory_format=layout) for tensor in (maps, weight)]
        once = best_of(lambda laid=laid: torch.nn.functional.conv2d(*laid, padding=1), device)
        rates.append(2 * maps.numel() * 128 * 9 / once)
    return max(rates)


class Operations(TorchDispatchMode):
    """Counts the operations of convolutions and matrix products inside a ``with`` block.

    PyTorch's FlopCounterMode counts by the same rules, but cannot follow ``torch.autograd.grad`` of a leaf.
    """

    total = 0
    convolving = 0.0  # seconds in the convolutions alone; of meaning on a CPU, which does not queue its work

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run the operation and add what it costs."""
        start = time.perf_counter()
        out = func(*args, **(kwargs or {}))
        if "convolution" in func.name():
            self.convolving += time.perf_counter() - start
        count = flop_registry.get(func._overloadpacket)
        if count:
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


def best_of(work: Callable[[], object], device: torch.device, repeats: int = 7) -> float:
    """The shortest of some times, in seconds."""
    work()
    return min(seconds(work, device) for _ in range(repeats))


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall-clock time of one call, the device's queue emptied before and after."""
    synchronise(device)
    start = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - start


@torch.compiler.set_stance("force_eager")  # compiled work convolves by the same kernels, where no meter reaches
def convolution_seconds(work: Callable[[], object], device: torch.device) -> float | None:
    """The time that ``work`` spends in PyTorch's convolutions: nothing around them can make it shorter."""
    with Operations() as counted:
        work()
    return counted.convolving if device.type == "cpu" else None


def memory_as_usual() -> None:
    """Undo ``ddlib.memory`` while the plain way runs: the thresholds at which glibc ends up by itself.

    Without anybody's asking they follow the largest block that was freed, up to 32 MiB, and twice that.
    """
    if platform.libc_ver()[0] == "glibc" and not set(SETTINGS) & set(os.environ):
        for (key, _), threshold in zip(SETTINGS.values(), (32 * 2**20, 64 * 2**20), strict=True):
            ctypes.CDLL(None).mallopt(key, threshold)
        ctypes.CDLL(None).malloc_trim(0)


def measure(row: Row, machine: Machine, device: torch.device) -> dict[str, object]:
    """One row as plain numbers: times in turns, their ratios, difference, floor and distance to it.

    Of a row that this machine cannot measure, the reason.
    """
    about = {"work": row.name, "target": row.targets.get(device.type), "note": row.note}
    if reason := row.why_not(device):
        return about | {"skipped": reason}
    ours, against, results = [], [], {}
    for repeat in range(-1, row.repeats):  # the first is to warm up
        keep_freed_memory()
        mine = seconds(lambda: results.update(ours=row.ours()), device)
        total = 0.0
        for part in row.against:
            (memory_as_usual if part.plain else keep_freed_memory)()
            total += part.factor * seconds(lambda part=part: results.update(plain=part.work()), device)
        if repeat >= 0:
            ours.append(mine)
            against.append(total)
    keep_freed_memory()
    ratios = [b / a for a, b in zip(ours, against, strict=True)]
    flops, floor = machine.floor(row.needed or row.against[0].work, 4 * row.floats_read, row.compute.precision)
    found = None if row.tolerance is None else difference(results["ours"], results["plain"])
    if found is not None and not found <= row.tolerance:
        raise RuntimeError(f"{row.name}: the two ways differ by {found:.1e}, more than {row.tolerance:.0e}")
    return about | {
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "seconds": statistics.median(ours),
        "seconds_against": statistics.median(against),
        "gflop": flops / 1e9,
        "floor_seconds": floor,
        "convolution_seconds": convolution_seconds(row.ours, device),
        "difference": found,
        "tolerance": row.tolerance,
        "repeats": row.repeats,
    }


def difference(a: Sequence[Tensor | float], b: Sequence[Tensor | float]) -> float:
    """The largest of the differences of two lists of results, ``|a - b| / |b|`` each; infinite if a number is NaN."""
    found = []
    for x, y in zip(a, b, strict=True):
        x, y = torch.as_tensor(x).double(), torch.as_tensor(y).double()
        if x.shape != y.shape:
            raise ValueError(f"results of different shapes: {list(x.shape)} and {list(y.shape)}")
        found.append(float((x - y).norm() / y.norm().clamp(min=1e-12)))
    return max(found) if all(map(math.isfinite, found)) else math.inf
