"""Files that are whole or absent: atomic replacement, and a lock between processes.

A process that is killed while it writes leaves the old file, or none; one that reads sees a whole file or
gets an error that names it. What such a process leaves beside the file is removed by the next one that writes
there.
"""

import contextlib
import errno
import hashlib
import os
import platform
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from ddlib.disk.paths import absolute

TEMPORARY = re.compile(r"\..+-([0-9a-f]{8})-(\d+)-\w+\.tmp")  # place and number of the process that writes it
STALE_SECONDS = 24 * 3600  # no write takes so long: then a temporary file of another machine has no writer any more

FULL = "free some space there, or"
ADVICE = {  # what helps, by the system's error
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), FULL),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "get the right to write there, or"),
}


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary file beside ``path`` to write into; it takes the place of ``path`` when the block ends well.

    Makes the folder if it is absent, and removes the temporary files there of writers that are dead. After an error
    ``path`` is what it was, and the temporary file is gone. ``~`` is the home folder. Raises OSError that says which
    file, why and what to do.
    """
    path = absolute(path)
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path.parent)
        prefix = f".{path.stem}-{_place()}-{os.getpid()}-"
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=".tmp")
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)  # mkstemp hides the file from everybody else
            os.fsync(handle)  # some file systems tell only now that the disk is full
            os.replace(temporary, path)
        finally:
            os.close(handle)
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary folder to write into; it becomes ``path`` when the block ends well, and is gone after an error.

    Raises FileExistsError if ``path`` is a file, or a folder that is not empty, and OSError as :func:`replacing` does.
    """
    path = absolute(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{path} is there already and not empty: choose another folder, or remove it first.")
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-") as temporary:
            inside = Path(temporary) / "folder"
            inside.mkdir()
            yield inside
            if path.exists():
                path.rmdir()  # an empty one is in the way on Windows
            inside.rename(path)


@contextlib.contextmanager
def locked(path: str | os.PathLike, wait: bool = True) -> Iterator[None]:
    """Hold the lock of ``path`` for a block: another process that wants it waits. A dead holder's lock is free.

    Raises filelock.Timeout if somebody holds it and ``wait`` is False; OSError if no lock can be written.
    """
    path = absolute(path)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=-1 if wait else 0)
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """An error of the file system says which file, what happened and what to do."""
    try:
        yield
    except Timeout:
        raise
    except OSError as error:
        advice = ADVICE.get(error.errno, "check that folder, or")
        raise type(error)(
            f"{path} cannot be written ({error.strerror or error}). What was there before is as it was. To go on, "
            f"{advice} choose another folder (DDLIB_RUNS for records, DDLIB_CACHE for trained PTMs)."
        ) from error


def _place() -> str:
    """8 hex digits for where a process number means something: this machine since it started, and this container."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text() + os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        text = platform.node()
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _remove_stale(folder: Path) -> None:
    """Remove temporary files whose writer is dead; of other machines, which cannot be asked, after a day.

    If a living writer were hit all the same (clocks a day apart) it would get an error, and no reader half a file.
    """
    for name in os.listdir(folder):
        if not (found := TEMPORARY.fullmatch(name)):
            continue
        with contextlib.suppress(OSError):  # somebody else was faster
            dead = found[1] == _place() and not _alive(int(found[2]))
            if dead or time.time() - (folder / name).stat().st_mtime > STALE_SECONDS:
                (folder / name).unlink()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)  # sends nothing
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True
