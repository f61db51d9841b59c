"""What the book keeps of the study: made where it is missing, and left alone where it is there."""

import shutil

import pytest
import torch
import yaml
from made import files_in
from PIL import Image

from ddlib.study.record import read_record
from ddlib.synthetic import SyntheticSet
from workflow import study


def test_what_is_kept_is_not_made_again(study_grid, tmp_path, capsys):
    assert study.main([str(study_grid)]) == 0
    kept = tmp_path / "results" / "sweeps" / "tiny"
    records = [name for name in files_in(kept) if name.endswith(".json")]
    assert len(records) == 6
    assert sorted(read_record(kept / name)["seed"] for name in records) == [3, 3, 4, 4, 5, 5]
    pictured = {name.removesuffix(".png").rpartition("-seed")[2] for name in files_in(kept) if name.endswith(".png")}
    assert pictured == {"3", "4"}
    assert len(list((tmp_path / "results" / "ptms").glob("*.safetensors"))) == 3  # a pool for each seed

    lost = kept / records[0]
    before = {path: path.stat().st_mtime_ns for path in kept.glob("*.json")}
    content = read_record(lost)["synthetic_hash"]
    lost.unlink()
    shutil.rmtree(tmp_path / "runs")  # a fresh checkout
    capsys.readouterr()
    assert study.main([str(study_grid)]) == 0
    assert "5 of 6 jobs are kept" in capsys.readouterr().out
    assert read_record(lost)["synthetic_hash"] == content
    assert all(path.stat().st_mtime_ns == time for path, time in before.items() if path != lost)


def test_a_job_that_ended_before_its_record_was_kept_is_not_run_again(study_grid, tmp_path, monkeypatch, capsys):
    assert study.main([str(study_grid)]) == 0
    kept = tmp_path / "results" / "sweeps" / "tiny"
    for path in sorted(kept.glob("*.json"))[:4]:
        path.unlink()
    monkeypatch.setattr(study.in_process, "run_job", None)
    capsys.readouterr()
    assert study.main([str(study_grid)]) == 0
    assert "6 of 6 jobs are kept" in capsys.readouterr().out
    assert len(list(kept.glob("*.json"))) == 6


def test_a_record_that_was_damaged_before_it_was_kept_is_made_again(study_grid, tmp_path, capsys):
    assert study.main([str(study_grid)]) == 0
    kept = tmp_path / "results" / "sweeps" / "tiny"
    lost = sorted(kept.glob("*.json"))[0]
    made = tmp_path / "runs" / "sweeps" / "tiny" / lost.name
    content, text = read_record(lost), made.read_text()
    lost.unlink()
    made.write_text(text[: len(text) // 2])
    capsys.readouterr()
    assert study.main([str(study_grid)]) == 0
    assert "5 of 6 jobs are kept" in capsys.readouterr().out
    assert read_record(lost)["synthetic_hash"] == content["synthetic_hash"]


def test_ptms_are_those_that_the_book_keeps_whatever_the_users_own_cache_is(study_grid, tmp_path, monkeypatch):
    monkeypatch.setenv("DDLIB_CACHE", str(tmp_path / "of the user"))
    assert study.main([str(study_grid)]) == 0
    assert len(list((tmp_path / "results" / "ptms").glob("*.safetensors"))) == 3
    assert not (tmp_path / "of the user").exists()


def test_a_number_of_processes_is_one_or_more(study_grid):
    for number in ("0", "-1", "many"):
        with pytest.raises(SystemExit):
            study.main([str(study_grid), "--jobs", number])


def test_a_picture_is_of_the_whole_set_in_an_ablation_and_of_a_few_images_elsewhere(study_grid, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "FEW", 1)
    text = yaml.safe_load(study_grid.read_text())
    study_grid.write_text(yaml.safe_dump(text | {"profile": text["profile"] | {"ipc": 2}, "seeds": [3]}))
    sizes = {}
    for name, seeds in (("ablation", {"tiny": 2}), ("other", {})):
        monkeypatch.setattr(study, "PICTURED", seeds)
        study.main([str(study_grid)])
        [*pictures] = (tmp_path / "results").rglob("*.png")
        sizes[name] = {Image.open(picture).size for picture in pictures}
        shutil.rmtree(tmp_path / "results" / "sweeps")
    [(width, height)], [(one, as_high)] = sizes.values()
    assert (width, height) == (2 * one, as_high), "a row for each class, of two images or one"


def test_the_first_images_of_each_class_are_taken_in_their_order(tiny_rgb):
    labels = torch.tensor([1, 0, 1, 1, 0, 2])
    images = torch.arange(6.0).reshape(6, 1, 1, 1).expand(6, *tiny_rgb.format.shape).clone()
    few = study.first_of_each_class(SyntheticSet.of(tiny_rgb, images, labels), 2)
    assert few.labels.tolist() == [0, 0, 1, 1, 2]
    assert few.images[:, 0, 0, 0].tolist() == [1, 4, 0, 2, 5]


def test_no_pictures_are_kept_of_sets_for_the_hold_out(study_grid, tmp_path):
    text = yaml.safe_load(study_grid.read_text())
    study_grid.write_text(
        yaml.safe_dump(text | {"profile": text["profile"] | {"evaluate_on": "holdout"}, "seeds": [3]})
    )
    assert study.main([str(study_grid)]) == 0
    kept = files_in(tmp_path / "results" / "sweeps" / "tiny")
    assert len(kept) == 2
    assert all(name.endswith(".json") for name in kept)


def test_a_job_that_fails_keeps_nothing(study_grid, tmp_path, monkeypatch):
    def fail(*given):
        raise ValueError("no data today")

    monkeypatch.setattr(study.in_process.study, "open_dataset", fail)
    assert study.main([str(study_grid)]) == 1
    assert not list((tmp_path / "results").rglob("*.json"))


def test_an_interrupted_evaluation_goes_on_with_the_next_architecture(study_grid, tmp_path, monkeypatch):
    text = yaml.safe_load(study_grid.read_text())
    arms = [{"notebook": "01_guidance", "guidance": "none", "base_method": ["full", "random"]}]
    profile = text["profile"] | {"architectures": "ConvNet-3 x2,AlexNet", "full_epochs": 1, "ptm_seed": 1}
    study_grid.write_text(yaml.safe_dump(text | {"profile": profile, "seeds": [3], "arms": arms}))
    kept = tmp_path / "results" / "sweeps" / "tiny"
    assert study.main([str(study_grid)]) == 0
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
        study.main([str(study_grid)])
    assert len(files_in(kept)) == 2  # record and picture of the random images, which come first
    assert study.main([str(study_grid)]) == 0
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
