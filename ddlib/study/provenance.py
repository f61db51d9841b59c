"""Where a number comes from: the code, the software and the machine that made it, and the memory it took."""

import importlib.metadata
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

import torch

from ddlib.fingerprint import PACKAGE, core_files, hash_of_files, installed_version


def run_hash() -> str:
    """16 hex digits for all code that shapes a record: the core, and how the study runs it."""
    return _run_hash(PACKAGE)


@cache  # as that of ddlib.fingerprint: the code of this process
def _run_hash(package: Path) -> str:
    return hash_of_files(package, run_files(package))


def run_files(package: Path = PACKAGE) -> set[Path]:
    """All files whose code shapes a record."""
    return core_files(package) | {package / "study" / name for name in ("run.py", "pools.py")}


@cache  # that of this process, whose code is loaded
def git_commit() -> str | None:
    """The commit of the checkout that holds ddlib (12 digits); None outside a checkout or without git."""
    # Asking for this very file fails where ddlib is installed inside somebody else's repository.
    command = ["git", "rev-parse", "HEAD", f"HEAD:./{Path(__file__).name}"]
    try:
        answer = subprocess.run(command, cwd=PACKAGE / "study", capture_output=True, text=True, timeout=10)
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
        **{name: _version(name) for name in ("torchvision", "numpy")},
        "ddlib": installed_version(),
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
