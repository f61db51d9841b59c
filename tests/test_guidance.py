"""Guidance: PTMs and alphas become losses, against the plain formulas over the whole real set."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from ddlib.guidance import GUIDANCE, make_signals

LABELS = torch.tensor([0, 0, 1, 1, 2, 2])


def synthetic(dataset, seed=0):
    shape = (len(LABELS), *dataset.train.images.shape[1:])
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def plain_clom(ptm, images):
    """Mean over the synthetic set of minus the log-probability of the label."""
    losses = [-F.log_softmax(ptm.logits(image[None]), 1)[0, label] for image, label in zip(images, LABELS, strict=True)]
    return torch.stack(losses).mean()


def plain_cclom(ptm, images, dataset):
    """sum(D * M) / sum(D) over all pairs of a synthetic and a real image."""
    same = total = 0
    real = [ptm.features(image[None])[0] for image in dataset.train.images]
    for image, label in zip(images, LABELS, strict=True):
        feature = ptm.features(image[None])[0]
        for other, real_label in zip(real, dataset.train.labels, strict=True):
            distance = 1 - F.cosine_similarity(feature, other, dim=0)
            total = total + distance
            same = same + distance * (label == real_label)
    return same / total


@pytest.mark.parametrize("guidance", ["clom", "cclom", "both"])
def test_loss_and_gradient_equal_the_plain_formulas(tiny, tiny_ptms, guidance):
    images = synthetic(tiny).requires_grad_()
    signals = make_signals(tiny_ptms, tiny, LABELS, guidance, 3.0, 50.0)
    assert [signal.ptm for signal in signals] == tiny_ptms
    for signal, ptm in zip(signals, tiny_ptms, strict=True):
        expected = 3.0 * plain_clom(ptm, images) * (guidance != "cclom")
        expected = expected + 50.0 * plain_cclom(ptm, images, tiny) * (guidance != "clom")
        found = signal.loss(images)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        gradient, plain = (torch.autograd.grad(loss, images)[0] for loss in (found, expected))
        assert plain.abs().max() > 1e-3
        torch.testing.assert_close(gradient, plain, rtol=1e-3, atol=1e-4)


def test_a_ptm_of_another_domain_gives_cclom_through_its_adapter(tiny_rgb, tiny_ptms):
    """Three other classes, RGB, 16 x 16: the features are those of the converted images."""
    images = synthetic(tiny_rgb).requires_grad_()
    (signal,) = make_signals(tiny_ptms[:1], tiny_rgb, LABELS, "cclom", 1.0, 7.0)
    adapted = tiny_ptms[0].adapted_to(tiny_rgb)
    torch.testing.assert_close(signal.loss(images), 7.0 * plain_cclom(adapted, images, tiny_rgb), rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(signal.loss(images), images)
    assert gradient.abs().amax((1, 2, 3)).min() > 0


def test_a_ptm_of_other_images_of_the_same_classes_may_give_clom(tiny, tiny_rgb, tiny_ptms):
    same_classes = dataclasses.replace(tiny_rgb, class_names=tiny.class_names)
    (signal,) = make_signals(tiny_ptms[:1], same_classes, LABELS, "clom", 2.0, 0.0)
    images = synthetic(tiny_rgb)
    expected = 2.0 * plain_clom(tiny_ptms[0].adapted_to(tiny_rgb), images)
    torch.testing.assert_close(signal.loss(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("guidance", ["clom", "cclom", "both"])
def test_one_forward_pass_over_the_synthetic_set(tiny, tiny_ptms, guidance):
    signals = make_signals(tiny_ptms, tiny, LABELS, guidance, 1.0, 1.0)
    passes = []
    hook = tiny_ptms[1].network.body.register_forward_hook(lambda *args: passes.append(len(args[2])))
    try:
        signals[1].loss(synthetic(tiny))
    finally:
        hook.remove()
    assert passes == [len(LABELS)]


def test_outputs_are_what_the_guidance_asks_for(tiny, tiny_ptms):
    images = synthetic(tiny)
    for guidance, losses in GUIDANCE.items():
        for signal in make_signals(tiny_ptms[:1], tiny, LABELS, guidance, 1.0, 1.0):
            logits, distances = signal.outputs(images)
            assert (logits is not None) == ("clom" in losses) == (signal.alpha_clom is not None)
            assert (distances is not None) == ("cclom" in losses) == (signal.alpha_cclom is not None)
    (both,) = make_signals(tiny_ptms[:1], tiny, LABELS, "both", 1.0, 1.0)
    logits, (same, total) = both.outputs(images)
    torch.testing.assert_close(logits, tiny_ptms[0].logits(images))
    torch.testing.assert_close(same / total, plain_cclom(tiny_ptms[0], images, tiny), rtol=1e-4, atol=1e-5)
    assert 0 < same < total < 2 * 6 * 36


def test_an_alpha_of_zero_is_a_loss_of_zero(tiny, tiny_ptms):
    (signal,) = make_signals(tiny_ptms[:1], tiny, LABELS, "both", 0.0, 0.0)
    images = synthetic(tiny).requires_grad_()
    loss = signal.loss(images)
    assert loss == 0
    assert torch.autograd.grad(loss, images)[0].abs().max() == 0


def test_alpha_of_each_architecture(tiny, tiny_ptms):
    pool = [tiny_ptms[0], dataclasses.replace(tiny_ptms[1], architecture="AlexNet")]
    alphas = {"ConvNet-3": 1000.0, "AlexNet": 100.0, "VGG-11": 10.0}
    for signals in (
        make_signals(pool, tiny, LABELS, "both", alphas, 5.0),
        make_signals(pool, tiny, LABELS, "both", 5.0, alphas),
    ):
        found = {(signal.alpha_clom, signal.alpha_cclom) for signal in signals}
        assert found in ({(1000.0, 5.0), (100.0, 5.0)}, {(5.0, 1000.0), (5.0, 100.0)})
    for guidance in ("clom", "both"):
        with pytest.raises(ValueError, match="alpha names ConvNet-3, but one of the PTMs is a AlexNet"):
            make_signals(pool, tiny, LABELS, guidance, {"ConvNet-3": 1.0}, 1.0)
    (first, second) = make_signals(pool, tiny, LABELS, "cclom", {"ConvNet-3": 1.0}, 2.0)  # that alpha is not asked for
    assert (first.alpha_clom, second.alpha_cclom) == (None, 2.0)


def test_weighting_sees_the_train_accuracy(tiny, tiny_ptms):
    ptm = dataclasses.replace(tiny_ptms[0], accuracy=0.9, train_accuracy=0.625)
    (signal,) = make_signals([ptm], tiny, LABELS, "clom", 1.0, 1.0)
    assert signal.accuracy == 0.625


def test_no_guidance_needs_nothing(tiny, tiny_ptms, tiny_rgb):
    assert make_signals([], tiny, LABELS, "none", 1.0, 1.0) == []
    assert make_signals(tiny_ptms, tiny_rgb, LABELS, "none", {}, {}) == []


# Errors


def test_unknown_guidance_lists_the_known_ones(tiny, tiny_ptms):
    with pytest.raises(ValueError, match="unknown guidance 'CLoM'; known: none, clom, cclom, both"):
        make_signals(tiny_ptms, tiny, LABELS, "CLoM", 1.0, 1.0)


@pytest.mark.parametrize("guidance", ["clom", "cclom", "both"])
def test_guidance_needs_a_ptm(tiny, guidance):
    with pytest.raises(ValueError, match=f"guidance '{guidance}' needs at least one PTM.*ddlib.train_ptms"):
        make_signals([], tiny, LABELS, guidance, 1.0, 1.0)


@pytest.mark.parametrize("guidance", ["clom", "both"])
@pytest.mark.parametrize("names", [("red", "green", "blue"), ("bee", "ant", "cat"), ("ant", "bee", "cat", "dog")])
def test_clom_of_other_classes_is_refused(tiny, tiny_ptms, guidance, names):
    """Other names, the same in another order, and one more. The PTM in question need not be the first."""
    stranger = dataclasses.replace(tiny_ptms[2], class_names=names, source_dataset="elsewhere")
    with pytest.raises(ValueError, match="Use guidance 'cclom'") as error:
        make_signals([*tiny_ptms[:2], stranger], tiny, LABELS, guidance, 1.0, 1.0)
    message = str(error.value)
    assert "ConvNet-3 #2 @24 knows the classes of elsewhere" in message
    assert ", ".join(names[:3]) in message
    assert "those of tiny (ant, bee, cat" in message
    assert len(make_signals([stranger], tiny, LABELS, "cclom", 1.0, 1.0)) == 1
