"""The examples in docstrings do what they say, and the functions a reader meets first have one."""

import ast
import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for path in (ROOT / "ddlib").rglob("*.py") if ">>>" in path.read_text(encoding="utf-8"))
WITH_EXAMPLES = {
    "losses.py": 7,
    "objective.py": 1,
    "combine.py": 4,
    "recipe.py": 1,
    "distill.py": 1,
    "evaluate.py": 1,
    "selection.py": 1,
    "networks.py": 1,
    "data/readers.py": 1,
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT / "ddlib").as_posix())
def test_examples(path):
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize("file", WITH_EXAMPLES)
def test_the_functions_that_a_reader_meets_have_one(file):
    tree = ast.parse((ROOT / "ddlib" / file).read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert sum(">>>" in (ast.get_docstring(node) or "") for node in functions) >= WITH_EXAMPLES[file]
