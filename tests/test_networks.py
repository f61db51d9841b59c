"""The networks against closed-form sizes, a plain transcription, and what every random network must obey."""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made import global_seed, nothing_drawn, seeded
from torch import nn

import ddlib
import ddlib.networks
from ddlib.networks import NETWORKS, Architecture, AveragePool, build_network

SIZES = (16, 28, 32, 48, 64)


def images(n, channels, size, seed=1):
    return torch.randn(n, channels, size, size, generator=seeded(seed))


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def plain_convnet_3(channels=3, border=0, norm="instance"):
    """ConvNet-3 of width 128 for 32x32 images and 10 classes, layer by layer, without a table."""
    layers = []
    for channels_in, padding in ((channels, 1 + border), (128, 1), (128, 1)):
        layers += [
            nn.Conv2d(channels_in, 128, kernel_size=3, padding=padding),
            nn.GroupNorm(128, 128) if norm == "instance" else nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.AvgPool2d(kernel_size=2, stride=2),
        ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 4 * 4, 10))


# Plain forms of the other networks: images, and the parameters in the reference's order as an iterator.


def plain_norm(x, weights):
    return F.group_norm(x, x.shape[1], next(weights), next(weights))


def plain_vgg_11(x, weights):
    for convolutions in (1, 1, 2, 2, 2):
        for _ in range(convolutions):
            x = plain_norm(F.conv2d(x, next(weights), next(weights), padding=1), weights).relu()
        x = F.max_pool2d(x, 2)
    return F.linear(x.flatten(1), next(weights), next(weights))


def plain_resnet_18(x, weights):
    x = plain_norm(F.conv2d(x, next(weights), padding=1), weights).relu()
    for stride in (1, 1, 2, 1, 2, 1, 2, 1):
        y = plain_norm(F.conv2d(x, next(weights), stride=stride, padding=1), weights).relu()
        y = plain_norm(F.conv2d(y, next(weights), padding=1), weights)
        if stride == 2:
            x = plain_norm(F.conv2d(x, next(weights), stride=2), weights)
        x = (x + y).relu()
    return F.linear(F.avg_pool2d(x, 4).flatten(1), next(weights), next(weights))


def plain_alexnet(x, weights):
    for padding, pool in ((2, True), (2, True), (1, False), (1, False), (1, True)):
        x = F.conv2d(x, next(weights), next(weights), padding=padding).relu()
        x = F.max_pool2d(x, 2) if pool else x
    return F.linear(x.flatten(1), next(weights), next(weights))


def randomised(network):
    """The same network with every parameter and running statistic away from its starting value."""
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5, generator=seeded(tensor.numel()))
    return network


# Closed forms of the number of parameters, with w the width and s the side of the last map.


def conv(channels_in, channels, kernel=3):
    return kernel**2 * channels_in * channels + channels


def convnet_count(depth, channels, w, s, classes):
    return conv(channels, w) + (depth - 1) * conv(w, w) + depth * 2 * w + (w * s**2 + 1) * classes


def vgg_count(channels, w, s, classes):
    a, b, c, d = w // 2, w, 2 * w, 4 * w
    convolutions = conv(channels, a) + conv(a, b) + conv(b, c) + conv(c, c) + conv(c, d) + 3 * conv(d, d)
    return convolutions + 2 * (a + b + 2 * c + 4 * d) + (d * s**2 + 1) * classes


def resnet_count(channels, w, s, classes):
    a = w // 2
    total = 9 * channels * a + 2 * a + 2 * (2 * 9 * a * a + 4 * a)  # stem, first stage
    for c in (a, 2 * a, 4 * a):  # from c to 2c channels
        first_block = 9 * c * 2 * c + 9 * (2 * c) ** 2 + c * 2 * c + 6 * 2 * c
        second_block = 2 * 9 * (2 * c) ** 2 + 4 * 2 * c
        total += first_block + second_block
    return total + (8 * a * s**2 + 1) * classes


def alexnet_count(channels, w, s, classes):
    a, b, c = w, 3 * w // 2, 2 * w
    convolutions = conv(channels, a, 5) + conv(a, b, 5) + conv(b, c) + conv(c, b) + conv(b, b)
    return convolutions + (b * s**2 + 1) * classes


COUNTS = {
    "ConvNet-3": lambda *sizes: convnet_count(3, *sizes),
    "ConvNet-4": lambda *sizes: convnet_count(4, *sizes),
    "VGG-11": vgg_count,
    "ResNet-18": resnet_count,
    "AlexNet": alexnet_count,
}
# side of the pooled map in front of the classifier, for images of 16, 28 (colour), 32, 48 and 64 pixels
LAST_MAPS = {
    "ConvNet-3": (2, 3, 4, 6, 8),
    "ConvNet-4": (1, 1, 2, 3, 4),
    "VGG-11": (1, 1, 1, 1, 2),
    "ResNet-18": (1, 1, 1, 1, 2),
    "AlexNet": (2, 3, 4, 6, 8),
}


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("ConvNet-3", 320_010),
        ("ConvNet-4", 452_490),
        ("VGG-11", 9_231_114),
        ("ResNet-18", 11_173_962),
        ("AlexNet", 1_872_202),
    ],
)
def test_parameter_count_of_the_reference(name, known):
    assert count(build_network(name, 3, 10, 32)) == known
    assert COUNTS[name](3, 128, LAST_MAPS[name][SIZES.index(32)], 10) == known


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", SIZES)
def test_shapes_and_counts(name, size):
    network = build_network(name, 3, 7, size, width=16, generator=seeded())
    last = LAST_MAPS[name][SIZES.index(size)]
    assert count(network) == COUNTS[name](3, 16, last, 7)
    x = images(2, 3, size)
    features = network.features(x)
    assert features.shape == (2, network.classifier.in_features)
    assert torch.equal(network.classifier(features), network(x))
    assert network(x).shape == (2, 7)
    assert network.classifier.in_features == {"V": 64, "R": 64, "A": 24, "C": 16}[name[0]] * last**2


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, *SIZES])
def test_logits_depend_on_the_images(name, channels, size):
    """No norm layer may erase its input, as instance norm does on maps of 1x1."""
    network = build_network(name, channels, 10, size, width=32, generator=seeded())
    x = images(8, channels, size).requires_grad_()
    logits = network(x)
    assert logits.std(0).mean() > 0.01 * logits.std()
    (gradient,) = torch.autograd.grad(logits.square().sum(), x)
    assert (gradient.abs().amax((1, 2, 3)) > 0).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_only_grey_28_is_padded_to_32(name):
    first = {size: build_network(name, 1, 10, size, width=8, generator=seeded()).body[0] for size in (28, 32)}
    map_size = first[28](images(1, 1, 28)).shape[-1]
    assert map_size == (28 if name == "ResNet-18" else 32)
    assert first[32](images(1, 1, 32)).shape[-1] == 32
    colour = build_network(name, 3, 10, 28, width=8, generator=seeded())
    assert colour.body[0](images(1, 3, 28)).shape[-1] == 28
    grey = build_network(name, 1, 10, 28, width=8, generator=seeded())
    assert grey(images(2, 1, 28)).shape == (2, 10)


@pytest.mark.parametrize("name", NETWORKS)
def test_norms(name):
    kinds = {"instance": nn.GroupNorm, "batch": nn.BatchNorm2d, "none": ()}
    counts = {}
    for norm, kind in kinds.items():
        network = build_network(name, 3, 10, 32, width=16, norm=norm, generator=seeded())
        norms = [layer for layer in network.modules() if isinstance(layer, nn.GroupNorm | nn.BatchNorm2d)]
        assert all(isinstance(layer, kind) for layer in norms)
        assert bool(norms) == (norm != "none")
        counts[norm] = count(network) - sum(layer.weight.numel() + layer.bias.numel() for layer in norms)
        assert network(images(4, 3, 32)).isfinite().all()
    assert len(set(counts.values())) == 1
    default = build_network(name, 3, 10, 32, width=16, generator=seeded())
    expected = "none" if name == "AlexNet" else "instance"
    same = build_network(name, 3, 10, 32, width=16, norm=expected, generator=seeded())
    assert str(default) == str(same)


def load_by_order(network, state_dict):
    """The reference's keys have other names, but the same order and shapes."""
    own = network.state_dict()
    assert [value.shape for value in own.values()] == [value.shape for value in state_dict.values()]
    network.load_state_dict(dict(zip(own, state_dict.values(), strict=True)))


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize(("channels", "size", "border"), [(3, 32, 0), (1, 28, 2)])
def test_a_state_dict_with_other_names_loads_by_order(norm, channels, size, border):
    plain = randomised(plain_convnet_3(channels, border, norm)).eval()
    network = build_network("ConvNet-3", channels, 10, size, norm=norm, generator=seeded()).eval()
    load_by_order(network, plain.state_dict())
    x = images(4, channels, size)
    torch.testing.assert_close(network(x), plain(x))
    torch.testing.assert_close(network.features(x), plain[:-1](x))


@pytest.mark.parametrize(
    ("name", "plain"), [("VGG-11", plain_vgg_11), ("ResNet-18", plain_resnet_18), ("AlexNet", plain_alexnet)]
)
@pytest.mark.parametrize("size", [32, 64])
def test_against_plain_forms(name, plain, size):
    network = build_network(name, 3, 10, size, width=16, generator=seeded())
    x, weights = images(3, 3, size), network.parameters()
    torch.testing.assert_close(network(x), plain(x, weights), rtol=1e-4, atol=1e-6)
    assert next(weights, None) is None


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_the_state_is_all_of_a_network(name, norm):
    source = randomised(build_network(name, 3, 10, 32, width=16, norm=norm)).eval()
    network = build_network(name, 3, 10, 32, width=16, norm=norm, generator=seeded()).eval()
    x = images(2, 3, 32)
    assert not torch.equal(network(x), source(x))
    load_by_order(network, source.state_dict())
    assert torch.equal(network(x), source(x))


def test_a_new_row_is_all_a_network_needs(monkeypatch, tiny):
    """With the norm of its row; named in errors; good to distil with and to judge by."""
    row = Architecture(partial(ddlib.networks.chain, ((64, 3), "max", (128, 5), "avg")), norm="batch")
    monkeypatch.setitem(NETWORKS, "dummy", row)
    network = build_network("dummy", 1, 3, 8, width=32, generator=seeded())
    kinds = [type(layer).__name__ for layer in network.body]
    convolution = ["Conv2d", "BatchNorm2d", "ReLU"]
    assert kinds == [*convolution, "MaxPool2d", *convolution, "AveragePool"]
    assert network.classifier.in_features == 32 * 2 * 2
    assert network(tiny.test.images).shape == (18, 3)
    assert build_network("dummy", 1, 3, 8, norm="none").body[1].__class__.__name__ == "ReLU"
    with pytest.raises(ValueError, match=r"unknown network 'another'; known: .*, dummy"):
        build_network("another", 1, 3, 8)
    made = ddlib.distill(tiny, ipc=1, iterations=1, base_network="dummy", width=8).synthetic
    assert made.provenance["base_network"] == "dummy"
    table = ddlib.evaluate(made, tiny, ["dummy"], num_eval=1, eval_epochs=1, width=8)
    assert table["architecture"].tolist() == ["dummy"]


def test_the_initial_weights_follow_the_default_law_of_pytorch():
    with global_seed(5):
        plain = plain_convnet_3()
    network = build_network("ConvNet-3", 3, 10, 32, generator=seeded(5))
    for ours, theirs in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_batch_norm_starts_as_the_identity():
    network = build_network("AlexNet", 3, 10, 32, width=16, norm="batch", generator=seeded())
    for layer in (layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)):
        assert (layer.weight == 1).all()
        assert (layer.bias == 0).all()
        assert (layer.running_mean == 0).all()
        assert (layer.running_var == 1).all()
        assert layer.num_batches_tracked == 0


@pytest.mark.parametrize("name", NETWORKS)
def test_a_seed_fixes_the_weights_and_the_global_generator_rests(name):
    with global_seed(1), nothing_drawn():
        first = build_network(name, 3, 10, 32, width=16, generator=seeded(3))
    with global_seed(2):
        second = build_network(name, 3, 10, 32, width=16, generator=seeded(3))
    other = build_network(name, 3, 10, 32, width=16, generator=seeded(4))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.classifier.weight, other.classifier.weight)


def test_one_generator_gives_one_network_after_another():
    generator = seeded()
    first, second = (build_network("ConvNet-3", 3, 10, 32, width=16, generator=generator) for _ in range(2))
    assert not torch.equal(first.classifier.weight, second.classifier.weight)


def test_without_a_generator_the_global_one_is_drawn_from():
    with global_seed(7):
        first, second = (build_network("ConvNet-3", 3, 10, 32, width=16) for _ in range(2))
    third = build_network("ConvNet-3", 3, 10, 32, width=16, generator=seeded(7))
    assert torch.equal(first.classifier.weight, third.classifier.weight)
    assert not torch.equal(first.classifier.weight, second.classifier.weight)


def test_a_gpu_gets_the_same_weights(gpu):
    here = build_network("ConvNet-3", 3, 10, 32, width=16, generator=seeded())
    there = build_network("ConvNet-3", 3, 10, 32, width=16, generator=seeded(), device="cuda")
    assert all(torch.equal(a, b.cpu()) for a, b in zip(here.parameters(), there.parameters(), strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"name": "LeNet"},
            "unknown network 'LeNet'; known: ConvNet-3, ConvNet-4, VGG-11, ResNet-18, AlexNet",
        ),
        ({"norm": "layer"}, "unknown norm 'layer'; known: instance, batch, none"),
        ({"channels": 0}, "channels is 0; ConvNet-3 needs a whole number of 1 or more"),
        ({"num_classes": -1}, "num_classes is -1"),
        ({"num_classes": 2.5}, "num_classes is 2.5"),
        ({"image_size": 7}, "image_size is 7; ConvNet-3 needs a whole number of 8 or more"),
        ({"image_size": (32, 32)}, r"image_size is \(32, 32\)"),
        ({"name": "VGG-11", "width": 1}, "width is 1; VGG-11 needs a whole number of 2 or more"),
    ],
)
def test_impossible_requests(change, message):
    request = {"name": "ConvNet-3", "channels": 3, "num_classes": 10, "image_size": 32}
    with pytest.raises(ValueError, match=message):
        build_network(**(request | change))


def test_narrowest_networks_and_numpy_sizes():
    for name in NETWORKS:
        network = build_network(name, np.int64(3), 10, np.int64(16), width=2, generator=seeded())
        assert network(images(2, 3, 16)).isfinite().all()


# The fast ways of the CPU: chunks, and pooling by a matrix product


@pytest.mark.parametrize("side", [2, 4, 7, 8, 32])
def test_average_pool_is_pytorchs(side):
    maps = torch.randn(3, 5, side, side, generator=torch.Generator().manual_seed(side), dtype=torch.float64)
    assert torch.allclose(AveragePool()(maps), nn.AvgPool2d(2)(maps), rtol=1e-12, atol=1e-12)


def test_average_pool_takes_maps_in_any_memory_format():
    maps = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
    assert torch.allclose(AveragePool()(maps), nn.AvgPool2d(2)(maps), atol=1e-6)


def test_average_pool_differentiates_twice():
    maps = torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(AveragePool(), maps)
    assert torch.autograd.gradgradcheck(lambda x: AveragePool()(x) ** 2, maps)


def in_chunks(monkeypatch, network, images, count):
    """Make ``network`` see ``images`` in ``count`` chunks."""
    first = network.body[0].out_channels * images[:, 0].numel() * images.element_size()
    monkeypatch.setattr(ddlib.networks, "CHUNK_BYTES", -(-first // count))
    assert len(network.chunks(images)) == count


@pytest.mark.parametrize("name", list(NETWORKS))
def test_chunks_change_nothing(name, monkeypatch):
    network = build_network(name, 3, 4, 16, width=8, generator=torch.Generator().manual_seed(0)).double()
    images = torch.randn(10, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    inputs = [images, *network.parameters()]

    def twice():
        loss = network(images).square().sum()
        first = torch.autograd.grad(loss, inputs, create_graph=True)
        second = torch.autograd.grad(first[0].square().sum(), inputs, allow_unused=True)
        return [loss, *first, *(gradient for gradient in second if gradient is not None)]

    whole = twice()
    in_chunks(monkeypatch, network, images, 4)
    for a, b in zip(twice(), whole, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9 * b.abs().max().item())


def test_batch_norm_in_training_sees_the_whole_batch(monkeypatch):
    network = build_network("ConvNet-3", 1, 2, 8, width=4, norm="batch")
    images = torch.randn(6, 1, 8, 8)
    network.eval()
    in_chunks(monkeypatch, network, images, 3)
    network.train()
    assert len(network.chunks(images)) == 1


def test_no_images_give_no_features():
    assert build_network("ConvNet-3", 1, 2, 8, width=4).features(torch.empty(0, 1, 8, 8)).shape == (0, 4)
