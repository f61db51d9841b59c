"""Distillation: every arm runs, repeats itself, resumes bit by bit, and says what is wrong before it starts."""

import dataclasses
import importlib
import itertools
import math
import random
import time

import numpy as np
import pandas as pd
import pytest
import torch
from made import global_seed, nothing_drawn

import ddlib.base_methods
from ddlib.base_methods import BASE_METHODS, Task
from ddlib.combine import STRATEGIES
from ddlib.disk.tensors import read_tensors, write_tensors
from ddlib.distill import distill
from ddlib.families import Combined, Selecting
from ddlib.guidance import GUIDANCE
from ddlib.networks import NETWORKS
from ddlib.ptms.ptm import PTM
from ddlib.selection import random_real

module = importlib.import_module("ddlib.distill")  # the attribute ddlib.distill is the function
COLUMNS = ["iteration", "base_loss", "guidance_loss", "cosine", "ptm_passes", "seconds"]


def quick(dataset, **settings):
    defaults = {"ipc": 2, "iterations": 3, "width": 4, "batch_real": 6, "log_every": 2}
    if settings.get("base_method") in ("dc", "dsa"):
        defaults |= {"outer_loops": 2, "inner_loops": 1}
    return distill(dataset, **(defaults | settings))


def require_equal(a, b):
    """All of two results is the same, bit by bit, but for the seconds."""
    assert torch.equal(a.synthetic.images, b.synthetic.images)
    assert torch.equal(a.synthetic.labels, b.synthetic.labels)
    pd.testing.assert_frame_equal(a.history.drop(columns="seconds"), b.history.drop(columns="seconds"), rtol=0, atol=0)
    assert torch.equal(a.cosines, b.cosines)
    assert torch.equal(a.norms, b.norms)
    assert a.snapshots.keys() == b.snapshots.keys()
    assert all(torch.equal(images, b.snapshots[iteration]) for iteration, images in a.snapshots.items())


ARMS = [
    *[("dm", "clom", strategy) for strategy in STRATEGIES],
    *[("dm", "none", "single"), ("dm", "cclom", "sequential"), ("dm", "both", "mgda")],
    *[("dm", "ce_ratio", "prob_avg"), ("dm", "cos_mean", "per_image"), ("none", "ce_ratio", "loss_avg")],
    *[("dc", "none", "single"), ("dc", "clom", "shuffled"), ("dc", "both", "loss_avg")],
    *[("dsa", "none", "single"), ("dsa", "cclom", "random"), ("dsa", "both", "grad_avg")],
    *[("none", "clom", "single"), ("none", "cclom", "pcgrad"), ("none", "both", "logit_avg")],
]


@pytest.mark.parametrize(("base_method", "guidance", "strategy"), ARMS)
def test_every_arm_runs_and_repeats_itself(tiny, tiny_ptms, base_method, guidance, strategy):
    arm = {"base_method": base_method, "guidance": guidance, "strategy": strategy, "ptms": tiny_ptms}
    first = quick(tiny, **arm, snapshots=[0])
    images, start = first.synthetic.images, first.snapshots[0]
    assert images.shape == start.shape == (6, 1, 8, 8)
    assert not torch.equal(images, start)
    assert torch.isfinite(images).all()
    assert not images.requires_grad
    assert list(first.history) == COLUMNS
    assert first.history["iteration"].tolist() == [0, 1, 2]
    assert (first.history["base_loss"] > 0).all() if base_method != "none" else (first.history["base_loss"] == 0).all()
    assert (first.history["guidance_loss"] > 0).all() == (guidance != "none")
    with global_seed(99):  # which plays no part
        require_equal(first, quick(tiny, **arm, snapshots=[0]))


@pytest.mark.parametrize("base_method", BASE_METHODS)
def test_another_seed_gives_other_images(tiny, tiny_ptms, base_method):
    arm = {"base_method": base_method, "guidance": "clom", "ptms": tiny_ptms, "strategy": "loss_avg"}
    first, other = (quick(tiny, **arm, seed=seed).synthetic.images for seed in (0, 1))
    assert not torch.equal(first, other)


def test_the_arms_cover_the_tables():
    assert {arm[0] for arm in ARMS} == set(BASE_METHODS)
    assert {arm[1] for arm in ARMS} == set(GUIDANCE)
    assert {arm[2] for arm in ARMS} == set(STRATEGIES)


def test_no_global_randomness_is_changed(tiny, tiny_ptms):
    states = np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002, reading it
    for base_method, strategy in (("dm", "pcgrad"), ("dsa", "random"), ("dc", "shuffled")):
        with nothing_drawn():
            quick(tiny, base_method=base_method, guidance="clom", strategy=strategy, ptms=tiny_ptms, start="noise")
    assert np.random.get_state()[1].tolist() == states[0]  # noqa: NPY002
    assert random.getstate() == states[1]


def test_the_result_says_how_it_was_made(tiny, tiny_ptms):
    result = quick(tiny, guidance="clom", ptms=tiny_ptms, strategy="loss_avg", alpha_clom=5.0, snapshots={2, 0}, seed=4)
    made = result.synthetic.provenance
    expected = {
        "dataset": "tiny",
        "dataset_hash": tiny.hash,
        "ipc": 2,
        "base_method": "dm",
        "guidance": "clom",
        "strategy": "loss_avg",
        "alpha_clom": 5.0,
        "iterations": 3,
        "lr_img": 1.0,  # of DM's authors
        "start": "real",
        "outer_loops": 1,
        "inner_loops": 1,
        "width": 4,
        "seed": 4,
        "snapshots": [0, 2],
        "ptm_hashes": [ptm.hash for ptm in tiny_ptms],
    }
    assert expected.items() <= made.items()
    assert "checkpoint" not in made
    assert "ptms" not in made


@pytest.mark.parametrize("base_method", ["dm", "dc", "dsa", "none"])
@pytest.mark.parametrize("start", ["real", "noise"])
def test_labels_never_change_and_the_data_set_is_left_alone(tiny, tiny_ptms, base_method, start):
    before = tiny.train.images.clone(), tiny.train.labels.clone()
    result = quick(tiny, base_method=base_method, guidance="both", ptms=tiny_ptms, start=start)
    assert result.synthetic.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.equal(tiny.train.images, before[0])
    assert torch.equal(tiny.train.labels, before[1])


# The update


@pytest.mark.parametrize("start", ["real", "noise"])
def test_the_start(tiny, start):
    images = quick(tiny, start=start, snapshots=[0], seed=2).snapshots[0]
    real = tiny.train.images[random_real(tiny, 2, 2)]
    assert torch.equal(images, real) == (start == "real")
    if start == "noise":
        assert abs(images.mean()) < 0.2
        assert 0.8 < images.std() < 1.2


def test_two_steps_are_momentum_sgd(tiny, tiny_ptms):
    """x1 = x0 - lr g0; x2 = x1 - lr (0.5 g0 + g1); g = alpha dCE/dx of the mean over the synthetic set."""
    ptm, lr, alpha = tiny_ptms[0], 2.0, 30.0
    settings = {"guidance": "clom", "ptms": [ptm], "alpha_clom": alpha, "lr_img": lr, "iterations": 2}
    run = quick(tiny, base_method="none", **settings, snapshots=[0, 1, 2])

    def gradient(images):
        images = images.clone().requires_grad_()
        logits = ptm.logits(images)
        entropy = sum(-row.log_softmax(0)[label] for row, label in zip(logits, run.synthetic.labels, strict=True)) / 6
        return torch.autograd.grad(alpha * entropy, images)[0]

    x0 = run.snapshots[0]
    g0 = gradient(x0)
    x1 = x0 - lr * g0
    x2 = x1 - lr * (0.5 * g0 + gradient(x1))
    assert (x2 - x1).norm() > 0.01 * x1.norm()
    torch.testing.assert_close(run.snapshots[1], x1, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(run.snapshots[2], x2, rtol=1e-4, atol=1e-4)
    assert torch.equal(run.snapshots[2], run.synthetic.images)


def test_guidance_adds_to_the_base_loss(tiny, tiny_ptms):
    """The first step of an arm is the sum of the first steps of its parts; alphas are factors."""

    def step(base_method, guidance, clom=0.0, cclom=0.0):
        alphas = {"alpha_clom": clom, "alpha_cclom": cclom}
        settings = {"iterations": 1, "ptms": tiny_ptms, "snapshots": [0, 1], "lr_img": 500.0, "start": "noise"}
        run = quick(tiny, base_method=base_method, guidance=guidance, **alphas, **settings)
        return run.snapshots[1] - run.snapshots[0]

    base, clom, cclom = step("dm", "none"), step("none", "clom", clom=0.1), step("none", "cclom", cclom=0.1)
    assert min(part.abs().max() for part in (base, clom, cclom)) > 1
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(step("dm", "both", clom=0.1, cclom=0.1), base + clom + cclom, **close)
    torch.testing.assert_close(step("dm", "clom", clom=0.3), base + 3 * clom, **close)
    torch.testing.assert_close(step("dm", "cclom", cclom=0.2), base + 2 * cclom, **close)


def test_alpha_for_each_architecture(tiny, tiny_ptms):
    settings = {"guidance": "clom", "ptms": tiny_ptms}
    one, named, other = (quick(tiny, **settings, alpha_clom=a) for a in (3.0, {"ConvNet-3": 3.0, "VGG-11": 9.0}, 4.0))
    require_equal(one, named)
    assert not torch.equal(one.synthetic.images, other.synthetic.images)


@pytest.mark.parametrize(("guidance", "alpha"), [("clom", {"alpha_clom": 100.0}), ("cclom", {"alpha_cclom": 3000.0})])
def test_guidance_alone_reduces_its_loss(tiny, tiny_ptms, guidance, alpha):
    settings = {"base_method": "none", "start": "noise", "iterations": 12, "strategy": "loss_avg", **alpha}
    history = quick(tiny, guidance=guidance, ptms=tiny_ptms, **settings).history
    assert history["guidance_loss"].iloc[-1] < 0.6 * history["guidance_loss"].iloc[0]
    assert (history["base_loss"] == 0).all()


def test_the_base_loss_falls(tiny):
    """Random networks make it noisy: the last five iterations against the first five."""
    losses = quick(tiny, start="noise", iterations=25, batch_real=12).history["base_loss"]
    assert losses[-5:].mean() < 0.9 * losses[:5].mean()


def test_no_gradient_reaches_a_ptm(tiny, tiny_ptms):
    before = [{name: value.clone() for name, value in ptm.network.state_dict().items()} for ptm in tiny_ptms]
    quick(tiny, base_method="dsa", guidance="both", ptms=tiny_ptms, strategy="grad_avg")
    for ptm, state in zip(tiny_ptms, before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in ptm.network.state_dict().items())
        assert all(parameter.grad is None for parameter in ptm.network.parameters())
        assert not ptm.network.training


def test_without_guidance_no_ptm_is_asked(tiny, tiny_ptms, monkeypatch):
    plain = quick(tiny)
    monkeypatch.setattr(PTM, "features", None)  # any forward pass would fail
    given = quick(tiny, ptms=tiny_ptms, strategy="loss_avg")
    assert torch.equal(plain.synthetic.images, given.synthetic.images)
    assert (given.history[["guidance_loss", "ptm_passes"]] == 0).all(axis=None)
    assert given.cosines.shape == (0, 0)
    assert given.synthetic.provenance["ptm_hashes"] == []


# Common random numbers


def watch(monkeypatch, owner, name, keep):
    seen, original = [], getattr(owner, name)

    def spy(*args, **kwargs):
        result = original(*args, **kwargs)
        seen.append(keep(result))
        return result

    monkeypatch.setattr(owner, name, spy)
    return seen


@pytest.mark.parametrize("base_method", ["dm", "dc", "dsa"])
def test_arms_share_start_real_batches_networks_and_augmentation(tiny, tiny_ptms, monkeypatch, base_method):
    seen = {
        "start": watch(monkeypatch, module, "starting_images", lambda pair: pair[0].clone()),
        "real batches": watch(monkeypatch, Task, "real_batch", torch.clone),
        "networks": watch(
            monkeypatch,
            Task,
            "fresh_network",
            lambda network: torch.cat([p.detach().clone().flatten() for p in network.parameters()]),
        ),
        "augmentation": watch(monkeypatch, ddlib.base_methods, "sample_dsa", lambda params: params.uniform),
    }
    arms = [
        {},
        {"guidance": "clom", "strategy": "single"},
        {"guidance": "clom", "strategy": "random"},
        {"guidance": "cclom", "strategy": "shuffled", "alpha_cclom": 10.0},
        {"guidance": "ce_ratio", "strategy": "random", "guide_every": 2},
        {"guidance": "both", "strategy": "pcgrad"},
    ]
    records = []
    for arm in [*arms, {"seed": 1}]:
        quick(tiny, base_method=base_method, ptms=tiny_ptms, **arm)
        records.append({what: torch.cat([x.flatten() for x in values]) for what, values in seen.items()})
        assert all(seen.values())
        for values in seen.values():
            values.clear()
    for what, values in records[0].items():
        if (base_method, what) != ("dc", "augmentation"):  # there is none
            assert all(torch.equal(values, record[what]) for record in records[1:-1]), what
            assert not torch.equal(values, records[-1][what]), what


# History, cosines, snapshots


@pytest.mark.parametrize("base_method", ["dm", "dsa", "none"])
@pytest.mark.parametrize(("strategy", "per_update"), [("random", 1), ("loss_avg", 3)])
def test_ptm_passes_are_counted(tiny, tiny_ptms, base_method, strategy, per_update):
    """One or K in each update of the images (which, test_combine.py counts); those for the cosines do not count."""
    run = quick(tiny, base_method=base_method, guidance="clom", ptms=tiny_ptms, strategy=strategy, log_every=1)
    per_iteration = per_update * (2 if base_method == "dsa" else 1)
    assert run.history["ptm_passes"].tolist() == [per_iteration, 2 * per_iteration, 3 * per_iteration]


def test_a_counted_pass_is_a_pass(tiny, tiny_ptms, monkeypatch):
    passes = watch(monkeypatch, PTM, "logits", lambda logits: None)
    seen = watch(monkeypatch, PTM, "classify", lambda logits: None)
    run = quick(tiny, guidance="clom", ptms=tiny_ptms, strategy="loss_avg", log_every=2)
    assert len(passes) + len(seen) == run.history["ptm_passes"].iloc[-1] + 2 * 3  # cosines at iterations 0 and 2


def test_history_means_over_the_updates_of_an_iteration(tiny, tiny_ptms, monkeypatch):
    said = watch(monkeypatch, module, "_update", lambda update: update)
    history = quick(tiny, base_method="dsa", guidance="clom", ptms=tiny_ptms).history
    assert len(said) == 6
    for column, place in (("base_loss", 0), ("guidance_loss", 1)):
        values = [update[place] for update in said]
        assert history[column].tolist() == pytest.approx([sum(values[i : i + 2]) / 2 for i in (0, 2, 4)])
    assert history["seconds"].is_monotonic_increasing
    assert history["seconds"].iloc[0] > 0


def test_cosines_and_norms_are_logged_and_averaged(tiny, tiny_ptms, monkeypatch):
    measured = watch(monkeypatch, module, "gradient_agreement", lambda agreement: agreement)
    run = quick(tiny, guidance="clom", ptms=tiny_ptms, iterations=5, log_every=2)
    norms, seen = zip(*measured, strict=True)
    assert len(seen) == 3
    torch.testing.assert_close(run.cosines, sum(seen) / 3)
    torch.testing.assert_close(run.norms, sum(norms) / 3)
    assert run.norms.shape == (3,)
    assert (run.norms > 0).all()
    torch.testing.assert_close(run.cosines.diagonal(), torch.ones(3))
    off_diagonal = [[float(c[i, j]) for i in range(3) for j in range(3) if i != j] for c in seen]
    logged = run.history["cosine"]
    assert logged.isna().tolist() == [False, True, False, True, False]
    assert logged[::2].tolist() == pytest.approx([sum(values) / 6 for values in off_diagonal], rel=1e-4, abs=1e-6)


def test_equal_ptms_agree_and_one_ptm_has_no_cosine(tiny, tiny_ptms):
    twins = quick(tiny, guidance="clom", ptms=[tiny_ptms[0]] * 2)
    torch.testing.assert_close(twins.cosines, torch.ones(2, 2))
    alone = quick(tiny, guidance="clom", ptms=tiny_ptms[:1])
    assert alone.cosines.shape == (0, 0)
    assert alone.norms.shape == (0,)
    assert alone.history["cosine"].isna().all()


def test_logging_changes_nothing(tiny, tiny_ptms):
    often, never = (quick(tiny, guidance="both", ptms=tiny_ptms, log_every=n) for n in (1, 100))
    assert torch.equal(often.synthetic.images, never.synthetic.images)


# Guidance every few updates


def test_a_guided_update_has_guide_every_times_the_weight(tiny, tiny_ptms):
    settings = {"guidance": "clom", "ptms": tiny_ptms, "strategy": "loss_avg", "iterations": 1}
    rarely, strongly = quick(tiny, **settings, alpha_clom=0.3, guide_every=2), quick(tiny, **settings, alpha_clom=0.6)
    torch.testing.assert_close(rarely.synthetic.images, strongly.synthetic.images, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(rarely.synthetic.images, quick(tiny, **settings, alpha_clom=0.3).synthetic.images)


def test_twice_the_weight_every_other_update_is_the_same_weight_in_total(tiny, tiny_ptms, monkeypatch):
    """Of a guidance whose gradient is the same everywhere, alone: SGD without momentum moves as far in two updates."""
    monkeypatch.setattr(module, "MOMENTUM", 0.0)
    one = torch.ones(6, 1, 8, 8)
    monkeypatch.setattr(Selecting, "__call__", lambda *_: Combined(torch.tensor(1.0), one, 1))
    settings = {"guidance": "clom", "ptms": tiny_ptms, "base_method": "none", "lr_img": 0.5, "iterations": 4}
    for every in (1, 2, 4):
        run = quick(tiny, **settings, guide_every=every, snapshots=[0], log_every=100)
        torch.testing.assert_close(run.snapshots[0] - run.synthetic.images, 4 * 0.5 * one)


@pytest.mark.parametrize("base_method", ["dm", "dsa"])
def test_guided_updates_are_counted_logged_and_take_turns(tiny, tiny_ptms, monkeypatch, base_method):
    """The k-th *guided* update is the k-th turn: else every third update would ask the same one of three PTMs."""
    asked, features = [], PTM.features
    monkeypatch.setattr(PTM, "features", lambda ptm, images: asked.append(ptm.index) or features(ptm, images))
    settings = {"guidance": "clom", "ptms": tiny_ptms, "strategy": "sequential", "log_every": 100}
    run = quick(tiny, base_method=base_method, **settings, guide_every=3, iterations=7)
    updates = {"dm": 7, "dsa": 14}[base_method]
    assert asked[3:] == [i % 3 for i in range(math.ceil(updates / 3))]
    guided = {"dm": [1, 0, 0, 1, 0, 0, 1], "dsa": [1, 1, 0, 1, 1, 0, 1]}[base_method]
    assert (~run.history["guidance_loss"].isna()).astype(int).tolist() == guided
    assert run.history["ptm_passes"].tolist() == list(itertools.accumulate(guided))


def test_the_logged_guidance_loss_is_that_of_alpha_alone(tiny, tiny_ptms):
    settings = {"guidance": "clom", "ptms": tiny_ptms[:1], "alpha_clom": 2.0, "iterations": 1}
    often, rarely = (quick(tiny, **settings, guide_every=every).history["guidance_loss"] for every in (1, 9))
    assert often.tolist() == rarely.tolist()


def test_without_guidance_nothing_is_asked_of_guide_every(tiny):
    require_equal(quick(tiny, guide_every=2), quick(tiny))


def test_snapshots_at_the_start_and_where_asked_for(tiny):
    run = quick(tiny, iterations=4, snapshots=[4, 0, 2])
    assert sorted(run.snapshots) == [0, 2, 4]
    assert torch.equal(run.snapshots[0], tiny.train.images[random_real(tiny, 2, 0)])
    assert torch.equal(run.snapshots[2], quick(tiny, iterations=2).synthetic.images)
    assert torch.equal(run.snapshots[4], run.synthetic.images)
    assert quick(tiny).snapshots == {}
    assert not any(images.requires_grad for images in run.snapshots.values())


def test_snapshots_may_come_from_any_iterable(tiny):
    assert sorted(quick(tiny, snapshots=iter([0, 3])).snapshots) == [0, 3]


@pytest.mark.parametrize(("base_method", "outer_loops", "updates"), [("dsa", 2, 6), ("dm", 3, 3), ("none", 3, 3)])
def test_selection_goes_on_with_every_update(tiny, tiny_ptms, monkeypatch, base_method, outer_loops, updates):
    """DM has one update an iteration, whatever ``outer_loops`` says: else, by 3, one PTM would be asked always."""
    asked, features = [], PTM.features
    monkeypatch.setattr(PTM, "features", lambda ptm, images: asked.append(ptm.index) or features(ptm, images))
    settings = {"guidance": "clom", "ptms": tiny_ptms, "strategy": "sequential", "log_every": 100}
    quick(tiny, base_method=base_method, outer_loops=outer_loops, **settings)
    assert asked == [0, 1, 2, *([0, 1, 2] * 2)[:updates]]  # first the cosines of iteration 0


# Checkpoints


def interrupt(monkeypatch, iteration):
    """The run dies while it works on this iteration, as by Ctrl-C."""
    original = Task.fresh_network

    def network(self, at):
        if at == iteration:
            raise KeyboardInterrupt
        return original(self, at)

    monkeypatch.setattr(Task, "fresh_network", network)


LONG = {"iterations": 7, "snapshots": [0, 2, 5, 7], "log_every": 3, "start": "noise"}


@pytest.fixture(scope="module")
def undisturbed(tiny, tiny_ptms):
    return {
        (base_method, strategy): quick(
            tiny, base_method=base_method, guidance="both", ptms=tiny_ptms, strategy=strategy, **LONG
        )
        for base_method in ("dm", "dsa")
        for strategy in ("random", "loss_avg")
    }


@pytest.mark.parametrize("base_method", ["dm", "dsa"])
@pytest.mark.parametrize(
    ("strategy", "dies_at", "every", "resumes_at"),
    [
        *[("random", *point) for point in ((1, 1, 1), (4, 1, 4), (5, 2, 4), (6, 5, 5), (2, 5, 0))],
        ("loss_avg", 5, 2, 4),
    ],
)
def test_a_resumed_run_is_bit_identical(
    tiny, tiny_ptms, tmp_path, monkeypatch, undisturbed, base_method, strategy, dies_at, every, resumes_at
):
    checkpoint = tmp_path / "deep" / "run.safetensors"
    settings = {"base_method": base_method, "guidance": "both", "ptms": tiny_ptms, "strategy": strategy, **LONG}
    settings |= {"checkpoint": checkpoint, "checkpoint_every": every}
    with monkeypatch.context() as patch:
        interrupt(patch, dies_at)
        with pytest.raises(KeyboardInterrupt):
            quick(tiny, **settings)
    assert checkpoint.exists() == (resumes_at > 0)
    iterations = []
    original = Task.fresh_network
    monkeypatch.setattr(Task, "fresh_network", lambda self, at: iterations.append(at) or original(self, at))
    resumed = quick(tiny, **settings)
    assert iterations == [0, *range(resumes_at, 7)]  # the first one is the check of the settings
    require_equal(resumed, undisturbed[base_method, strategy])
    assert resumed.history["seconds"].is_monotonic_increasing


def test_a_run_may_be_prolonged(tiny, tiny_ptms, tmp_path, undisturbed):
    settings = {"guidance": "both", "ptms": tiny_ptms, "strategy": "random", "checkpoint": str(tmp_path / "run")}
    for iterations in (1, 3, 4):
        part = quick(tiny, **settings, **(LONG | {"iterations": iterations}))
        assert len(part.history) == iterations
    require_equal(quick(tiny, **settings, **LONG), undisturbed["dm", "random"])


def test_a_finished_run_is_read_back_without_work(tiny, tmp_path, monkeypatch):
    done = quick(tiny, checkpoint=tmp_path / "run", snapshots=[0, 1])
    monkeypatch.setattr(Task, "real_batch", None)
    require_equal(done, quick(tiny, checkpoint=tmp_path / "run", snapshots=[0, 1]))


def test_a_checkpoint_of_a_longer_run_is_refused(tiny, tmp_path):
    """Its images are those of 3 iterations: they must not pass as those of 2."""
    quick(tiny, checkpoint=tmp_path / "run")
    with pytest.raises(ValueError, match="run is of 3 iterations, more than the 2 asked for"):
        quick(tiny, checkpoint=tmp_path / "run", iterations=2)


@pytest.mark.parametrize("every", [1, 2, 5])
def test_checkpoints_are_written_on_time_and_at_the_end(tiny, tmp_path, monkeypatch, every):
    lengths = []
    monkeypatch.setattr(
        "ddlib.checkpoint.write_tensors", lambda path, tensors, about: lengths.append(len(about["history"]))
    )
    quick(tiny, iterations=5, checkpoint=tmp_path / "run", checkpoint_every=every)
    assert lengths == {1: [1, 2, 3, 4, 5], 2: [2, 4, 5], 5: [5]}[every]
    quick(tiny, iterations=5)
    assert len(lengths) == {1: 5, 2: 3, 5: 1}[every]  # none was asked for


OTHERS = [
    ({"lr_img": 0.5}, r"lr_img: 1\.0 there, 0\.5 now"),
    ({"seed": 1}, "seed: 0 there, 1 now"),
    ({"base_method": "dsa", "lr_img": 1.0}, "base_method: 'dm' there, 'dsa' now"),
    ({"strategy": "random"}, "strategy: 'loss_avg' there, 'random' now"),
    ({"guidance": "none"}, "guidance: 'clom' there, 'none' now"),
    ({"alpha_clom": {"ConvNet-3": 1.0}}, r"alpha_clom: 1\.0 there, \{'ConvNet-3': 1\.0\} now"),
    ({"snapshots": [1]}, r"snapshots: \[\] there, \[1\] now"),
    ({"log_every": 1}, "log_every: 2 there, 1 now"),
    ({"seed": 1, "width": 8}, "width: 4 there, 8 now; seed: 0 there, 1 now"),
]


@pytest.mark.parametrize(("change", "message"), OTHERS)
def test_a_checkpoint_of_other_settings_is_refused(tiny, tiny_ptms, tmp_path, change, message):
    settings = {"guidance": "clom", "ptms": tiny_ptms, "strategy": "loss_avg", "checkpoint": tmp_path / "run"}
    quick(tiny, **settings)
    before = (tmp_path / "run").read_bytes()
    with pytest.raises(ValueError, match=rf"run is from another run \({message}.*delete it"):
        quick(tiny, **(settings | change))
    assert (tmp_path / "run").read_bytes() == before


def test_a_checkpoint_of_other_ptms_data_or_code_is_refused(tiny, tiny_ptms, tmp_path, monkeypatch):
    settings = {"guidance": "clom", "ptms": tiny_ptms, "checkpoint": tmp_path / "run"}
    quick(tiny, **settings)
    quick(tiny, **settings, checkpoint_every=7)  # that changes no result
    for other in (tiny_ptms[:2], tiny_ptms[::-1]):
        with pytest.raises(ValueError, match=rf"another run \(ptms: \['{tiny_ptms[0].hash}'"):
            quick(tiny, **(settings | {"ptms": other}))
    with pytest.raises(ValueError, match=rf"another run \(dataset: '{tiny.hash}' there"):
        quick(tiny.holdout(0.2), **settings)
    monkeypatch.setattr("ddlib.checkpoint.code_hash", lambda: "0123")
    with pytest.raises(ValueError, match=r"another run \(code: '\w{16}' there, '0123' now\)"):
        quick(tiny, **settings)


def test_a_damaged_or_foreign_checkpoint_is_refused(tiny, tmp_path):
    path = tmp_path / "run"
    done = quick(tiny, checkpoint=path)
    whole = path.read_bytes()
    for damaged in (whole[:-10], whole[:50], b"", whole[:-4] + bytes(4)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"run (is damaged|was not written by ddlib)"):
            quick(tiny, checkpoint=path)
        assert path.read_bytes() == damaged
    done.synthetic.save(path)
    with pytest.raises(ValueError, match="run is from another run"):
        quick(tiny, checkpoint=path)


# Divergence


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"lr_img": 1e38, "base_method": "dm"}, "the base loss is (nan|inf)|a pixel is NaN or infinite"),
        ({"lr_img": float("nan"), "base_method": "dm"}, "a pixel is NaN or infinite"),
        ({"alpha_clom": float("inf"), "guidance": "clom"}, "the guidance loss is inf"),
        ({"alpha_cclom": 1e39, "guidance": "cclom"}, "the guidance loss is inf"),
        ({"alpha_clom": 1e38, "lr_img": 1e3, "guidance": "clom"}, "a pixel is NaN or infinite"),
    ],
)
def test_divergence_is_an_error_that_says_what_to_lower(tiny, tiny_ptms, settings, what):
    with pytest.raises(FloatingPointError, match=rf"iteration \d+: ({what})\. .* lower lr_img or alpha"):
        quick(tiny, ptms=tiny_ptms, iterations=6, **settings)


@pytest.mark.parametrize("base_method", ["dm", "dsa"])
def test_divergence_leaves_the_checkpoint_before_it(tiny, tmp_path, monkeypatch, base_method):
    path = tmp_path / "run"
    settings = {"base_method": base_method, "iterations": 4, "checkpoint": path}
    quick(tiny, **(settings | {"iterations": 2}))
    before, original = path.read_bytes(), Task.real_batch

    def real_batch(self, label, iteration, update):
        batch = original(self, label, iteration, update)
        return batch * float("nan") if iteration == 3 else batch

    with monkeypatch.context() as patch:
        patch.setattr(Task, "real_batch", real_batch)
        with pytest.raises(FloatingPointError, match=r"iteration 3: the base loss is nan\..*checkpoint"):
            quick(tiny, **settings, checkpoint_every=100)
        assert path.read_bytes() == before
        with pytest.raises(FloatingPointError):
            quick(tiny, **settings, checkpoint_every=1)
    require_equal(
        quick(tiny, **settings, checkpoint_every=1), quick(tiny, **(settings | {"checkpoint": tmp_path / "other"}))
    )


# Errors before any work

ERRORS = [  # two of those that the parts of a recipe find by themselves (test_recipe.py), and what only distill can
    ({"base_method": "mtt"}, "unknown base method 'mtt'; known: dm, dc, dsa, none"),
    (
        {"guidance": "clip", "base_method": "none"},
        "unknown guidance 'clip'; known: none, clom, ce_ratio, cos_mean, cclom, both",
    ),
    ({"base_network": "ConvNet-9"}, f"unknown network 'ConvNet-9'; known: {', '.join(NETWORKS)}"),
    ({"width": 1}, "width is 1; ConvNet-3 needs a whole number of 2 or more"),
    ({"start": "zeros"}, "unknown start 'zeros'; known: real, noise"),
    ({"ipc": 0}, "ipc must be from 1 to 12, .* found 0"),
    ({"ipc": -1}, "ipc must be from 1 to 12, .* found -1"),
    ({"ipc": 13}, "ipc must be from 1 to 12, the number of training images of class 'ant' of tiny; found 13"),
    ({"guide_every": 0}, "guide_every must be at least 1; found 0"),
    ({"checkpoint_every": 0}, "checkpoint_every must be at least 1; found 0"),
    ({"guidance": "clom", "alpha_clom": {"VGG-11": 1.0}}, "alpha names VGG-11, but one of the PTMs is a ConvNet-3"),
]


@pytest.mark.parametrize(("settings", "message"), ERRORS)
def test_errors_come_before_any_work(tiny, tiny_ptms, tmp_path, monkeypatch, settings, message):
    monkeypatch.setattr(Task, "real_batch", None)  # work would be a TypeError
    monkeypatch.setattr(PTM, "features", None)
    with pytest.raises(ValueError, match=message):
        quick(tiny, **({"ptms": tiny_ptms, "checkpoint": tmp_path / "run"} | settings))
    assert not any(tmp_path.iterdir())


def test_clom_needs_a_ptm_of_the_same_classes_and_cclom_does_not(tiny, tiny_ptms):
    others = [dataclasses.replace(ptm, class_names=("x", "y", "z"), source_dataset="letters") for ptm in tiny_ptms]
    for guidance in ("clom", "both"):
        with pytest.raises(ValueError, match=rf"{others[0].name} knows the classes of letters \(x, y, z, "):
            quick(tiny, guidance=guidance, ptms=others)
    require_equal(quick(tiny, guidance="cclom", ptms=others), quick(tiny, guidance="cclom", ptms=tiny_ptms))


@pytest.mark.parametrize(("kind", "variable"), [("cpu", "CXX"), ("cuda", "CC")])
def test_compile_without_a_compiler_is_refused_before_any_work(
    tiny, tiny_ptms, monkeypatch, tmp_path, gpu, kind, variable
):
    monkeypatch.setattr(PTM, "features", lambda *args: pytest.fail("this is work"))
    monkeypatch.setenv("PATH", str(tmp_path))
    for given in ("", "icx -O3"):
        monkeypatch.setenv(variable, given)
        says = rf"compile needs a C.* compiler \({given[:3]}.*set {variable}.*leave compile out"
        with pytest.raises(ValueError, match=says):
            quick(tiny.to(kind), guidance="cclom", ptms=tiny_ptms, compile="always")


def test_the_class_sums_are_on_the_bill(tiny, tiny_ptms, monkeypatch):
    def slow(self, dataset):
        time.sleep(0.3)
        return class_sums(self, dataset)

    class_sums = PTM.class_sums
    monkeypatch.setattr(PTM, "class_sums", slow)
    assert quick(tiny, guidance="cclom", ptms=tiny_ptms).history["seconds"].iloc[0] > 0.3 * 3


def test_settings_are_named(tiny):
    with pytest.raises(TypeError, match="learning_rate"):
        distill(tiny, learning_rate=1.0)


@pytest.mark.parametrize("base_method", ["dm", "dsa"])
def test_on_a_gpu(tiny, tiny_ptms, tmp_path, base_method, gpu):
    """It starts, draws and resumes as on the CPU, and stays on its device."""
    settings = {"base_method": base_method, "guidance": "both", "ptms": tiny_ptms, "snapshots": [0, 1]}
    part = quick(tiny.to("cuda"), **settings, iterations=2, checkpoint=tmp_path / "run")
    whole = quick(tiny.to("cuda"), **settings, checkpoint=tmp_path / "run")
    assert len(whole.history) == 3
    assert all(images.is_cuda for images in (part.synthetic.images, whole.synthetic.images, *whole.snapshots.values()))
    on_cpu = quick(tiny, **settings, iterations=2)
    assert torch.equal(on_cpu.snapshots[0], whole.snapshots[0].cpu())
    torch.testing.assert_close(part.synthetic.images.cpu(), on_cpu.synthetic.images, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("guidance", ["clom", "cclom"])
def test_a_weighting_by_accuracies_that_are_unknown_is_refused_before_any_work(tiny, tiny_ptms, monkeypatch, guidance):
    unknown = dataclasses.replace(tiny_ptms[1], train_accuracy=None, _sums={})
    monkeypatch.setattr(PTM, "features", lambda *args: pytest.fail("this is work"))
    with pytest.raises(
        ValueError, match="accuracy_weighted needs the accuracy of every PTM, and one of these has none"
    ):
        quick(tiny, guidance=guidance, strategy="accuracy_weighted", ptms=[tiny_ptms[0], unknown])


def test_a_checkpoint_that_would_be_stretched_is_refused(tiny, tmp_path):
    """One image for all of them: PyTorch would repeat it without a word."""
    path = tmp_path / "checkpoint"
    quick(tiny, checkpoint=path, iterations=2)
    tensors, about = read_tensors(path)
    write_tensors(path, tensors | {"images": tensors["images"][:1]}, about)
    with pytest.raises(ValueError, match="checkpoint is no whole checkpoint of this run; delete it"):
        quick(tiny, checkpoint=path)
