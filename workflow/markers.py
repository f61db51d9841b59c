"""Markers: small JSON files that say that a job is done, and by which files, with their checksums.

A marker is written last and at once, so what it names was whole then; and each time a sweep starts, every marker is
compared with its files again.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from ddlib.disk.files import replacing
from ddlib.disk.tensors import read_tensors, tensor_hash

WANTED = {"identity": dict, "files": dict, "seconds": (int, float), "bytes": int}


def write_marker(path: Path, identity: Mapping, files: Iterable[Path], seconds: float, base: Path) -> None:
    """Write the marker of a job; ``files`` are named by their path below ``base``. Older markers of the job go."""
    files = list(files)
    marker = {
        "identity": identity,
        "files": {file.relative_to(base).as_posix(): checksum(file) for file in files},
        "seconds": round(seconds, 3),
        "bytes": sum(file.stat().st_size for file in files),
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(marker, indent=1), encoding="utf-8")
    for other in versions(path):
        if other != path:
            other.unlink(missing_ok=True)


def read_marker(path: Path) -> dict[str, object]:
    """A marker. Raises ValueError if it is damaged, FileNotFoundError if it is not there."""
    marker = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(marker, dict) or not all(isinstance(marker.get(name), kind) for name, kind in WANTED.items()):
        raise ValueError(f"{path} is no marker")
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
        elif checksum(file) != wanted:
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


def checksum(path: Path) -> str:
    """16 hex digits of the SHA-256 of a file; of a safetensors file, of its tensors, not of the time that they took."""
    if path.suffix == ".safetensors":
        try:
            return tensor_hash(read_tensors(path)[0])
        except ValueError:
            return "damaged"
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
