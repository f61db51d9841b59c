"""What all charts share: what one is, how a page gets it, rows of words above marks, colours.

Labels stand above the marks, not beside them, so that a chart fits a phone; nothing in it needs the network. A chart
that is shown without a script is the same, drawn once (``picture``).
"""

import re
import textwrap
from typing import NamedTuple

import altair as alt
import pandas as pd
import vl_convert
from matplotlib.colors import to_hex

from ddlib.study.arms import Arm

from .pages import Files

VERSION = "6.4"  # of Vega-Lite
WIDTH, ROW, LINE = 640, 30, 16  # pixels: of a figure, of a mark in its row, and of each line of words above it
LETTERS = 52  # of such a line: as many as a phone has room for
INK = "#262626"
ACCURACY = "test accuracy, %"


class Drawn(NamedTuple):
    """A chart, the data that it shows, what it looks like, in words, and the files that it leads to."""

    chart: alt.TopLevelMixin
    table: pd.DataFrame
    seen: str
    files: Files | None = None


def specification(chart: alt.TopLevelMixin) -> dict[str, object]:
    """In Vega, as a page holds it: compiled here, so that no page loads a compiler. The width is that of the page."""
    compiled = vl_convert.vegalite_to_vega(chart.to_dict(), vl_version=VERSION)
    config = {key: value for key, value in compiled.pop("config", {}).items() if key != "axis"}  # axes: the page's ink
    return {**compiled, "config": config, "background": None}


def picture(chart: alt.TopLevelMixin) -> str:
    """The chart as SVG, on no ground."""
    return vl_convert.vegalite_to_svg({**_fixed(chart.to_dict()), "background": "transparent"}, vl_version=VERSION)


def _fixed(spec: object) -> object:
    """The same with a width in pixels wherever the page would give one."""
    if isinstance(spec, list):
        return [_fixed(part) for part in spec]
    if not isinstance(spec, dict):
        return spec
    return {key: WIDTH if key == "width" and value == "container" else _fixed(value) for key, value in spec.items()}


def bundle() -> str:
    """Vega as one file, inside a function: its names are those of other scripts too.

    It lies within ``vl_convert``, under the address that its pages name, and is taken from there without a network; by
    the plain name comes nothing, or a compiler of 0.3 MB with it.
    """
    address = re.search(r'src="([^"]+/vega@)\d', vl_convert.vegalite_to_html({"mark": "point"}, vl_version=VERSION))[1]
    source = f"import * as whole from '{address}{vl_convert.get_vega_version()}/+esm.js'; window.vega = whole;"
    return f"(() => {{{vl_convert.javascript_bundle(source, vl_version=VERSION)}}})();"


class Lanes(NamedTuple):
    """Rows of words above marks in a chart: the height of each, and how far below its middle the marks lie."""

    count: int
    height: int

    @classmethod
    def of(cls, texts: pd.Series) -> "Lanes":
        """As high as the text with most lines asks for."""
        return cls(len(texts), ROW + LINE * (1 + int(texts.str.count("\n").max())))

    @property
    def below(self) -> float:
        """Pixels."""
        return self.height / 2 - 17

    def words(self, base: alt.Chart, column: str) -> alt.Chart:
        """The layer of words."""
        style = {"align": "left", "baseline": "top", "fontSize": 13, "lineHeight": LINE, "lineBreak": "\n"}
        text = base.mark_text(**style, dy=3 - self.height / 2, color=INK, aria=False)  # marks say it too
        return text.encode(x=alt.value(0), text=alt.Text(f"{column}:N"))

    def finished(self, chart: alt.LayerChart) -> alt.LayerChart:
        """The chart at its height."""
        return styled(chart.properties(width="container", height=self.height * self.count + 14))


def unbroken(text: str) -> str:
    """With spaces at which no line ends."""
    return text.replace(" ", "\u00a0")


def folded(text: str) -> str:
    """In lines that a phone has room for."""
    return "\n".join(textwrap.wrap(text, LETTERS, break_on_hyphens=False))


def colours_of(arms: list[str], names: list[str] | None = None) -> alt.Scale:
    """The colour of each arm, the same in all figures; ``names`` are what the data call them, else the arms' names."""
    return alt.Scale(domain=names or arms, range=[to_hex(Arm.named(arm).colour) for arm in arms])


def styled(chart: alt.TopLevelMixin) -> alt.TopLevelMixin:
    """With labels that a phone can show, and no frame."""
    return chart.configure_axis(labelFontSize=12, titleFontSize=12, grid=True).configure_view(stroke=None)
