"""Figures by their kind, as HTML and as files: a picture that works without a script, its specification, its data."""

from html import escape

from . import forests, set_charts
from .charts import picture, specification
from .findings import Findings
from .pages import Files, as_script
from .pictures import pictures_of


def draw(kind: str, found: Findings, case: str | None = None) -> object:
    """A chart by its kind; where several settings lie side by side, of one case. ValueError: no such kind."""
    kinds = {
        "forest": lambda: forests.forest(found, True),
        "effects": lambda: forests.effects(found),
        "architectures": lambda: forests.architectures(found),
        "others": lambda: forests.forest(found, False),
        "strips": lambda: set_charts.strips(found, pictures_of(found)),
        "growing": lambda: forests.growing(found),
        "costs": lambda: set_charts.costs(found),
        "recognised": lambda: set_charts.recognised(found),
        "alpha": lambda: set_charts.alpha(found, *filter(None, [case])),
        "gradients": lambda: set_charts.gradients(found),
        "gains": lambda: set_charts.gains(found),
    }
    if kind not in kinds:
        raise ValueError(f"no chart is called {kind!r}; known: {', '.join(kinds)}")
    return kinds[kind]()


def drawn(name: str, chart: object, found: Findings) -> tuple[str, Files]:
    """HTML of a chart, with links to its files, and these."""
    text = as_script(specification(chart.chart))
    files: Files = {
        f"figures/{name}.svg": picture(chart.chart),
        f"figures/{name}.csv": chart.table.to_csv(index=False),
    }
    if name.startswith("strips"):
        files |= {f"pictures/{run}.png": content for run, content in pictures_of(found).items()}
        files |= {f"records/{run}.json": (found.folder / f"{run}.json").read_bytes() for run in found.sets["run"]}
    html = (
        '<div class="chart-box"><div class="chart-still">'
        f'<img src="figures/{name}.svg" alt="{escape(chart.seen)}"></div>'
        f'<script type="application/json" class="chart-spec">{text}</script></div>'
        f'<p class="files">Data: <a href="figures/{name}.csv" download>CSV</a>, '
        f'<a href="figures/{name}.svg" download>SVG</a></p>\n'
    )
    return html, files
