"""Adding a thing is adding a row: a dummy registered at run time goes through guard, run, record, table and figure."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
import torch
from made import executed, guarded
from torch import nn

from ddlib.base_methods import BASE_METHODS, BaseMethod
from ddlib.combine import STRATEGIES, Selecting
from ddlib.data.readers import DATASETS, Source
from ddlib.networks import NETWORKS, Architecture
from ddlib.selection import SELECTIONS, Selection
from ddlib.study import contrasts, figures, images, run, runs, tables
from ddlib.study.ablations import ABLATIONS, Ablation, fixed
from ddlib.study.arms import Arm
from ddlib.study.parameters import ParameterError
from ddlib.study.record import read_record

pytestmark = pytest.mark.usefixtures("folders")

SMALL = {
    "dataset": "digits",
    "iterations": 2,
    "batch_real": 4,
    "width": 4,
    "ptm_epochs": 1,
    "architectures": "ConvNet-3",
    "num_eval": 1,
    "eval_epochs": 2,
    "num_sets": 1,
    "device": "cpu",
}


def taken_through(folder, notebook="01_guidance", row="", **changes):
    """One run from the guard to a figure; ``row`` names the ablation that it is recorded for (default: the notebook).

    Returns its ``record``, the rows ``shown`` of its ablation, their ``table`` and the ``title`` and ``colours`` of the
    figure, these by the labels of arms, all read from the folder as the comparison does.
    """
    p = guarded(notebook, **SMALL | changes)
    data = run.open_dataset(p)
    made = run.run_arm(p, data, run.open_ptms(p, data), row or notebook)
    records, failures = runs.load_runs(folder)
    setting = int(records.loc[records["run"] == made[0].record.stem, "setting"].iloc[0])
    chosen = runs.choose_setting(records, setting, p.base_method)
    shown = runs.ablation(chosen, row or notebook)
    failed = runs.failed_arms(failures, chosen, setting, p.base_method)[row or notebook]
    ax = figures.accuracy_by_arm(runs.reference(shown), failed)
    labels = [label.get_text().split(" (n =")[0] for label in ax.get_yticklabels()]
    return SimpleNamespace(
        record=read_record(made[0].record),
        title=ax.figure.get_suptitle(),
        synthetic=made[0].synthetic,
        shown=shown,
        table=tables.accuracy_table(shown, failed),
        labels=labels,
        colours={label: tuple(line.get_color()) for label, line in zip(labels, ax.lines[::3], strict=True)},
    )


def shows_as_its_own(found, name, label):
    """The arm has its own name, label and colour: none is that of another arm."""
    assert found.record["arm"] == name
    assert found.record["status"] == "ok"
    assert label in found.table.index
    assert found.labels.count(label) == 1
    known = [Arm(), *(Arm(selection=key) for key in SELECTIONS), *(Arm("clom", key) for key in ("", *STRATEGIES))]
    others = [arm for arm in known if arm.name != name]
    assert len(others) == len(known) - 1, "it can be read again"
    assert label not in [arm.label for arm in others]
    assert found.colours[label] not in [arm.colour for arm in others]


def last_images(dataset, ipc, seed, features):
    """The dummy selection: the last images of each class."""
    members = [(dataset.train.labels == label).nonzero().flatten()[-ipc:] for label in range(dataset.num_classes)]
    return torch.cat(members)


def test_a_selection_is_a_row(tmp_path, monkeypatch):
    with pytest.raises(ParameterError, match="base_method is 'dummy'"):
        guarded("01_guidance", guidance="none", base_method="dummy")
    monkeypatch.setitem(
        SELECTIONS, "dummy", Selection(last_images, "the last images", "this test", uses_features=False)
    )
    found = taken_through(tmp_path / "runs", guidance="none", base_method="dummy")
    shows_as_its_own(found, "dummy", "the last images")
    assert found.record["ptm_hashes"] == [], "it asks for no PTM"
    assert torch.equal(found.synthetic.labels, torch.arange(10))


def test_a_selection_that_asks_for_features_gets_a_ptm(tmp_path, monkeypatch):
    seen = []

    def choose(dataset, ipc, seed, features):
        seen.append(features.shape)
        return last_images(dataset, ipc, seed, features)

    monkeypatch.setitem(SELECTIONS, "dummy", Selection(choose, "by features", "this test"))
    found = taken_through(tmp_path / "runs", guidance="none", base_method="dummy")
    shows_as_its_own(found, "dummy", "by features")
    assert len(found.record["ptm_hashes"]) == 1
    assert len(seen) == 1
    assert seen[0][0] == 1438


def test_a_strategy_is_a_row(tmp_path, monkeypatch):
    monkeypatch.setitem(
        STRATEGIES, "dummy", Selecting(select=lambda num_ptms, step: num_ptms - 1, rule="the last", source="this test")
    )
    taken_through(tmp_path / "runs", "02_ensemble", strategy="loss_avg", num_ptms=2)
    found = taken_through(tmp_path / "runs", "02_ensemble", strategy="dummy", num_ptms=2)
    shows_as_its_own(found, "clom dummy", "CLoM, dummy")
    assert found.labels == ["CLoM, average of losses", "CLoM, dummy"], "a new row is the last"
    differences = contrasts.planned_contrasts(runs.reference(found.shown), "02_ensemble")
    assert differences[["a", "b"]].values.tolist() == [["clom dummy", "clom loss_avg"]]


def test_a_base_method_is_a_row(tmp_path, monkeypatch):
    """Arms of another base method keep their names; they are compared among themselves, under a title that says it."""

    def squares(images, task, iteration):
        yield images.square().mean()

    row = BaseMethod(updates=squares, lr_img=0.5, start="noise", source="this test")
    monkeypatch.setitem(BASE_METHODS, "dummy", row)
    taken_through(tmp_path / "runs", guidance="none")
    taken_through(tmp_path / "runs", guidance="none", base_method="dummy")
    found = taken_through(tmp_path / "runs", guidance="clom", base_method="dummy")
    assert found.record["parameters"]["base_method"] == "dummy"
    assert (found.record["arm"], found.record["status"]) == ("clom", "ok")
    assert found.labels == ["no guidance", "CLoM"]
    assert set(found.shown["base_method"]) == {"dummy"}, "not beside the runs of DM"
    assert found.title.startswith("digits, DUMMY, ipc 1, ConvNet-3")


def test_a_network_is_a_row(tmp_path, monkeypatch):
    """To be evaluated with, to match with and as a PTM."""
    with pytest.raises(ParameterError, match="architectures"):
        guarded("01_guidance", architectures="dummy")

    def body(channels, image_size, width, norm):
        return nn.Sequential(nn.Conv2d(channels, width, 3, stride=4), nn.ReLU()), width * 4 * 4

    monkeypatch.setitem(NETWORKS, "dummy", Architecture(body))
    everywhere = {"base_network": "dummy", "ptm_architectures": "dummy", "image_size": 16}
    found = taken_through(tmp_path / "runs", architectures="ConvNet-3,dummy", **everywhere)
    assert found.record["accuracies"]["architecture"].unique().tolist() == ["ConvNet-3", "dummy"]
    assert found.table.columns.tolist()[:2] == ["ConvNet-3", "dummy"]
    records, _ = runs.load_runs(tmp_path / "runs")
    ax = figures.cross_architecture(runs.ablation(records, "01_guidance"))
    assert [label.get_text() for label in ax.get_xticklabels()] == ["ConvNet-3", "dummy"], "a new row is the last"


def test_a_data_set_is_a_row(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="neither a known data set"):
        taken_through(tmp_path / "runs", dataset="dummy")

    def read(root, image_size):
        draw, labels = torch.Generator().manual_seed(0), torch.arange(40) % 2
        splits = [(torch.rand(40, 3, 16, 16, generator=draw) / 2 + labels.view(-1, 1, 1, 1) / 2, labels) for _ in "ab"]
        return *splits, ("dark", "light")

    monkeypatch.setitem(DATASETS, "dummy", Source(read))
    taken_through(tmp_path / "runs")
    found = taken_through(tmp_path / "runs", dataset="dummy")
    assert found.record["parameters"]["dataset"] == "dummy"
    assert found.record["status"] == "ok"
    assert set(found.shown["dataset"]) == {"dummy"}, "not beside the digits"
    assert found.title.startswith("dummy, DM, ipc 1, ConvNet-3")
    assert found.synthetic.class_names == ("dark", "light")
    records, _ = runs.load_runs(tmp_path / "runs")
    assert sorted(tables.settings_table(records)["dataset"]) == ["digits", "dummy"]


def test_an_ablation_is_a_row(tmp_path, monkeypatch):
    row = Ablation(
        title="Dummy",
        question="Is guidance better than none?",
        primary=fixed((Arm("clom"), Arm())),
        one_method={"grad_avg": "loss_avg"},
        reference=lambda architectures: architectures[-1],
    )
    monkeypatch.setitem(ABLATIONS, "07_dummy", row)
    two = {"row": "07_dummy", "architectures": "ConvNet-3,ConvNet-4"}
    taken_through(tmp_path / "runs", guidance="none", **two)
    found = taken_through(tmp_path / "runs", guidance="clom", **two)
    assert (found.record["notebook"], found.record["arm"]) == ("07_dummy", "clom")
    assert found.labels == ["no guidance", "CLoM"]
    assert set(runs.reference(found.shown)["architecture"]) == {"ConvNet-4"}
    differences = contrasts.planned_contrasts(runs.reference(found.shown), "07_dummy")
    assert differences[["a", "b", "primary"]].values.tolist() == [["clom", "none", True]]
    assert figures.paired_differences(differences).get_yticklabels()[0].get_text() == "CLoM − no guidance (n = 1)"
    assert tables.contrast_table(differences).index.tolist() == ["CLoM − no guidance"]
    assert [ax.get_title() for ax in images.show_images(found.shown, tmp_path / "runs").axes] == ["no guidance", "CLoM"]
    monkeypatch.setattr(run, "distill", broken)
    with pytest.raises(FloatingPointError):
        taken_through(tmp_path / "runs", guidance="cclom", **two)
    records, failures = runs.load_runs(tmp_path / "runs")
    failed = runs.failed_arms(failures, runs.choose_setting(records, 0), 0)
    assert failed["07_dummy"] == {"cclom": 1}
    assert failed["01_guidance"] == {}


def test_the_comparison_shows_a_new_ablation_and_no_empty_figures(tmp_path, monkeypatch, capsys):
    row = Ablation(title="Dummy:", question="better than none?", primary=fixed((Arm("clom"), Arm())))
    monkeypatch.setitem(ABLATIONS, "07_dummy", row)
    for guidance in ("none", "clom"):
        taken_through(tmp_path / "runs", row="07_dummy", guidance=guidance)
    plt.close("all")
    capsys.readouterr()
    displayed = []
    executed("03_compare", display=lambda *things: displayed.extend(things))
    lines = capsys.readouterr().out.splitlines()
    assert "Dummy: better than none?" in lines
    accuracies, differences = displayed
    assert accuracies.index.tolist() == ["no guidance", "CLoM"]
    assert differences.index.tolist() == ["CLoM − no guidance"]
    drawn = [plt.figure(number) for number in plt.get_fignums()]
    assert len(drawn) == 2, "the accuracies and the difference of the new one"
    assert all(ax.lines for figure in drawn for ax in figure.axes)
    assert lines.count("Nothing to draw: no arm of this ablation has been run in this setting.") == 6
    assert (
        "Nothing to draw: no arm has been run with evaluate_on = holdout at several alphas, all else as here." in lines
    )


def broken(*_, **__):
    raise FloatingPointError("iteration 1: the base loss is nan")
