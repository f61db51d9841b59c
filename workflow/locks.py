"""Locks in the folder of a sweep: of the sweep, and of each pool and job. They end with the process that holds them."""

import contextlib
import fcntl
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from workflow.plan import Grid


@contextlib.contextmanager
def alone(grid: Grid) -> Iterator[None]:
    """Hold the lock of the sweep. Ends the program if somebody else does, or if the folder cannot be written."""
    lock = FileLock(grid.folder / "locks" / "sweep.lock", timeout=0)
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        sys.exit(f"another sweep is running in {grid.folder}: `make progress GRID={grid.path}` says how far it is")
    except OSError as error:
        sys.exit(f"{grid.folder} cannot be written ({error}): set DDLIB_RUNS to a folder that can")
    with lock:
        yield


def lock_of(folder: Path, name: str) -> Path:
    """What the process holds that carries out this pool or job."""
    return folder / "locks" / f"{name}.lock"


def held(lock: Path) -> bool:
    """Whether a process holds a lock. Looking shares the lock for a moment, and writes nothing."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
