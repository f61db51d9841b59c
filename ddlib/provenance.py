"""Where a number comes from: the code, the software and the machine that made it, and the memory it took."""

import hashlib
import importlib.metadata
import platform
import subprocess
import sys
from collections.abc import Collection
from functools import cache
from pathlib import Path

import torch

# These files compute no result: changing them makes no run out of date.
NOT_COMPUTING = {"__init__", "parameters", "provenance", "records", "schema"}
NOT_COMPUTING |= {
    "statistics",
    "comparison",
    "ddranking",
    "report",
    "plots",
    "pictures",
    "cost",
    "speed",
    "memory",
    "paths",
    "files",
    "cache",
    "progress",
    "show",
}
PACKAGE = Path(__file__).parent


def code_hash(modules: Collection[str] | None = None) -> str:
    """16 hex digits for the source of ``modules``; by default of all that shape a result (not ``NOT_COMPUTING``)."""
    return _code_hash(PACKAGE, frozenset(modules) if modules else None)


@cache  # the code that a process has imported is that of its start, whatever happens to the files later
def _code_hash(package: Path, modules: frozenset[str] | None) -> str:
    digest = hashlib.sha256()
    for path in sorted(package.glob("*.py")):
        if path.stem in modules if modules else path.stem not in NOT_COMPUTING:
            digest.update(f"{path.name}\n{path.read_text(encoding='utf-8')}".encode())
    return digest.hexdigest()[:16]


def git_commit() -> str | None:
    """The commit of the checkout that holds ddlib (12 digits); None outside a checkout or without git."""
    # Asking for this very file fails where ddlib is installed inside somebody else's repository.
    command = ["git", "rev-parse", "HEAD", f"HEAD:./{Path(__file__).name}"]
    try:
        answer = subprocess.run(command, cwd=PACKAGE, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout[:12] if answer.returncode == 0 else None


def environment(device: torch.device | str = "cpu") -> dict[str, object]:
    """Software versions and hardware of this process. Nothing personal: no host, user, path or variable."""
    device = torch.device(device)
    cuda = device.type == "cuda"
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        **{name: _version(name) for name in ("torchvision", "numpy", "ddlib")},
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": _cpu_model(),
        "torch_threads": torch.get_num_threads(),
        "device_name": torch.cuda.get_device_name(device) if cuda else _cpu_model(),
    }


def peak_memory_bytes(device: torch.device | str) -> int | None:
    """The most memory in use so far, in bytes: on a CUDA device what PyTorch allocated since
    ``torch.cuda.reset_peak_memory_stats``, else what this whole process ever held (None on Windows)."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource  # absent on Windows
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    """The processor's name, which Python's platform module gives on Windows only."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
