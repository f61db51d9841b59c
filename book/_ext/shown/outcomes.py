"""What was expected of each contrast before its runs, and whether it came so: signs by verdicts, sizes by intervals."""

import math
from collections.abc import Iterable, Mapping
from functools import cache

import yaml

from ddlib.study.statistics import MARGIN

from . import plans

SIGNS = {"above": "above 0", "below": "below 0", "equal": "equal"}


def written(name: str, key: str) -> dict[str, object]:
    """What a file of the book says of the contrasts of an ablation."""
    return yaml.safe_load((plans.ROOT / "book" / f"{name}.yaml").read_text(encoding="utf-8"))[key]


@cache
def expectations(key: str) -> dict[str, tuple[str, ...]]:
    """What was expected of each contrast of an ablation before its first run, in one or more words of ``SIGNS``."""
    expected = written("expectations", key)
    return {name: tuple(those) if isinstance(those, list) else (those,) for name, those in expected.items()}


@cache
def expected_sizes(key: str) -> dict[str, str]:
    """The sizes that were expected beside signs, in words of ``SIZES``."""
    return written("expected_sizes", key)


SIZES = {"less than a point": (-1, 1), "several points": (1, math.inf), "some three points": (2, 4)}  # points
TAKEN_FOR = {"several points": "more than 1, set afterwards", "some three points": "2 to 4, set before this ablation"}


def outcome(expected: Iterable[str], row: Mapping[str, object], size: str | None = None) -> str:
    """Whether a contrast came out as expected: ``open`` where its verdict decides nothing.

    A clear difference where equality was expected is ``otherwise``, which need not mean that it is beyond the margin.
    A size that was expected is so if it holds the interval, and otherwise if it holds nothing of it.
    """
    found = set(row["signs"])
    if not found:
        return "open"
    if found & set(expected):
        also = "" if len(found) == 1 or "equal" not in expected else ": within a point, though the difference is clear"
        return of_size(row, size) if size else f"as expected{also}"
    near = row["t_low"] < MARGIN and row["t_high"] > -MARGIN
    return "otherwise; it may lie within a point" if near and "equal" in expected else "otherwise"


def in_numbers(size: str | None) -> str:
    """A size in the words of the hypotheses, and what they are taken for, where that was set afterwards."""
    return f"{size} ({TAKEN_FOR[size]})" if size in TAKEN_FOR else size or ""


def of_size(row: Mapping[str, object], size: str) -> str:
    """Whether a difference whose sign is the expected one has the expected size."""
    least, most = SIZES[size]
    side = 1 if row["difference"] > 0 else -1
    low, high = sorted(100 * side * row[bound] for bound in ("t_low", "t_high"))
    if least <= low and high <= most:
        return "as expected, in size too"
    return f"sign as expected, size {'otherwise' if high < least or low > most else 'open'}"
