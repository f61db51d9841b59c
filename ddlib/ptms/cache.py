"""Room for trained PTMs: what the cache may hold, and which files give way to new ones."""

import contextlib
import math
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from filelock import Timeout

from ddlib.disk.files import locked


def cache_limit() -> float:
    """What the PTMs in the cache may take, in bytes: `DDLIB_CACHE_LIMIT` in gigabytes (10^9 bytes), else no limit.

    Raises ValueError if the variable is no number above 0.
    """
    text = os.environ.get("DDLIB_CACHE_LIMIT") or "inf"
    try:
        limit = float(text) * 1e9
    except ValueError:
        limit = math.nan
    if not limit > 0:
        raise ValueError(f"DDLIB_CACHE_LIMIT is {text!r}; expected gigabytes, such as 20 or 0.5")
    return limit


FILE = re.compile(r"([0-9a-f]{16})-epoch\d{4,}\.safetensors")  # nothing else is ever removed


def make_room(wanted: Mapping[Path, int]) -> None:
    """Make room for the files of one folder that are ``wanted`` and not there yet; the values are their bytes.

    Beyond :func:`cache_limit` the least recently used PTMs go, but none that is wanted or in work.
    Raises ValueError if that is not enough, or the disk too full.
    """
    new = {path: size for path, size in wanted.items() if not path.exists()}
    if not new:
        return
    folder, needed, limit = next(iter(new)).parent, sum(new.values()), cache_limit()
    exists = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    held = sorted((path for path in folder.glob("*.safetensors") if FILE.fullmatch(path.name)), key=_used)
    kept = {path.name[:16] for path in wanted}
    for path in held:
        if _bytes(held) + needed > limit and path.name[:16] not in kept:
            with contextlib.suppress(Timeout), locked(folder / path.name[:16], wait=False):
                path.unlink(missing_ok=True)
    where = f"The PTMs to be trained need {needed / 1e6:.1f} MB in {folder}"
    if (there := _bytes(held)) + needed > limit:
        raise ValueError(
            f"{where}, which holds {there / 1e6:.1f} MB that are wanted or in work; the limit, DDLIB_CACHE_LIMIT, is "
            f"{limit / 1e9:g} GB. Raise it, or train fewer or smaller PTMs."
        )
    if (free := shutil.disk_usage(exists).free) < needed:
        raise ValueError(
            f"{where}, and {free / 1e6:.1f} MB are free. Free some, or let DDLIB_CACHE name another folder."
        )


def touch(path: Path) -> None:
    """Say that a file was used just now; in a cache that cannot be written nothing gives way either."""
    with contextlib.suppress(OSError):
        os.utime(path)


def _used(path: Path) -> float:
    with contextlib.suppress(FileNotFoundError):  # another process made room too
        return path.stat().st_mtime
    return 0


def _bytes(paths: list[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.exists())
