"""Parameters cells of notebooks: what they declare, and what papermill gives after them."""

import ast
from collections.abc import Collection, Sequence

INJECTED = "# Parameters"  # papermill's first line of the cell it adds


def declarations(source: str) -> dict[str, ast.expr | None]:
    """Names and defaults of a cell of annotated assignments alone, as expressions; none for any other cell."""
    statements = _statements(source)
    if not all(isinstance(statement, ast.AnnAssign) for statement in statements):
        return {}
    return {ast.unparse(statement.target): statement.value for statement in statements}


def declared_and_given(history: Sequence[str], known: Collection[str]) -> tuple[list[str], list[str]]:
    """Names declared in the latest cell that declares some of the ``known`` ones, and names that papermill gave."""
    declared, given = [], []
    for source in history:
        if source.startswith(INJECTED) and declared:
            assignments = [statement for statement in _statements(source) if isinstance(statement, ast.Assign)]
            given = [ast.unparse(target) for statement in assignments for target in statement.targets]
        elif set(here := list(declarations(source))) & set(known):  # else a cell of the user's own
            declared, given = here, []
    return declared, given


def _statements(source: str) -> list[ast.stmt]:
    try:
        return ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # a cell with magics or a typo: not ours
        return []
