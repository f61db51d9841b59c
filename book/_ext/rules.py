"""Sphinx extension: the rules of the study, told by the code that follows them.

The role ``{rule}`` gives a number of :mod:`ddlib.study.statistics` (``{rule}`sets```), ``{param}`` a value of a profile
in params/ (``{param}`desk.eval_epochs```). ``{planned-contrasts} NOTEBOOK`` lists what an ablation plans for the arms
of the grid in its option ``grid``, ``{power}`` what the sets of the study can find, ``{committed} FILE`` when a file
was first and last committed.
"""

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import yaml
from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from findings import RESULTS
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, SphinxRole
from tables import escaped, list_table

sys.path.insert(0, str(Path(__file__).parents[2]))

from ddlib.study import ablations, contrasts, statistics
from ddlib.study.ablations import ABLATIONS
from ddlib.study.arms import Arm
from ddlib.study.tables import power_table
from workflow.grid import read_grid

ROOT = Path(__file__).parents[2]
RULES = {
    "sets": f"{statistics.STUDY_SETS}",
    "pairs": f"{statistics.MIN_PAIRS}",
    "smallest p": f"{2 / 2 ** (statistics.MIN_PAIRS - 1):g}",
    "level": f"{100 * statistics.LEVEL:g} %",
    "interval": f"{100 * (1 - statistics.LEVEL):g} %",
    "margin": f"± {100 * statistics.MARGIN:g} point",
    "power": f"{100 * statistics.POWER:g} %",
    "most contrasts": f"{int(statistics.LEVEL * 2 ** (statistics.STUDY_SETS - 1))}",
    "pilot spread": f"{100 * min(statistics.PILOT_STD):g} to {100 * max(statistics.PILOT_STD):g} points",
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


def arms_of(grid: str) -> dict[str, int]:
    """The arms of a grid with the number of their sets."""
    found: dict[str, set[int]] = {}
    for job in read_grid(ROOT / "params" / "sweeps" / f"{grid}.yaml").jobs:
        p = SimpleNamespace(**job.parameters)
        found.setdefault(Arm.of(p, p.num_ptms).name, set()).update(range(p.seed, p.seed + p.num_sets))
    return {name: len(seeds) for name, seeds in found.items()}


def planned_rows(notebook: str, grid: str) -> list[list[str]]:
    """Each contrast that a grid can answer: words, what a positive one means, whether primary, number of pairs.

    Without arms that are one method with another, or the same set for every seed.
    """
    row, sets = ABLATIONS[notebook], {Arm.named(name): count for name, count in arms_of(grid).items()}
    there = {arm.name: count for arm, count in sets.items() if arm.replicated and arm.strategy not in row.one_method}
    arms, rows = [Arm.named(name) for name in there], []
    for kind, planned in (("primary", row.primary(arms)), ("exploratory", row.exploratory(arms))):
        for contrast in planned:
            if set(contrast.arms) <= set(there):
                pairs = min(there[arm] for arm in contrast.arms)
                rows.append([escaped(contrast.words), escaped(contrast.above), kind, f"{pairs}"])
    return rows


class Table(SphinxDirective):
    """A table with a caption (the argument but for its first words) and a label."""

    required_arguments = 1
    final_argument_whitespace = True
    option_spec: ClassVar = {"name": directives.unchanged, "grid": directives.unchanged}

    def table(self) -> list[str]:
        """In MyST's Markdown, in lines."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """The table, parsed as if it stood in the page."""
        for module in (ablations, contrasts, statistics):
            self.env.note_dependency(inspect.getsourcefile(module))
        found = nodes.Element()
        self.state.nested_parse(StringList(self.table(), self.env.docname), self.content_offset, found)
        return found.children


class Planned(Table):
    """``{planned-contrasts} NOTEBOOK caption``."""

    def table(self) -> list[str]:
        """A row for each contrast."""
        notebook, _, caption = self.arguments[0].partition(" ")
        grid = self.options["grid"]
        self.env.note_dependency(str(ROOT / "params" / "sweeps" / f"{grid}.yaml"))
        rows = planned_rows(notebook, grid)
        return list_table(caption, self.options.get("name", ""), ["contrast", "above 0 means", "kind", "n"], rows)


class Power(Table):
    """``{power} caption``: beside a primary contrast one of as many as the larger exploratory family has."""

    def table(self) -> list[str]:
        """A row for each spread that the pilot saw."""
        families = [
            sum(row[2] == "exploratory" for row in planned_rows(*of))
            for of in (("01_guidance", "desk-guidance"), ("02_ensemble", "desk-ensemble"))
        ]
        table = power_table(tests=max(families))
        rows = [[escaped(str(spread)), *map(str, row)] for spread, *row in table.itertuples()]
        return list_table(self.arguments[0], self.options.get("name", ""), [table.columns.name, *table.columns], rows)


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
    form = ["--format=%h at %cd", "--date=format-local:%Y-%m-%d %H:%M UTC"]
    command = ["git", "-C", str(ROOT), "log", *form, "--", file]
    try:
        lines = subprocess.run(
            command, capture_output=True, text=True, check=True, env=os.environ | {"TZ": "UTC"}
        ).stdout.split("\n")
    except (OSError, subprocess.CalledProcessError):
        lines = []
    commits = [line for line in lines if line]
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
