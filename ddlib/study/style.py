"""The look of all figures. Importing this module changes no setting of matplotlib.

Arms have colours of their own (``Arm.colour``); all else takes them from seaborn's colour-blind palette. Colours never
stand alone: markers or labels tell things apart too.
"""

import contextlib
from collections.abc import Iterator

import matplotlib.pyplot as plt
import seaborn as sns

STYLE = {
    "figure.facecolor": "white",  # the same on light and dark pages
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
BLUE, GREY, INK = PALETTE[0], "0.55", "0.15"


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The look of all figures, for a ``with`` block or as a decorator; settings return to what they were."""
    plt.draw_if_interactive()  # loads the backend now: loaded inside, a notebook's would be reset to non-interactive
    with plt.rc_context({**sns.axes_style("whitegrid"), **STYLE}):
        yield


def nothing_to_draw(why: str) -> None:
    """One line in place of a figure."""
    print(f"Nothing to draw: {why}.")
