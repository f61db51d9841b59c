"""An evaluation in several sittings takes what was kept, if it is of the same set, data, settings and code."""

from types import SimpleNamespace

import pandas as pd
import pytest

from ddlib.selection import select_real
from ddlib.study import run
from workflow import sittings


@pytest.fixture
def evaluated(tiny, tmp_path, monkeypatch):
    """A function that evaluates within a sitting, and how many times anything was trained for it."""
    trained = []

    def evaluate(synthetic, dataset, **settings):
        trained.append(settings)
        return pd.DataFrame({"accuracy": [0.5], "seconds": [float(len(trained))]})

    monkeypatch.setattr(run, "evaluate", evaluate)

    def once(seed=0, **settings):
        with sittings.sittings(tmp_path):
            return run.evaluate(select_real(tiny, 1, seed=seed), tiny, **settings)

    return SimpleNamespace(once=once, trained=trained, folder=tmp_path)


def test_what_is_kept_is_not_trained_again(evaluated):
    first, second = evaluated.once(num_eval=1), evaluated.once(num_eval=1)
    pd.testing.assert_frame_equal(first, second)
    assert len(evaluated.trained) == 1


def test_another_set_other_settings_and_other_code_are(evaluated, monkeypatch):
    evaluated.once(num_eval=1)
    evaluated.once(num_eval=1, seed=1)
    evaluated.once(num_eval=2)
    monkeypatch.setattr(sittings, "code_hash", lambda: "other")
    evaluated.once(num_eval=1)
    assert len(evaluated.trained) == 4


@pytest.mark.parametrize("text", ["", "{", '{"accuracy": [0.5, 0.6], "seconds": [1]}', "\ud800"])
def test_a_damaged_table_is_trained_again(evaluated, text):
    first = evaluated.once()
    [path] = evaluated.folder.glob("*.json")
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    again = evaluated.once()
    assert len(evaluated.trained) == 2
    assert again["accuracy"].tolist() == first["accuracy"].tolist()
    pd.testing.assert_frame_equal(evaluated.once(), again)
    assert len(evaluated.trained) == 2, "it is whole now"
