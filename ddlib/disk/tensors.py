"""Checked safetensors: tensors and what is known about them in one file, with a checksum. Nothing here unpickles."""

import hashlib
import json
import os
from collections.abc import Mapping

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ddlib.disk.files import replacing
from ddlib.disk.paths import absolute

HEADER = "ddlib"  # the one key of a safetensors header that is ours: JSON text


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
    path = absolute(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    content = path.read_bytes()  # at once: another process may put a new file in its place
    try:
        tensors = dict(sorted(safetensors.torch.load(content).items()))
        header = json.loads(_metadata(content)[HEADER])
        about, checksum = header["about"], header["sha256"]
        right = isinstance(about, dict) and checksum == _checksum(tensors, about)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RecursionError, RuntimeError) as error:
        # Where ours would say so, a file does not: a sound one of somebody else, not to be deleted.
        verdict = "is damaged; delete it" if _ours(content) else "was not written by ddlib"
        raise ValueError(f"{path} {verdict} ({error!r:.200}).") from error
    if not right:
        raise ValueError(f"{path} is damaged: its checksum does not match its content; delete it.")
    return tensors, about


def _metadata(content: bytes) -> Mapping[str, str]:
    """The text that a safetensors file carries beside its tensors."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end])["__metadata__"]


def _ours(content: bytes) -> bool:
    """Whether a file that cannot be read begins as ours do."""
    return f'"{HEADER}"'.encode() in content[:100]


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
