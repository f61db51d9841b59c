"""The losses against slow transcriptions of their definitions, hand-checked numbers and their properties."""

import math

import numpy as np
import pytest
import slow
import torch
from made import seeded

from ddlib.losses import (
    ClassSums,
    cclom_loss,
    cclom_loss_from_sums,
    cclom_parts_from_sums,
    ce_ratio_loss,
    class_means,
    class_sums,
    clom_loss,
    cos_mean_loss,
    cosine_distances,
    distribution_matching_loss,
    gradient_matching_loss,
)

NUM_CLASSES = 4


def rows(n, width=5, seed=0):
    return torch.randn(n, width, generator=seeded(seed), dtype=torch.float64)


def classes(n, seed=0, num_classes=NUM_CLASSES):
    return torch.randint(num_classes, (n,), generator=seeded(seed))


def syn_and_real(n=6, b=23):
    """Synthetic features and labels, real features and labels."""
    return rows(n, seed=1), classes(n, seed=2), rows(b, seed=3), classes(b, seed=4)


# CLoM


def test_clom_against_a_slow_transcription():
    logits, labels = 3 * rows(9, NUM_CLASSES), classes(9)
    assert clom_loss(logits, labels).item() == pytest.approx(
        slow.clom(slow.log_probabilities(logits), labels).item(), rel=1e-12
    )


def test_clom_in_numbers():
    """Softmax of (0, ln 3) is (1/4, 3/4)."""
    logits = torch.tensor([[0.0, math.log(3)]], dtype=torch.float64)
    assert clom_loss(logits, torch.tensor([1])).item() == pytest.approx(math.log(4 / 3))
    assert clom_loss(logits, torch.tensor([0])).item() == pytest.approx(math.log(4))
    both = clom_loss(logits.expand(2, 2), torch.tensor([0, 1]))
    assert both.item() == pytest.approx((math.log(4) + math.log(4 / 3)) / 2)


@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_clom_of_an_undecided_ptm(num_classes):
    logits = torch.full((3, num_classes), 7.0, dtype=torch.float64)
    assert clom_loss(logits, classes(3, num_classes=num_classes)).item() == pytest.approx(math.log(num_classes))


def test_clom_of_a_very_sure_ptm_is_finite():
    logits = torch.tensor([[1e4, 0.0], [0.0, 1e4]])
    assert clom_loss(logits, torch.tensor([0, 1])) == 0
    assert clom_loss(logits, torch.tensor([1, 0])) == 1e4


# CCLoM


def test_cclom_against_a_slow_transcription():
    syn, syn_labels, real, real_labels = syn_and_real()
    expected = slow.cclom(slow.cosine_distances(syn, real), syn_labels, real_labels)
    assert cclom_loss(syn, syn_labels, real, real_labels).item() == pytest.approx(expected.item(), rel=1e-12)


def test_cclom_in_numbers():
    """Distances from (2, 0), class 0: 1 to (0, 5) of class 0, and 2 to (-1, 0) of class 1; the share is 1/3."""
    syn, real = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 5.0], [-1.0, 0.0]])
    assert cclom_loss(syn, torch.tensor([0]), real, torch.tensor([0, 1])).item() == pytest.approx(1 / 3)
    assert cclom_loss(syn, torch.tensor([1]), real, torch.tensor([0, 1])).item() == pytest.approx(2 / 3)


def test_cclom_reaches_both_ends():
    """0 where an image is like its own class alone, 1 where all of the distance is to its own class."""
    axes, labels = torch.eye(3), torch.arange(3)
    assert cclom_loss(axes, labels, axes, labels) == 0
    assert cclom_loss(axes[:1], labels[:1], axes[1:], torch.zeros(2, dtype=torch.int64)) == 1


def test_cclom_of_uninformative_features_is_the_share_of_equal_labels():
    """All distances equal: with balanced classes, 1 / num_classes."""
    syn, real = torch.eye(6)[:2], torch.eye(6)[2:].repeat(2, 1)
    loss = cclom_loss(syn, torch.tensor([0, 3]), real, torch.arange(NUM_CLASSES).repeat(2))
    assert loss.item() == pytest.approx(1 / NUM_CLASSES)


def test_cclom_sees_directions_only():
    syn, syn_labels, real, real_labels = syn_and_real()
    scaled = cclom_loss(syn * torch.rand(6, 1, generator=seeded()) * 9, syn_labels, real * 100, real_labels)
    torch.testing.assert_close(scaled, cclom_loss(syn, syn_labels, real, real_labels))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("positive", [False, True])
def test_cclom_from_sums_is_cclom_over_the_whole_real_set(dtype, tolerance, positive):
    """Values and gradients; features after a ReLU are the harder case, for their cosines are near 1."""
    syn, syn_labels, real, real_labels = syn_and_real(20, 3000)
    real = real + rows(NUM_CLASSES, seed=5)[real_labels]  # classes differ, else hardly any gradient is left
    syn, real = ((x.relu() + 0.5 if positive else x).to(dtype) for x in (syn, real))
    answers = []
    for loss_of in (
        lambda x: cclom_loss(x, syn_labels, real, real_labels),
        lambda x: cclom_loss_from_sums(x, syn_labels, class_sums(real, real_labels, NUM_CLASSES)),
    ):
        x = syn.clone().requires_grad_()
        loss = loss_of(x)
        answers.append((loss.detach(), torch.autograd.grad(loss, x)[0]))
    (plain, plain_gradient), (fast, fast_gradient) = answers
    assert fast.dtype == dtype
    torch.testing.assert_close(fast, plain, rtol=tolerance, atol=tolerance)
    scale = plain_gradient.abs().max()
    assert scale > 1e-3
    torch.testing.assert_close(fast_gradient / scale, plain_gradient / scale, rtol=0, atol=tolerance)


def test_cclom_parts_against_a_slow_transcription():
    syn, syn_labels, real, real_labels = syn_and_real()
    parts = cclom_parts_from_sums(syn, syn_labels, class_sums(real, real_labels, NUM_CLASSES))
    expected = slow.cclom_parts(slow.cosine_distances(syn, real), syn_labels, real_labels)
    assert [p.item() for p in parts] == pytest.approx([p.item() for p in expected])


def test_cclom_parts_of_images_add_up():
    syn, syn_labels, real, real_labels = syn_and_real()
    sums = class_sums(real, real_labels, NUM_CLASSES)
    whole = cclom_parts_from_sums(syn, syn_labels, sums)
    halves = [cclom_parts_from_sums(syn[i], syn_labels[i], sums) for i in (slice(2), slice(2, None))]
    for part, first, second in zip(whole, *halves, strict=True):
        torch.testing.assert_close(first + second, part)


def test_cclom_of_batches_approaches_that_of_the_set():
    """A ratio estimator: its error falls as one over the square root of the batch."""
    syn, syn_labels, real, real_labels = syn_and_real(10, 5000)
    exact = cclom_loss_from_sums(syn, syn_labels, class_sums(real, real_labels, NUM_CLASSES))
    draw, errors = seeded(), []
    for batch in (20, 320, 5120):
        picks = torch.randint(len(real), (100, batch), generator=draw)  # with replacement, as the reference does
        estimates = torch.stack([cclom_loss(syn, syn_labels, real[i], real_labels[i]) for i in picks])
        errors.append((estimates - exact).square().mean().sqrt().item())
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.4)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.4)
    assert errors[2] < 0.005


# The other two of the 2 x 2: the cross-entropy as a ratio, the cosine as a mean

IMBALANCED = torch.tensor([0] * 9 + [1] * 2 + [2] + [3] * 4)[torch.randperm(16, generator=seeded(11))]


def value_and_gradient(loss_of, x):
    x = x.clone().requires_grad_()
    loss = loss_of(x)
    return loss.detach(), torch.autograd.grad(loss, x)[0]


@pytest.mark.parametrize("real_labels", [torch.arange(16) % NUM_CLASSES, IMBALANCED], ids=["balanced", "imbalanced"])
def test_ce_ratio_and_its_gradient_against_a_slow_transcription(real_labels):
    logits, labels = 3 * rows(9, NUM_CLASSES), classes(9)
    counts = real_labels.bincount().double()
    found = value_and_gradient(lambda x: ce_ratio_loss(x, labels, counts), logits)
    expected = value_and_gradient(lambda x: slow.ce_ratio(slow.log_probabilities(x), labels, real_labels), logits)
    assert expected[1].abs().max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("real_labels", [torch.arange(16) % NUM_CLASSES, IMBALANCED], ids=["balanced", "imbalanced"])
def test_cos_mean_and_its_gradient_against_a_slow_transcription(real_labels):
    syn, syn_labels, real = rows(9, seed=1), classes(9), rows(16, seed=3)
    sums = class_sums(real, real_labels, NUM_CLASSES)
    found = value_and_gradient(lambda x: cos_mean_loss(x, syn_labels, sums), syn)
    expected = value_and_gradient(lambda x: slow.cos_mean(slow.cosine_distances(x, real), syn_labels, real_labels), syn)
    assert expected[1].abs().max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_ce_ratio_in_numbers():
    """Softmax of (0, ln 3) is (1/4, 3/4); three real images of class 0 and one of class 1."""
    logits, counts = torch.tensor([[0.0, math.log(3)]], dtype=torch.float64), torch.tensor([3.0, 1.0])
    total = 3 * math.log(4) + math.log(4 / 3)
    assert ce_ratio_loss(logits, torch.tensor([0]), counts).item() == pytest.approx(3 * math.log(4) / total)
    assert ce_ratio_loss(logits, torch.tensor([1]), counts).item() == pytest.approx(math.log(4 / 3) / total)


def test_cos_mean_in_numbers():
    """Class 0 has unit features (1, 0) and (0, 1), mean (1/2, 1/2), of length below 1: that is not made one."""
    sums = class_sums(torch.tensor([[5.0, 0.0], [0.0, 2.0], [-1.0, 0.0]]), torch.tensor([0, 0, 1]), 3)
    syn, labels = torch.tensor([[3.0, 0.0], [3.0, 0.0], [3.0, 0.0]]), torch.tensor([0, 1, 2])
    assert cosine_distances(syn, labels, sums).tolist() == [0.5, 2, 1], "the last class has no real image"
    assert cos_mean_loss(syn, labels, sums).item() == pytest.approx(3.5 / 3)


def test_a_balanced_cclom_is_the_share_of_the_mean_cosine():
    """Where classes have equally many images, the numerator of CCLoM is the mean cosine, but for a factor."""
    syn, syn_labels, real = rows(9, seed=1), classes(9), rows(16, seed=3)
    sums = class_sums(real, torch.arange(16) % NUM_CLASSES, NUM_CLASSES)
    same, _ = cclom_parts_from_sums(syn, syn_labels, sums)
    torch.testing.assert_close(cos_mean_loss(syn, syn_labels, sums), same / (9 * 4))


def test_ce_ratio_of_counts_that_do_not_fit():
    with pytest.raises(ValueError, match=r"counts must be \[5\], one for each class; found \[4\]"):
        ce_ratio_loss(torch.zeros(3, 5), torch.zeros(3, dtype=torch.int64), torch.ones(4))


# Class sums and means


def test_class_sums_against_a_slow_transcription():
    features, labels = rows(11), classes(11)
    found = class_sums(features, labels, NUM_CLASSES + 1)  # one class has no image
    sums, counts = np.zeros((NUM_CLASSES + 1, 5)), np.zeros(NUM_CLASSES + 1)
    for f, y in zip(features.numpy(), labels.tolist(), strict=True):
        sums[y] += f / np.linalg.norm(f)
        counts[y] += 1
    assert counts.max() > 1
    np.testing.assert_allclose(found.sums, sums, rtol=1e-12, atol=1e-12)
    assert found.counts.tolist() == counts.tolist()
    assert found.sums.dtype == found.counts.dtype == torch.float64


def test_class_sums_of_parts_add_up():
    features, labels = rows(11), classes(11)
    whole = class_sums(features, labels, NUM_CLASSES)
    parts = [class_sums(features[i], labels[i], NUM_CLASSES) for i in (slice(4), slice(4, None))]
    for expected, first, second in zip(whole, *parts, strict=True):
        torch.testing.assert_close(first + second, expected)


def test_class_sums_of_one_class_alone():
    features = rows(4)
    found = class_sums(features, torch.full((4,), 1), NUM_CLASSES)
    whole = class_sums(features, torch.zeros(4, dtype=torch.int64), 1)
    assert found.counts.tolist() == [0, 4, *[0] * (NUM_CLASSES - 2)]
    torch.testing.assert_close(found.sums[1], whole.sums[0])


def test_class_sums_of_nothing_are_zero():
    found = class_sums(torch.empty(0, 5), torch.empty(0, dtype=torch.int64), NUM_CLASSES)
    assert torch.equal(found.sums, torch.zeros(NUM_CLASSES, 5))
    assert torch.equal(found.counts, torch.zeros(NUM_CLASSES))


def test_class_means():
    features = torch.tensor([[1.0, 2.0], [5.0, 5.0], [3.0, 6.0]])
    means = class_means(features, torch.tensor([2, 0, 2]), 3)
    assert means.tolist() == [[5, 5], [0, 0], [2, 4]]


# DM, DC and DSA


def test_dm_against_a_slow_transcription():
    syn, syn_labels, real, real_labels = syn_and_real()
    for num_classes in (NUM_CLASSES, NUM_CLASSES + 3):  # classes without images add nothing
        found = distribution_matching_loss(syn, syn_labels, real, real_labels, num_classes)
        expected = slow.distribution_matching(syn, syn_labels, real, real_labels, num_classes)
        assert found.item() == pytest.approx(expected.item(), rel=1e-12)


def test_dm_in_numbers():
    """Class 0: means (1, 0) and (0, 2), 1 + 4 apart; class 1: (3, 3) and (3, 0), 9 apart."""
    syn, real = torch.tensor([[1.0, 0.0], [3.0, 3.0]]), torch.tensor([[0.0, 1.0], [0.0, 3.0], [3.0, 0.0]])
    assert distribution_matching_loss(syn, torch.tensor([0, 1]), real, torch.tensor([0, 0, 1]), 2) == 14


def test_dm_of_equal_means_is_zero():
    syn, labels = rows(6), torch.arange(6) % 3
    assert distribution_matching_loss(syn, labels, syn.repeat(3, 1), labels.repeat(3), 3).item() == pytest.approx(0)


def some_gradients(seed):
    """A convolution with bias, a norm, a linear layer with bias."""
    shapes = [(4, 3, 3, 3), (4,), (4,), (5, 6), (5,)]
    draw = seeded(seed)
    return [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes]


def test_gradient_matching_against_a_slow_transcription():
    syn, real = some_gradients(0), some_gradients(1)
    assert gradient_matching_loss(syn, real).item() == pytest.approx(
        slow.gradient_matching(syn, real).item(), rel=1e-12
    )


def test_gradient_matching_in_numbers():
    """Per output unit: 0 if parallel, 1 if orthogonal, 2 if opposite."""
    syn = [torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]), torch.tensor([1.0, 2.0])]
    real = [torch.tensor([[4.0, 0.0], [0.0, 3.0], [-2.0, 0.0]]), torch.tensor([-9.0, 0.0])]
    assert gradient_matching_loss(syn, real).item() == pytest.approx(3, abs=1e-5)
    assert gradient_matching_loss(syn[:1], syn[:1]).item() == pytest.approx(0, abs=1e-5)


def test_gradient_matching_ignores_one_dimensional_parameters():
    syn, real = some_gradients(0), some_gradients(1)
    before = gradient_matching_loss(syn, real)
    changed = [g * -5 if g.ndim == 1 else g for g in syn]
    assert torch.equal(gradient_matching_loss(changed, real), before)
    with pytest.raises(ValueError, match="nothing to match"):
        gradient_matching_loss(syn[1:3], real[1:3])


def test_a_zero_gradient_keeps_gradient_matching_finite():
    zero = torch.zeros(2, 3, requires_grad=True)
    loss = gradient_matching_loss([zero], [torch.ones(2, 3)])
    assert loss == 2
    assert torch.autograd.grad(loss, zero)[0].isfinite().all()


# What holds for all of them


def losses_of_features():
    """Each loss as a function of float64 tensors alone, and where to evaluate it."""
    syn, syn_labels, real, real_labels = syn_and_real(4, 7)
    sums = class_sums(real, real_labels, NUM_CLASSES)
    shapes = [slice(0, 12), slice(12, 20)]
    return {
        "clom": (lambda x: clom_loss(x, syn_labels), (syn,)),
        "cclom": (lambda x, y: cclom_loss(x, syn_labels, y, real_labels), (syn, real)),
        "cclom_from_sums": (lambda x: cclom_loss_from_sums(x, syn_labels, sums), (syn,)),
        "ce_ratio": (lambda x: ce_ratio_loss(x[:, :NUM_CLASSES], syn_labels, torch.arange(1.0, 5.0)), (syn,)),
        "cos_mean": (lambda x: cos_mean_loss(x, syn_labels, sums), (syn,)),
        "class_sums": (lambda y: class_sums(y, real_labels, NUM_CLASSES).sums, (real,)),
        "dm": (
            lambda x, y: distribution_matching_loss(x, syn_labels, y, real_labels, NUM_CLASSES),
            (syn, real),
        ),
        "gradient_matching": (
            lambda x, y: gradient_matching_loss(
                [x[i].view(2, -1, 2) for i in shapes], [y[i].view(2, -1, 2) for i in shapes]
            ),
            (rows(4, seed=5).flatten(), rows(4, seed=6).flatten()),
        ),
    }


@pytest.mark.parametrize("name", losses_of_features())
def test_gradients(name):
    function, inputs = losses_of_features()[name]
    assert torch.autograd.gradcheck(function, tuple(x.clone().requires_grad_() for x in inputs))


@pytest.mark.parametrize("name", losses_of_features())
def test_type_and_device_are_those_of_the_tensors(name):
    function, inputs = losses_of_features()[name]
    if name not in ("cclom_from_sums", "cos_mean"):  # their sums have a type of their own
        assert function(*(x.float() for x in inputs)).dtype == torch.float32
    assert function(*inputs).dtype == torch.float64


def test_the_order_of_images_changes_nothing():
    syn, syn_labels, real, real_labels = syn_and_real()
    i, j = torch.randperm(len(syn), generator=seeded(7)), torch.randperm(len(real), generator=seeded(8))
    sums, other_sums = (class_sums(real[k], real_labels[k], NUM_CLASSES) for k in (slice(None), j))
    for before, after in (
        (clom_loss(syn, syn_labels), clom_loss(syn[i], syn_labels[i])),
        (
            cclom_loss(syn, syn_labels, real, real_labels),
            cclom_loss(syn[i], syn_labels[i], real[j], real_labels[j]),
        ),
        (cclom_loss_from_sums(syn, syn_labels, sums), cclom_loss_from_sums(syn[i], syn_labels[i], other_sums)),
        (cos_mean_loss(syn, syn_labels, sums), cos_mean_loss(syn[i], syn_labels[i], other_sums)),
        (
            distribution_matching_loss(syn, syn_labels, real, real_labels, NUM_CLASSES),
            distribution_matching_loss(syn[i], syn_labels[i], real[j], real_labels[j], NUM_CLASSES),
        ),
    ):
        torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-12)


def test_the_order_of_units_changes_nothing():
    syn, real = some_gradients(0), some_gradients(1)
    turned = [[g.flip(0) for g in gradients] for gradients in (syn, real)]
    torch.testing.assert_close(gradient_matching_loss(*turned), gradient_matching_loss(syn, real))


# Errors

FEATURES, LABELS = torch.zeros(3, 5), torch.zeros(3, dtype=torch.int64)
SUMS = ClassSums(torch.zeros(4, 5), torch.ones(4))


def on_rows(features, labels):
    """Every function that takes features and labels, called with these on the synthetic or the real side."""
    return [
        lambda: clom_loss(features, labels),
        lambda: cclom_loss(features, labels, FEATURES, LABELS),
        lambda: cclom_loss(FEATURES, LABELS, features, labels),
        lambda: class_sums(features, labels, 4),
        lambda: cclom_parts_from_sums(features, labels, SUMS),
        lambda: cclom_loss_from_sums(features, labels, SUMS),
        lambda: cos_mean_loss(features, labels, SUMS),
        lambda: distribution_matching_loss(features, labels, FEATURES, LABELS, 4),
        lambda: distribution_matching_loss(FEATURES, LABELS, features, labels, 4),
        lambda: ce_ratio_loss(features, labels, torch.ones(5)),
    ]


@pytest.mark.parametrize("which", range(10))
def test_shapes_that_do_not_fit(which):
    for features, labels, found in (
        (torch.zeros(3, 5, 1), LABELS, r"found \[3, 5, 1\] and \[3\]"),
        (torch.zeros(3), LABELS, r"found \[3\] and \[3\]"),
        (FEATURES, LABELS[:2], r"found \[3, 5\] and \[2\]"),
        (FEATURES, torch.zeros(3, 4, dtype=torch.int64), r"found \[3, 5\] and \[3, 4\]"),
    ):
        with pytest.raises(ValueError, match=r"(logits|features) must be \[N, d\] and its labels \[N\]; " + found):
            on_rows(features, labels)[which]()


@pytest.mark.parametrize("which", range(10))
def test_labels_that_are_no_indices(which):
    for dtype in (torch.int32, torch.float32):
        with pytest.raises(ValueError, match=f"labels must be int64 class indices; found {dtype}"):
            on_rows(FEATURES, LABELS.to(dtype))[which]()


@pytest.mark.parametrize("which", [1, 2, 4, 5, 6, 7, 8])
def test_features_of_two_ptms(which):
    with pytest.raises(ValueError, match=r"features of one PTM have one length; found (6 and 5|5 and 6)"):
        on_rows(torch.zeros(3, 6), LABELS)[which]()


@pytest.mark.parametrize("label", [-1, 4])
def test_labels_outside_the_classes(label):
    with pytest.raises(
        ValueError, match=rf"real_labels must lie in \[0, 4\), found {min(label, 0)} to {max(label, 0)}"
    ):
        class_sums(FEATURES, torch.tensor([0, label, 0]), 4)


def test_gradients_of_two_networks():
    message = "must hold the same parameters in the same order"
    with pytest.raises(ValueError, match=message):
        gradient_matching_loss([FEATURES], [FEATURES.T])
    with pytest.raises(ValueError, match=message):
        gradient_matching_loss([FEATURES, FEATURES], [FEATURES])
