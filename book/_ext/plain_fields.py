"""Sphinx extension: leave out the "Alias for field number 0" that every named tuple says of its fields."""

from sphinx.application import Sphinx


def skip_alias(app: Sphinx, what: str, name: str, member: object, skip: bool, options: object) -> bool | None:
    """True for a named tuple's own field descriptors, otherwise autodoc's choice."""
    return True if str(getattr(member, "__doc__", "")).startswith("Alias for field number") else None


def setup(app: Sphinx) -> dict:
    """Called by Sphinx."""
    app.connect("autodoc-skip-member", skip_alias)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
