"""Figures by their kind, as HTML and as files: a picture that works without a script, its specification, its data."""

from collections.abc import Callable
from html import escape

from . import forests, set_charts
from .charts import Drawn, picture, specification
from .findings import Findings
from .pages import Files, as_script

KINDS: dict[str, Callable[[Findings], Drawn | None]] = {
    "forest": forests.primary,
    "effects": forests.effects,
    "architectures": forests.architectures,
    "others": forests.others,
    "strips": set_charts.strips,
    "growing": forests.growing,
    "costs": set_charts.costs,
    "recognised": set_charts.recognised,
    "alpha": set_charts.alpha,
    "gradients": set_charts.gradients,
    "gains": set_charts.gains,
}


def draw(kind: str, found: Findings, case: str | None = None) -> Drawn | None:
    """A chart by its kind; of ``alpha`` that of one case. ValueError: no such kind, or a case of another."""
    if kind not in KINDS:
        raise ValueError(f"no chart is called {kind!r}; known: {', '.join(KINDS)}")
    if case is not None and kind != "alpha":
        raise ValueError(f"the chart {kind!r} has no cases, so none can be chosen (case: {case!r}); only 'alpha' has")
    return KINDS[kind](found) if case is None else KINDS[kind](found, case)


def drawn(name: str, chart: Drawn) -> tuple[str, Files]:
    """HTML of a chart, with links to its files, and these."""
    text = as_script(specification(chart.chart))
    files: Files = {
        f"figures/{name}.svg": picture(chart.chart),
        f"figures/{name}.csv": chart.table.to_csv(index=False),
        **(chart.files or {}),
    }
    html = (
        '<div class="chart-box"><div class="chart-still">'
        f'<img src="figures/{name}.svg" alt="{escape(chart.seen)}"></div>'
        f'<script type="application/json" class="chart-spec">{text}</script></div>'
        f'<p class="files">Data: <a href="figures/{name}.csv" download>CSV</a>, '
        f'<a href="figures/{name}.svg" download>SVG</a></p>\n'
    )
    return html, files
