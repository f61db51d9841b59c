"""Grids become jobs, jobs have identities, and a marker holds only as long as its files do. No job is run here."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import torch
import yaml
from filelock import FileLock
from made import ROOT

from ddlib.disk.paths import cache_folder
from ddlib.disk.tensors import write_tensors
from ddlib.guidance import GUIDANCE
from ddlib.study.ablations import ABLATIONS
from ddlib.study.record import record_path, write_failure
from ddlib.study.run import recorded
from workflow import grid as grids
from workflow import inputs, locks, run_job, states, sweep
from workflow.grid import read_grid
from workflow.markers import read_marker, why_stale, write_marker, wrong_with
from workflow.plan import PLAN, GridError, Pool, plan_text, read_plan

GRIDS = sorted((ROOT / "params" / "sweeps").glob("*.yaml"))
TINY = {
    "profile": {"base": "smoke", "iterations": 3},
    "seeds": ["0-1", 2],
    "arms": [
        {"notebook": "01_guidance", "guidance": ["none", "clom"]},
        {"notebook": "02_ensemble", "strategy": "loss_avg", "num_ptms": [2, 3]},
    ],
}


@pytest.fixture
def write(write_grid):
    """Write a grid file with some changes of TINY."""
    return lambda **changes: write_grid({**TINY, **changes})


def finish(grid, works=None):
    """Mark jobs as done, with files that stand for theirs."""
    for work in works if works is not None else (*grid.pools, *grid.jobs):
        base = run_job.base_of(grid, work)
        base.mkdir(parents=True, exist_ok=True)
        if isinstance(work, Pool):
            file = base / f"{work.name}.safetensors"
            write_tensors(file, {"weight": torch.ones(3)}, {"seconds": 1.5})
        else:
            file = base / f"{work.name}.txt"
            file.write_text(work.name)
        write_marker(grid.folder / work.marker, work.identity, [file], 2.0, base)


def left(grid):
    return [state.work.name for state in states.states(grid) if state.state == "left"]


# Grids


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_the_grids_of_the_project_are_valid(path):
    grid = read_grid(path)
    assert len(grid.jobs) == len({job.marker for job in grid.jobs}) >= 10
    assert {job.notebook for job in grid.jobs} <= set(ABLATIONS)
    assert len({pool.name for pool in grid.pools}) == len(grid.pools)  # a marker replaces others of its name
    assert path.read_text().startswith("#")


def test_the_smoke_grid_is_what_the_book_runs():
    from ddlib.combine import STRATEGIES
    from ddlib.selection import SELECTIONS
    from ddlib.study.arms import FULL

    jobs = read_grid(ROOT / "params" / "sweeps" / "smoke.yaml").jobs
    ensemble = [job.parameters for job in jobs if job.notebook == "02_ensemble"]
    plain = [p for p in ensemble if not p["equal_passes"] and p["guide_every"] == 1]
    assert sorted(p["strategy"] for p in plain) == sorted(STRATEGIES)
    guidance = [job.parameters for job in jobs if job.notebook == "01_guidance"]
    assert {p["guidance"] for p in guidance} == set(GUIDANCE)
    assert {p["base_method"] for p in guidance} == {"dm", *SELECTIONS, FULL}
    assert [p["strategy"] for p in ensemble if p["equal_passes"]] == ["random"]
    assert [(p["strategy"], p["guide_every"]) for p in ensemble if p["guide_every"] > 1] == [("loss_avg", 5)]
    shown = [(job.notebook, job.arm) for job in jobs if job.shown]  # in the book
    assert shown == [("01_guidance", "clom"), ("02_ensemble", "loss_avg"), ("06_ptm_options", "num_ptms2")]


def test_a_list_is_an_arm_for_each_value(write):
    grid = read_grid(write())
    assert [job.name for job in grid.jobs] == [
        *("01_guidance-none-seeds0-1", "01_guidance-none-seed2", "01_guidance-clom-seeds0-1", "01_guidance-clom-seed2"),
        *("02_ensemble-loss_avg-num_ptms2-seeds0-1", "02_ensemble-loss_avg-num_ptms2-seed2"),
        *("02_ensemble-loss_avg-num_ptms3-seeds0-1", "02_ensemble-loss_avg-num_ptms3-seed2"),
    ]
    assert all(job.parameters["iterations"] == 3 for job in grid.jobs)
    assert [pool.parameters["num_ptms"] for pool in grid.pools] == [1, 2, 3]
    assert grid.jobs[0].pool is None
    assert len(grid.jobs[0].records) == 2


def test_an_arm_may_have_seeds_of_its_own(write):
    arms = [{"notebook": "01_guidance", "guidance": ["none", "clom"], "seeds": [5, "7-8"]}, TINY["arms"][1]]
    assert [job.name for job in read_grid(write(arms=arms)).jobs][:5] == [
        *("01_guidance-none-seed5", "01_guidance-none-seeds7-8", "01_guidance-clom-seed5", "01_guidance-clom-seeds7-8"),
        "02_ensemble-loss_avg-num_ptms2-seeds0-1",
    ]


def test_arms_that_are_one_set_for_every_seed_are_run_once(write):
    methods = ["random", "herding", "k_center", "k_means", "class_means", "full"]
    arms = [{"notebook": "01_guidance", "guidance": "none", "base_method": methods}]
    names = [job.name for job in read_grid(write(arms=arms)).jobs]
    once = [f"01_guidance-none-{method}-seed0" for method in methods[1:]]
    assert names == ["01_guidance-none-random-seeds0-1", "01_guidance-none-random-seed2", *once]


def test_alphas_may_differ_on_the_hold_out_and_between_arms(write):
    hold_out = {"base": "smoke", "evaluate_on": "holdout"}
    arm = {"notebook": "01_guidance", "alpha_clom": [1.0, 10.0]}
    assert len(read_grid(write(profile=hold_out, arms=[arm])).jobs) == 4
    alone = {"notebook": "01_guidance", "base_method": "none", "alpha_clom": 100.0}
    assert len(read_grid(write(arms=[{"notebook": "01_guidance"}, alone])).jobs) == 4


def test_records_are_named_as_the_notebooks_name_them(write):
    """By the parameters that a run records, the folder and the device not among them."""
    job = read_grid(write()).jobs[2]
    p = SimpleNamespace(**job.parameters)
    assert job.records == [record_path("", "01_guidance", recorded(p, "digits"), seed).name for seed in (0, 1)]


BAD = {
    "no such profile": ({"profile": "smok"}, "smok.*desk, laptop, paper, smoke"),
    "a path as profile": ({"profile": "sweeps/smoke"}, "expected a name in params/: desk, laptop, paper, smoke"),
    "changes without a profile": ({"profile": {"ipc": 1}}, "expected a name in params/: desk, laptop, paper, smoke"),
    "unknown key": ({"armes": []}, "armes"),
    "no arms": ({"arms": []}, "arms is no list"),
    "unknown notebook": ({"arms": [{"notebook": "../x"}]}, "01_guidance, 02_ensemble"),
    "a list of notebooks": ({"arms": [{"notebook": ["01_guidance", "02_ensemble"]}]}, "notebook is .*expected one of"),
    "typo in a parameter": ({"arms": [{"notebook": "01_guidance", "guidence": "clom"}]}, "did you mean 'guidance'"),
    "impossible value": ({"arms": [{"notebook": "01_guidance", "ipc": [0]}]}, "ipc is 0"),
    "code as value": ({"arms": [{"notebook": "01_guidance", "guidance": "__import__('os')"}]}, "guidance is"),
    "a seed of the arm": ({"arms": [{"notebook": "01_guidance", "seed": 3}]}, "the grid sets seeds"),
    "a folder of the arm": ({"arms": [{"notebook": "01_guidance", "runs_folder": "/tmp"}]}, "runs_folder"),
    "a folder outside": ({"folder": "../../elsewhere"}, "inside"),
    "a folder elsewhere": ({"folder": "/etc"}, "inside"),
    "seeds twice": ({"seeds": ["0-3", 2]}, "without repeats"),
    "seeds backwards": ({"seeds": ["3-0"]}, "expected a seed or a range"),
    "no seeds": ({"seeds": []}, "expected a list of seeds"),
    "seeds as a number": ({"seeds": 3}, "expected a list of seeds"),
    "threads": ({"threads": 0}, "threads is 0"),
    "twice the same arm": ({"arms": [{"notebook": "01_guidance"}, {"notebook": "01_guidance"}]}, "the same record"),
    "two names for one arm": (
        {"arms": [{"notebook": "01_guidance", "alpha_clom": [1, 1.0]}]},
        r"alpha_clom1-seeds0-1 and .*alpha_clom1\.0-seeds0-1 would write the same record",
    ),
    "an arm without values": ({"arms": [{"notebook": "01_guidance", "guidance": []}]}, "no value for guidance"),
    "a folder of the profile": ({"profile": {"base": "smoke", "runs_folder": "/tmp"}}, "profile sets runs_folder"),
    "a number as a key": ({"arms": [{"notebook": "01_guidance", 3: 4}]}, "keys \\[3\\]"),
    "alphas on the test images": (
        {"arms": [{"notebook": "01_guidance", "alpha_clom": [1.0, 10.0]}]},
        "alpha_clom10.0-seeds0-1 and another arm differ in alpha alone, and evaluate_on is test",
    ),
    "alphas of other seeds on the test images": (
        {
            "arms": [
                {"notebook": "01_guidance", "alpha_clom": 1.0, "seeds": [0]},
                {"notebook": "01_guidance", "alpha_clom": 10.0, "seeds": [1]},
            ]
        },
        "differ in alpha alone, and evaluate_on is test",
    ),
    "seeds of an arm": ({"arms": [{"notebook": "01_guidance", "seeds": [1, 1]}]}, "without repeats"),
    "data that is not there": ({"arms": [{"notebook": "01_guidance", "dataset": "no/such"}]}, "image folder"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_grid_is_one_error_that_names_the_file(write, name):
    changes, said = BAD[name]
    with pytest.raises(GridError, match=said) as error:
        read_grid(write(**changes))
    assert "tiny.yaml" in str(error.value)


@pytest.mark.parametrize("text", ["a: [", "3", "!!python/object/apply:os.system [touch x]", "\x00"])
def test_a_file_that_is_no_grid(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(GridError, match=r"bad\.yaml"):
        read_grid(path)
    with pytest.raises(GridError, match=r"smoke\.yaml"):
        read_grid(tmp_path / "absent.yaml")


def test_the_command_line_shows_the_error_alone(write, capsys):
    with pytest.raises(SystemExit, match="did you mean 'guidance'"):
        sweep.main([str(write(arms=[{"notebook": "01_guidance", "guidence": "clom"}])), "--dry-run"])


# Identity: what makes a run stale


def names_of_changed(before, after):
    known = {job.marker for job in before.jobs} | {pool.marker for pool in before.pools}
    return [work.name for work in (*after.pools, *after.jobs) if work.marker not in known]


def test_adding_seeds_or_arms_makes_those_alone(write):
    before = read_grid(write())
    assert names_of_changed(before, read_grid(write(seeds=["0-1", 2, 3]))) == [
        f"{arm}-seed3"
        for arm in (
            *("01_guidance-none", "01_guidance-clom"),
            *("02_ensemble-loss_avg-num_ptms2", "02_ensemble-loss_avg-num_ptms3"),
        )
    ]
    more = [*TINY["arms"], {"notebook": "01_guidance", "guidance": "both"}]
    assert names_of_changed(before, read_grid(write(arms=more))) == [
        "01_guidance-both-seeds0-1",
        "01_guidance-both-seed2",
    ]


def test_a_parameter_of_the_ptms_makes_pools_and_arms_stale(write):
    before = read_grid(write())
    after = read_grid(write(profile={"base": "smoke", "iterations": 3, "ptm_epochs": 7}))
    assert len(names_of_changed(before, after)) == len(after.pools) + len(after.jobs)
    evaluated = read_grid(write(profile={"base": "smoke", "iterations": 3, "num_eval": 5}))
    assert len(names_of_changed(before, evaluated)) == len(after.jobs)  # the pools stay


def test_computing_code_makes_stale_and_prose_does_not(write, tmp_path, monkeypatch):
    before = read_grid(write())
    monkeypatch.setattr(inputs, "ROOT", tmp_path)
    (tmp_path / "notebooks").mkdir()

    def notebooks(edit):
        inputs.read_cells.cache_clear()
        for name in ABLATIONS:
            notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
            edit(notebook.cells)
            nbformat.write(notebook, tmp_path / "notebooks" / f"{name}.ipynb")

    def prose(cells):
        for cell in cells:
            if cell.cell_type == "markdown":
                cell.source += " More words."
        cells[-1:] = [nbformat.v4.new_code_cell("figure = run_figures.curves(runs[-1])  # another plot")]

    def comment(cells):
        next(cell for cell in cells if "run_arm" in cell.source).source += "  # a remark"

    def work(cells):
        next(cell for cell in cells if "run_arm" in cell.source).source += "\nruns = runs[:1]"

    for edit in (prose, comment):
        notebooks(edit)
        assert names_of_changed(before, read_grid(write())) == []
    notebooks(work)
    assert len(names_of_changed(before, read_grid(write()))) == len(before.jobs)
    notebooks(prose)
    monkeypatch.setattr(grids, "run_hash", lambda: "other")
    after = read_grid(write())
    assert {job.identity["code"] for job in after.jobs} == {"other"}
    inputs.read_cells.cache_clear()


def test_an_image_folder_counts_by_its_bytes(write, tmp_path):
    folder = tmp_path / "images"
    (folder / "train" / "a").mkdir(parents=True)
    (folder / "train" / "a" / "1.png").write_bytes(b"1")
    arms = [{"notebook": "01_guidance", "guidance": "none", "dataset": str(folder)}]
    before = read_grid(write(arms=arms))
    assert names_of_changed(before, read_grid(write(arms=arms))) == []
    (folder / "train" / "a" / "1.png").write_bytes(b"2")
    assert len(names_of_changed(before, read_grid(write(arms=arms)))) == 2


# Markers and states


def test_an_untouched_sweep_is_done_and_says_so(write, capsys):
    grid = read_grid(write())
    assert len(left(grid)) == len(grid.jobs) + len(grid.pools)
    finish(grid)
    assert left(grid) == []
    assert sweep.main([str(write()), "--dry-run"]) == 0
    assert "nothing is left to do" in capsys.readouterr().out


def test_a_damaged_or_missing_file_is_named_and_its_job_made_again(write):
    grid = read_grid(write())
    finish(grid)
    first, second = grid.jobs[:2]
    (grid.folder / f"{first.name}.txt").write_text("other")
    (grid.folder / f"{second.name}.txt").unlink()
    found = [state for state in states.states(grid) if state.state == "left"]
    assert [(state.work.name, state.why) for state in found] == [
        (first.name, f"{first.name}.txt is damaged or was changed"),
        (second.name, f"{second.name}.txt is missing"),
    ]
    sweep.forget(grid, found)
    assert not (grid.folder / first.marker).exists()
    assert (grid.folder / grid.jobs[2].marker).exists()


def test_a_changed_ptm_is_found_and_a_cleared_cache_is_no_reason(write):
    grid = read_grid(write())
    finish(grid)
    pool = grid.pools[0]
    file = cache_folder() / f"{pool.name}.safetensors"
    write_tensors(file, {"weight": torch.ones(3)}, {"seconds": 9.9})  # the same PTM, trained again
    assert left(grid) == []
    write_tensors(file, {"weight": torch.zeros(3)}, {"seconds": 1.5})
    assert left(grid) == [pool.name, *(job.name for job in grid.jobs if job.pool == pool)]
    for file in cache_folder().iterdir():
        file.unlink()
    assert left(grid) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"identity": 3}', "\x00\xff"])
def test_a_damaged_marker_counts_for_nothing(write, text):
    grid = read_grid(write())
    finish(grid)
    (grid.folder / grid.jobs[0].marker).write_text(text)
    assert left(grid) == [grid.jobs[0].name]


def test_why_a_job_is_stale(write, capsys):
    finish(read_grid(write()))
    sweep.main([str(write(profile={"base": "smoke", "iterations": 4})), "--dry-run"])
    said = capsys.readouterr().out
    assert "and 7 more, because iterations was 3, is 4" in said
    assert "8 jobs left: about" in said


def test_the_marker_of_a_new_state_replaces_the_old_one(write):
    old = read_grid(write())
    finish(old)
    new = read_grid(write(profile={"base": "smoke", "iterations": 4}))
    job = new.jobs[0]
    assert why_stale(new.folder / job.marker, job.identity) == "iterations was 3, is 4"
    finish(new, [job])
    assert not (old.folder / old.jobs[0].marker).exists()
    assert (old.folder / old.jobs[1].marker).exists()
    assert wrong_with(new.folder / job.marker, new.folder) == ""


def test_running_and_failed_jobs_are_told_apart(write):
    grid = read_grid(write())
    running, failed, killed = grid.jobs[:3]
    lock = locks.lock_of(grid.folder, running.name)
    lock.parent.mkdir(parents=True)
    logs = grid.folder / "logs"
    logs.mkdir()
    (logs / f"{Path(failed.marker).stem}.log").write_text("...\nFAILED: ValueError: no such thing\n")
    (logs / f"{Path(killed.marker).stem}.log").write_text("PTMs: 50%")
    with FileLock(lock):
        found = {state.work.name: (state.state, state.why) for state in states.states(grid)}
    assert found[running.name] == ("running", "")
    assert found[failed.name] == ("failed", "ValueError: no such thing")
    assert found[killed.name] == ("left", "")
    assert states.table(states.states(grid)).splitlines()[-1].split() == ["all", "0", "0", "1", "10"]


def test_an_estimate_needs_a_record_and_says_what_it_lacks(write):
    grid = read_grid(write())
    assert "no earlier record" in states.outlook(grid, states.states(grid), 2)
    finish(grid, [grid.jobs[0]])
    seconds, size, unknown = states.estimate(grid, states.states(grid))
    assert (seconds, unknown) == (3 * 2.0, 3 + 4)  # jobs of the same notebook; pools and the other notebook
    assert size == 3 * len(grid.jobs[0].name)


def test_old_logs_go_and_what_is_current_stays(write):
    grid = read_grid(write())
    finish(grid)
    (grid.folder / "logs").mkdir()
    old = grid.folder / "logs" / "01_guidance-gone-seed0.12345678.log"
    current = grid.folder / "logs" / f"{Path(grid.jobs[0].marker).stem}.log"
    for path in (old, current):
        path.write_text("")
    sweep.sweep_away(grid)
    assert not old.exists()
    assert current.exists()
    assert len(list((grid.folder / "jobs").iterdir())) == len(grid.jobs)


def test_a_second_sweep_of_one_grid_is_refused(write):
    grid = read_grid(write())
    lock = grid.folder / "locks" / "sweep.lock"
    lock.parent.mkdir(parents=True)
    with FileLock(lock), pytest.raises(SystemExit, match="another sweep"):
        sweep.main([str(write())])


# The plan


def planned(grid):
    """Where the plan of a sweep is written."""
    path = grid.folder / PLAN
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(plan_text(grid))
    return path


def test_a_plan_says_all_that_the_grid_said(write):
    compared = {"notebook": "01_guidance", "ipc": 2, "published": {"augmented": 50}}
    grid = read_grid(write(arms=[*TINY["arms"], compared]))
    read = read_plan(planned(grid))
    assert (read.folder, read.threads, read.began, read.comparison) == (grid.folder, 1, grid.began, grid.comparison)
    assert read.jobs == grid.jobs
    assert [job.marker for job in read.jobs] == [job.marker for job in grid.jobs]
    assert read.pools == grid.pools
    assert {id(job.pool) for job in read.jobs if job.pool} == set(map(id, read.pools))
    assert [job.published for job in read.jobs if job.published] == [{"augmented": 50}] * 2


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"pools": [], "jobs": [{}]}', '{"pools": 3, "jobs": 4}'])
def test_a_damaged_plan_is_one_error(tmp_path, text):
    path = tmp_path / "plan.json"
    path.write_text(text)
    with pytest.raises(GridError, match=r"plan\.json.*start the sweep again"):
        read_plan(path)
    with pytest.raises(GridError, match="start the sweep again"):
        read_plan(tmp_path / "absent.json")


def test_jobs_and_the_engine_find_out_what_to_do_without_torch(write):
    """Each of hundreds of jobs would pay seconds for it."""
    path = planned(read_grid(write()))
    code = f"""
import sys
from workflow import run_job
grid = run_job.read_plan({str(path)!r})
assert run_job.changed(grid, grid.jobs[0]) == []
heavy = {{"torch", "pandas", "numpy", "nbformat", "papermill", "ddlib"}} & set(sys.modules)
sys.exit(f"imported: {{heavy}}" if heavy else 0)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    imports = re.findall(r"^from (\S+) import", (ROOT / "workflow" / "Snakefile").read_text(), re.MULTILINE)
    assert imports == ["pathlib", "workflow.plan"]


@pytest.mark.parametrize("what", ["code", "notebook", "images"])
def test_a_job_stops_at_once_if_something_changed_since_the_sweep_began(write, tmp_path, monkeypatch, what):
    folder = tmp_path / "images"
    (folder / "train" / "a").mkdir(parents=True)
    (folder / "train" / "a" / "1.png").write_bytes(b"1")
    grid = read_plan(planned(read_grid(write(arms=[{"notebook": "01_guidance", "dataset": str(folder)}], seeds=[0]))))
    job, pool = grid.jobs[0], grid.pools[0]
    assert inputs.changed(grid, job) == inputs.changed(grid, pool) == []
    if what == "code":
        grid.began["code"][next(iter(grid.began["code"]))] = "of earlier code"
    elif what == "notebook":
        monkeypatch.setattr(inputs, "notebook_hash", lambda notebook: "of other cells")
    else:
        (folder / "train" / "a" / "1.png").write_bytes(b"2")
    named = {"code": "the code of ddlib", "notebook": "notebooks/01_guidance.ipynb", "images": str(folder)}[what]
    assert inputs.changed(grid, job) == [named]
    assert inputs.changed(grid, pool) == ([] if what == "notebook" else [named])
    with pytest.raises(GridError, match="changed since the sweep began: start it again"):
        run_job.run(grid, job, lambda *_: pytest.fail("was run"))
    assert not (grid.folder / job.marker).exists()


# The comparison, and when Snakemake is started


def compare(grid):
    """Mark the comparison as made."""
    page = grid.folder / "comparison.html"
    page.write_text("page")
    write_marker(grid.folder / grid.comparison, grid.comparison_identity, [page], 1.0, grid.folder)


@pytest.fixture
def calls(monkeypatch):
    """The calls of Snakemake, which is not started."""
    found = []
    monkeypatch.setattr(sweep, "snakemake", lambda grid, options, *config: found.append([*options, *config]) or 0)
    return found


def test_the_comparison_is_made_again_when_there_are_more_hold_out_runs(write):
    grid = read_grid(write())
    held_out = grid.folder.with_name("tiny-alpha")
    held_out.mkdir(parents=True)
    (held_out / "a.json").write_text("{}")
    more = read_grid(write())
    assert more.comparison != grid.comparison
    (held_out / "a.json").write_text("{} ")
    assert read_grid(write()).comparison not in (grid.comparison, more.comparison)
    assert [job.marker for job in more.jobs] == [job.marker for job in grid.jobs]


def test_an_empty_profile_is_told(write, tmp_path, monkeypatch):
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "nothing.yaml").write_text("# no parameter\n")
    monkeypatch.setattr(grids, "ROOT", tmp_path)
    with pytest.raises(GridError, match=r"nothing\.yaml holds NoneType; expected parameters and their values"):
        read_grid(write(profile="nothing"))


def test_a_second_call_starts_no_snakemake(write, calls, capsys):
    grid = read_grid(write())
    finish(grid)
    compare(grid)
    assert sweep.main([str(write())]) == 0
    assert calls == []
    assert "nothing is left to do\n" in capsys.readouterr().out
    assert sweep.main([str(write()), "--forceall"]) == 0
    assert "--forceall" in calls[0]


def test_a_file_name_that_is_no_text_counts_too(tmp_path):
    """Names of the file system are bytes, whatever alphabet wrote them."""
    name = b"caf\xe9.png"  # of Latin-1
    try:
        (tmp_path / os.fsdecode(name)).write_bytes(b"pixels")
    except OSError:
        pytest.skip("this file system takes names of UTF-8 alone")
    content = hashlib.sha256(b"pixels").hexdigest().encode()
    assert inputs.folder_hash(tmp_path) == hashlib.sha256(name + b" " + content + b"\n").hexdigest()[:8]


@pytest.mark.parametrize("lack", ["job", "page", "damaged page", "newer job", "reader", "fewer jobs"])
def test_a_comparison_that_is_not_of_today_is_made_again(write, calls, monkeypatch, lack):
    grid = read_grid(write())
    finish(grid)
    compare(grid)
    marker = grid.folder / grid.jobs[0].marker
    changes = {}
    if lack == "job":
        marker.unlink()
    elif lack == "page":
        (grid.folder / "comparison.html").unlink()
    elif lack == "damaged page":
        (grid.folder / "comparison.html").write_text("pag")
    elif lack == "newer job":
        os.utime(marker, ns=(2**62, 2**62))
    elif lack == "reader":
        monkeypatch.setattr(grids, "reader_hash", lambda: "of another figure")
    else:
        changes = {"seeds": ["0-1"]}
    sweep.main([str(write(**changes))])
    assert [call[0] for call in calls] == ["--jobs", "--report"]
    assert (grid.folder / grid.comparison).exists() == (lack in ("job", "reader", "fewer jobs"))


def test_prose_and_readers_shape_the_comparison_alone(write, monkeypatch):
    before = read_grid(write())
    monkeypatch.setattr(grids, "reader_hash", lambda: "other")
    after = read_grid(write())
    assert [job.marker for job in after.jobs] == [job.marker for job in before.jobs]
    assert after.comparison != before.comparison


def test_the_readers_are_all_of_the_study_and_the_notebook(monkeypatch):
    seen = []
    monkeypatch.setattr(inputs, "files_hashes", lambda files: seen.extend(map(str, files)) or {})
    inputs.reader_hash()
    names = {Path(file).name for file in seen}
    assert {"tables.py", "figures.py", "contrasts.py", "runs.py", "03_compare.ipynb", "compare.py"} <= names


def execute(grid, job, edit=lambda notebook: None):
    """An executed notebook for a job, and a marker that names it."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{job.notebook}.ipynb", as_version=4)
    given = nbformat.v4.new_code_cell("# Parameters", metadata={"tags": ["injected-parameters"]})
    notebook.cells.insert(1, given)
    edit(notebook)
    grid.executed(job).parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, grid.executed(job))
    write_marker(grid.folder / job.marker, job.identity, [grid.executed(job)], 2.0, grid.folder)


def test_a_job_that_ran_without_its_notebook_is_done_unless_the_book_shows_it(write):
    grid = read_grid(write())
    finish(grid)
    with_notebook = next(job for job in grid.jobs if job.shown)
    execute(grid, with_notebook)
    assert left(grid) == []
    asked = [state for state in states.states(grid, notebooks=True) if state.state == "left"]
    assert asked
    assert [state.work.name for state in asked] == [j.name for j in grid.jobs if j.shown and j is not with_notebook]
    assert {state.why for state in asked} == {"it ran without its notebook"}


def test_the_book_shows_the_prose_of_today(write):
    """Prose makes no run stale; but what is shown is executed again."""

    def edit(notebook):
        notebook.cells[0].source += " Earlier words."

    grid = read_grid(write())
    finish(grid)
    for job in grid.jobs:
        execute(grid, job, edit)
    assert left(grid) == []
    asked = [(s.work.name, s.why) for s in states.states(grid, notebooks=True) if s.state == "left"]
    why = "the text of its notebook has changed"
    assert asked == [(job.name, why) for job in grid.jobs if job.shown]
    assert [job.name for job in grid.jobs if job.shown] == ["01_guidance-clom-seeds0-1", "01_guidance-clom-seed2"]


# Jobs


def test_a_job_that_is_done_is_not_done_again(write, capsys):
    grid = read_grid(write())
    finish(grid)
    run_job.run(grid, grid.jobs[0], lambda *_: pytest.fail("was run"))
    assert "done already" in capsys.readouterr().out


def test_a_job_of_another_state_is_refused(write, capsys):
    old = read_grid(write())
    path = planned(read_grid(write(profile={"base": "smoke", "iterations": 4})))
    with pytest.raises(SystemExit):
        run_job.main(str(path), Path(old.jobs[0].marker).stem)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(run_job.FAILED)
    assert "another sweep has begun" in last


def test_a_notebook_gets_the_numbers_of_its_job(write, monkeypatch):
    """papermill reads YAML, in which 1e-05 is a word."""
    given = []

    def execute(*arguments):
        given.append(yaml.safe_load(arguments[-1]))
        raise SystemExit("that was all")

    monkeypatch.setattr(run_job, "execute", execute)
    arms = [{"notebook": "01_guidance", "guidance": "none", "lr_img": [1e-5, 1e38], "dataset": "digits"}]
    grid = read_grid(write(arms=arms, seeds=[0]))
    for job in grid.jobs:
        with pytest.raises(SystemExit):
            run_job.run_notebook(grid, job)
    assert given == [dict(job.parameters) for job in grid.jobs]
    assert [type(p["lr_img"]) for p in given] == [float, float]


@pytest.mark.parametrize("error", [None, SystemExit("disk full")])
def test_records_of_an_earlier_run_are_no_result_of_this_one(write, monkeypatch, error):
    """Not if the notebook fails over an old record that diverged, and not if it ends without writing."""
    grid = read_grid(write(seeds=[0]))
    job = grid.jobs[0]
    grid.folder.mkdir(parents=True)
    about = {"parameters": recorded(SimpleNamespace(**job.parameters), "digits"), "seed": 0, "arm": job.arm}
    about |= {"notebook": job.notebook, "dataset_hash": "0", "ptm_hashes": [], "device": "cpu"}
    diverged = FloatingPointError("iteration 3: the loss is nan")
    write_failure(grid.folder, diverged, **about, peak_memory_bytes=None)
    assert (grid.folder / job.records[0]).is_file()

    def execute(*_):
        if error:
            raise error

    monkeypatch.setattr(run_job, "execute", execute)
    with pytest.raises((SystemExit, RuntimeError), match="disk full" if error else "was not written"):
        run_job.run(grid, job, run_job.with_notebook)
    assert not (grid.folder / job.marker).exists()

    def diverging(*_):
        write_failure(grid.folder, diverged, **about, peak_memory_bytes=None)
        raise SystemExit("diverged")

    monkeypatch.setattr(run_job, "execute", diverging)
    run_job.run(grid, job, run_job.with_notebook)
    assert (grid.folder / job.marker).is_file()
    assert states.state_of(grid, job).state == "failed"


def test_a_run_of_other_code_than_the_sweep_began_with_is_refused(write, monkeypatch):
    grid = read_grid(write(seeds=[0]))
    job = grid.jobs[0]
    grid.folder.mkdir(parents=True)
    monkeypatch.setattr(run_job, "execute", lambda *_: (grid.folder / job.records[0]).write_text("{}"))
    monkeypatch.setattr(run_job, "said", lambda path: {"status": "ok", "code_hash": "of other code"})
    with pytest.raises(RuntimeError, match="the code of ddlib changed"):
        run_job.run(grid, job, run_job.with_notebook)
    assert not (grid.folder / job.marker).exists()


def test_the_reason_is_the_line_that_names_the_error():
    lines = ["Traceback", "ValueError: wrong", "", "notebook.ipynb failed; as far as it came: x"]
    assert run_job.reason(lines) == "ValueError: wrong"
    assert run_job.reason(["ParameterError: nothing was run, because", "  ipc is 0", "x failed"]).endswith("ipc is 0")
    assert run_job.reason(["no error named", "last"]) == "last"
    assert run_job.reason([]) == ""


def test_a_marker_names_its_files_and_their_bytes(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("abc")
    write_marker(tmp_path / "jobs" / "a.12345678.json", {"x": 1}, [file], 1.5, tmp_path)
    marker = read_marker(tmp_path / "jobs" / "a.12345678.json")
    assert (marker["seconds"], marker["bytes"], list(marker["files"])) == (1.5, 3, ["a.txt"])
    assert marker["files"]["a.txt"] == "ba7816bf8f01cfea"  # SHA-256 of abc, the standard's own example
    assert json.loads((tmp_path / "jobs" / "a.12345678.json").read_text())["identity"] == {"x": 1}
