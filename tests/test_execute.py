"""A notebook counts as executed when all of its cells ran to their end; a kernel that lost its port starts again."""

from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from workflow import execute


def executed(path, *cells, **papermill):
    notebook = v4.new_notebook(cells=list(cells), metadata={"papermill": papermill})
    nbformat.write(notebook, path)
    return path


def cell(source, count=1, outputs=()):
    return v4.new_code_cell(source, execution_count=count, outputs=list(outputs))


def test_what_keeps_a_notebook_from_being_whole_is_named(tmp_path):
    error = v4.new_output("error", ename="ValueError", evalue="no", traceback=[])
    path = executed(
        tmp_path / "a.ipynb", cell("1"), v4.new_markdown_cell("text"), cell("2", None), cell("3", 2, [error])
    )
    assert execute.problems(path) == ["cell 3 was not executed", "cell 4 holds an error"]
    path = executed(tmp_path / "b.ipynb", cell("1"), exception=True)
    assert execute.problems(path) == ["papermill recorded an exception"]
    assert execute.problems(executed(tmp_path / "c.ipynb", cell("1"), cell("", None), exception=None)) == []


@pytest.fixture
def kernels(monkeypatch):
    """Papermill fails with these messages, one a call, and then writes a whole notebook; how often it was called."""
    messages, calls = [], []

    def main(arguments, standalone_mode):
        calls.append(arguments)
        if len(calls) <= len(messages):
            raise RuntimeError(messages[len(calls) - 1])
        executed(Path(arguments[4]), cell("1"))

    monkeypatch.setattr(execute.command, "main", main)
    return messages, calls


def test_a_kernel_that_lost_its_port_is_started_again_once(tmp_path, kernels):
    messages, calls = kernels
    messages.append("Kernel died before replying to kernel_info")
    execute.main("a.ipynb", tmp_path / "out.ipynb")
    assert (tmp_path / "out.ipynb").is_file()
    assert len(calls) == 2


@pytest.mark.parametrize("messages", [["Address already in use"] * 2, ["ValueError: guidance"]])
def test_any_other_failure_ends_and_leaves_what_was_there(tmp_path, kernels, messages):
    kernels[0].extend(messages)
    before = executed(tmp_path / "out.ipynb", cell("before")).read_bytes()
    with pytest.raises(SystemExit, match=rf"(?s){messages[-1]}.*a\.ipynb failed; as far as it came: .*\.out\.ipynb"):
        execute.main("a.ipynb", tmp_path / "out.ipynb")
    assert len(kernels[1]) == len(messages)
    assert (tmp_path / "out.ipynb").read_bytes() == before


def test_a_notebook_that_ended_early_does_not_arrive(tmp_path, monkeypatch):
    def main(arguments, standalone_mode):
        executed(Path(arguments[4]), cell("1"), cell("2", None))

    monkeypatch.setattr(execute.command, "main", main)
    with pytest.raises(SystemExit, match=r"a\.ipynb ended early: cell 2 was not executed"):
        execute.main("a.ipynb", tmp_path / "out.ipynb")
    assert not (tmp_path / "out.ipynb").exists()
