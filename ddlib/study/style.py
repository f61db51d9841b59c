"""The look of all figures. Importing this module changes no setting of matplotlib; the first figure in a notebook that
shows PNGs makes it show SVG from then on.

Arms have colours of their own (``Arm.colour``); all else takes them from seaborn's colour-blind palette. Colours never
stand alone: markers or labels tell things apart too.
"""

import contextlib
import sys
from collections.abc import Iterable, Iterator
from functools import cache

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

STYLE = {
    "figure.facecolor": "none",  # the page is the ground: a dark one turns the ink light (book/_static/custom.css)
    "axes.facecolor": "none",
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,  # nothing is cut off
    "font.size": 10,
    "figure.titlesize": 10.5,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "legend.frameon": False,
}
PALETTE = [color for index, color in enumerate(sns.color_palette("colorblind")) if index != 8]  # no yellow
ARM, CLASS, PAIR = 48, 32, 80  # characters of names in figures: longer ones leave no room for what is drawn
# Fonts with the scripts that matplotlib's own font lacks, on the usual systems. Those that are installed are used.
OTHER_SCRIPTS = ("Noto Sans CJK JP", "Noto Sans CJK SC", "Source Han Sans", "Microsoft YaHei", "PingFang SC")
OTHER_SCRIPTS += ("Hiragino Sans", "Yu Gothic", "WenQuanYi Zen Hei", "Malgun Gothic", "Arial Unicode MS", "Unifont")
BLUE, GREY, INK = PALETTE[0], "0.55", "0.15"
ON_ANY_PAGE = "0.46"  # ink beside pictures, whose colours no page may turn: 4.7 : 1 on white, 4.1 : 1 on black pages


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The look of all figures, in a ``with`` block or as a decorator; all settings return to what they were."""
    _draw_notebooks_as_svg()
    plt.draw_if_interactive()  # loads the backend now: loaded inside, a notebook's would be reset to non-interactive
    with plt.rc_context({**sns.axes_style("whitegrid"), **STYLE, "font.family": _fonts()}):
        yield


@cache
def _draw_notebooks_as_svg() -> None:
    """Once, in a notebook whose user has chosen no other format than the PNGs that it shows by itself."""
    if "IPython" not in sys.modules:
        return
    shell = sys.modules["IPython"].get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return
    from matplotlib_inline.backend_inline import set_matplotlib_formats
    from matplotlib_inline.config import InlineBackend

    if InlineBackend.instance(parent=shell).figure_formats == {"png"}:
        set_matplotlib_formats("svg", metadata={"Date": None})


def caption(name: object, most: int = ARM) -> str:
    """A name that a user gave (of a class, an arm, a data set) for a figure: short, in one line, no mathematics.

    What no font can draw is written as Python does: ``\\u732b``.
    """
    known = _glyphs()
    text = "".join(c if ord(c) in known and c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))
    text = text if len(text) <= most else f"{text[: most - 12]}…{text[-11:]}"
    return text.replace("$", r"\$")  # else matplotlib takes what stands between two of them for a formula


def captions(names: Iterable[object], most: int = ARM) -> list[str]:
    """:func:`caption` of several, and a line of text for each that had to be changed, with the name in full."""
    pairs = [(str(name), caption(name, most)) for name in names]
    for name, text in dict(pairs).items():
        if text.replace(r"\$", "$") != name:
            print(f"In the figure {text}: {name!r}")
    return [text for _, text in pairs]


@cache
def _fonts() -> list[str]:
    installed = {font.name for font in fontManager.ttflist}
    return ["sans-serif", "DejaVu Sans", *(name for name in OTHER_SCRIPTS if name in installed)]


@cache
def _glyphs() -> frozenset[int]:
    """The characters that the figures' fonts can draw."""
    paths = {findfont(FontProperties(family=[family])) for family in _fonts()}
    return frozenset().union(*(get_font(path).get_charmap() for path in paths))


def nothing_to_draw(why: str) -> None:
    """One line in place of a figure."""
    print(f"Nothing to draw: {why}.")
