"""Files that are whole or absent: atomic replacement, a lock between processes, checked safetensors.

A process that is killed while it writes leaves the old file, or none; one that reads sees a whole file or
gets an error that names it. Nothing here unpickles.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import safetensors
import safetensors.torch
from filelock import FileLock
from torch import Tensor

HEADER = "ddlib"  # the one key of a safetensors header that is ours: JSON text


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary file beside ``path`` to write into; it takes the place of ``path`` when the block ends well.

    Makes the folder if it is absent. After an error ``path`` is what it was, and the temporary file is gone.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp hides the file from everybody else
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: str | os.PathLike) -> Iterator[None]:
    """Hold the lock of ``path`` for a block: another process that wants it waits. A dead holder's lock is free."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        yield


def write_tensors(path: str | os.PathLike, tensors: Mapping[str, Tensor], about: Mapping[str, object]) -> None:
    """Write tensors and ``about`` (what JSON can hold) as one safetensors file, atomically, with a checksum."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {HEADER: json.dumps({"about": about, "sha256": _checksum(tensors, about)})}
    with replacing(path) as temporary:
        safetensors.torch.save_file(tensors, temporary, metadata=header)


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
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged or was not written by ddlib ({error!r}); delete it.") from error
    if checksum != _checksum(tensors, about):
        raise ValueError(f"{path} is damaged: its checksum does not match its content; delete it.")
    return tensors, about


def tensor_hash(tensors: Mapping[str, Tensor]) -> str:
    """16 hexadecimal digits of the SHA-256 of names, types, shapes and bits, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.numpy())
    return digest.hexdigest()[:16]


def _checksum(tensors: Mapping[str, Tensor], about: object) -> str:
    """Of all that a file holds: a damaged digit in ``about`` would change a result as a damaged tensor does."""
    return hashlib.sha256(f"{tensor_hash(tensors)} {json.dumps(about)}".encode()).hexdigest()[:16]
