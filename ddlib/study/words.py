"""Numbers in words: as tables, figures and pages show them."""

import math
from collections.abc import Mapping


def signed(value: float, digits: int = 2) -> str:
    """With its sign, and a true minus.

    >>> signed(-0.26), signed(0.004)
    ('−0.26', '+0.00')
    """
    return f"{value:+z.{digits}f}".replace("-", "−")


def interval(low: float, high: float) -> str:
    """Both bounds in brackets; empty for a single set, which has none.

    >>> interval(-1.2, 0.3), interval(float("nan"), float("nan"))
    ('[−1.20, +0.30]', '')
    """
    return "" if math.isnan(low) else f"[{signed(low)}, {signed(high)}]"


def p_value(p: float | None) -> str:
    """To two significant digits; a dash for none.

    >>> p_value(0.0312), p_value(0.00001), p_value(None)
    ('0.031', '< 0.0001', '–')
    """
    return "–" if p is None or math.isnan(p) else "< 0.0001" if p < 0.0001 else f"{p:#.2g}"


def weight(alpha: float) -> str:
    """An alpha, without powers of ten.

    >>> weight(0.1), weight(1e6)
    ('0.1', '1,000,000')
    """
    return f"{alpha:,.10g}"


def plural(number: object, of: str) -> str:
    """A number of things.

    >>> plural(1, "image"), plural(2, "image")
    ('1 image', '2 images')
    """
    return f"{int(number)} {of}" + "s" * (int(number) != 1)


def estimate(row: Mapping[str, object]) -> str:
    """A contrast in points (a row of ``contrasts.compare``), its interval if it has one, and n.

    >>> estimate({"difference": 0.012, "t_low": 0.001, "t_high": 0.023, "n": 10})
    '+1.20 points [+0.10, +2.30], n = 10'
    """
    bounds = interval(100 * row["t_low"], 100 * row["t_high"])
    return f"{signed(100 * row['difference'])} points{bounds and ' ' + bounds}, n = {row['n']}"
