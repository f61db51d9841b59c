"""The comparison at the end of a sweep is over the records of its jobs, of today's code, that can be read."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from made import a_run

from ddlib.study.record import read_record, synthetic_path, write_record
from workflow import compare, sweep


def test_records_of_other_code_and_damaged_ones_are_left_out_and_named(tmp_path, capsys):
    sweep_folder, page = tmp_path / "sweep", tmp_path / "page"
    page.mkdir()
    runs = (a_run(seed=seed, parameters={"seed": seed}) for seed in range(4))
    kept, old, damaged, stranger = (write_record(sweep_folder, **about) for about in runs)
    synthetic_path(kept).write_bytes(b"images")
    damaged.write_text(damaged.read_text()[:-20])
    code = read_record(kept)["code_hash"]
    jobs = [
        SimpleNamespace(records=[kept.name, damaged.name, "absent.json"], made_with={"code": code}),
        SimpleNamespace(records=[old.name], made_with={"code": "0" * 16}),
    ]
    compare.gather(SimpleNamespace(jobs=jobs, folder=sweep_folder), page)
    assert {file.name for file in page.iterdir()} == {kept.name, synthetic_path(kept).name}
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2
    assert damaged.name in told[0]
    assert "absent.json" in told[1]
    assert stranger.name not in "".join(told), "of no job of the grid"


@pytest.mark.parametrize(
    ("given", "options", "jobs"),
    [
        (None, [], "all"),
        (3, [], "3"),
        (None, ["--workflow-profile", "workflow/profiles/slurm"], None),
        (3, ["--executor", "slurm"], "3"),
    ],
)
def test_a_profile_of_a_cluster_has_its_own_number_of_jobs(monkeypatch, given, options, jobs):
    calls = []
    monkeypatch.setattr(sweep, "snakemake", lambda grid, options, *config: calls.append([*options]) or 0)
    monkeypatch.setattr(sweep.os, "cpu_count", lambda: 7)
    sweep.engine(SimpleNamespace(folder=Path("x")), SimpleNamespace(jobs=given, in_process=True), options)
    first = {"all": ["--jobs", "7"], "3": ["--jobs", "3"], None: []}[jobs]
    assert calls == [[*first, *options]]
