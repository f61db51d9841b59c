"""Carry out one job of a sweep: what the rules of the Snakefile call.

``python workflow/run_job.py GRID MARKER``, the name of the marker of a pool or an arm of the grid. One process at a
time: a second that wants the same job waits for the first, which may be an orphan of a killed sweep, and then finds
the work done.
"""

import contextlib
import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import yaml
from filelock import FileLock, Timeout

sys.path.insert(0, str(Path(__file__).parents[1]))

from ddlib.disk.paths import cache_folder
from ddlib.ptms.pool import cached_file
from ddlib.study import run as study
from ddlib.study.record import read_record
from workflow.execute import main as execute
from workflow.grid import PROJECT, Grid, GridError, Job, Pool, read_grid
from workflow.markers import write_marker, wrong_with

FAILED = "FAILED: "  # begins the last line of the log of a job that failed; a killed one has none
ERROR_LINE = re.compile(r"[\w.]*(Error|Exception|Interrupt)\b.*")
PER_GPU = 4  # small runs that share one GPU


def run(grid: Grid, work: Pool | Job) -> None:
    """Do the work and write its marker, unless it is done."""
    marker, pool = grid.folder / work.marker, isinstance(work, Pool)
    base = cache_folder() if pool else grid.folder
    lock = lock_of(grid.folder, work.name)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        if marker.is_file() and not wrong_with(marker, base):
            print(f"{work.name}: done by another process")
            return
        start = time.perf_counter()
        with gpu_slot(Path(tempfile.gettempdir()) / f"ddlib-gpus-{os.getuid()}"):  # GPUs are of one machine
            files = train_pool(work) if pool else run_notebook(grid, work)
        write_marker(marker, work.identity, files, time.perf_counter() - start, base)


def lock_of(folder: Path, name: str) -> Path:
    """What the process holds that carries out this pool or job."""
    return folder / "locks" / f"{name}.lock"


def run_notebook(grid: Grid, job: Job) -> list[Path]:
    """Execute the notebook of an arm; the files that it left."""
    os.environ["DDLIB_RUNS"] = str(grid.folder)
    executed = grid.folder / "notebooks" / f"{job.name}.ipynb"
    records = [grid.folder / name for name in job.records]
    before = {record: stamp(record) for record in records}
    try:
        execute(PROJECT / "notebooks" / f"{job.notebook}.ipynb", executed, "-y", yaml.safe_dump(dict(job.parameters)))
    except SystemExit:
        # A run that diverged would do so again: it has its record, which says so, and counts as done.
        if any(stamp(record) == before[record] for record in records) or not all(map(ended, records)):
            raise
        print(f"{job.name}: diverged; its record says so")
        executed = executed.with_name(f".{executed.name}")
    for record in records:
        if stamp(record) == before[record]:
            raise RuntimeError(f"{record.name} was not written, although the notebook came to its end")
        if read_record(record)["code_hash"] != job.identity["code"]:
            raise RuntimeError("the code of ddlib changed before or during the run: start the sweep again")
    synthetic = [record.with_suffix(".safetensors") for record in records]
    return [*records, *filter(Path.is_file, [*synthetic, executed])]


def stamp(path: Path) -> tuple[int, int] | None:
    """What changes when a file is replaced; None if there is none."""
    return (path.stat().st_ino, path.stat().st_mtime_ns) if path.is_file() else None


def ended(record: Path) -> bool:
    """Whether a record says that its run came to an end that it would come to again: a result, or divergence."""
    said = read_record(record)
    return said["status"] == "ok" or str(said.get("error")).startswith("FloatingPointError")


def train_pool(pool: Pool) -> list[Path]:
    """Train PTMs, or find them in the cache; their files."""
    p = SimpleNamespace(**pool.parameters)
    ptms = study.open_pool(p, study.open_dataset(p))
    return [path for path in map(cached_file, ptms) if path.is_file()]  # ImageNet's weights are torchvision's


@contextlib.contextmanager
def gpu_slot(folder: Path) -> Iterator[None]:
    """Hold a share of a GPU, and let the job see that one alone; nothing without GPUs, or where they are assigned."""
    if "CUDA_VISIBLE_DEVICES" in os.environ or not (count := gpus()):
        yield
        return
    folder.mkdir(exist_ok=True)
    slots = [(device, slot) for slot in range(PER_GPU) for device in range(count)]
    for device, slot in itertools.cycle(slots):
        lock = FileLock(folder / f"gpu{device}-{slot}.lock")
        try:
            lock.acquire(timeout=1)
        except Timeout:
            continue
        with lock:
            os.environ["CUDA_VISIBLE_DEVICES"] = str(device)
            yield
        return


def gpus() -> int:
    """How many NVIDIA GPUs this machine has."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
        return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
    return 0


def main(path: str, marker: str) -> None:
    """Find the work in the grid and do it. What fails ends in one line that begins with FAILED."""
    try:
        grid = read_grid(path)
        works = {Path(work.marker).stem: work for work in (*grid.pools, *grid.jobs)}
        if marker not in works:
            changed = "the grid, the code or the data changed since the sweep began; start it again"
            raise GridError(f"{marker} is not in {path} any more: {changed}")
        run(grid, works[marker])
    except (Exception, SystemExit) as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        print(*lines, f"{FAILED}{reason(lines) or type(error).__name__}", sep="\n")
        sys.exit(1)


def reason(lines: list[str]) -> str:
    """What happened, in one line: of a traceback, the last line that names an error, with what it says next."""
    places = [index for index, line in enumerate(lines) if ERROR_LINE.match(line)]
    place = places[-1] if places else len(lines) - 1
    told = [line.strip() for line in lines[place : place + 2]] if lines else [""]
    return " ".join(told if told[0].endswith(("because", ":")) else told[:1])


if __name__ == "__main__":
    main(*sys.argv[1:])
