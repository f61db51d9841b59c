"""Markers: small JSON files that say that a job is done, and by which files, with their checksums.

A marker is written last and atomically, so what it names was whole then; and each time a sweep starts, every marker is
compared with its files again. Only the marker of a pool needs torch.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

POOLS = "pools"  # the folder of their markers
WANTED = {"identity": dict, "files": dict, "seconds": (int, float), "bytes": int}


def write_marker(path: Path, identity: Mapping, files: Iterable[Path], seconds: float, base: Path) -> None:
    """Write the marker of a job; ``files`` are named by their path below ``base``. Older markers of the job go."""
    files = list(files)
    marker = {
        "identity": identity,
        "files": {file.relative_to(base).as_posix(): checksum_for(path)(file) for file in files},
        "seconds": round(seconds, 3),
        "bytes": sum(file.stat().st_size for file in files),
    }
    write_whole(path, json.dumps(marker, indent=1))
    for other in versions(path):
        if other != path:
            other.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text file whole or not at all; for a writer that holds a lock, so that there is no second one.

    What a killed writer leaves is overwritten by the next. (ddlib.disk.files does more, and its import takes seconds.)
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name.rsplit('.', 2)[0]}.tmp")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def read_marker(path: Path) -> dict[str, object]:
    """A marker. Raises ValueError if it is damaged, FileNotFoundError if it is not there."""
    marker = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(marker, dict) or not all(isinstance(marker.get(name), kind) for name, kind in WANTED.items()):
        raise ValueError(f"{path} is not a marker")
    return marker


def wrong_with(path: Path, base: Path, absent_is_fine: bool = False) -> str:
    """Why a marker does not hold any more; empty if it does. ``absent_is_fine``: its files may be gone."""
    try:
        files = read_marker(path)["files"]
    except (ValueError, OSError) as error:
        return f"its marker cannot be read ({type(error).__name__})"
    for name, wanted in files.items():
        file = base / name
        if not file.is_file():
            if not absent_is_fine:
                return f"{name} is missing"
        elif checksum_for(path)(file) != wanted:
            return f"{name} is damaged or was changed"
    return ""


def versions(path: Path) -> list[Path]:
    """Markers of the same job, of any identity."""
    name = path.name.rsplit(".", 2)[0]
    return sorted(other for other in path.parent.glob("*.json") if other.name.rsplit(".", 2)[0] == name)


def why_stale(path: Path, identity: Mapping) -> str:
    """What has changed since the job was last done; empty if it never was."""
    for other in versions(path):
        try:
            before = read_marker(other)["identity"]
        except (ValueError, OSError):
            continue
        return "; ".join(changes(before, identity)) or "its marker was lost"
    return ""


def changes(before: Mapping, now: Mapping) -> Iterable[str]:
    """The differences of two identities in words."""
    for name in sorted({*before, *now}):
        a, b = before.get(name), now.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            yield from changes(a, b)
        elif a != b:
            yield f"{name} was {a!r}, is {b!r}"


def checksum_for(marker: Path) -> Callable[[Path], str]:
    """How the files of a marker are compared: PTMs by their tensors, all else by its bytes."""
    return tensors_checksum if marker.parent.name == POOLS else bytes_checksum


def bytes_checksum(path: Path) -> str:
    """16 hex digits of the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def tensors_checksum(path: Path) -> str:
    """16 hex digits for the tensors in a safetensors file, which also holds the seconds that they took."""
    from ddlib.disk.tensors import read_tensors, tensor_hash  # here, because it imports torch

    try:
        return tensor_hash(read_tensors(path)[0])
    except ValueError:
        return "damaged"
