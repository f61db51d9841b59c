"""What directives share: Markdown that they write, and tables that the code tells."""

import inspect
import re
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]  # caption, header, and the rows below it, in Markdown


def escaped(text: str) -> str:
    """Plain text as Markdown, in which no sign has a meaning."""
    return re.sub(r"([\\`*_{}\[\]<>|$#~])", r"\\\1", text)


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
    sources: ClassVar[Sequence[ModuleType]]  # that tell it

    def table(self) -> Table:
        """What it holds."""
        raise NotImplementedError

    @property
    def caption(self) -> str:
        """The argument."""
        return self.arguments[0] if self.arguments else ""

    def run(self) -> list[nodes.Node]:
        """The table, parsed as if it stood in the page."""
        for module in self.sources:
            self.env.note_dependency(inspect.getsourcefile(module))
        caption, header, rows = self.table()
        return parsed(self, list_table(caption, self.options.get("name", ""), header, rows))
