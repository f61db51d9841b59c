"""Sphinx extension: tables that are generated from the library, so that they cannot drift from it.

``{parameters}`` lists the parameters of notebooks, ``{strategies}`` the ways to combine PTMs, ``{record-fields}`` what
a run record holds. The argument is the caption, the option ``name`` the label. A line of the body of ``{strategies}``,
such as ``random: {cite:t}`key```, takes the place of a row's source.
"""

import re
from collections.abc import Mapping
from itertools import chain, zip_longest

from directives import FromCode, Table, escaped
from sphinx.application import Sphinx

from ddlib import combine
from ddlib.study import arms, parameters, schema
from ddlib.study.arms import STRATEGY_LABELS

CODE = ("name", "type", "default")  # columns of the reference that are set as code


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


class ParameterTable(FromCode):
    """``{parameters}``."""

    sources = (parameters,)

    def table(self) -> Table:
        """All of the model."""
        return self.caption, ["name", "type", "allowed", "default", "meaning"], parameter_rows()


class StrategyTable(FromCode):
    """``{strategies}``."""

    sources = (combine, arms)

    def table(self) -> Table:
        """All of ``STRATEGIES``, with the citations of the page."""
        try:
            rows = strategy_rows(dict(line.split(": ", 1) for line in self.content if line.strip()))
        except ValueError as error:
            raise self.error(str(error)) from error
        return self.caption, ["`strategy`", "in figures", "rule", "cost per step", "source"], rows


class RecordTable(FromCode):
    """``{record-fields}``."""

    sources = (schema,)

    def table(self) -> Table:
        """All of ``Record``."""
        return self.caption, ["field", "meaning"], record_rows()


def setup(app: Sphinx) -> dict:
    """Called by Sphinx."""
    app.add_directive("parameters", ParameterTable)
    app.add_directive("strategies", StrategyTable)
    app.add_directive("record-fields", RecordTable)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
