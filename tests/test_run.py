"""Arms of the study, end to end at the smallest size: sets, accuracies, records, and what is written when."""

import sys
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from made import SHORT

import ddlib
from ddlib.memory import ADVICE
from ddlib.study import images, pools, run_figures, run_tables
from ddlib.study import run as study
from ddlib.study.pools import share_recognised
from ddlib.study.record import read_record, synthetic_path
from ddlib.study.runs import load_records, load_runs

pytestmark = pytest.mark.usefixtures("folders")


@pytest.fixture
def arm(tmp_path):
    """Run one arm; keyword arguments are parameters that differ from SHORT."""

    def run(notebook="02_ensemble", **changes):
        p = SimpleNamespace(**{**SHORT, "runs_folder": str(tmp_path / "runs"), **changes})
        data = study.open_dataset(p)
        return study.run_arm(p, data, study.open_ptms(p, data), notebook)

    return run


def test_every_set_has_a_record_and_its_images(arm, tmp_path):
    runs = arm(num_sets=2)
    assert [run.seed for run in runs] == [5, 6]
    for run in runs:
        record = read_record(run.record)
        assert record["seed"] == run.seed
        assert record["arm"] == "clom loss_avg"
        assert record["ptm_passes"] == 3 * 2
        assert record["synthetic_hash"] == run.synthetic.hash
        assert len(record["ptm_hashes"]) == 2
        assert [card["hash"] for card in record["ptms"]] == record["ptm_hashes"]
        assert sum(card["seconds"] for card in record["ptms"]) == record["seconds"]["ptms"]
        assert {(card["device"], card["seed"]) for card in record["ptms"]} == {("cpu", 0)}
        assert all(card["recipe"]["lr"] == 0.01 and card["size_bytes"] > 1000 for card in record["ptms"])
        assert record["class_names"] == list("0123456789")
        assert {len(shares) for shares in record["accuracies"]["class_accuracies"]} == {10}
        assert set(record["seconds"]) == {"ptms", "distill", "evaluate"}
        assert record["parameters"]["dataset"] == "digits"
        assert not {"device", "runs_folder", "num_sets", "seed"} & set(record["parameters"])
        assert ddlib.SyntheticSet.load(synthetic_path(run.record)).hash == run.synthetic.hash
        pd.testing.assert_frame_equal(record["accuracies"], run.accuracies, check_dtype=False)
    assert sorted(path.suffix for path in (tmp_path / "runs").iterdir()) == [".json", ".json"] + [".safetensors"] * 2


def test_the_same_arm_again_gives_the_same_numbers(arm):
    first, second = arm()[0], arm()[0]
    assert first.record == second.record
    assert first.synthetic.hash == second.synthetic.hash
    assert list(first.accuracies["accuracy"]) == list(second.accuracies["accuracy"])


def test_arms_that_differ_in_strategy_share_the_start_and_the_evaluation(arm):
    first, second = arm()[0], arm(strategy="random")[0]
    assert torch.equal(first.distilled.snapshots[0], second.distilled.snapshots[0])
    assert first.record != second.record


def test_an_interrupted_arm_goes_on_from_its_checkpoint(arm, monkeypatch, tmp_path):
    whole = arm()[0]
    whole.record.unlink()
    done = []
    real = study.evaluate
    monkeypatch.setattr(study, "evaluate", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        arm()
    assert len(list((tmp_path / "runs").glob(".*.checkpoint"))) == 1
    monkeypatch.setattr(study, "evaluate", real)
    monkeypatch.setattr(sys.modules["ddlib.distill"], "_update", lambda *a: done.append(a))
    again = arm()[0]
    assert not done, "the distillation was complete: nothing is to be done twice"
    assert again.synthetic.hash == whole.synthetic.hash
    assert not list((tmp_path / "runs").glob(".*"))


def test_a_run_that_diverges_is_recorded_as_failed(arm, tmp_path):
    with pytest.raises(FloatingPointError, match="The run diverges"):
        arm(lr_img=1e30, iterations=20)
    [path] = (tmp_path / "runs").glob("*.json")
    record = read_record(path)
    assert (record["status"], record["seed"], record["arm"]) == ("failed", 5, "clom loss_avg")
    assert record["error"].startswith("FloatingPointError: iteration ")
    assert record["parameters"]["lr_img"] == 1e30
    assert len(record["ptm_hashes"]) == 2
    assert record["accuracies"].empty
    assert not synthetic_path(path).exists()


@pytest.mark.parametrize("part", ["distill", "evaluate", "write_record"])
def test_any_error_of_a_run_is_recorded_and_raised_as_it_is(arm, monkeypatch, tmp_path, part):
    def fails(*_, **__):
        raise OSError(28, "No space left", "/mnt/disk/somewhere/file")

    with monkeypatch.context() as patch:
        patch.setattr(study, part, fails)
        with pytest.raises(OSError, match="No space left") as error:
            arm()
    assert error.value.errno == 28
    [failed] = load_runs(tmp_path / "runs")[1].to_dict("records")
    assert failed["error"] == "OSError: [Errno 28] No space left: 'file'"
    again = arm()[0]
    assert read_record(again.record)["status"] == "ok", "a result takes the place of a failure"
    assert load_runs(tmp_path / "runs")[1].empty


def test_too_little_memory_for_ptms_is_explained_too(monkeypatch):
    def fails(*_, **__):
        raise MemoryError

    monkeypatch.setattr(pools, "train_ptms", fails)
    p = SimpleNamespace(**SHORT)
    with pytest.raises(MemoryError) as error:
        study.open_ptms(p, study.open_dataset(p))
    assert "lower num_ptms" in error.value.__notes__[0]


def test_the_other_seeds_run_when_one_diverges(arm, monkeypatch, tmp_path):
    distil = study._distil

    def diverging(p, data, ptms, seed, *rest):
        if seed == 6:
            raise FloatingPointError("iteration 1: the loss is nan")
        return distil(p, data, ptms, seed, *rest)

    monkeypatch.setattr(study, "_distil", diverging)
    with pytest.raises(FloatingPointError, match="loss is nan"):
        arm(num_sets=3)
    found = map(read_record, (tmp_path / "runs").glob("*.json"))
    assert {record["seed"]: record["status"] for record in found} == {5: "ok", 6: "failed", 7: "ok"}


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_run_is_not_a_failed_one(arm, monkeypatch, tmp_path, stop):
    monkeypatch.setattr(study, "evaluate", lambda *a, **k: (_ for _ in ()).throw(stop))
    with pytest.raises(stop):
        arm()
    assert not list((tmp_path / "runs").glob("*.json"))


def test_a_result_survives_a_later_failure_of_the_same_code(arm, monkeypatch):
    run = arm()[0]
    before = run.record.read_text()
    monkeypatch.setattr(study, "evaluate", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        arm()
    assert run.record.read_text() == before


def test_the_error_of_the_run_is_seen_even_if_it_cannot_be_recorded(arm, monkeypatch):
    monkeypatch.setattr(study, "evaluate", lambda *a, **k: 1 / 0)
    monkeypatch.setattr(study, "write_failure", lambda *a, **k: [].pop())
    with pytest.raises(ZeroDivisionError) as error:
        arm()
    assert error.value.__notes__ == ["The failure could not be recorded: IndexError: pop from empty list"]


def test_too_little_memory_says_what_to_change_and_is_recorded(arm, monkeypatch, tmp_path):
    monkeypatch.setattr(study, "evaluate", lambda *a, **k: torch.empty(2**46))
    with pytest.raises(RuntimeError, match="can't allocate memory") as error:
        arm()
    assert error.value.__notes__ == [ADVICE]
    [path] = (tmp_path / "runs").glob("*.json")
    said = read_record(path)["error"]
    assert said.startswith("RuntimeError: ")
    assert said.endswith(ADVICE)


@pytest.mark.parametrize(
    ("changes", "name", "passes", "iterations"),
    [
        ({}, "clom loss_avg", 6, 3),
        ({"strategy": "random"}, "clom random", 3, 3),
        ({"strategy": "random", "equal_passes": True}, "clom random equal_passes", 6, 6),
        ({"num_ptms": 1, "guidance": "cclom", "strategy": "single"}, "cclom", 3, 3),
        ({"guidance": "none"}, "none", 0, 3),
        ({"base_method": "none", "num_ptms": 1}, "clom alone", 3, 3),
    ],
)
def test_names_and_passes_of_arms(arm, changes, name, passes, iterations):
    record = read_record(arm(**changes)[0].record)
    assert (record["arm"], record["ptm_passes"], record["history_length"]) == (name, passes, iterations)


@pytest.mark.parametrize(
    ("method", "name", "number"),
    [
        ("random", "random_real", 10),
        ("herding", "herding", 10),
        ("k_center", "k_center", 10),
        ("full", "full_data", 1438),
    ],
)
def test_baselines_run_under_the_same_roof(arm, method, name, number):
    run = arm("01_guidance", guidance="none", base_method=method)[0]
    record = read_record(run.record)
    assert (record["arm"], len(run.synthetic), record["ptm_passes"]) == (name, number, 0)
    assert run.distilled is None
    assert synthetic_path(run.record).exists() == (method != "full")
    assert run_figures.curves(run) is None
    if method == "random":
        figure = images.picture(run, study.open_dataset(SimpleNamespace(**SHORT)))
        assert [ax.get_title() for ax in figure.axes] == ["chosen real images"]


def test_random_real_images_are_what_distillation_starts_from(arm):
    chosen, distilled = arm(guidance="none", base_method="random")[0], arm(guidance="none")[0]
    assert torch.equal(chosen.synthetic.images, distilled.distilled.snapshots[0])


def test_evaluation_without_augmentation_adds_rows(arm):
    table = arm(eval_epochs_plain=1)[0].accuracies
    assert table["augment"].tolist() == [True, False]


def test_some_architectures_count_several_times(arm):
    table = arm(architectures="ConvNet-3 x3, VGG-11", num_eval=2)[0].accuracies
    assert table["architecture"].tolist() == ["ConvNet-3"] * 6 + ["VGG-11"] * 2
    assert table["network"].tolist() == [*range(6), 0, 1]
    alone = arm(architectures="VGG-11", num_eval=2)[0].accuracies
    assert alone["accuracy"].tolist() == table["accuracy"].tolist()[6:]


def test_holdout_never_touches_the_test_split():
    p = SimpleNamespace(**SHORT)
    data, held = study.open_dataset(p), study.open_dataset(SimpleNamespace(**{**SHORT, "evaluate_on": "holdout"}))
    assert len(held.train) + len(held.test) == len(data.train)
    rows = {image.numpy().tobytes() for image in data.train.images}
    assert all(image.numpy().tobytes() in rows for image in held.test.images)


def test_ptms_of_another_data_set_are_adapted():
    changes = {"guidance": "cclom", "dataset": "digits", "image_size": 16, "source_dataset": "digits"}
    p = SimpleNamespace(**{**SHORT, **changes, "num_ptms": 1})
    data = study.open_dataset(p)
    [ptm] = study.open_ptms(p, data)
    assert ptm.expects.image_size == 8
    assert ptm.given.image_size == 16
    assert ptm.features(data.train.images[:2]).shape[0] == 2


def test_imagenet_ptms_are_loaded_by_name(monkeypatch):
    asked = []

    class Loaded:
        def adapted_to(self, data):
            return self

    monkeypatch.setattr(pools, "load_imagenet_ptm", lambda *a, **k: asked.append((*a, k)) or Loaded())
    changes = {
        "guidance": "cclom",
        "source_dataset": "imagenet",
        "ptm_architectures": "mobilenet_v2",
        "ptm_image_size": 64,
    }
    p = SimpleNamespace(**{**SHORT, **changes})
    assert len(study.open_ptms(p, study.open_dataset(p))) == 1
    assert asked == [("mobilenet_v2", 64, {"device": torch.device("cpu")})]


def test_no_ptm_is_trained_without_guidance(monkeypatch):
    monkeypatch.setattr(pools, "train_ptms", lambda *a, **k: 1 / 0)
    p = SimpleNamespace(**{**SHORT, "guidance": "none"})
    assert study.open_ptms(p, study.open_dataset(p)) == []


def test_tables_and_pictures(arm):
    runs = arm(num_sets=2, num_eval=2)
    means = run_tables.mean_accuracies(runs)
    assert means.index.tolist() == ["seed 5", "seed 6"]
    assert means.loc["seed 6", "ConvNet-3"] == pytest.approx(100 * runs[1].accuracies["accuracy"].mean())
    p = SimpleNamespace(**SHORT)
    data = study.open_dataset(p)
    table = run_tables.ptm_table(study.open_ptms(p, data))
    assert table.index.tolist() == ["ConvNet-3 #0 @1", "ConvNet-3 #1 @1"]
    assert (table["storage (MB)"] > 0).all()
    assert table["on"].tolist() == ["cpu"] * 2
    assert table["recipe"].str.contains("epochs 1, width 4, lr 0.01").all()
    recorded = run_tables.recorded_ptm_table(load_records(runs[0].record.parent))
    pd.testing.assert_frame_equal(recorded, table, check_dtype=False)
    assert len(images.picture(runs[0], data).axes) == 2
    assert len(run_figures.curves(runs[0]).axes) == 2
    tour = run_tables.tour_table({"a": runs[0].accuracies, "b": runs[1].accuracies})
    assert tour["networks"].tolist() == [2, 2]
    said = run_tables.recognised_table(runs)
    shares = [share_recognised(ptm, run.synthetic) for run in runs for ptm in study.open_ptms(p, data)]
    assert said["recognised (%)"].tolist() == pytest.approx([100 * share for share in shares])
    both = run_tables.mean_accuracies(arm(eval_epochs_plain=1))
    assert both.columns.names == ["architecture", "augment"]
