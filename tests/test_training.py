"""Training against a loop written by hand, and the small parts around it."""

import itertools

import pytest
import slow
import torch
import torch.nn.functional as F
from made import global_seed, nothing_drawn, seeded
from torch import nn

from ddlib.augmentation import DSA_STRATEGY, apply_dsa, sample_dsa
from ddlib.networks import build_network
from ddlib.training import (
    accuracy,
    augment_batch,
    augment_strategy,
    augment_together,
    evaluating,
    features_of,
    group_size,
    train_network,
    train_networks,
)

NUM_CLASSES = 3


def some_images(n=10, seed=1):
    images = torch.randn(n, 1, 4, 4, generator=seeded(seed), dtype=torch.float64)
    return images, torch.arange(n) % NUM_CLASSES


def linear():
    """Images to logits, in float64, always with the same weights."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, NUM_CLASSES)).double()
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=seeded(9), dtype=p.dtype))
    return network


class Watched(nn.Module):
    """A network that notes, at each forward pass, its mode, whether gradients are on, and how many images."""

    def __init__(self):
        super().__init__()
        self.body, self.seen = linear(), []

    def forward(self, images):
        self.seen.append((self.training, torch.is_grad_enabled(), len(images)))
        return self.body(images)


def weights(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def train(network, n=10, seed=3, **options):
    """Two epochs in batches of 4, 4 and 2, unless the options say otherwise."""
    train_network(network, *some_images(n), generator=seeded(seed), **{"epochs": 2, "batch_size": 4} | options)
    return network


def plain_training(epochs, lr, momentum, weight_decay, batch_size, milestones, augment):
    """The gradient of cross-entropy by its formula, and SGD by its definition."""
    images, labels = some_images()
    draw = seeded(3)
    w, b = (p.detach().clone() for p in linear().parameters())
    velocity = [torch.zeros_like(w), torch.zeros_like(b)]
    for epoch in range(1, epochs + 1):
        order = torch.randperm(len(labels), generator=draw).tolist()
        while order:
            batch, order = order[:batch_size], order[batch_size:]
            x, y = images[batch], labels[batch]
            if augment != "none":
                x = apply_dsa(x, sample_dsa(x.shape, draw, augment, siamese=False))
            x = x.flatten(1)
            error = (x @ w.T + b).softmax(1) - F.one_hot(y, NUM_CLASSES)  # the gradient of cross-entropy
            gradients = error.T @ x / len(batch), error.mean(0)
            slow.sgd_step((w, b), gradients, velocity, lr, momentum, weight_decay)
        if epoch in milestones:
            lr = lr * 0.1
    return torch.cat([w.flatten(), b])


BASE = {
    "epochs": 2,
    "lr": 0.1,
    "momentum": 0.0,
    "weight_decay": 0.0,
    "batch_size": 4,
    "milestones": (),
    "augment": "none",
}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_size": 256},
        {"momentum": 0.9},
        {"weight_decay": 0.3},
        {"epochs": 4, "milestones": (1, 3), "momentum": 0.9, "weight_decay": 0.05},
        {"augment": DSA_STRATEGY, "momentum": 0.9},
        {"augment": "crop"},
    ],
)
def test_against_a_loop_written_by_hand(options):
    options = BASE | options
    expected = plain_training(**options)
    torch.testing.assert_close(weights(train(linear(), **options)), expected, rtol=1e-10, atol=1e-10)
    assert (expected - weights(linear())).abs().max() > 0.01


def test_the_defaults_are_those_of_the_evaluation_recipe():
    network = linear()
    train_network(network, *some_images(), epochs=3, generator=seeded(3))
    recipe = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4, "batch_size": 256, "milestones": (), "augment": "none"}
    torch.testing.assert_close(weights(network), plain_training(epochs=3, **recipe), rtol=1e-10, atol=1e-10)


def test_milestones():
    """One step an epoch, and a constant gradient: each step is as long as the learning rate of its epoch."""

    class Bias(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(2, dtype=torch.float64))

        def forward(self, images):
            return self.bias * torch.tensor([0.0, 1e-6], dtype=torch.float64) + 0 * images.flatten(1)[:, :2]

    def steps(milestones):
        network, seen = Bias(), [0.0]
        images = torch.zeros(2, 1, 2, 2, dtype=torch.float64)
        train_network(
            network,
            images,
            torch.zeros(2, dtype=torch.int64),
            epochs=5,
            generator=seeded(),
            lr=1.0,
            momentum=0,
            weight_decay=0,
            milestones=milestones,
            after_epoch=lambda epoch: seen.append(network.bias[1].item()),
        )
        return [(a - b) / 0.5e-6 for a, b in itertools.pairwise(seen)]

    assert steps(()) == pytest.approx([1] * 5)
    assert steps((2, 4)) == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    assert steps((1,)) == pytest.approx([1] + [0.1] * 4)
    assert steps((0,)) == pytest.approx([1] * 5)  # half of one epoch, rounded down, is no milestone
    assert steps((0, 3)) == pytest.approx([1, 1, 1, 0.1, 0.1])


@pytest.mark.parametrize("augment", ["none", DSA_STRATEGY])
def test_the_generator_decides_everything(augment):
    first, second, other = (weights(train(linear(), seed=s, augment=augment)) for s in (3, 3, 4))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("augment", ["none", DSA_STRATEGY])
def test_the_global_generator_is_left_alone(augment):
    network = linear()  # PyTorch builds it with the global generator
    with nothing_drawn():
        expected = weights(train(network, augment=augment))
    with global_seed(123):
        assert torch.equal(weights(train(linear(), augment=augment)), expected)


def test_images_and_labels_are_left_alone():
    images, labels = some_images()
    train_network(linear(), images, labels, epochs=2, generator=seeded(), augment=DSA_STRATEGY)
    assert torch.equal(images, some_images()[0])
    assert torch.equal(labels, some_images()[1])


def test_every_image_is_seen_once_an_epoch():
    """The classifier of an image's number: its weights move where an image was seen."""
    images = torch.eye(10, dtype=torch.float64).view(10, 1, 1, 10)
    network, rows = nn.Sequential(nn.Flatten(), nn.Linear(10, 2, bias=False)).double(), []
    network.register_forward_pre_hook(lambda _, args: rows.append(args[0].flatten(1).argmax(1).tolist()))
    train_network(network, images, torch.zeros(10, dtype=torch.int64), epochs=3, generator=seeded(), batch_size=4)
    assert [len(r) for r in rows] == [4, 4, 2] * 3
    epochs = [[i for row in rows[e : e + 3] for i in row] for e in (0, 3, 6)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_after_epoch_sees_the_network_of_each_epoch():
    network, seen = linear(), {}
    train(network, epochs=3, after_epoch=lambda epoch: seen.update({epoch: weights(network)}))
    assert list(seen) == [1, 2, 3]
    for epoch, found in seen.items():
        assert torch.equal(found, weights(train(linear(), epochs=epoch)))


def test_zero_epochs_change_nothing():
    assert torch.equal(weights(train(linear(), epochs=0)), weights(linear()))


def test_training_is_in_train_mode_whatever_is_done_between_epochs():
    network = Watched().eval()
    train(network, after_epoch=lambda epoch: network.eval())
    assert network.seen == [(True, True, 4), (True, True, 4), (True, True, 2)] * 2


# Augmentation


def test_augment_strategy():
    assert augment_strategy(True) == DSA_STRATEGY
    assert augment_strategy(False) == "none"
    assert augment_strategy("flip_crop") == "flip_crop"
    assert augment_strategy("none") == "none"


def test_augment_batch():
    images, _ = some_images()
    draw = seeded(5)
    assert augment_batch(images, "none", draw) is images
    assert torch.equal(draw.get_state(), seeded(5).get_state())  # nothing was drawn
    expected = apply_dsa(images, sample_dsa(images.shape, seeded(5), "crop", siamese=False))
    assert torch.equal(augment_batch(images, "crop", draw), expected)
    assert not torch.equal(expected, images)


def test_an_unknown_augmentation_is_refused():
    with pytest.raises(ValueError, match="unknown operation 'blur'"):
        train(linear(), augment="blur")


# Measuring


@pytest.mark.parametrize("batch_size", [1, 4, 10, 1024])
def test_accuracy_against_a_plain_count(batch_size):
    images, labels = some_images()
    network = linear()
    hits = 0
    for image, label in zip(images, labels.tolist(), strict=True):
        logits = network(image[None])[0].tolist()
        hits += logits.index(max(logits)) == label
    assert 0 < hits < 10
    found = accuracy(network, images, labels, batch_size)
    assert isinstance(found, float)
    assert found == hits / 10


def test_accuracy_at_both_ends():
    images, _ = some_images()
    network = linear()
    answers = network(images).argmax(1)
    assert accuracy(network, images, answers) == 1
    assert accuracy(network, images, (answers + 1) % NUM_CLASSES) == 0


@pytest.mark.parametrize("mode", [True, False])
def test_accuracy_is_measured_in_eval_mode_and_leaves_the_mode(mode):
    network = Watched().train(mode)
    accuracy(network, *some_images(), batch_size=4)
    assert network.seen == [(False, False, 4), (False, False, 4), (False, False, 2)]
    assert network.training is network.body.training is mode


@pytest.mark.parametrize("mode", [True, False])
def test_evaluating_restores_the_mode(mode):
    network = Watched().train(mode)
    with evaluating(network) as inside:
        assert inside is network
        assert not network.training
        assert not network.body.training
    assert network.training is network.body.training is mode
    with pytest.raises(RuntimeError, match="on purpose"), evaluating(network):
        raise RuntimeError("on purpose")
    assert network.training is mode


def test_features_of():
    images, _ = some_images()
    network = Watched()
    found = features_of(network, images, batch_size=4)
    assert not found.requires_grad
    assert network.seen == [(True, False, 4), (True, False, 4), (True, False, 2)]
    torch.testing.assert_close(found, network.body(images).detach(), rtol=1e-12, atol=1e-12)


# Several networks at once


def small_networks(name="ConvNet-3", count=3, **options):
    sizes = {"channels": 1, "num_classes": NUM_CLASSES, "image_size": 8, "width": 4}
    return [build_network(name, generator=seeded(k), **sizes, **options).double() for k in range(count)]


def small_images(n=10):
    return torch.randn(n, 1, 8, 8, generator=seeded(5), dtype=torch.float64), torch.arange(n) % NUM_CLASSES


@pytest.mark.parametrize("name", ["ConvNet-3", "VGG-11", "ResNet-18", "AlexNet"])
@pytest.mark.parametrize("augment", ["none", DSA_STRATEGY])
def test_networks_trained_together_are_those_trained_alone(name, augment):
    recipe = {"epochs": 3, "lr": 0.05, "momentum": 0.8, "weight_decay": 0.01, "batch_size": 4, "milestones": [1, 2]}
    alone, together = small_networks(name), small_networks(name)
    for k, network in enumerate(alone):
        train_network(network, *small_images(), generator=seeded(k), augment=augment, **recipe)
    generators = [seeded(k) for k in range(len(together))]
    train_networks(together, *small_images(), generators=generators, augment=augment, **recipe)
    for a, b, start in zip(alone, together, small_networks(name), strict=True):
        assert torch.allclose(weights(a), weights(b), rtol=1e-8, atol=1e-9)
        assert not torch.allclose(weights(b), weights(start), atol=1e-3)


def test_soft_labels_by_one_step_by_hand():
    """The gradient of the soft cross-entropy is (p - q) x, and one-hot rows are hard labels."""
    images, labels = some_images(4)
    soft = torch.randn(4, NUM_CLASSES, generator=seeded(5), dtype=torch.float64).softmax(1)
    step = {"epochs": 1, "lr": 0.5, "momentum": 0.0, "weight_decay": 0.0, "batch_size": 4}
    network, (w, b) = linear(), (p.detach().clone() for p in linear().parameters())
    train_network(network, images, soft, generator=seeded(3), **step)
    x = images.flatten(1)
    error = ((x @ w.T + b).softmax(1) - soft) / 4
    assert torch.allclose(weights(network), torch.cat([(w - 0.5 * error.T @ x).flatten(), b - 0.5 * error.sum(0)]))
    one_hot, hard = linear(), linear()
    train_network(one_hot, images, F.one_hot(labels, NUM_CLASSES).double(), generator=seeded(3), **step)
    train_network(hard, images, labels, generator=seeded(3), **step)
    assert torch.allclose(weights(one_hot), weights(hard))


def test_networks_trained_together_on_soft_labels_are_those_trained_alone():
    recipe = {"epochs": 2, "lr": 0.05, "momentum": 0.8, "weight_decay": 0.01, "batch_size": 4, "milestones": []}
    images, _ = small_images()
    soft = torch.randn(len(images), NUM_CLASSES, generator=seeded(5), dtype=torch.float64).softmax(1)
    alone, together = small_networks(), small_networks()
    for k, network in enumerate(alone):
        train_network(network, images, soft, generator=seeded(k), augment=DSA_STRATEGY, **recipe)
    train_networks(together, images, soft, generators=[seeded(k) for k in range(3)], augment=DSA_STRATEGY, **recipe)
    for a, b in zip(alone, together, strict=True):
        assert torch.allclose(weights(a), weights(b), rtol=1e-8, atol=1e-9)


def test_one_network_needs_no_company():
    (alone,), (together,) = small_networks(count=1), small_networks(count=1)
    train_network(alone, *small_images(), epochs=2, generator=seeded(0))
    train_networks([together], *small_images(), epochs=2, generators=[seeded(0)])
    assert torch.equal(weights(alone), weights(together))


def test_batch_norm_is_not_trained_together():
    with pytest.raises(ValueError, match="batch norm"):
        train_networks(small_networks(count=2, norm="batch"), *small_images(), generators=[seeded(0), seeded(1)])


def test_augment_together_is_augment_batch_of_each():
    images = torch.randn(8, 5, 1, 8, 8, generator=seeded(2))
    together = augment_together(images, DSA_STRATEGY, [seeded(k) for k in range(8)])
    for k in range(8):
        assert torch.equal(together[k], augment_batch(images[k], DSA_STRATEGY, seeded(k)))


def test_group_size():
    network, images = small_networks(count=1)[0], small_images(10)[0]
    assert group_size(network, images) == 1  # on a CPU nothing is won
    on_gpu = type("Images", (), {"device": torch.device("cuda"), "__len__": lambda self: self.shape[0]})()
    for shape, batch_size, size in (
        ((10, 3, 32, 32), 256, 102),
        ((10, 3, 32, 32), 4, 256),
        ((500, 3, 32, 32), 256, 4),
        ((10, 3, 64, 64), 256, 25),  # four times the pixels
        ((500, 3, 256, 256), 256, 1),
    ):
        on_gpu.shape = shape
        assert group_size(network, on_gpu, batch_size) == size
    assert group_size(small_networks(count=1, norm="batch")[0], on_gpu) == 1
