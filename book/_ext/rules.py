"""Sphinx extension: the rules of the study, told by the code that follows them.

The role ``{rule}`` gives a number of :mod:`ddlib.study.statistics` (``{rule}`sets```), ``{param}`` a value of a profile
in params/ (``{param}`desk.eval_epochs```). ``{planned-contrasts} NOTEBOOK`` lists what an ablation plans for the arms
of the grid in its option ``grid``, ``{power}`` what the sets of the study can find, ``{committed} FILE`` when a file
was first and last committed.
"""

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import yaml
from directives import FromCode, Table, escaped
from docutils import nodes
from docutils.parsers.rst import directives
from history import git
from shown.plans import GRIDS, RESULTS, ROOT, planned_for
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole

from ddlib.study import ablations, contrasts, statistics
from ddlib.study.tables import power_table

RULES = {
    "sets": f"{statistics.STUDY_SETS}",
    "pairs": f"{statistics.MIN_PAIRS}",
    "smallest p": f"{2 / 2 ** (statistics.MIN_PAIRS - 1):g}",
    "level": f"{100 * statistics.LEVEL:g} %",
    "interval": f"{100 * (1 - statistics.LEVEL):g} %",
    "margin": f"± {100 * statistics.MARGIN:g} point",
    "most contrasts": f"{int(statistics.LEVEL * 2 ** (statistics.STUDY_SETS - 1))}",
}


def number_of(rule: str) -> str:
    """A number of the rules, as text. Raises ValueError, naming those there are."""
    if rule not in RULES:
        raise ValueError(f"no rule is called {rule!r}; known: {', '.join(RULES)}")
    return RULES[rule]


def value_of(path: str) -> str:
    """The value of ``profile.parameter``, as text. Raises ValueError if there is none."""
    profile, _, name = path.partition(".")
    file = ROOT / "params" / f"{profile}.yaml"
    values = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if name not in values:
        raise ValueError(f"there is no {name!r} in {file}")
    return f"{values[name]:g}" if isinstance(values[name], float) else str(values[name])


class Said(SphinxRole):
    """Text that a function gives for the words of a role."""

    def __init__(self, say: object):
        super().__init__()
        self.say = say

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """One text node, or the error."""
        for file in (inspect.getsourcefile(statistics), *(ROOT / "params").glob("*.yaml")):
            self.env.note_dependency(str(file))
        try:
            return [nodes.Text(self.say(self.text))], []
        except ValueError as error:
            message = self.inliner.reporter.error(str(error), line=self.lineno)
            return [self.inliner.problematic(self.rawtext, self.rawtext, message)], [message]


def planned_rows(notebook: str, grid: str) -> list[list[str]]:
    """Each contrast that a grid can answer: words, what a positive one means, whether primary, number of pairs."""
    return [
        [escaped(contrast.words), escaped(contrast.above), kind, f"{pairs}"]
        for contrast, kind, pairs in planned_for(notebook, grid)
    ]


class RulesTable(FromCode):
    """A table that the rules of the study tell, with a caption and a label."""

    required_arguments = 1
    optional_arguments = 0
    sources = (ablations, contrasts, statistics)


class Planned(RulesTable):
    """``{planned-contrasts} NOTEBOOK caption``."""

    option_spec: ClassVar = {"name": directives.unchanged, "grid": directives.unchanged_required}

    def table(self) -> Table:
        """A row for each contrast."""
        notebook, _, caption = self.caption.partition(" ")
        if "grid" not in self.options:
            raise self.error("the option grid is missing: it names a file in params/sweeps")
        self.env.note_dependency(str(GRIDS / f"{self.options['grid']}.yaml"))
        return caption, ["contrast", "above 0 means", "kind", "n"], planned_rows(notebook, self.options["grid"])


class Power(RulesTable):
    """``{power} caption``: beside a primary contrast one of as many as the larger exploratory family has."""

    def table(self) -> Table:
        """A row for each spread that the pilot saw."""
        families = [
            sum(row[2] == "exploratory" for row in planned_rows(*of))
            for of in (("01_guidance", "desk-guidance"), ("02_ensemble", "desk-ensemble"))
        ]
        found = power_table(tests=max(families))
        rows = [[escaped(str(spread)), *map(str, row)] for spread, *row in found.itertuples()]
        return self.caption, [found.columns.name, *found.columns], rows


class Committed(SphinxDirective):
    """``{committed} FILE ...``: when files were first and last committed, and when test images were first used."""

    required_arguments = 1
    optional_arguments = 9
    option_spec: ClassVar = {"grid": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        """A list, and a paragraph."""
        self.env.note_reread()  # history is in no file that Sphinx watches
        grid = self.options.get("grid")
        first = first_test_run([RESULTS / grid], f"of {grid}") if grid else first_test_run(ABLATED)
        items = [nodes.list_item("", nodes.paragraph("", nodes.Text(committed(file)))) for file in self.arguments]
        return [nodes.bullet_list("", *items), nodes.paragraph("", nodes.Text(first))]


ABLATED = [RESULTS / name for name in ("desk-guidance", "desk-ensemble")]


def first_test_run(folders: Sequence[Path], whose: str = "of the two ablations") -> str:
    """In words, when the first run on test images that lies in some folders was recorded."""
    times = [json.loads(path.read_text(encoding="utf-8"))["created"] for of in folders for path in of.glob("*.json")]
    if not times:
        return f"No run {whose} on test images is in the book yet."
    return f"The first run {whose} on test images was recorded at {min(times)[:16].replace('T', ' ')} UTC."


def committed(file: str) -> str:
    """In words, when a file was first and last committed."""
    if git(ROOT, "rev-parse", "--is-shallow-repository") == ["true"]:
        return f"When {file} was first committed is not known here: the history is cut off."
    form = ["--format=%h at %cd", "--date=format-local:%Y-%m-%d %H:%M UTC"]
    commits = git(ROOT, "log", *form, "--", file)
    if not commits:
        return f"When {file} was committed is not known here: there is no history of it."
    first, last = commits[-1], commits[0]
    since = "not changed since" if first == last else f"last changed by {last}"
    return f"{file}: first committed as {first}, {since}."


def setup(app: Sphinx) -> dict:
    """Called by Sphinx."""
    app.add_role("rule", Said(number_of))
    app.add_role("param", Said(value_of))
    app.add_directive("planned-contrasts", Planned)
    app.add_directive("power", Power)
    app.add_directive("committed", Committed)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
