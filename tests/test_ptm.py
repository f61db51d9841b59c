"""A PTM is frozen, and its adapter converts images as a plain version does, one pixel at a time."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from conftest import separable_dataset

from ddlib.data.dataset import ImageFormat, Split
from ddlib.losses import class_sums
from ddlib.networks import build_network
from ddlib.ptms.ptm import CHUNK, PTM, Adapter


def untrained(dataset, norm=None, **about):
    draw = torch.Generator().manual_seed(0)
    sizes = dataset.channels, dataset.num_classes, dataset.image_size
    network = build_network("ConvNet-3", *sizes, width=4, norm=norm, generator=draw)
    return PTM(network, "ConvNet-3", dataset.name, dataset.class_names, dataset.format, "hash", **about)


# The frozen network


def test_no_gradient_reaches_the_weights_while_it_reaches_the_images(tiny, tiny_rgb):
    for ptm in (untrained(tiny), untrained(tiny_rgb).adapted_to(tiny)):
        assert not ptm.network.training
        assert not any(parameter.requires_grad for parameter in ptm.network.parameters())
        images = tiny.train.images[:4].clone().requires_grad_()
        ptm.logits(images).square().sum().backward()
        assert images.grad.abs().amax((1, 2, 3)).min() > 0
        assert all(parameter.grad is None for parameter in ptm.network.parameters())


def test_a_look_changes_no_running_statistics(tiny):
    """Teachers in train mode are a defect of the field: their batch norm would follow the synthetic images."""
    ptm = untrained(tiny, norm="batch")
    before = {name: value.clone() for name, value in ptm.network.state_dict().items()}
    whole = ptm.logits(5 + 3 * tiny.train.images)
    assert all(torch.equal(value, before[name]) for name, value in ptm.network.state_dict().items())
    torch.testing.assert_close(ptm.logits(5 + 3 * tiny.train.images[:1]), whole[:1])  # alone as in company


def test_logits_are_the_classifier_of_the_features(tiny):
    ptm = untrained(tiny)
    features = ptm.features(tiny.test.images)
    assert features.shape == (18, 4)
    assert torch.equal(ptm.logits(tiny.test.images), ptm.network(tiny.test.images))
    assert torch.equal(ptm.classify(features), ptm.network(tiny.test.images))


def test_features_of_many_images_are_those_of_each(tiny):
    ptm = untrained(tiny)
    images = tiny.train.images.repeat(15, 1, 1, 1).requires_grad_()
    assert len(images) > CHUNK
    features = ptm.features_of(images)
    assert not features.requires_grad
    torch.testing.assert_close(features, ptm.features(images).detach())


def test_name_and_size(tiny):
    assert untrained(tiny, index=2, epoch=7).name == "ConvNet-3 #2 @7"
    assert untrained(tiny).name == "ConvNet-3 #0"
    convolutions = (9 * 1 + 1) * 4 + 2 * (9 * 4 + 1) * 4
    assert untrained(tiny).size_bytes == 4 * (convolutions + 3 * 2 * 4 + (4 + 1) * 3)  # float32; norms; classifier
    with_buffers = untrained(tiny, norm="batch").size_bytes - untrained(tiny).size_bytes
    assert with_buffers == 3 * (2 * 4 * 4 + 8)  # running mean and variance, and a counter of batches


# Class sums


def test_class_sums_equal_the_plain_computation(tiny):
    ptm = untrained(tiny)
    sums, counts = ptm.class_sums(tiny)
    features = ptm.features(tiny.train.images).double().numpy()
    plain = np.zeros((3, 4))
    for feature, label in zip(features, tiny.train.labels.tolist(), strict=True):
        plain[label] += feature / math.sqrt((feature**2).sum())
    np.testing.assert_allclose(sums, plain, rtol=1e-5)
    assert counts.tolist() == [12, 12, 12]


def test_class_sums_are_computed_once_for_each_data_set(tiny, monkeypatch):
    ptm, other = untrained(tiny), separable_dataset(seed=5)
    first, second = ptm.class_sums(tiny), ptm.class_sums(other)
    assert not torch.allclose(first.sums, second.sums)
    assert ptm.class_sums(tiny) is first
    monkeypatch.setattr(ptm.network, "features", None)
    assert ptm.class_sums(tiny) is first
    assert ptm.class_sums(dataclasses.replace(other, name="the same images")) is second


def test_class_sums_are_of_this_ptm_as_it_is_adapted(tiny, tiny_rgb):
    ptm = untrained(tiny_rgb)
    ptm.class_sums(tiny_rgb)
    adapted = ptm.adapted_to(tiny)
    expected = class_sums(adapted.features(tiny.train.images), tiny.train.labels, 3)
    torch.testing.assert_close(adapted.class_sums(tiny).sums, expected.sums)
    assert list(ptm._sums) == [(tiny_rgb.hash, tiny_rgb.device, "float32")]


# Adapting


def test_the_same_format_needs_no_adapter(tiny, tiny_rgb):
    ptm = untrained(tiny)
    assert ptm.adapted_to(tiny) is ptm
    assert ptm.adapted_to(separable_dataset("other images", seed=9)) is ptm
    adapted = ptm.adapted_to(tiny_rgb)
    assert adapted is not ptm
    assert adapted.adapted_to(tiny_rgb) is adapted
    assert adapted.network is ptm.network
    assert (adapted.given, adapted.expects) == (tiny_rgb.format, ptm.expects)
    assert ptm.given is None


def test_an_adapted_ptm_comes_back_to_its_own_images(tiny, tiny_rgb):
    ptm = untrained(tiny)
    back = ptm.adapted_to(tiny_rgb).adapted_to(tiny)
    torch.testing.assert_close(back.logits(tiny.test.images), ptm.logits(tiny.test.images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("change", ["mean", "std"])
def test_another_normalisation_is_another_format(tiny, change):
    """The same pixels, normalised in another way, give the same logits."""
    ptm = untrained(tiny, norm="none")  # instance norm would forgive a wrong std
    moment = {change: (getattr(tiny.format, change)[0] + 0.1,)}
    other = dataclasses.replace(tiny, format=dataclasses.replace(tiny.format, **moment))
    images = other.normalise(tiny.denormalise(tiny.test.images))
    other = dataclasses.replace(other, train=Split(images, tiny.test.labels))
    adapted = ptm.adapted_to(other)
    assert (ptm.logits(images) - ptm.logits(tiny.test.images)).abs().max() > 1e-3
    torch.testing.assert_close(adapted.logits(images), ptm.logits(tiny.test.images), rtol=1e-4, atol=1e-5)


def test_format_of_a_data_set(tiny_rgb):
    found = tiny_rgb.format
    assert (found.channels, found.image_size) == (3, 16)
    np.testing.assert_allclose([found.mean, found.std], [[0.3, 0.4, 0.5], [0.2, 0.225, 0.25]], rtol=1e-6)


GREY = ImageFormat(1, 8, (0.3,), (0.2,))
RGB = ImageFormat(3, 8, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


def plain_resize(channel, size):
    """Bilinear with antialias: each new pixel is a mean of old ones, weighted by a triangle about its centre."""
    out, ratio = np.zeros((size, size)), len(channel) / size
    width = max(ratio, 1)  # the triangle spans as many old pixels as a new one covers, but at least one
    for row, column in np.ndindex(size, size):
        weights = np.zeros_like(channel)
        for h, w in np.ndindex(channel.shape):
            rise = max(0, 1 - abs(h + 0.5 - (row + 0.5) * ratio) / width)
            weights[h, w] = rise * max(0, 1 - abs(w + 0.5 - (column + 0.5) * ratio) / width)
        out[row, column] = (weights * channel).sum() / weights.sum()
    return out


def plain_adapter(image, given, expected):
    """One image [C, H, W] as numpy."""
    pixels = [channel * std + mean for channel, mean, std in zip(image, given.mean, given.std, strict=True)]
    if len(pixels) == 3 and expected.channels == 1:
        pixels = [0.299 * pixels[0] + 0.587 * pixels[1] + 0.114 * pixels[2]]
    if len(pixels) == 1 and expected.channels == 3:
        pixels = pixels * 3
    pixels = [plain_resize(channel, expected.image_size) for channel in pixels]
    return np.stack([(p - mean) / std for p, mean, std in zip(pixels, expected.mean, expected.std, strict=True)])


@pytest.mark.parametrize("given", [GREY, RGB])
@pytest.mark.parametrize("expected", [GREY, RGB])
@pytest.mark.parametrize("size", [8, 16, 4, 11])
def test_adapter_against_the_plain_version(given, expected, size):
    expected = dataclasses.replace(expected, image_size=size, mean=tuple(m + 0.1 for m in expected.mean))
    images = torch.randn(3, given.channels, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain = np.stack([plain_adapter(image, given, expected) for image in images.numpy()])
    adapted = Adapter(given, expected)(images)
    np.testing.assert_allclose(adapted, plain, rtol=1e-6, atol=1e-6)  # moments are float32


def test_one_white_pixel_by_hand():
    """Grey 0.3 and std 0.2: a normalised 3.5 is white, and white is (1 - 0.4) / 0.2 = 3 in the first channel."""
    white = Adapter(GREY, RGB)(torch.full((1, 1, 8, 8), 3.5))
    torch.testing.assert_close(white[0, :, 0, 0], torch.tensor([3.0, 2.0, 0.4 / 0.3]))


def test_gradients_pass_the_adapter():
    images = torch.randn(2, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    for expected in (GREY, dataclasses.replace(RGB, image_size=4)):
        assert torch.autograd.gradcheck(Adapter(RGB, expected).double(), (images,))


def test_the_adapter_lies_where_the_images_are(tiny, tiny_rgb, gpu):
    ptm = untrained(tiny)
    images = tiny_rgb.to("cuda").test.images
    assert ptm.adapted_to(tiny_rgb.to("cuda")).logits(images).device.type == "cuda"
