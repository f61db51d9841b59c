"""Sphinx extension: tables that are generated from the library, so that they cannot drift from it.

``{parameters}`` lists the parameters of notebooks, ``{strategies}`` the ways to combine PTMs, ``{record-fields}`` what
a run record holds. The argument is the caption, the option ``name`` the label. A line of the body of ``{strategies}``,
such as ``random: {cite:t}`key```, takes the place of a row's source.
"""

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, zip_longest
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from ddlib import combine
from ddlib.study import arms, parameters, schema
from ddlib.study.arms import STRATEGY_LABELS

CODE = ("name", "type", "default")  # columns of the reference that are set as code


def escaped(text: str) -> str:
    """Plain text as Markdown, in which no sign has a meaning."""
    return re.sub(r"([\\`*_{}\[\]<>|$#~])", r"\\\1", text)


def formula(text: str) -> str:
    """A rule as Markdown: names with the index k are set as mathematics."""
    parts = re.split(r"\b([A-Za-z]+)_k\b", text)
    names = [f"${name}_k$" if len(name) == 1 else rf"$\mathrm{{{name}}}_k$" for name in parts[1::2]]
    return "".join(chain.from_iterable(zip_longest(map(escaped, parts[::2]), names, fillvalue="")))


def parameter_rows() -> list[list[str]]:
    """Each parameter of the model: name, type, allowed values, default, meaning."""
    rows = parameters.reference()
    return [[f"`{text}`" if key in CODE else escaped(text) for key, text in row.items()] for row in rows]


def strategy_rows(sources: Mapping[str, str]) -> list[list[str]]:
    """Each strategy: name, name in figures, rule, cost, source. Raises ValueError for sources of unknown strategies."""
    if unknown := sorted(set(sources) - set(combine.STRATEGIES)):
        raise ValueError(f"no strategy is called {', '.join(unknown)}; known: {', '.join(combine.STRATEGIES)}")
    return [
        [
            f"`{name}`",
            escaped(STRATEGY_LABELS.get(name, name)),
            formula(row.rule),
            escaped(row.cost),
            sources.get(name, escaped(row.source)),
        ]
        for name, row in combine.STRATEGIES.items()
    ]


def record_rows() -> list[list[str]]:
    """Each field of a run record: name and meaning."""
    fields = schema.Record.model_fields
    return [[f"`{field.alias or name}`", escaped(field.description)] for name, field in fields.items()]


def list_table(caption: str, name: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in MyST's Markdown, in lines."""
    options = [f":name: {name}"] if name else []
    lines = [f"```{{list-table}} {caption}", *options, ":header-rows: 1", ""]
    for row in (header, *rows):
        lines += [f"{'* -' if place == 0 else '  -'} {cell}" for place, cell in enumerate(row)]
    return [*lines, "```"]


def parsed(directive: SphinxDirective, lines: Iterable[str]) -> list[nodes.Node]:
    """Markdown as if it stood in the page in the place of a directive."""
    found = nodes.Element()
    directive.state.nested_parse(StringList(list(lines), directive.env.docname), directive.content_offset, found)
    return found.children


class FromCode(SphinxDirective):
    """A table that the code tells, with an optional caption and label."""

    optional_arguments = 1
    final_argument_whitespace = True
    has_content = True
    option_spec: ClassVar = {"name": directives.unchanged}
    header: ClassVar[list[str]]
    sources: ClassVar = (combine, arms, parameters, schema)  # modules that tell it

    def rows(self) -> list[list[str]]:
        """The rows below the header, in Markdown."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """The table, parsed as if it stood in the page."""
        for module in self.sources:
            self.env.note_dependency(inspect.getsourcefile(module))
        rows = self.rows()
        caption = self.arguments[0] if self.arguments else ""
        return parsed(self, list_table(caption, self.options.get("name", ""), self.header, rows))


class ParameterTable(FromCode):
    """``{parameters}``."""

    header: ClassVar = ["name", "type", "allowed", "default", "meaning"]

    def rows(self) -> list[list[str]]:
        """All of the model."""
        return parameter_rows()


class StrategyTable(FromCode):
    """``{strategies}``."""

    header: ClassVar = ["`strategy`", "in figures", "rule", "cost per step", "source"]

    def rows(self) -> list[list[str]]:
        """All of ``STRATEGIES``, with the citations of the page."""
        try:
            return strategy_rows(dict(line.split(": ", 1) for line in self.content if line.strip()))
        except ValueError as error:
            raise self.error(str(error)) from error


class RecordTable(FromCode):
    """``{record-fields}``."""

    header: ClassVar = ["field", "meaning"]

    def rows(self) -> list[list[str]]:
        """All of ``Record``."""
        return record_rows()


def setup(app: Sphinx) -> dict:
    """Called by Sphinx."""
    app.add_directive("parameters", ParameterTable)
    app.add_directive("strategies", StrategyTable)
    app.add_directive("record-fields", RecordTable)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
