"""Evaluation: paired between synthetic sets, the last epoch, the rate at half time, and errors before training."""

import dataclasses
import importlib

import pandas as pd
import pytest
import torch
from made import global_seed, nothing_drawn
from torch import nn

from ddlib.augmentation import DSA_STRATEGY
from ddlib.data.dataset import ImageFormat, Split
from ddlib.evaluate import evaluate
from ddlib.networks import NETWORKS
from ddlib.selection import full_data, select_real
from ddlib.synthetic import SyntheticSet
from ddlib.training import accuracy, hits, train_network

module = importlib.import_module("ddlib.evaluate")  # the attribute ddlib.evaluate is the function
training = importlib.import_module("ddlib.training")  # where it has its networks trained


def quick(synthetic, dataset, **settings):
    return evaluate(synthetic, dataset, **({"num_eval": 2, "eval_epochs": 3, "width": 4} | settings))


def weights(network):
    return torch.cat([parameter.detach().clone().flatten() for parameter in network.parameters()])


@pytest.fixture
def trained(monkeypatch):
    """What each call of train_network got and left: weights before and after, images, labels, settings."""
    calls = []

    def spy(network, images, labels, **settings):
        before, draw = weights(network), settings["generator"].get_state()
        train_network(network, images, labels, **settings)
        calls.append(
            settings
            | {"before": before, "after": weights(network), "images": images, "labels": labels, "generator": draw}
        )

    monkeypatch.setattr(training, "train_network", spy)
    return calls


def test_rows_and_columns(tiny):
    table = quick(select_real(tiny, 2), tiny, architectures=("ConvNet-3", "AlexNet"), num_eval=3, width=8)
    columns = ["architecture", "network", "augment", "accuracy", "balanced_accuracy", "class_accuracies", "seconds"]
    assert list(table) == columns
    assert table["architecture"].tolist() == ["ConvNet-3"] * 3 + ["AlexNet"] * 3
    assert table["network"].tolist() == [0, 1, 2] * 2
    assert table["augment"].tolist() == [True] * 6
    assert (table["accuracy"] * 18 % 1).between(-1e-6, 1e-6).all()  # shares of 18 test images
    assert (table["seconds"] > 0).all()


def test_groups_change_no_accuracy(tiny, monkeypatch):
    settings = {"architectures": ("ConvNet-3", "AlexNet"), "num_eval": 5, "lr": 0.1, "eval_epochs": 6}
    alone = quick(full_data(tiny), tiny, **settings)
    monkeypatch.setattr(module, "group_size", lambda network, images, batch_size: 2)
    together = quick(full_data(tiny), tiny, **settings)
    assert together["accuracy"].tolist() == pytest.approx(alone["accuracy"].tolist(), abs=1 / 18 + 1e-9)
    assert alone["accuracy"].nunique() > 1
    assert together[["architecture", "network"]].equals(alone[["architecture", "network"]])


def test_a_seed_fixes_every_number(tiny):
    synthetic = select_real(tiny, 2)
    first, second = (quick(synthetic, tiny, num_eval=4).drop(columns="seconds") for _ in range(2))
    pd.testing.assert_frame_equal(first, second, rtol=0, atol=0)


def test_no_global_randomness_is_read_or_changed(tiny, trained):
    with nothing_drawn():
        quick(select_real(tiny, 2), tiny)
    with global_seed(99):
        quick(select_real(tiny, 2), tiny)
    assert all(torch.equal(a["after"], b["after"]) for a, b in zip(trained[:2], trained[2:], strict=True))


def test_seeds_networks_and_architectures_draw_apart(tiny, trained):
    synthetic = select_real(tiny, 2)
    for seed in (0, 1):
        quick(synthetic, tiny, architectures=("ConvNet-3", "ConvNet-4"), seed=seed)
    assert len(trained) == 8
    for what in ("before", "after", "generator"):
        assert len({tuple(call[what].tolist()) for call in trained}) == 8


def test_networks_are_shared_between_synthetic_sets(tiny, trained):
    """Network i starts from the same weights and sees the same order and augmentation (common random numbers)."""
    sets = select_real(tiny, 2, seed=0), select_real(tiny, 2, seed=1)
    for synthetic in sets:
        quick(synthetic, tiny, num_eval=3)
    for i in range(3):
        mine, yours = trained[i], trained[3 + i]
        assert torch.equal(mine["before"], yours["before"])
        assert torch.equal(mine["generator"], yours["generator"])
        assert not torch.equal(mine["after"], yours["after"])
        assert torch.equal(mine["images"], sets[0].images)
        assert torch.equal(yours["images"], sets[1].images)


def test_more_networks_begin_with_the_fewer(tiny):
    synthetic = select_real(tiny, 2)
    few = quick(synthetic, tiny, num_eval=2)
    many = quick(synthetic, tiny, architectures=("ConvNet-4", "ConvNet-3"), num_eval=3)
    many = many[many["architecture"] == "ConvNet-3"]
    assert many["accuracy"].tolist()[:2] == few["accuracy"].tolist()


@pytest.mark.parametrize(
    ("augment", "strategy", "said"),
    [
        *[(True, DSA_STRATEGY, True), (False, "none", False), ("none", "none", False), ("", "none", False)],
        *[("flip_crop", "flip_crop", True), (DSA_STRATEGY, DSA_STRATEGY, True)],
    ],
)
def test_augmentation(tiny, trained, augment, strategy, said):
    table = quick(select_real(tiny, 2), tiny, augment=augment)
    assert table["augment"].tolist() == [said] * 2
    quick(select_real(tiny, 2), tiny, augment=strategy)
    assert torch.equal(trained[0]["after"], trained[2]["after"])
    quick(select_real(tiny, 2), tiny, augment=not said)
    assert not torch.equal(trained[0]["after"], trained[4]["after"])


@pytest.mark.parametrize(("eval_epochs", "half"), [(4, 2), (7, 3), (1000, 500)])
def test_the_recipe(tiny, monkeypatch, eval_epochs, half):
    calls = []
    monkeypatch.setattr(training, "train_network", lambda *args, **settings: calls.append(settings))
    evaluate(select_real(tiny, 1), tiny, eval_epochs=eval_epochs, num_eval=1, width=4)
    (found,) = calls
    del found["generator"]
    expected = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4, "batch_size": 256}
    assert found == expected | {"epochs": eval_epochs, "milestones": [half], "augment": DSA_STRATEGY}


def test_the_rate_falls_to_a_tenth_at_half_time(tiny, monkeypatch):
    rates, step = [], torch.optim.SGD.step

    def spy(self, *args, **kwargs):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", spy)
    quick(select_real(tiny, 2), tiny, num_eval=1, eval_epochs=6, lr=0.5)
    assert rates == pytest.approx([0.5] * 3 + [0.05] * 3)


def test_settings_reach_the_training(tiny, trained):
    settings = {"lr": 0.3, "momentum": 0.1, "weight_decay": 0.2, "batch_size": 4}
    quick(select_real(tiny, 2), tiny, **settings, norm="none", num_eval=1)
    assert settings.items() <= trained[0].items()
    quick(select_real(tiny, 2), tiny, **settings, num_eval=1)
    assert len(trained[0]["before"]) < len(trained[1]["before"])  # norm layers have weights


def test_the_accuracy_is_that_of_the_last_epoch_on_the_test_split(tiny, monkeypatch):
    """Measured once a network, after training; the table says what was measured, be it better or worse."""
    events = []

    def train(network, *args, **settings):
        train_network(network, *args, **settings)
        events.append(("trained", weights(network)))

    def measure(network, images, labels):
        events.append(("measured", weights(network)))
        assert images is tiny.test.images
        assert labels is tiny.test.labels
        reached.append(accuracy(network, images, labels))
        return hits(network, images, labels)

    reached = []
    monkeypatch.setattr(training, "train_network", train)
    monkeypatch.setattr(module, "hits", measure)
    table = quick(full_data(tiny), tiny, lr=0.1, eval_epochs=9, num_eval=3)
    assert [name for name, _ in events] == ["trained", "measured"] * 3
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(events[::2], events[1::2], strict=True))
    assert table["accuracy"].tolist() == reached


@pytest.mark.parametrize("augment", [True, False])
def test_full_data_beats_chance_by_far_and_wrong_labels_do_not(tiny, augment):
    settings = {"eval_epochs": 20, "lr": 0.1, "batch_size": 12, "width": 16, "augment": augment}
    assert quick(full_data(tiny), tiny, **settings)["accuracy"].min() > 0.8
    whole = full_data(tiny)
    wrong = dataclasses.replace(whole, labels=(whole.labels + 1) % 3)
    assert quick(wrong, tiny, **settings)["accuracy"].max() < 0.2


def test_another_normalisation_is_converted_first(tiny, trained):
    own = select_real(tiny, 2)
    images = (tiny.denormalise(own.images) - 0.1) / 0.7
    other = SyntheticSet(images, own.labels, ImageFormat(1, 8, (0.1,), (0.7,)), own.class_names)
    for synthetic in (own, other):
        quick(synthetic, tiny, num_eval=1)
    torch.testing.assert_close(trained[1]["images"], trained[0]["images"])
    torch.testing.assert_close(trained[1]["after"], trained[0]["after"], rtol=1e-3, atol=1e-4)


def test_nothing_given_is_changed(tiny):
    synthetic = select_real(tiny, 2)
    before, test_before = synthetic.hash, tiny.test.images.clone()
    quick(synthetic, tiny)
    assert SyntheticSet.of(tiny, synthetic.images, synthetic.labels).hash == before
    assert torch.equal(tiny.test.images, test_before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_eval": 0}, "num_eval and eval_epochs must be at least 1; found 0 and 3"),
        ({"eval_epochs": 0}, "num_eval and eval_epochs must be at least 1; found 2 and 0"),
        ({"architectures": ["ConvNet-3", "ViT"]}, f"unknown network 'ViT'; known: {', '.join(NETWORKS)}"),
        ({"architectures": "ConvNet-3"}, f"unknown network 'C'; known: {', '.join(NETWORKS)}"),
        ({"norm": "layer"}, "unknown norm 'layer'; known: instance, batch, none"),
        ({"width": 0}, "width is 0; ConvNet-3 needs a whole number of 2 or more"),
        ({"augment": "flip_blur"}, "unknown operation 'blur' in strategy 'flip_blur'; known: color, crop"),
    ],
)
def test_errors_come_before_training(tiny, monkeypatch, settings, message):
    monkeypatch.setattr(torch.optim.SGD, "step", None)  # a step would be a TypeError
    monkeypatch.setattr(module, "hits", None)
    with pytest.raises(ValueError, match=message):
        quick(select_real(tiny, 2), tiny, **settings)


def test_a_set_of_another_kind_of_images_is_refused(tiny, tiny_rgb, trained):
    with pytest.raises(ValueError, match=r"has images \[3, 16, 16\] .*; tiny has \[1, 8, 8\] of ant, bee, cat"):
        quick(select_real(tiny_rgb, 1), tiny)
    assert not trained


# Classes


def test_the_accuracy_of_each_class_and_their_mean(tiny):
    """Against a plain loop, on a test split of uneven classes, of which one has no image."""
    order = torch.cat([(tiny.test.labels == label).nonzero().flatten()[:count] for label, count in ((0, 6), (1, 2))])
    test = Split(tiny.test.images[order], tiny.test.labels[order])
    uneven = dataclasses.replace(tiny, test=test)
    networks = []
    table = quick(select_real(tiny, 2), uneven, architectures={"kept": lambda: networks.append(own()) or networks[-1]})
    for network, row in zip(networks[2:], table.itertuples(), strict=True):
        answers = [int(network.eval()(image[None]).argmax()) for image in test.images]
        right = [answer == label for answer, label in zip(answers, test.labels.tolist(), strict=True)]
        assert row.class_accuracies == [sum(right[:6]) / 6, sum(right[6:]) / 2, None]
        assert row.balanced_accuracy == (sum(right[:6]) / 6 + sum(right[6:]) / 2) / 2
        assert row.accuracy == sum(right) / 8


def test_of_even_classes_the_balanced_accuracy_is_the_accuracy(tiny):
    table = quick(select_real(tiny, 2), tiny, num_eval=4)
    assert table["balanced_accuracy"].tolist() == pytest.approx(table["accuracy"].tolist())


# Own networks


def own(classes=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, classes))


def test_own_networks_stand_beside_those_of_ddlib(tiny):
    synthetic = full_data(tiny)
    settings = {"eval_epochs": 30, "lr": 0.05, "width": 8}
    alone = quick(synthetic, tiny, **settings)
    table = quick(synthetic, tiny, architectures=["ConvNet-3", ("mine", own)], **settings)
    assert table["architecture"].tolist() == ["ConvNet-3"] * 2 + ["mine"] * 2
    assert table["accuracy"].tolist()[:2] == alone["accuracy"].tolist()
    assert table["accuracy"].min() > 0.6
    by_name = quick(synthetic, tiny, architectures={"mine": own}, **settings)
    assert by_name["accuracy"].tolist() == table["accuracy"].tolist()[2:]


def test_own_networks_are_paired_and_repeat_whatever_the_global_generator_says(tiny, trained):
    for synthetic in (select_real(tiny, 2), select_real(tiny, 2, seed=1)):
        with nothing_drawn():
            quick(synthetic, tiny, architectures=[("mine", own)])
    with global_seed(99):
        quick(select_real(tiny, 2), tiny, architectures=[("mine", own)])
    assert torch.equal(trained[0]["before"], trained[2]["before"])
    assert not torch.equal(trained[0]["before"], trained[1]["before"])
    assert torch.equal(trained[4]["after"], trained[0]["after"]), "with dropout"
    assert torch.equal(trained[5]["after"], trained[1]["after"])


SHARED = own()


@pytest.mark.parametrize(
    ("architectures", "message"),
    [
        ([("ConvNet-3", own)], "'ConvNet-3' is a network of ddlib; give your own another name"),
        ([("mine", own())], "a name and a function that makes a network; found"),
        ([("mine",)], "an own architecture is a name and a function that makes a network; found"),
        ([own], "an own architecture is a name and a function that makes a network; found"),
        ([("mine", lambda: own)], "'mine' makes a function; expected a torch.nn.Module"),
        ([("mine", lambda network=SHARED: network)], "The factory of 'mine' gives the same network twice"),
        ([("mine", lambda: own(4))], r"The network 'mine' gives \[2, 4\] for images \[2, 1, 8, 8\]; expected \[2, 3\]"),
        ([("mine", lambda: nn.Linear(3, 3))], r"The network 'mine' fails on images \[2, 1, 8, 8\]: RuntimeError"),
    ],
)
def test_own_networks_that_do_not_fit_are_refused_before_training(tiny, monkeypatch, architectures, message):
    monkeypatch.setattr(torch.optim.SGD, "step", None)
    with pytest.raises(ValueError, match=message):
        quick(select_real(tiny, 2), tiny, architectures=architectures)


def test_a_set_from_the_cpu_is_evaluated_where_the_data_set_is(tiny, trained, gpu):
    table = quick(select_real(tiny, 2), tiny.to("cuda"), num_eval=1)
    assert trained[0]["images"].is_cuda
    assert table["accuracy"].between(0, 1).all()
