"""Progress bars: seen in a terminal or a notebook, silent elsewhere."""

import io
import sys

import pytest

from ddlib.disk.progress import progress_bar, watched


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Notebook(io.StringIO):
    """As ipykernel's stream: no terminal, known by the module of its type."""

    __module__ = "ipykernel.iostream"


STREAMS = {io.StringIO: False, Terminal: True, Notebook: True}


@pytest.mark.parametrize("stream", STREAMS)
def test_a_bar_is_drawn_only_where_somebody_watches(monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream())
    assert watched() == STREAMS[stream]
    with progress_bar(5, "PTMs", initial=2) as bar:
        bar.update()
        bar.refresh()
        drawn = sys.stderr.getvalue()
    if STREAMS[stream]:
        assert "PTMs" in drawn
        assert "3/5" in drawn
    else:
        assert sys.stderr.getvalue() == ""


def test_the_real_stream_of_ipykernel_counts_as_watched():
    """The name of a module that is not ours: if ipykernel renames it, bars vanish from the notebooks."""
    iostream = pytest.importorskip("ipykernel.iostream")
    assert iostream.OutStream.__module__.startswith("ipykernel")
