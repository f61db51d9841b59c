"""Files that are whole or absent: atomic replacement, a lock between processes, checked safetensors.

A process that is killed while it writes leaves the old file, or none; one that reads sees a whole file or
gets an error that names it. What such a process leaves beside the file is removed by the next one that writes
there. Nothing here unpickles.
"""

import contextlib
import errno
import hashlib
import json
import os
import platform
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from filelock import FileLock, Timeout
from torch import Tensor

HEADER = "ddlib"  # the one key of a safetensors header that is ours: JSON text
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
    ``path`` is what it was, and the temporary file is gone. Raises OSError that says which file, why and what to do.
    """
    path = Path(path)
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
def locked(path: str | os.PathLike, wait: bool = True) -> Iterator[None]:
    """Hold the lock of ``path`` for a block: another process that wants it waits. A dead holder's lock is free.

    Raises filelock.Timeout if somebody holds it and ``wait`` is False; OSError if no lock can be written.
    """
    path = Path(path)
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
        advice = ADVICE.get(error.errno, "look after that folder, or")
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


def write_tensors(path: str | os.PathLike, tensors: Mapping[str, Tensor], about: Mapping[str, object]) -> None:
    """Write tensors and ``about`` (what JSON can hold) as one safetensors file, atomically, with a checksum."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {HEADER: json.dumps({"about": about, "sha256": _checksum(tensors, about)})}
    content = safetensors.torch.save(tensors, metadata=header)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def read_tensors(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, object]]:
    """What :func:`write_tensors` wrote: tensors on the CPU, and ``about``.

    Raises FileNotFoundError if there is no such file, ValueError (naming it) if it is damaged or not ours.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[HEADER])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
        about, checksum = header["about"], header["sha256"]
        right = isinstance(about, dict) and checksum == _checksum(tensors, about)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RecursionError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged or was not written by ddlib ({error!r:.200}); delete it.") from error
    if not right:
        raise ValueError(f"{path} is damaged: its checksum does not match its content; delete it.")
    return tensors, about


def tensor_hash(tensors: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits of the SHA-256 of names, types, shapes and bits, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())  # numpy does not know every type
    return digest.hexdigest()[:16]


def _checksum(tensors: Mapping[str, Tensor], about: object) -> str:
    """Of all that a file holds: a damaged digit in ``about`` would change a result as a damaged tensor does."""
    return hashlib.sha256(f"{tensor_hash(tensors)} {json.dumps(about)}".encode()).hexdigest()[:16]
