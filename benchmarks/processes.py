"""What only a fresh process can tell: a row of the table, memory of data, how a notebook starts and shares cores."""

import json
import multiprocessing
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from benchmarks.measure import Machine, measure
from benchmarks.rows import all_rows
from ddlib.disk.paths import data_folder

PROJECT = Path(__file__).parent.parent
START_LIMIT = 300  # seconds after which a run counts as stuck
BUSY_TARGET = 1.5  # a run beside one busy core takes at most so many times as long as alone

MEMORY = """
import json, ddlib, torchvision
def resident(field):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(field))
before = resident("VmRSS")
data = ddlib.load_dataset("cifar10")
after, peak = resident("VmRSS"), resident("VmHWM")
tensors = sum(split.images.nbytes + split.labels.nbytes for split in (data.train, data.test))
sizes = {"imports": before, "tensors": tensors, "resident": after - before, "peak": peak - before}
print(json.dumps({f"{name}_mb": size / 1e6 for name, size in sizes.items()}))
"""


def float32_means_float32() -> None:
    """No TF32 in convolutions: in both ways and in the floor."""
    torch.backends.cudnn.allow_tf32 = False


def alone(work: Callable, *arguments: object) -> object:
    """The result of a call in a process of its own, whose memory no earlier row has shaped."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), float32_means_float32) as process:
        return process.submit(work, *arguments).result()


def measured(name: str, machine: Machine, device: torch.device) -> dict[str, object]:
    """The row of this name, measured."""
    (row,) = (row for row in all_rows(device) if row.name == name)
    return measure(row, machine, device)


def cifar10_memory() -> dict[str, object]:
    """Resident memory above the imports with CIFAR-10 loaded, and its peak on the way, in 10^6 bytes."""
    if not Path("/proc/self/status").exists():
        return {"skipped": "needs Linux's /proc"}
    if not (data_folder() / "cifar-10-batches-py").is_dir():
        return {"skipped": "CIFAR-10 is not in the data folder (DDLIB_DATA)"}
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True)
    if done.returncode:
        return {"skipped": done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout)


def notebook_start(repeats: int = 3) -> dict[str, object]:
    """Seconds from the call of papermill to the first distillation step on digits, the PTMs in the cache."""
    if subprocess.run([sys.executable, "-c", "import papermill"], capture_output=True).returncode:
        return {"skipped": "papermill is not installed"}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        seconds = [_start(Path(folder), str(index)) for index in range(repeats + 1)]
    return {"seconds": statistics.median(seconds[1:]), "repeats": repeats}  # the first has trained the PTMs


def beside_one_busy_core(repeats: int = 3) -> dict[str, object]:
    """Seconds of a whole run of notebook 02 on two cores, alone and beside a busy process; in turns, medians."""
    if not shutil.which("taskset") or (os.cpu_count() or 1) < 2:
        return {"skipped": "needs two cores and the command taskset"}
    pinned, alone, beside = ["taskset", "--cpu-list", "0,1"], [], []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        _whole(Path(folder), "first", pinned)  # trains the PTMs
        for index in range(repeats):
            alone.append(_whole(Path(folder), f"alone{index}", pinned))
            with subprocess.Popen([*pinned, sys.executable, "-c", "while True: pass"]) as busy:
                try:
                    beside.append(_whole(Path(folder), f"beside{index}", pinned))
                finally:
                    busy.kill()
    ratio = statistics.median(beside) / statistics.median(alone)
    seconds = {"alone_seconds": statistics.median(alone), "beside_seconds": statistics.median(beside)}
    return {"ratio": ratio, "target": BUSY_TARGET, **seconds, "repeats": repeats}


def _whole(folder: Path, name: str, before: list[str]) -> float:
    start = time.perf_counter()
    with _notebook(folder, name, before) as run:
        try:
            status = run.wait(START_LIMIT)
        except subprocess.TimeoutExpired:
            run.kill()  # else the end of the block would wait for it
            raise RuntimeError(f"notebook 02 takes more than {START_LIMIT} s") from None
        if status:
            raise RuntimeError(f"notebook 02 ended with exit status {status}")
    return time.perf_counter() - start


def _notebook(folder: Path, name: str, before: Sequence[str] = ()) -> subprocess.Popen:
    """Papermill on notebook 02 with its defaults; records and PTMs in a folder of their own."""
    runs = folder / name
    runs.mkdir()
    command = [sys.executable, "-m", "papermill", PROJECT / "notebooks" / "02_ensemble.ipynb", runs / "out.ipynb"]
    settings = {"DDLIB_RUNS": str(runs), "DDLIB_CACHE": str(folder / "ptms")}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([*before, *command], env=os.environ | settings, **quiet)


def _start(folder: Path, name: str) -> float:
    """The first checkpoint marks the first step; then the run is interrupted."""
    runs, start = folder / name, time.perf_counter()
    with _notebook(folder, name) as run:
        while not list(runs.glob(".*.checkpoint")):
            if run.poll() is not None or time.perf_counter() - start > START_LIMIT:
                run.kill()
                raise RuntimeError(f"notebook 02 ended without a step (exit status {run.poll()})")
            time.sleep(0.02)
        passed = time.perf_counter() - start
        run.send_signal(signal.SIGINT)  # papermill then ends its kernel too
    return passed
