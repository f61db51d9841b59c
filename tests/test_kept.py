"""What the book keeps of the study: made where it is missing, and made again to compare."""

import shutil

import pytest
import torch
import yaml
from PIL import Image

from ddlib.study.record import read_record
from workflow import reproduce, study

TINY = {"base": "smoke", "iterations": 1, "eval_epochs": 1, "num_eval": 1, "architectures": "ConvNet-3", "width": 4}
TINY |= {"ptm_epochs": 1, "ptm_seed": None, "judges": 0}


@pytest.fixture
def grid(tmp_path, monkeypatch):
    """A grid of two arms with three seeds, each a job, and a place of its own for what is kept."""
    monkeypatch.setattr(study, "RESULTS", tmp_path / "results")
    monkeypatch.setitem(study.PICTURED, "tiny", 2)
    monkeypatch.setattr(reproduce, "RESULTS", tmp_path / "results")
    monkeypatch.setenv("DDLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("DDLIB_CACHE", str(tmp_path / "results" / "ptms"))
    arms = [{"notebook": "01_guidance", "guidance": ["none", "clom"]}]
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({"profile": TINY, "seeds": [3, 4, 5], "arms": arms}))
    return path


def names(folder):
    return sorted(path.name for path in folder.glob("*.*"))


def test_what_is_kept_is_not_made_again(grid, tmp_path, capsys):
    assert study.main([str(grid)]) == 0
    kept = tmp_path / "results" / "sweeps" / "tiny"
    records = [name for name in names(kept) if name.endswith(".json")]
    assert len(records) == 6
    assert sorted(read_record(kept / name)["seed"] for name in records) == [3, 3, 4, 4, 5, 5]
    pictured = {name.removesuffix(".png").rpartition("-seed")[2] for name in names(kept) if name.endswith(".png")}
    assert pictured == {"3", "4"}
    assert len(list((tmp_path / "results" / "ptms").glob("*.safetensors"))) == 3  # a pool for each seed

    lost = kept / records[0]
    before = {path: path.stat().st_mtime_ns for path in kept.glob("*.json")}
    content = read_record(lost)["synthetic_hash"]
    lost.unlink()
    shutil.rmtree(tmp_path / "runs")  # a fresh checkout
    capsys.readouterr()
    assert study.main([str(grid)]) == 0
    assert "5 of 6 jobs are kept" in capsys.readouterr().out
    assert read_record(lost)["synthetic_hash"] == content
    assert all(path.stat().st_mtime_ns == time for path, time in before.items() if path != lost)


def test_a_job_that_ended_before_its_record_was_kept_is_not_run_again(grid, tmp_path, monkeypatch, capsys):
    assert study.main([str(grid)]) == 0
    kept = tmp_path / "results" / "sweeps" / "tiny"
    for path in sorted(kept.glob("*.json"))[:4]:
        path.unlink()
    monkeypatch.setattr(study.in_process, "run_job", None)
    capsys.readouterr()
    assert study.main([str(grid)]) == 0
    assert "6 of 6 jobs are kept" in capsys.readouterr().out
    assert len(list(kept.glob("*.json"))) == 6


def test_a_record_that_was_damaged_before_it_was_kept_is_made_again(grid, tmp_path, capsys):
    assert study.main([str(grid)]) == 0
    kept = tmp_path / "results" / "sweeps" / "tiny"
    lost = sorted(kept.glob("*.json"))[0]
    made = tmp_path / "runs" / "sweeps" / "tiny" / lost.name
    content, text = read_record(lost), made.read_text()
    lost.unlink()
    made.write_text(text[: len(text) // 2])
    capsys.readouterr()
    assert study.main([str(grid)]) == 0
    assert "5 of 6 jobs are kept" in capsys.readouterr().out
    assert read_record(lost)["synthetic_hash"] == content["synthetic_hash"]


def test_ptms_are_those_that_the_book_keeps_whatever_the_users_own_cache_is(grid, tmp_path, monkeypatch):
    monkeypatch.setenv("DDLIB_CACHE", str(tmp_path / "of the user"))
    assert study.main([str(grid)]) == 0
    assert len(list((tmp_path / "results" / "ptms").glob("*.safetensors"))) == 3
    assert not (tmp_path / "of the user").exists()


def test_a_number_of_processes_is_one_or_more(grid):
    for number in ("0", "-1", "many"):
        with pytest.raises(SystemExit):
            study.main([str(grid), "--jobs", number])


def test_no_pictures_are_kept_of_sets_for_the_hold_out(grid, tmp_path):
    text = yaml.safe_load(grid.read_text())
    grid.write_text(yaml.safe_dump(text | {"profile": TINY | {"evaluate_on": "holdout"}, "seeds": [3]}))
    assert study.main([str(grid)]) == 0
    kept = names(tmp_path / "results" / "sweeps" / "tiny")
    assert len(kept) == 2
    assert all(name.endswith(".json") for name in kept)


def test_a_job_that_fails_keeps_nothing(grid, tmp_path, monkeypatch):
    def fail(*given):
        raise ValueError("no data today")

    monkeypatch.setattr(study.in_process.study, "open_dataset", fail)
    assert study.main([str(grid)]) == 1
    assert not list((tmp_path / "results").rglob("*.json"))


def test_a_kept_run_is_repeated(grid, tmp_path, monkeypatch, capsys):
    study.main([str(grid)])
    monkeypatch.setenv("DDLIB_CACHE", str(tmp_path / "elsewhere"))
    capsys.readouterr()
    assert reproduce.main(["clom", "--seed", "4"]) == 0
    said = capsys.readouterr().out
    assert "The synthetic set is the same, bit by bit." in said
    assert "ConvNet-3" in said
    run_arm, threads = reproduce.run_arm, []
    monkeypatch.setattr(reproduce, "run_arm", lambda *given: threads.append(torch.get_num_threads()) or run_arm(*given))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert reproduce.main(["clom", "--seed", "4"]) == 0
        assert threads == [1], "as many as the study had: two round otherwise"
    finally:
        torch.set_num_threads(before)
    for arguments, why in (
        (["cclom"], r"no record of arm 'cclom' is kept; known: clom, none\."),
        (["clom", "--seed", "9"], r"no record of 'clom' with seed 9; kept: 3, 4, 5\."),
        (["clom", "--grid", "other"], "known: none at all"),
    ):
        with pytest.raises(SystemExit, match=why):
            reproduce.main(arguments)


def test_pictures_of_the_way_are_kept_for_the_explorer(grid, tmp_path, monkeypatch):
    study.main([str(grid)])
    monkeypatch.setattr(reproduce, "WAY", (0, 1, 7))
    before = names(tmp_path / "results" / "sweeps" / "tiny")
    assert reproduce.main(["none", "--pictures"]) == 0
    assert names(tmp_path / "results" / "sweeps" / "tiny") == before
    (folder,) = (tmp_path / "results" / "sweeps" / "tiny" / "snapshots").iterdir()
    assert folder.name == reproduce.kept_of("none")[3].stem
    assert names(folder) == ["0.png", "1.png"]  # as many iterations as the run has
    sizes = {Image.open(path).size for path in folder.iterdir()}
    assert sizes == {(160, 16)}  # ten classes side by side


def test_no_pictures_are_kept_of_another_set(grid, tmp_path, monkeypatch):
    study.main([str(grid)])
    read = reproduce.read_record
    monkeypatch.setattr(reproduce, "read_record", lambda path: read(path) | {"synthetic_hash": str(path)})
    with pytest.raises(SystemExit, match=r"Other bits than those of 01_guidance-.*-seed3\.json, so no picture is kept"):
        reproduce.main(["none", "--pictures"])
    assert not (tmp_path / "results" / "sweeps" / "tiny" / "snapshots").exists()


def test_the_test_images_come_before_the_hold_out(tmp_path, monkeypatch):
    """Of the grids that have an arm; and a grid with several settings does not say which one is meant."""
    monkeypatch.setattr(reproduce, "RESULTS", tmp_path)
    held = {
        "a-alpha": [("clom", "x", "holdout"), ("clom", "y", "holdout"), ("none", "z", "holdout")],
        "b": [("clom", "t", "test"), ("none", "u", "test")],
    }
    records = {}
    for folder, runs in held.items():
        (tmp_path / "sweeps" / folder).mkdir(parents=True)
        for arm, setting, split in runs:
            path = tmp_path / "sweeps" / folder / f"{setting}.json"
            path.touch()
            about = {"arm": arm, "seed": 3, "status": "ok", "parameter_hash": setting}
            records[path] = about | {"parameters": {"evaluate_on": split}}
    monkeypatch.setattr(reproduce, "read_record", records.get)
    assert {arm: reproduce.kept_of(arm)[3].stem for arm in ("clom", "none")} == {"clom": "t", "none": "u"}
    assert reproduce.kept_of("none", "a-alpha")[3].stem == "z"
    with pytest.raises(ValueError, match="'clom' stands in several settings in a-alpha"):
        reproduce.kept_of("clom", "a-alpha")


def test_other_bits_are_near_or_not(grid):
    study.main([str(grid)])
    kept = {seed: read_record(path) for seed, path in reproduce.kept_of("none").items()}
    means = [reproduce.mean_accuracy(record) for record in kept.values()]
    mean = sum(means) / 3
    spread = (sum((value - mean) ** 2 for value in means) / 2) ** 0.5

    def made(away):
        table = kept[3]["accuracies"]
        return {"synthetic_hash": "other", "accuracies": table.assign(accuracy=table["accuracy"] + away)}

    for away, repeated in ((2.9 * spread, True), (3.1 * spread, False), (-3.1 * spread, False)):
        found, says = reproduce.verdict(kept, 3, made(away))
        assert found == repeated
        assert f"{100 * abs(away):.2f} points away; {300 * spread:.2f} are allowed" in says
    alone = {3: kept[3]}
    assert [reproduce.verdict(alone, 3, made(away))[0] for away in (0.019, 0.021)] == [True, False]
    table = reproduce.beside(kept[3], made(0.01))
    assert table["difference"].tolist() == pytest.approx([1.0])


def test_an_interrupted_evaluation_goes_on_with_the_next_architecture(grid, tmp_path, monkeypatch):
    text = yaml.safe_load(grid.read_text())
    arms = [{"notebook": "01_guidance", "guidance": "none", "base_method": ["full", "random"]}]
    profile = TINY | {"architectures": "ConvNet-3 x2,AlexNet", "full_epochs": 1, "ptm_seed": 1}
    grid.write_text(yaml.safe_dump(text | {"profile": profile, "seeds": [3], "arms": arms}))
    kept = tmp_path / "results" / "sweeps" / "tiny"
    assert study.main([str(grid)]) == 0
    in_one = {record["arm"]: record for record in map(read_record, kept.glob("*.json"))}

    shutil.rmtree(kept)
    shutil.rmtree(tmp_path / "runs")
    asked, seconds = [], 1000.0

    def evaluate(synthetic, dataset, architectures, *given, real=study.in_process.study.evaluate, **named):
        asked.append((len(synthetic) > 10, *architectures))
        if asked == [(False, "ConvNet-3"), (False, "AlexNet"), (True, "ConvNet-3"), (True, "AlexNet")]:
            raise KeyboardInterrupt
        return real(synthetic, dataset, architectures, *given, **named).assign(seconds=seconds)

    monkeypatch.setattr(study.in_process.study, "evaluate", evaluate)
    with pytest.raises(KeyboardInterrupt):
        study.main([str(grid)])
    assert len(names(kept)) == 2  # record and picture of the random images, which come first
    assert study.main([str(grid)]) == 0
    assert asked[4:] == [(True, "AlexNet")]
    in_two = {record["arm"]: record for record in map(read_record, kept.glob("*.json"))}
    assert in_two.keys() == in_one.keys()
    for arm, record in in_two.items():
        for column in ("architecture", "network", "accuracy", "class_accuracies"):
            assert list(record["accuracies"][column]) == list(in_one[arm]["accuracies"][column])
    [full] = [record for record in in_two.values() if record["parameters"]["base_method"] == "full"]
    assert list(full["accuracies"]["seconds"]) == [seconds] * 3
    assert 2 * seconds < full["seconds"]["evaluate"] < 3 * seconds  # of the first sitting, and what was measured here
    assert not [*(tmp_path / "runs").rglob("sittings/*")]
