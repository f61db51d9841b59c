"""The examples in docstrings do what they say, and the functions a reader meets first have one."""

import ast
import doctest
import importlib
import re

import pytest
import torch
from made import ROOT

import ddlib

PLACES = ("ddlib", "workflow", "benchmarks", "book/_ext")
FILES = sorted(
    path for place in PLACES for path in (ROOT / place).rglob("*.py") if ">>>" in path.read_text(encoding="utf-8")
)
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


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_examples(path):
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts).removeprefix("book._ext."))
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize("file", WITH_EXAMPLES)
def test_the_functions_that_a_reader_meets_have_one(file):
    tree = ast.parse((ROOT / "ddlib" / file).read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert sum(">>>" in (ast.get_docstring(node) or "") for node in functions) >= WITH_EXAMPLES[file]


def test_the_constants_of_the_reference_are_had_as_the_protocol_says(monkeypatch):
    """Its code on pixels of which some are known: (x - mean) / std of the page, whatever normalised them before."""
    page = (ROOT / "book" / "protocol.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    pixels = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8) % 2
    data = ddlib.Dataset.from_tensors("cifar10", (pixels[:6], labels[:6]), (pixels[6:], labels[6:]), ("a", "b"))
    monkeypatch.setattr(ddlib, "load_dataset", {"cifar10": data}.get)
    names = {}
    exec(block, names)
    found = names["as_the_reference"]
    for split, given in ((found.train, pixels[:6]), (found.test, pixels[6:])):
        for channel, (mean, std) in enumerate(zip((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), strict=True)):
            torch.testing.assert_close(split.images[:, channel], (given[:, channel] - mean) / std, rtol=0, atol=1e-5)
    assert found.hash != data.hash
