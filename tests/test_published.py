"""The table beside published accuracies, and the grid that has one."""

import json

import numpy as np
import pandas as pd
import pytest
from made import ARMS, ROOT

from ddlib.study.record import read_record
from workflow import published, sweep
from workflow.grid import read_grid
from workflow.plan import GridError


def test_the_table_beside_published_accuracies(quick_sweep, capsys):
    path, grid = quick_sweep
    assert sweep.main([str(path), "--status"]) == 0
    said = capsys.readouterr().out
    table = pd.read_csv(grid.folder / "published.csv")
    assert list(table) == list(published.COLUMNS)
    assert table[["dataset", "arm", "evaluation", "n", "published"]].values.tolist() == [
        ["digits", "dm", "augmented", 2, 48.9],
        ["digits", "random", "augmented", 2, 31.0],
        ["digits", "random", "plain", 2, 26.0],
    ]
    records = [read_record(grid.folder / job.records[0])["accuracies"] for job in grid.jobs if job.arm == "random"]
    means = [100 * r[~r["augment"].astype(bool)]["accuracy"].mean() for r in records]
    assert table["mean"][2] == pytest.approx(np.mean(means))
    assert table["sd"][2] == pytest.approx(np.std(means, ddof=1))
    assert table["difference"].tolist() == pytest.approx((table["mean"] - table["published"]).tolist())
    assert f"{table['mean'][0]:.1f} ({table['sd'][0]:.1f})" in said
    assert f"{table['difference'][0]:.1f}" in said


def test_records_of_other_code_and_damaged_ones_are_not_in_the_table(quick_sweep):
    _, grid = quick_sweep
    assert published.published_table(grid)["n"].tolist() == [2, 2, 2]
    damaged, other = (grid.folder / job.records[0] for job in grid.jobs[:2])
    damaged.write_text("{")
    record = json.loads(other.read_text())
    record["code_hash"] = "0" * 16
    del record["sha256"]
    other.write_text(json.dumps(record))
    assert published.published_table(grid, any_code=True)["n"].tolist() == [1, 2, 2]
    table = published.published_table(grid)
    assert table["n"].tolist() == [0, 2, 2]
    assert table["mean"].isna().tolist() == [True, False, False]
    assert published.published_text(table).splitlines()[1].split() == ["digits", "dm", "augmented", "0", "48.9"]


def test_what_was_published_shapes_no_run(quick_grid):
    before = read_grid(quick_grid())
    other = [arm | ({"published": {"plain": 1}} if "published" in arm else {}) for arm in ARMS]
    assert [job.marker for job in read_grid(quick_grid(arms=other)).jobs] == [job.marker for job in before.jobs]


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ({"published": 48.9}, "published is 48.9; expected accuracies"),
        ({"published": {"augment": 48.9}}, "expected accuracies such as"),
        ({"published": {"augmented": "48.9"}}, "expected percent"),
        ({"published": {"augmented": True}}, "expected percent"),
        ({"published": {"augmented": 489}}, "from 0 to 100"),
        ({"published": {"augmented": float("nan")}}, "from 0 to 100"),
        ({"published": {"augmented": 48.9}, "architectures": "VGG-11"}, "ConvNet-3, which is not among"),
        ({"published": {"plain": 26.0}, "eval_epochs_plain": None}, "eval_epochs_plain says that there is no such"),
        ({"published": {"augmented": 48.9}, "ipc": [1, 2]}, "has lists"),
    ],
)
def test_a_published_number_that_fits_no_run_is_refused(quick_grid, arm, said):
    with pytest.raises(GridError, match=said):
        read_grid(quick_grid(arms=[{"notebook": "01_guidance", **arm}]))


def test_the_published_grid_has_the_settings_of_the_paper():
    grid = read_grid(ROOT / "params" / "sweeps" / "published.yaml")
    found = {}
    for job in grid.jobs:
        p = job.parameters
        assert (p["ipc"], p["width"], p["batch_real"], p["eval_epochs"]) == (10, 128, 256, 1000)
        assert (p["eval_epochs_plain"], p["guidance"], p["architectures"]) == (300, "none", "ConvNet-3")
        assert p["num_eval"] >= 5
        found.setdefault((p["dataset"], p["base_method"], p["iterations"]), []).append(dict(job.published))
    # the full data are one set, whatever the seed
    assert all(len(values) >= (1 if key[1] == "full" else 3) for key, values in found.items())
    assert all(values[0] == values[-1] for values in found.values())
    assert {key: values[0] for key, values in found.items()} == {
        ("cifar10", "dm", 20000): {"augmented": 48.9},
        ("cifar10", "random", 20000): {"augmented": 31.0, "plain": 26.0},
        ("cifar10", "full", 20000): {"augmented": 84.8},
        ("cifar10", "dsa", 1000): {"augmented": 52.1},
        ("cifar10", "dc", 1000): {"plain": 44.9},
        ("fashion_mnist", "dsa", 1000): {"augmented": 84.6},
        ("fashion_mnist", "dc", 1000): {"plain": 82.3},
    }
