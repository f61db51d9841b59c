"""Sweeps in one process, without Jupyter and Snakemake."""

import os
import subprocess
import sys

import numpy as np
import pytest
from made import QUICK, ROOT
from PIL import Image

from ddlib.study import run as study
from ddlib.study.record import read_record
from workflow import in_process, states, sweep
from workflow.grid import read_grid
from workflow.markers import read_marker


def test_records_and_markers_are_those_of_any_sweep(quick_sweep, monkeypatch, capsys):
    path, grid = quick_sweep
    assert {state.state for state in states.states(grid)} == {"done"}
    for job in grid.jobs:
        stem = job.records[0].removesuffix(".json")
        assert sorted(read_marker(grid.folder / job.marker)["files"]) == [f"{stem}.json", f"{stem}.safetensors"]
        assert read_record(grid.folder / job.records[0])["parameters"]["base_method"] == job.parameters["base_method"]
    calls = []
    monkeypatch.setattr(sweep, "snakemake", lambda grid, options, *config: calls.append(options[0]) or 0)
    assert sweep.main([str(path)]) == 0  # the engine finds all done, and makes the comparison
    assert calls == ["--jobs", "--report"]
    assert "nothing is left to do but the comparison" in capsys.readouterr().out


def test_it_goes_on_where_it_stopped(quick_sweep, monkeypatch):
    path, grid = quick_sweep
    before = {file: file.stat().st_mtime_ns for file in grid.folder.glob("*.json")}
    kept = read_record(grid.folder / grid.jobs[0].records[0])["accuracies"]["accuracy"].tolist()
    lost = grid.folder / grid.jobs[0].records[0]
    lost.unlink()
    notebook = grid.executed(grid.jobs[0])
    notebook.parent.mkdir()
    notebook.write_text("of the run that was lost")
    opened = []
    monkeypatch.setattr(study, "open_dataset", lambda p, real=study.open_dataset: opened.append(p) or real(p))
    assert sweep.main([str(path), "--in-process"]) == 0
    assert {file for file, time in before.items() if file.stat().st_mtime_ns != time} == {lost}
    assert read_record(lost)["accuracies"]["accuracy"].tolist() == kept
    assert not notebook.exists()
    assert len(opened) == 1


def test_data_and_ptms_stay_open_for_the_next_arm(quick_grid, monkeypatch):
    opened = []
    monkeypatch.setattr(study, "open_dataset", lambda p, real=study.open_dataset: opened.append("data") or real(p))
    monkeypatch.setattr(study, "open_ptms", lambda p, d, real=study.open_ptms: opened.append("PTMs") or real(p, d))
    arms = [{"notebook": "01_guidance", "guidance": ["none", "clom", "cclom"]}]
    assert sweep.main([str(quick_grid(arms=arms)), "--in-process"]) == 0
    assert opened == ["data", "data", "PTMs", "PTMs"]  # the pool's; then of the arms; none, and the pool


def test_sets_with_pools_of_their_own_share_them_between_arms(quick_grid, monkeypatch, capsys):
    """A pool for each group of seeds, trained before the arms; arms of one group come together and keep it open."""
    arms = [{"notebook": "01_guidance", "guidance": ["none", "clom", "cclom"]}]
    path = quick_grid(arms=arms, seeds=[4, "6-7"], profile=QUICK | {"ptm_seed": None})
    grid = read_grid(path)
    assert [(pool.parameters["seed"], pool.parameters["num_sets"]) for pool in grid.pools] == [(4, 1), (6, 2)]
    assert [pool.name.partition("-seed")[2] for pool in grid.pools] == ["4", "s6-7"]
    assert (
        len({pool.marker for pool in grid.pools}) == len({states.without_seeds(pool.name) for pool in grid.pools}) + 1
    )
    opened = []
    monkeypatch.setattr(
        study, "open_ptms", lambda p, *of, real=study.open_ptms: opened.append(p.guidance) or real(p, *of)
    )
    assert sweep.main([str(path), "--in-process"]) == 0
    # of the seeds 4 and 6 once for all arms, then of the seed 7 by each arm
    assert opened == ["none", "clom", "none", "clom", "clom", "cclom"]
    told = capsys.readouterr().out
    order = [
        line.split(":")[0] for line in told.splitlines() if line.startswith("01_guidance-") and line.endswith(" s")
    ]
    assert order == [f"01_guidance-{arm}-{s}" for s in ("seed4", "seeds6-7") for arm in ("none", "clom", "cclom")]
    records = [read_record(grid.folder / name) for job in grid.jobs for name in job.records]
    of_seed = {(r["seed"], hash) for r in records for hash in r["ptm_hashes"]}
    assert len(of_seed) == len({hash for _, hash in of_seed}) == 3
    assert all({card["seed"] for card in r["ptms"]} <= {r["seed"]} for r in records)
    times = {file: file.stat().st_mtime_ns for file in grid.folder.glob("*.json")}
    (grid.folder / grid.pools[1].marker).unlink()
    assert "its PTMs are made again" in "\n".join(states.reasons(states.states(grid)))
    monkeypatch.undo()
    monkeypatch.setenv("DDLIB_RUNS", str(grid.folder.parents[1]))
    monkeypatch.setenv("DDLIB_CACHE", str(grid.folder.parents[2] / "ptms"))
    assert sweep.main([str(path), "--in-process"]) == 0
    again = {file for file, time in times.items() if file.stat().st_mtime_ns != time}
    assert {file.stem.rpartition("-seed")[2] for file in again} == {"6", "7"}  # and the seed 4 is left alone


def test_a_seed_more_trains_its_pool_alone(quick_grid):
    arms = [{"notebook": "01_guidance", "guidance": "clom"}]
    own = QUICK | {"ptm_seed": None}
    assert sweep.main([str(quick_grid(arms=arms, seeds=[4], profile=own)), "--in-process"]) == 0
    found = states.states(read_grid(quick_grid(arms=arms, seeds=[4, 5], profile=own)))
    assert [state.state for state in found] == ["done", "left", "done", "left"]


def test_arms_side_by_side_give_the_same_records(quick_sweep, monkeypatch):
    path, grid = quick_sweep
    before = {file.name: read_record(file)["synthetic_hash"] for file in grid.folder.glob("*.json")}
    assert len(before) == 6
    monkeypatch.setenv("DDLIB_RUNS", str(grid.folder.parents[1] / "again"))
    assert sweep.main([str(path), "--in-process", "--jobs", "2"]) == 0
    again = read_grid(path).folder
    assert again != grid.folder
    assert {file.name: read_record(file)["synthetic_hash"] for file in again.glob("*.json")} == before


def test_what_the_book_shows_is_left_to_the_engine(quick_grid, monkeypatch):
    path, calls = quick_grid(arms=[{"notebook": "01_guidance", "guidance": ["none", "clom"]}], seeds=[0]), []
    monkeypatch.setattr(sweep, "snakemake", lambda grid, options, *config: calls.append(options) or 0)
    assert sweep.main([str(path), "--in-process", "--notebooks"]) == 1
    found = {state.work.name: state.state for state in states.states(read_grid(path), notebooks=True)}
    (pool,) = (pool.name for pool in read_grid(path).pools)
    assert found == {pool: "done", "01_guidance-none-seed0": "done", "01_guidance-clom-seed0": "left"}
    assert [options[0] for options in calls] == ["--jobs"]  # and no report, which would miss most jobs


def test_one_arm_fails_and_the_others_go_on(quick_grid, monkeypatch, capsys):
    def run_arm(p, *rest, real=study.run_arm, **named):
        if p.base_method == "random":
            raise RuntimeError("no luck")
        return real(p, *rest, **named)

    monkeypatch.setattr(study, "run_arm", run_arm)
    path = quick_grid(seeds=[0])
    assert sweep.main([str(path), "--in-process"]) == 1
    grid = read_grid(path)
    assert [state.state for state in states.states(grid)] == ["done", "done", "failed", "done"]
    assert "01_guidance-random-seed0: FAILED: no luck" in capsys.readouterr().out
    monkeypatch.undo()
    monkeypatch.setenv("DDLIB_RUNS", str(grid.folder.parents[1]))
    monkeypatch.setenv("DDLIB_CACHE", str(grid.folder.parents[2] / "ptms"))
    assert sweep.main([str(path), "--in-process"]) == 0


def test_arms_whose_ptms_fail_are_left(quick_grid, monkeypatch, capsys):
    monkeypatch.setattr(in_process, "train_pool", lambda pool: 1 / 0)
    path = quick_grid(seeds=[0])
    assert sweep.main([str(path), "--in-process"]) == 1
    assert [state.state for state in states.states(read_grid(path))] == ["failed", "done", "done", "left"]
    assert "01_guidance-clom-seed0: left, because its PTMs failed" in capsys.readouterr().out


def test_a_killed_process_ends_in_a_sentence():
    killed = pytest.raises(SystemExit, match="A process was killed, perhaps because memory was short")
    with killed, in_process.mapping(1, 2) as each:
        list(each(os._exit, [9, 9, 9]))


def test_a_run_that_diverges_counts_as_done_and_is_shown(quick_grid, capsys):
    path = quick_grid(arms=[{"notebook": "01_guidance", "lr_img": [1.0, 1e38]}], seeds=[0])
    assert sweep.main([str(path), "--in-process"]) == 1
    assert "failed: 01_guidance-lr_img1e_38-seed0: seed 0: FloatingPointError" in capsys.readouterr().out
    grid = read_grid(path)
    assert all((grid.folder / job.marker).is_file() for job in grid.jobs)
    record = grid.folder / grid.jobs[1].records[0]
    before = record.stat().st_mtime_ns
    assert sweep.main([str(path), "--in-process"]) == 1
    assert record.stat().st_mtime_ns == before  # it would diverge again
    (grid.folder / grid.jobs[0].marker).unlink()
    assert states.outlook(grid, states.states(grid), 1).startswith("1 job left: about"), "it is not run again"
    took = [states.outlook(grid, states.states(grid), workers) for workers in (1, 8)]
    assert took[0].split(" with ")[0] == took[1].split(" with ")[0], "eight hands do not share one job"


def test_a_machine_needs_little_more_than_torch(tmp_path, quick_grid):
    """Neither Jupyter, Snakemake nor what only the pages need; the data are an image folder."""
    for split, count in (("train", 6), ("test", 2)):
        for index, label in enumerate("ab"):
            folder = tmp_path / "images" / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.random.default_rng(number).integers(0, 128, (16, 16, 3)) + 100 * index
                Image.fromarray(pixels.astype("uint8")).save(folder / f"{number}.png")
    arms = [{"notebook": "01_guidance", "dataset": str(tmp_path / "images"), "guidance": "clom"}]
    path = quick_grid(arms=arms, seeds=[0], profile=QUICK | {"batch_real": 2, "image_size": 16})
    absent = ["papermill", "nbformat", "nbclient", "jupyter_client", "IPython", "snakemake"]
    absent += ["statsmodels", "sklearn", "matplotlib", "seaborn"]
    code = f"""
import runpy, sys
for name in {absent}:
    sys.modules[name] = None
sys.argv = ["sweep.py", {str(path)!r}, "--in-process"]
runpy.run_path("workflow/sweep.py", run_name="__main__")
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    grid = read_grid(path)
    assert {state.state for state in states.states(grid)} == {"done"}
