"""Sphinx extension: the reference shows what is ours, in our words.

Left out are the "Alias for field number 0" that every named tuple says of its fields, and the settings of pydantic.
A table lists the keys of its rows; autodoc would print the rows, addresses of functions among them. Napoleon takes the
first words of an attribute for its type when a colon follows them; here they are prose.
"""

from sphinx.application import Sphinx


def skip(app: Sphinx, what: str, name: str, member: object, skipped: bool, options: object) -> bool | None:
    """True for members that nobody wrote, otherwise autodoc's choice."""
    alias = str(getattr(member, "__doc__", "")).startswith("Alias for field number")
    return True if alias or name == "model_config" else None


def say_plainly(app: Sphinx, what: str, name: str, found: object, options: object, lines: list[str]) -> None:
    """Change the docstring of an attribute or of a table, in place."""
    if what in ("attribute", "property", "data") and lines and ":" in lines[0]:
        first, _, rest = lines[0].partition(" ")
        lines[:1] = [first, rest]  # the same paragraph; napoleon looks for its colon in the first line alone
    if what == "data" and isinstance(found, dict):
        lines += ["", f"Rows: {', '.join(f'``{key}``' for key in found)}."]


def setup(app: Sphinx) -> dict:
    """Called by Sphinx."""
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-docstring", say_plainly, priority=400)  # before napoleon
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
