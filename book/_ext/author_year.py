"""A style of the bibliography whose labels are what the text cites: authors and year, not numbers."""

from collections.abc import Iterable, Iterator

import pybtex.plugin
from pybtex.database import Entry
from pybtex.style.formatting.plain import Style
from pybtex.style.labels import BaseLabelStyle
from sphinx.application import Sphinx


def authors_in_words(names: list[str]) -> str:
    """Last names: one, two, or the first of more.

    >>> authors_in_words(["Zhao", "Bilen"]), authors_in_words(["Lu", "Chen", "Zhang"])
    ('Zhao and Bilen', 'Lu et al.')
    """
    return " and ".join(names) if len(names) < 3 else f"{names[0]} et al."


class AuthorYear(BaseLabelStyle):
    """``Zhao and Bilen, 2021``; a letter behind the year tells entries of one label apart."""

    def format_labels(self, entries: Iterable[Entry]) -> Iterator[str]:
        """The labels, in the order of the entries."""
        entries = list(entries)
        plain = [_label(entry) for entry in entries]
        for place, label in enumerate(plain):
            yield label + (chr(ord("a") + plain[:place].count(label)) if plain.count(label) > 1 else "")


class AuthorYearStyle(Style):
    """Entries as in ``plain``."""

    default_label_style = AuthorYear


def _label(entry: Entry) -> str:
    people = entry.persons["author"]
    names = [" ".join(map(str, (*person.rich_prelast_names, *person.rich_last_names))) for person in people]
    return f"{authors_in_words(names)}, {entry.fields['year']}"


def setup(app: Sphinx) -> dict:
    """Called by Sphinx."""
    pybtex.plugin.register_plugin("pybtex.style.formatting", "author_year_list", AuthorYearStyle)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
