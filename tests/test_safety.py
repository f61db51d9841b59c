"""Nothing that is read can run, and nothing personal is written down."""

import json
import re
from pathlib import Path

import pytest
import torch
from made import ROOT, a_run

from ddlib.disk.tensors import write_tensors
from ddlib.ptms.pool import train_ptms
from ddlib.study.record import write_record
from ddlib.synthetic import SyntheticSet

FOLDERS = ("ddlib", "benchmarks", "book", "workflow", "notebooks")
SOURCES = [
    path
    for folder in FOLDERS
    for kind in ("*.py", "*.ipynb")
    for path in sorted((ROOT / folder).rglob(kind))
    if not {"_build", "executed"} & set(path.parts)
]
FORBIDDEN = {
    "pickle": r"\b(c?[pP]ickle|dill|joblib|shelve|marshal)\b(?!d)|read_pickle|allow_pickle",
    "unsafe YAML": r"yaml\.(load|load_all|unsafe_load|full_load)\(",
    "torch.load of anything": r"(?<!safetensors\.)torch\.load\((?![^\n]*weights_only=True)|weights_only=False",
    "eval": r"(?<![\w.])(eval|exec)\(",
    "a shell": r"shell=True|os\.system|os\.popen",
}


def words(path):
    """The code of a file, docstrings and comments too: what is not meant must not be named like a call."""
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("what", FORBIDDEN)
def test_nothing_that_runs_what_it_reads(what):
    assert len(SOURCES) > 40
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()[:100]}"
        for path in SOURCES
        for line in words(path).splitlines()
        if re.search(FORBIDDEN[what], line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("what", "line"),
    [
        ("pickle", "import pickle"),
        ("unsafe YAML", "yaml.load(text)"),
        ("torch.load of anything", "torch.load(path)"),
        ("torch.load of anything", "torch.load(path, weights_only=False)"),
        ("eval", "x = eval(text)"),
        ("a shell", "subprocess.run(text, shell=True)"),
    ],
)
def test_these_patterns_find_it(what, line):
    assert re.search(FORBIDDEN[what], line)


@pytest.mark.parametrize(
    "line",
    ["torch.load(p, weights_only=True)", "safetensors.torch.load(content)", "network.eval()", "yaml.safe_load(text)"],
)
def test_and_let_the_rest_be(line):
    assert not any(re.search(pattern, line) for pattern in FORBIDDEN.values())


def test_no_environment_variable_is_written_down(tiny, tmp_path, monkeypatch):
    """Neither in records nor in the files of synthetic sets and PTMs, whatever the variable is called."""
    secrets = {"DDLIB_SECRET": "hunter2-of-ddlib", "API_TOKEN": "token-of-nobody", "DDLIB_DATA": "/home/somebody/data"}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    write_record(tmp_path, **a_run())
    SyntheticSet.of(tiny, tiny.train.images[:3], tiny.train.labels[:3], seed=1).save(tmp_path / "set.safetensors")
    train_ptms(tiny, epochs=1, width=2, cache=tmp_path)
    write_tensors(tmp_path / "any.safetensors", {"a": torch.zeros(1)}, {})
    written = [path for path in tmp_path.iterdir() if path.suffix != ".lock"]
    assert len(written) == 4
    for path in written:
        content = path.read_bytes()
        for text in (*secrets, *secrets.values(), str(Path.home()) + "/", str(tmp_path)):
            assert text.encode() not in content, path
    (record,) = tmp_path.glob("*.json")
    assert not {name.upper() for name in json.loads(record.read_text())["environment"]} & set(secrets)
