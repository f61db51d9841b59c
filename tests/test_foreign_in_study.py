"""Sets that others made, under our protocol: notebook 05, its record, and its place in the comparison."""

import json
import subprocess
import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from made import LAYOUTS, ROOT, SCALES, a_run, executed, guarded

import ddlib
from ddlib.study import comparison, figures, run, runs
from ddlib.study.record import read_record, write_record
from ddlib.synthetic import SyntheticSet

pytestmark = pytest.mark.usefixtures("folders")

EVALUATION = {"image_size": None, "width": 4, "num_eval": 1, "eval_epochs": 2, "architectures": "ConvNet-3"}
EVALUATION |= {"dataset": "digits", "device": "cpu"}


@pytest.fixture
def theirs(digits, tmp_path):
    """Two real images of each class in the reference's layout, the classes mixed."""
    real = ddlib.select_real(digits, 2)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    return LAYOUTS["list"](tmp_path, real.images[order], real.labels[order])


def judged(digits, path, **given):
    """One set through the guard and the runner of notebook 05."""
    p = guarded("05_evaluate", synthetic=str(path), **EVALUATION | given)
    return run.run_file(p, digits, run.open_synthetic(p, digits), "05_evaluate")


def arm(digits, **given):
    """One run of the first ablation that is judged in the same way."""
    p = guarded("01_guidance", **EVALUATION | {"ipc": 2, "guidance": "none", "iterations": 1, "num_sets": 1} | given)
    return run.run_arm(p, digits, [], "01_guidance")[0]


def test_two_sets_of_one_name_stand_beside_the_arm_by_their_hashes(digits, tmp_path):
    """Every set of MTT is called images_best.pt; and files alone make no setting that would hide the runs."""
    made = []
    for seed in (0, 1):
        (folder := tmp_path / str(seed)).mkdir()
        real = ddlib.select_real(digits, 2, seed=seed)
        made.append(judged(digits, LAYOUTS["MTT"](folder, real.images, real.labels), pixels="normalised"))
    arm(digits)
    records, _ = runs.load_runs(tmp_path / "runs")
    chosen = runs.choose_setting(records, 0)
    assert set(chosen["arm"]) == {"none"}
    files = comparison.from_files(records, chosen)
    assert set(files["arm"]) == {f"images_best ({one.synthetic.hash[:8]})" for one in made}
    ax = figures.accuracy_by_arm(runs.stacked(chosen, files))
    assert len(ax.get_yticklabels()) == 3
    twice = records[records["arm"] == "images_best"]
    with pytest.raises(ValueError, match="select one setting"):
        figures.accuracy_by_arm(twice)


@pytest.mark.parametrize(
    ("layout", "scale"),
    [("reference", "normalised"), ("dict", "unit"), ("MTT", "normalised"), ("npz", "uint8"), ("channel-last", "uint8")],
)
def test_the_notebook_judges_every_layout(digits, tmp_path, layout, scale, capsys):
    real = ddlib.select_real(digits, 2)
    path = LAYOUTS[layout](tmp_path, SCALES[scale](real.pixels, digits.format), real.labels)
    with pytest.warns(UserWarning, match=f"taken for {scale}"):
        executed("05_evaluate", synthetic=str(path), **EVALUATION)
    out = capsys.readouterr().out
    assert "20 images of 10 classes, with hard labels" in out
    (file,) = (tmp_path / "runs").glob("05_evaluate-*-seed0.json")
    record = read_record(file)
    assert f"Kept as {file.with_suffix('.safetensors')}" in out
    assert record["arm"] == path.stem
    kept = record["parameters"]
    assert (kept["base_method"], kept["ipc"], kept["label_kind"]) == ("file", 2, "hard")
    assert str(tmp_path) not in file.read_text()
    back = SyntheticSet.load(file.with_suffix(".safetensors"))
    assert back.hash == record["synthetic_hash"]
    torch.testing.assert_close(back.pixels, real.pixels, rtol=0, atol=3e-3)


def test_the_accuracies_are_those_of_evaluate(digits, theirs):
    found = judged(digits, theirs, pixels="normalised").accuracies
    synthetic = ddlib.load_synthetic(theirs, digits, pixels="normalised")
    expected = ddlib.evaluate(synthetic, digits, num_eval=1, eval_epochs=2, width=4)
    pd.testing.assert_frame_equal(found.drop(columns="seconds"), expected.drop(columns="seconds"))


def test_two_files_of_one_name_have_two_records(digits, theirs):
    first = judged(digits, theirs, pixels="normalised")
    images, labels = torch.load(theirs)
    torch.save([images.flip(0), labels.flip(0)], theirs)
    assert judged(digits, theirs, pixels="normalised").record != first.record


def test_the_name_of_an_arm_is_refused_before_any_work(digits, theirs):
    for name in ("clom", "random_real", "none"):
        with pytest.raises(ValueError, match=f"'{name}' is the name of an arm of this study: give the set another"):
            judged(digits, theirs, pixels="normalised", name=name)


def compared(folder, capsys, **given):
    """What the comparison prints, its names, and the titles and tick labels in its figures."""
    plt.close("all")
    capsys.readouterr()
    names = executed("03_compare", runs_folder=str(folder), **given)
    figures = [plt.figure(number) for number in plt.get_fignums()]
    texts = [text.get_text() for figure in figures for text in figure.findobj(mpl.text.Text)]
    return capsys.readouterr().out, names, texts, figures


def test_a_set_of_hard_labels_stands_beside_the_arms_and_one_of_soft_labels_apart(digits, theirs, tmp_path, capsys):
    for seed in (0, 1):
        arm(digits, seed=seed)
    judged(digits, theirs, pixels="normalised", name="of Anna")
    images, labels = torch.load(theirs)
    torch.save([images, torch.eye(10)[labels] * 0.9 + 0.01], theirs)
    judged(digits, theirs, pixels="normalised", name="of Ben")
    out, names, texts, _ = compared(tmp_path / "runs", capsys)
    hard, soft = names["tables"].accuracy_table(names["guidance"]), names["tables"].accuracy_table(names["soft"])
    assert hard.index.tolist() == ["no guidance", "of Anna"]
    assert soft.index.tolist() == ["of Ben"]
    assert "of Anna (n = 1)" in texts
    assert "of Anna" in texts, "its images are shown"
    assert not any("of Ben" in text for text in texts)
    assert "Not shown" not in out


@pytest.mark.parametrize("other", [{"eval_epochs": 3}, {"image_size": 16}])
def test_a_set_that_was_judged_otherwise_is_a_setting_of_its_own(digits, theirs, tmp_path, capsys, other):
    arm(digits, seed=0)
    arm(digits, seed=1)
    p = guarded("05_evaluate", synthetic=None, **EVALUATION | other)
    data = run.open_dataset(p)
    run.run_file(p, data, run.open_synthetic(p, data), "05_evaluate")
    _, names, _, _ = compared(tmp_path / "runs", capsys)
    assert set(names["guidance"]["arm"]) == {"none"}
    _, names, texts, _ = compared(tmp_path / "runs", capsys, setting=1)
    assert set(names["guidance"]["arm"]) == {"example"}
    assert "example (n = 1)" in texts


def test_a_record_of_an_unknown_method_is_named_with_the_reason(digits, tmp_path, capsys):
    loops = {"outer_loops": 1, "inner_loops": 1}
    known = arm(digits, **loops)
    held = read_record(known.record)
    parameters = held["parameters"] | {"base_method": "theirs"}
    about = {name: held[name] for name in ("seed", "dataset_hash", "accuracies", "history", "seconds")}
    write_record(tmp_path / "runs", **a_run(**about, parameters=parameters, arm="theirs", notebook="01_guidance"))
    write_record(tmp_path / "runs", **a_run(**about, parameters=held["parameters"], arm="none", notebook="09_other"))
    arm(digits, base_method="dsa", **loops)
    out, _, _, _ = compared(tmp_path / "runs", capsys)
    lines = [line for line in out.splitlines() if line.startswith("Not shown: ")]
    assert len(lines) == 3
    assert "Not shown: 1 run of arm 'theirs' in setting 0: base_method 'theirs' is unknown to this version" in out
    assert "notebook '09_other' has no row in ddlib.study.ablations.ABLATIONS" in out
    assert "its base_method is dsa, to be seen with -p base_method dsa" in out


def test_a_comparison_of_two_arms_shows_no_empty_figure_and_no_empty_table(digits, tmp_path, capsys):
    for seed in (0, 1):
        arm(digits, seed=seed)
        arm(digits, seed=seed, base_method="random")
    out, names, _, figures = compared(tmp_path / "runs", capsys)
    assert figures
    assert all(ax.lines or ax.images or ax.collections for figure in figures for ax in figure.axes)
    assert out.count("Nothing to draw") >= 4
    assert names["soft"].empty


def test_papermill_takes_a_path_and_a_typo_ends_before_any_work(theirs, tmp_path):
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", str(ROOT / "notebooks" / "05_evaluate.ipynb")]
    options = [word for name, value in EVALUATION.items() for word in ("-p", name, str(value))]
    command += [str(tmp_path / "out.ipynb"), *options, "-p", "synthetic", str(theirs)]
    wrong = subprocess.run([*command, "-p", "pixels", "zca"], capture_output=True, text=True, cwd=tmp_path)
    assert wrong.returncode != 0
    assert "expected one of auto, uint8, unit, normalised" in wrong.stderr
    assert not (tmp_path / "runs").exists()
    right = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert right.returncode == 0, right.stderr[-2000:]
    assert len(list((tmp_path / "runs").glob("05_evaluate-*.json"))) == 1
    assert json.loads((tmp_path / "out.ipynb").read_text())["cells"]


def test_sets_from_files_are_found_by_how_they_were_judged():
    shared = dict.fromkeys(comparison.JUDGED, 1) | {"augment": True, "run": "a", "seed": 0, "synthetic_hash": "1a2b"}
    table = pd.DataFrame(
        [
            shared | {"base_method": "dm", "arm": "none", "label_kind": None},
            shared | {"base_method": "file", "arm": "hard", "label_kind": "hard"},
            shared | {"base_method": "file", "arm": "soft", "label_kind": "soft"},
            shared | {"base_method": "file", "arm": "larger", "label_kind": "hard", "ipc": 10},
        ]
    )
    assert comparison.from_files(table, table.head(1))["arm"].tolist() == ["hard"]
    assert comparison.from_files(table, table.head(1), soft=True)["arm"].tolist() == ["soft"]
    assert comparison.from_files(table.head(1), table.head(1)).empty
