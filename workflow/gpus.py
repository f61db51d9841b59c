"""The GPUs of this machine, shared by jobs: each holds a slot of one, and sees that GPU alone."""

import contextlib
import itertools
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

PER_GPU = 4  # small runs that share one GPU
LOCKS = Path(tempfile.gettempdir()) / f"ddlib-gpus-{os.getuid()}"  # GPUs are of one machine, and sweeps share them


@contextlib.contextmanager
def gpu_slot(folder: Path = LOCKS) -> Iterator[None]:
    """Hold a share of a GPU, and let the job see that one alone; nothing without GPUs."""
    if not (here := gpus()):
        yield
        return
    folder.mkdir(exist_ok=True)
    slots = [(device, slot) for slot in range(PER_GPU) for device in here]
    for device, slot in itertools.cycle(slots):
        lock = FileLock(folder / f"{here[device]}-{slot}.lock")
        try:
            lock.acquire(timeout=0.1)
        except Timeout:
            continue
        with lock:
            os.environ["CUDA_VISIBLE_DEVICES"] = device
            yield
        return


def gpus() -> dict[str, str]:
    """The NVIDIA GPUs that we may use, as ``CUDA_VISIBLE_DEVICES`` names them: all, or those in it; with their UUIDs.

    An index counts what a job sees, so two jobs of a cluster may both have a "0"; a UUID is one GPU.
    """
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    here = dict(re.findall(r"^GPU (\d+): .*\(UUID: (\S+)\)", listed, re.MULTILINE))
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None or not here:
        return here
    names = itertools.takewhile(lambda name: name not in ("", "-1"), map(str.strip, given.split(",")))  # as CUDA reads
    return {name: here.get(name, name) for name in names}
