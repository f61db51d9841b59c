"""What the book keeps of the study is made again, and compared."""

import pytest
import torch
import yaml
from made import files_in
from PIL import Image

from ddlib.study.record import read_record
from workflow import reproduce, study


def test_a_kept_run_is_repeated(study_grid, tmp_path, monkeypatch, capsys):
    study.main([str(study_grid)])
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


def test_pictures_of_the_way_are_kept_for_the_explorer(study_grid, tmp_path, monkeypatch):
    study.main([str(study_grid)])
    monkeypatch.setattr(reproduce, "WAY", (0, 1, 7))
    before = files_in(tmp_path / "results" / "sweeps" / "tiny")
    assert reproduce.main(["none", "--pictures"]) == 0
    assert files_in(tmp_path / "results" / "sweeps" / "tiny") == before
    (folder,) = (tmp_path / "results" / "sweeps" / "tiny" / "snapshots").iterdir()
    assert folder.name == reproduce.kept_of("none")[3].stem
    assert files_in(folder) == ["0.png"]  # those before the last, which is the finished set
    sizes = {Image.open(path).size for path in folder.iterdir()}
    assert sizes == {(160, 16)}  # ten classes side by side


def test_no_pictures_are_kept_of_another_set(study_grid, tmp_path, monkeypatch):
    study.main([str(study_grid)])
    read = reproduce.read_record
    monkeypatch.setattr(reproduce, "read_record", lambda path: read(path) | {"synthetic_hash": str(path)})
    with pytest.raises(SystemExit, match=r"Other bits than those of 01_guidance-.*-seed3\.json, so no picture is kept"):
        reproduce.main(["none", "--pictures"])
    assert not (tmp_path / "results" / "sweeps" / "tiny" / "snapshots").exists()


def test_a_selection_has_no_way_to_keep_pictures_of(study_grid, tmp_path):
    text = yaml.safe_load(study_grid.read_text())
    arms = [{"notebook": "01_guidance", "guidance": "none", "base_method": "random"}]
    study_grid.write_text(yaml.safe_dump(text | {"seeds": [3], "arms": arms}))
    study.main([str(study_grid)])
    with pytest.raises(SystemExit, match="'random_real' is a selection: there is no way to it to keep pictures of"):
        reproduce.main(["random_real", "--pictures"])
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


def test_other_bits_are_near_or_not(study_grid):
    study.main([str(study_grid)])
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
