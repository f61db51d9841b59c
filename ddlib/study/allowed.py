"""What the values of parameters may be: kinds of values, each with its words for messages and for the book.

A kind is a type with an :class:`Allowed` beside it, as pydantic reads them: ``ipc: whole(1)``.
"""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import chain
from typing import Annotated, get_args

MOST = 10**9  # of whole numbers: no run could be larger, and a number with hundreds of digits is a slip of the finger
LONGEST = 1000  # characters of a text, such as a path


@dataclass(frozen=True)
class Allowed:
    """What a value may be, in words and as a test. Both look into their tables anew, so rows added later count."""

    words: Callable[[], str]
    fits: Callable[[object], bool]
    none: str | None = None  # what None stands for, where it is allowed

    def __str__(self) -> str:
        return self.words() + (f", or None for {self.none}" if self.none else "")


def whole(least: int, most: int = MOST) -> type:
    """A whole number."""
    return Annotated[
        int, Allowed(lambda: f"a whole number from {least} on, at most {most}", lambda n: least <= n <= most)
    ]


def one_of(*tables: Iterable[str]) -> type:
    """One of the names in some tables."""
    return Annotated[str, Allowed(lambda: f"one of {listed(*tables)}", lambda name: name in chain(*tables))]


def some_of(*tables: Iterable[str]) -> type:
    """Names joined by commas, each once; one that counts several times says how many: ``ConvNet-3 x3``."""

    def fits(text: str) -> bool:
        found = counted(text)
        return bool(found) and set(found) <= set(chain(*tables)) and len(found) == len(names(text))

    words = "one or more, joined by commas, of {}, with x2, x3, ... behind one that counts as many times"
    return Annotated[str, Allowed(lambda: words.format(listed(*tables)), fits)]


def line(words: Callable[[], str] = lambda: f"one line of text, at most {LONGEST} characters") -> type:
    """A text that can be a name or a path: one line, not empty, without the NUL that no path may hold."""

    def fits(text: str) -> bool:
        return bool(text.strip()) and len(text) <= LONGEST and text.isprintable()

    return Annotated[str, Allowed(words, fits)]


def pattern(expression: str, words: str) -> type:
    """A text that a regular expression describes."""
    return Annotated[str, Allowed(lambda: words, lambda text: bool(re.fullmatch(expression, text)))]


def or_none(kind: type, meaning: str) -> type:
    """The same, or None, which stands for ``meaning``."""
    base, allowed = get_args(kind)
    return Annotated[base | None, replace(allowed, none=meaning)]


AT_LEAST_0 = Annotated[float, Allowed(lambda: "a number of 0 or more", lambda x: math.isfinite(x) and x >= 0)]
ABOVE_0 = Annotated[float, Allowed(lambda: "a number above 0", lambda x: math.isfinite(x) and x > 0)]
FLAG = Annotated[bool, Allowed(lambda: "True or False", lambda flag: True)]


def names(text: str) -> list[str]:
    """``"ConvNet-3, VGG-11"`` as a list of names."""
    return [name.strip() for name in text.split(",") if name.strip()]


def counted(text: str) -> dict[str, int]:
    """Names with their numbers, 1 where none is said.

    >>> counted("ConvNet-3 x3, VGG-11")
    {'ConvNet-3': 3, 'VGG-11': 1}
    """
    matches = (re.fullmatch(r"(?s)(.*?)(?: x([1-9]\d?))?", name) for name in names(text))
    return {match[1]: int(match[2] or 1) for match in matches}


def listed(*tables: Iterable[str]) -> str:
    """The names in some tables, as a text."""
    return ", ".join(chain(*tables))


def shown(value: object) -> str:
    """A value in an error: 80 characters of it."""
    if isinstance(value, int) and abs(value) > 10**80:
        return "a number of more than 80 digits"  # Python refuses to print some of these
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        text = f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= 80 else f"{text[:80]}..."
