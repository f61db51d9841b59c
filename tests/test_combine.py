"""The strategies against plain transcriptions, and against the identities and inequalities they must obey."""

import itertools
import math
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import slow
import torch
from made import global_seed, nothing_drawn, seeded
from torch import nn

import ddlib.combine
from ddlib.combine import (
    STRATEGIES,
    Averaging,
    GradientWeighting,
    Selecting,
    Step,
    Strategy,
    Weighting,
    accuracy_weights,
    average_probabilities,
    get_strategy,
    weights_confidence,
    weights_grad_norm,
    weights_mgda,
    weights_pcgrad,
)
from ddlib.data.dataset import Dataset, ImageFormat, Split
from ddlib.families import Dividing, ImageWeighting, gradient_agreement, jacobian_of
from ddlib.guidance import GUIDANCE, OF_LOGITS, Guidance, PTMSignal
from ddlib.losses import class_sums
from ddlib.objective import Alphas, Outputs
from ddlib.ptms.ptm import PTM
from ddlib.rng import generator

N, B, PIXELS, FEATURES, NUM_CLASSES, K = 5, 12, 4, 3, 3, 3
STEP = Step(seed=2, index=7)
SELECTING = ("single", "random", "sequential", "shuffled")
ONE_PASS = (*SELECTING, "per_image")
NOT_FOR_ALL = {  # of strategies that are not defined for every guidance: what they are defined for
    "logit_avg": ("clom", "ce_ratio", "cclom", "both"),  # of the mean cosine it would be loss_avg
    "prob_avg": ("clom", "ce_ratio"),
    "confidence_weighted": ("clom",),
}
ON_GRADIENTS = ("grad_norm_avg", "pcgrad", "mgda")  # these follow no scalar loss
ROWS = [(name, guidance) for name, row in STRATEGIES.items() for guidance in row.guidance]
ON_LOSSES = [(name, guidance) for name, guidance in ROWS if name not in ON_GRADIENTS]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def some_images():
    return draw(N, 1, 2, 2, seed=1).requires_grad_()


LABELS = torch.arange(N) % NUM_CLASSES
REAL, REAL_LABELS = draw(B, 1, 2, 2, seed=2), torch.tensor([0] * 6 + [1] * 2 + [2] * 4)  # not balanced
COUNTS = REAL_LABELS.bincount().double()


# Signals: one whose gradient is known by construction, and the library's own around a tiny network.


@dataclass
class Pull:
    """The loss <direction, images>: its gradient is the direction, everywhere."""

    direction: torch.Tensor
    accuracy: float | None = 0.5
    asked: int = 0

    labels, alphas, counts = LABELS, Alphas(cclom=1.0), None

    def outputs(self, images):
        self.asked += 1
        return Outputs(distances=((self.direction * images).sum(), torch.ones(())))

    def part(self, index):
        return self


def pulls(*directions):
    """Images of one row, and a signal for each gradient."""
    signals = [Pull(torch.tensor(d, dtype=torch.float64).view(1, 1, 1, -1)) for d in directions]
    return torch.ones_like(signals[0].direction).requires_grad_(), signals


class Tiny(nn.Module):
    """Features tanh(W x) and linear logits; counts its passes over the set."""

    def __init__(self, seed):
        super().__init__()
        self.weight = nn.Parameter(draw(PIXELS, FEATURES, seed=seed))
        self.classifier = nn.Linear(FEATURES, NUM_CLASSES, bias=False).double()
        with torch.no_grad():
            self.classifier.weight.copy_(2 * draw(NUM_CLASSES, FEATURES, seed=seed + 100))
        self.passes = 0

    def features(self, images):
        self.passes += len(images) / N
        return (images.flatten(1) @ self.weight).tanh()


def a_ptm(seed, architecture="Tiny", train_accuracy=0.5):
    form = ImageFormat(1, 2, (0.0,), (1.0,))
    names = tuple("abc")
    network = Tiny(seed)
    ptm = PTM(network.float(), architecture, "toy", names, form, hash=str(seed), train_accuracy=train_accuracy)
    ptm.network.double().passes = 0
    return ptm


def a_signal(seed, guidance, alpha_logits=3.0, alpha_features=7.0, accuracy=0.5, dtype=torch.float64):
    ptm = a_ptm(seed, train_accuracy=accuracy)
    ptm.network.to(dtype)
    signal = PTMSignal(
        ptm,
        LABELS,
        Alphas(**{loss: alpha_logits if loss in OF_LOGITS else alpha_features for loss in GUIDANCE[guidance]}),
        class_sums(ptm.features_of(REAL.to(dtype)), REAL_LABELS, NUM_CLASSES),
        COUNTS.to(dtype),
    )
    ptm.network.passes = 0
    return signal


def different(guidance, dtype=torch.float64):
    """PTMs that differ in everything: weights, alphas, accuracy."""
    return [a_signal(i, guidance, 1.0 + i, 5.0 - 2 * i, 0.9 - 0.2 * i, dtype) for i in range(K)]


def passes_of(signals):
    return [s.ptm.network.passes for s in signals]


# Plain transcriptions, in numpy: images [N, PIXELS] and a PTM's two matrices.


def plain_features(signal, images):
    return np.tanh(images @ signal.ptm.network.weight.numpy())


def plain_logits(signal, images):
    return plain_features(signal, images) @ signal.ptm.network.classifier.weight.numpy().T


def plain_probabilities(logits):
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


ON_LOGITS = {
    "clom": lambda probabilities: slow.clom(np.log(probabilities), LABELS.tolist()),
    "ce_ratio": lambda probabilities: slow.ce_ratio(np.log(probabilities), LABELS.tolist(), REAL_LABELS.tolist()),
}
ON_DISTANCES = {
    "cos_mean": lambda distances: slow.cos_mean(distances, LABELS.tolist(), REAL_LABELS.tolist()),
    "cclom": lambda distances: slow.cclom(distances, LABELS.tolist(), REAL_LABELS.tolist()),
}


def plain_distances(signal, images):
    """The matrix [N, B] of 1 - cosine."""
    syn, real = (plain_features(signal, x) for x in (images, REAL.flatten(1).numpy()))
    syn, real = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (syn, real))
    return 1 - syn @ real.T


def plain_loss_of_one(signal, images):
    return plain_loss_of_mean([signal], images, of_mean_logits)


def plain_loss_of_mean(signals, images, mean_prediction):
    """The loss of the mean prediction and of the mean distance matrix, with the mean alpha."""
    distances = np.mean([plain_distances(s, images) for s in signals], axis=0)
    return plain_objective(signals, mean_prediction(signals, images), distances)


def plain_objective(signals, probabilities, distances):
    """The losses that are asked for, of probabilities [N, classes] and distances [N, B], with the mean alphas."""
    asked = [loss for loss, alpha in signals[0].alphas._asdict().items() if alpha is not None]
    mean_alphas = {loss: np.mean([getattr(s.alphas, loss) for s in signals]) for loss in asked}
    of_logits = [mean_alphas[loss] * ON_LOGITS[loss](probabilities) for loss in asked if loss in ON_LOGITS]
    of_distances = [mean_alphas[loss] * ON_DISTANCES[loss](distances) for loss in asked if loss in ON_DISTANCES]
    return sum(of_logits) + sum(of_distances)


def plain_per_image(signals, images):
    """Image i sees PTM i mod K alone: its probabilities and distances are those of this one."""
    of_all = [(plain_probabilities(plain_logits(s, images)), plain_distances(s, images)) for s in signals]
    probabilities, distances = (np.stack([of_all[i % K][what][i] for i in range(N)]) for what in (0, 1))
    return plain_objective(signals, probabilities, distances)


def plain_confidence(signals, images):
    """Per image: alphas times cross-entropies with weights (1 - softmax_k(CE_k)) / (K - 1), fixed where images are."""
    rows = [plain_probabilities(plain_logits(s, images)) for s in signals]
    alphas, loss = [s.alphas.clom for s in signals], 0.0
    fixed = [plain_probabilities(plain_logits(s, some_images().detach().flatten(1).numpy())) for s in signals]
    for i, y in enumerate(LABELS.tolist()):
        votes = [math.exp(-math.log(of_ptm[i][y])) for of_ptm in fixed]
        weights = [(1 - vote / sum(votes)) / (K - 1) for vote in votes]
        loss += sum(w * a * -math.log(of_ptm[i][y]) for w, a, of_ptm in zip(weights, alphas, rows, strict=True)) / N
    return loss


def of_mean_logits(signals, images):
    return plain_probabilities(np.mean([plain_logits(s, images) for s in signals], axis=0))


def mean_probabilities(signals, images):
    return np.mean([plain_probabilities(plain_logits(s, images)) for s in signals], axis=0)


def plain_loss(name, signals, images):
    """What a strategy descends at STEP, where it is a loss at all."""
    if name in SELECTING:
        turn, place = divmod(STEP.index, len(signals))
        chosen = {
            "single": lambda: 0,
            "sequential": lambda: place,
            "random": lambda: torch.randint(len(signals), (), generator=generator(2, "selection", STEP.index)),
            "shuffled": lambda: torch.randperm(len(signals), generator=generator(2, "selection", turn))[place],
        }[name]()
        return plain_loss_of_one(signals[int(chosen)], images)
    if name == "logit_avg":
        return plain_loss_of_mean(signals, images, of_mean_logits)
    if name == "prob_avg":
        return plain_loss_of_mean(signals, images, mean_probabilities)
    if name in ("per_image", "confidence_weighted"):
        return {"per_image": plain_per_image, "confidence_weighted": plain_confidence}[name](signals, images)
    votes = [math.exp(s.accuracy / 0.1) if name == "accuracy_weighted" else 1.0 for s in signals]
    return sum(v * plain_loss_of_one(s, images) for v, s in zip(votes, signals, strict=True)) / sum(votes)


def cosine(a, b):
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def central_difference(function, at, width=1e-5):
    slope = np.zeros_like(at)
    for i in np.ndindex(at.shape):
        up, down = at.copy(), at.copy()
        up[i] += width
        down[i] -= width
        slope[i] = (function(up) - function(down)) / (2 * width)
    return slope


# --- what every row obeys ---------------------------------------------------------------------------------


def test_the_rows_of_the_table():
    assert set(STRATEGIES) == {
        *("single", "random", "sequential", "shuffled", "loss_avg", "grad_avg", "grad_norm_avg"),
        *("logit_avg", "prob_avg", "accuracy_weighted", "pcgrad", "mgda", "confidence_weighted", "per_image"),
    }
    for name, row in STRATEGIES.items():
        assert row.rule
        assert row.cost.startswith("F + B" if name in ONE_PASS else "K (F + B)")
        assert row.source
        assert row.one_ptm == (name in ONE_PASS)
        assert row.guidance == NOT_FOR_ALL.get(name, tuple(GUIDANCE)[1:])


@pytest.mark.parametrize(("name", "guidance"), ROWS)
@pytest.mark.parametrize("k", [1, 3])
def test_equal_ptms_make_every_strategy_single(name, guidance, k):
    images = some_images()
    single = STRATEGIES["single"](images, [a_signal(0, guidance)], STEP)
    found = STRATEGIES[name](images, [a_signal(0, guidance) for _ in range(k)], STEP)
    assert single.gradient.abs().max() > 0.01
    torch.testing.assert_close(found.gradient, single.gradient, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.loss, single.loss, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("name", "guidance"), ROWS)
def test_passes_are_counted(name, guidance):
    signals = different(guidance)
    found = STRATEGIES[name](some_images(), signals, STEP)
    assert found.passes == pytest.approx(sum(passes_of(signals))) == (1 if name in ONE_PASS else K)
    assert max(passes_of(signals)) == (2 / N if name == "per_image" else 1)


@pytest.mark.parametrize(("name", "guidance"), ON_LOSSES)
def test_against_plain_losses_and_their_central_differences(name, guidance):
    images, signals = some_images(), different(guidance)
    found = STRATEGIES[name](images, signals, STEP)
    at = images.detach().flatten(1).numpy()
    assert found.loss.item() == pytest.approx(plain_loss(name, signals, at), rel=1e-10)
    slope = central_difference(lambda x: plain_loss(name, signals, x), at)
    np.testing.assert_allclose(found.gradient.flatten(1), slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("name", "guidance"), [row for row in ROWS if row[0] in ON_GRADIENTS])
def test_the_loss_of_strategies_on_gradients_is_the_mean(name, guidance):
    images, signals = some_images(), different(guidance)
    expected = STRATEGIES["loss_avg"](images, signals, STEP).loss
    torch.testing.assert_close(STRATEGIES[name](images, signals, STEP).loss, expected)


@pytest.mark.parametrize(("name", "guidance"), ROWS)
def test_a_strategy_only_looks(name, guidance):
    """Images, PTMs and global generator stay as they are; the answer hangs on no graph and repeats itself."""
    images, signals = some_images(), different(guidance)
    with nothing_drawn():
        first, second = (STRATEGIES[name](images, signals, STEP) for _ in range(2))
    assert torch.equal(images, some_images())
    assert images.grad is None
    assert all(p.grad is None for s in signals for p in s.ptm.network.parameters())
    assert not first.loss.requires_grad
    assert not first.gradient.requires_grad
    assert (first.loss.shape, first.gradient.shape) == ((), images.shape)
    assert torch.equal(first.gradient, second.gradient)


@pytest.mark.parametrize(("name", "guidance"), ROWS)
def test_the_type_is_that_of_the_images(name, guidance):
    exact = STRATEGIES[name](some_images(), different(guidance), STEP)
    images = some_images().detach().float().requires_grad_()
    found = STRATEGIES[name](images, different(guidance, torch.float32), STEP)
    assert found.gradient.dtype == found.loss.dtype == torch.float32
    torch.testing.assert_close(found.gradient.double(), exact.gradient, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", [n for n in STRATEGIES if n not in (*ONE_PASS, "pcgrad")])
def test_the_order_of_the_ptms_changes_nothing(name):
    """But for pcgrad, which draws an order of its own, and where k is a place in the list."""
    images, signals = some_images(), different("clom")
    expected = STRATEGIES[name](images, signals, STEP).gradient
    for order in itertools.permutations(signals):
        torch.testing.assert_close(STRATEGIES[name](images, order, STEP).gradient, expected, rtol=1e-8, atol=1e-8)


# --- selection --------------------------------------------------------------------------------------------


def chosen(name, steps, k=K, seed=0):
    """Which PTM each step asks, read off the gradient: PTM i pulls with i + 1."""
    images, signals = pulls(*([float(i + 1)] for i in range(k)))
    combined = [STRATEGIES[name](images, signals, Step(seed, t)) for t in steps]
    assert sum(s.asked for s in signals) == len(combined)
    assert all(c.loss == c.gradient.sum() for c in combined)
    return [int(c.gradient.item()) - 1 for c in combined]


def test_single_is_the_first():
    assert chosen("single", range(7)) == [0] * 7


@pytest.mark.parametrize("k", [1, 2, 5])
def test_sequential_is_t_mod_k(k):
    assert chosen("sequential", range(12), k) == [t % k for t in range(12)]


@pytest.mark.parametrize("seed", [0, 1])
def test_random_is_uniform(seed):
    n, k = 2000, 4
    picks = chosen("random", range(n), k, seed)
    for i in range(k):
        assert abs(picks.count(i) - n / k) < 5 * math.sqrt(n * (k - 1) / k**2)
    pairs = list(itertools.pairwise(picks))
    for pair in itertools.product(range(k), repeat=2):  # each step apart from the one before: with replacement
        assert abs(pairs.count(pair) - n / k**2) < 5 * math.sqrt(n / k**2)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_shuffled_sees_every_ptm_once_every_k_steps(k):
    picks = chosen("shuffled", range(10 * k), k)
    assert all(sorted(picks[i : i + k]) == list(range(k)) for i in range(0, 10 * k, k))


def test_shuffled_takes_all_orders_equally_often():
    turns = 600
    picks = chosen("shuffled", range(3 * turns))
    orders = [tuple(picks[i : i + 3]) for i in range(0, 3 * turns, 3)]
    for order in itertools.permutations(range(3)):
        assert abs(orders.count(order) - turns / 6) < 5 * math.sqrt(turns * 5 / 36)


@pytest.mark.parametrize("name", ["random", "shuffled"])
def test_choices_depend_on_seed_and_step_only(name):
    picks = chosen(name, range(40))
    assert chosen(name, range(40)) == picks
    assert chosen(name, range(40), seed=1) != picks
    assert chosen(name, reversed(range(40))) == picks[::-1]  # so that a run can resume anywhere
    with nothing_drawn(), global_seed(123):
        assert chosen(name, range(40)) == picks


# --- weighting --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guidance", tuple(GUIDANCE)[1:])
def test_averaging_gradients_is_averaging_losses(guidance):
    images, signals = some_images(), different(guidance)
    losses, gradients = (STRATEGIES[name](images, signals, STEP) for name in ("loss_avg", "grad_avg"))
    torch.testing.assert_close(gradients.gradient, losses.gradient, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(gradients.loss, losses.loss, rtol=1e-13, atol=0)


def test_grad_avg_in_numbers():
    images, signals = pulls([1.0, 2.0], [5.0, -4.0])
    found = STRATEGIES["grad_avg"](images, signals, STEP)
    assert found.gradient.flatten().tolist() == [3, -1]
    assert found.loss == 2


def test_accuracy_weights():
    """Ten points of accuracy multiply a weight by e; equal ones share; the weights sum to one."""
    weights = accuracy_weights([0.5, 0.6, 0.5])
    assert weights == pytest.approx([1 / (2 + math.e), math.e / (2 + math.e), 1 / (2 + math.e)])
    assert sum(accuracy_weights([0.1, 0.93, 0.5, 0.77])) == pytest.approx(1)
    assert accuracy_weights([0.3] * 4) == pytest.approx([0.25] * 4)
    assert accuracy_weights([0.0, 1.0], temperature=1.0)[1] == pytest.approx(math.e / (1 + math.e))
    assert accuracy_weights([0.0, 1.0], temperature=1e9) == pytest.approx([0.5, 0.5])
    assert accuracy_weights([0.2, 0.9], temperature=1e-3) == pytest.approx([0, 1])


def test_accuracy_weighted_in_numbers():
    images, signals = pulls([1.0, 0.0], [0.0, 1.0])
    signals[0].accuracy, signals[1].accuracy = 0.7, 0.7 + 0.1 * math.log(3)
    found = STRATEGIES["accuracy_weighted"](images, signals, STEP)
    assert found.gradient.flatten().tolist() == pytest.approx([1 / 4, 3 / 4])
    assert found.loss.item() == pytest.approx(1)


def test_accuracy_weighted_needs_accuracies():
    images, signals = pulls([1.0], [2.0])
    signals[1].accuracy = None
    with pytest.raises(ValueError, match="accuracy_weighted needs the accuracy of every PTM"):
        STRATEGIES["accuracy_weighted"](images, signals, STEP)


@pytest.mark.parametrize("guidance", tuple(GUIDANCE)[1:])
def test_grad_norm_avg_against_the_plain_formula(guidance):
    images, signals = some_images(), different(guidance)
    gradients = jacobian_of(images, signals)[1].numpy()
    norms = [math.sqrt(sum(x * x for x in g)) for g in gradients.tolist()]
    mean_direction = sum(g / norm for g, norm in zip(gradients, norms, strict=True)) / K
    found = STRATEGIES["grad_norm_avg"](images, signals, STEP).gradient.flatten()
    np.testing.assert_allclose(found, mean_direction * sum(norms) / K, rtol=1e-12, atol=1e-14)


def test_grad_norm_avg_in_numbers():
    """Norms 5 and 1, directions (3/5, 4/5) and (0, -1), mean direction (3/10, -1/10), mean norm 3."""
    images, signals = pulls([3.0, 4.0], [0.0, -1.0])
    found = STRATEGIES["grad_norm_avg"](images, signals, STEP).gradient
    assert found.flatten().tolist() == pytest.approx([0.9, -0.3])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("silent", [0.0, 1e-30])
def test_grad_norm_avg_survives_a_silent_ptm(dtype, silent):
    """A PTM that is sure of every image has no gradient, or one whose square is too small for the dtype."""
    directions = [torch.tensor([d], dtype=dtype).view(1, 1, 1, 2) for d in ([silent, 0.0], [30.0, 40.0])]
    images = torch.ones(1, 1, 1, 2, dtype=dtype, requires_grad=True)
    found = STRATEGIES["grad_norm_avg"](images, [Pull(d) for d in directions], STEP).gradient.flatten()
    heard = [12.5, 0.0] if dtype == torch.float64 and silent else [0.0, 0.0]
    torch.testing.assert_close(found, torch.tensor([7.5 + heard[0], 10.0], dtype=dtype))


@pytest.mark.parametrize("name", ["grad_norm_avg", "pcgrad", "mgda"])
def test_no_gradient_at_all_gives_none(name):
    images, signals = pulls([0.0, 0.0], [0.0, 0.0])
    assert torch.equal(STRATEGIES[name](images, signals, STEP).gradient, torch.zeros_like(images))


def conflicting(k=4):
    """Gradients with pairs in conflict and pairs in agreement."""
    images, signals = pulls(*draw(k, 5, seed=3).tolist())
    gradients = np.array([s.direction.flatten().numpy() for s in signals])
    inner = (gradients @ gradients.T)[np.triu_indices(k, 1)]
    assert inner.min() < 0 < inner.max()
    return images, signals, gradients


def test_pcgrad_against_a_plain_version():
    images, signals, gradients = conflicting()
    found = []
    for step in (Step(seed, index) for seed in range(3) for index in range(5)):
        found.append(STRATEGIES["pcgrad"](images, signals, step).gradient.flatten().numpy())
        of_step = generator(step.seed, "pcgrad", step.index)
        orders = [torch.randperm(len(gradients), generator=of_step).tolist() for _ in gradients]
        np.testing.assert_allclose(found[-1], slow.pcgrad(gradients, orders), rtol=1e-10, atol=1e-12)
    assert np.ptp(found, axis=0).max() > 1e-3  # the order matters: seed and step do too


@pytest.mark.parametrize("other", [[-1.0, 1.0], [1.0, 1.0], [-3.0, 0.5]])
def test_pcgrad_of_two(other):
    """In conflict each loses its component along the other; else nothing happens. Then the mean."""
    images, signals = pulls([2.0, 0.0], other)
    a, b = np.array([2.0, 0.0]), np.array(other)
    expected = (a + b) / 2
    if a @ b < 0:
        expected = (a - (a @ b) / (b @ b) * b + b - (a @ b) / (a @ a) * a) / 2
    found = STRATEGIES["pcgrad"](images, signals, STEP).gradient.flatten().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    assert found @ a >= -1e-12
    assert found @ b >= -1e-12


def test_pcgrad_without_conflict_is_the_mean():
    images, signals = pulls(*draw(4, 5, seed=3).abs().tolist())
    found, mean = (STRATEGIES[name](images, signals, STEP).gradient for name in ("pcgrad", "grad_avg"))
    torch.testing.assert_close(found, mean)


def test_pcgrad_neither_reads_nor_changes_the_global_generators(monkeypatch):
    """Nor those of other devices: torch.manual_seed would reseed them, and nothing would put them back."""

    def refuse(*args, **kwargs):
        raise AssertionError("a generator of another device was reseeded")

    for device in (torch.cuda, torch.mps, torch.xpu):
        name = "manual_seed" if device is torch.mps else "manual_seed_all"
        monkeypatch.setattr(device, name, refuse)
    images, signals, _ = conflicting()
    with nothing_drawn():
        expected = STRATEGIES["pcgrad"](images, signals, STEP).gradient
    for seed in range(10):  # ten orders of four gradients: one at least would tell
        with global_seed(seed):
            assert torch.equal(STRATEGIES["pcgrad"](images, signals, STEP).gradient, expected)


def test_pcgrad_leaves_the_generator_of_the_gpu_alone(gpu):
    images, signals, _ = conflicting()
    state = torch.cuda.get_rng_state()
    STRATEGIES["pcgrad"](images, signals, STEP)
    assert torch.equal(torch.cuda.get_rng_state(), state)


@pytest.mark.parametrize("other", [[-1.0, 1.0], [0.5, 2.0], [4.0, 0.1], [1.0, 0.0]])
def test_mgda_of_two(other):
    """The point nearest to zero on the line from b to a: a share of <b, b - a> / |a - b|^2 for a, within [0, 1]."""
    a, b = np.array([2.0, 0.0]), np.array(other)
    share = min(1.0, max(0.0, float(b @ (b - a)) / float((a - b) @ (a - b))))
    images, signals = pulls(a.tolist(), other)
    found = STRATEGIES["mgda"](images, signals, STEP).gradient.flatten().numpy()
    point, mean_norm = share * a + (1 - share) * b, (np.linalg.norm(a) + np.linalg.norm(b)) / 2
    np.testing.assert_allclose(found, point / np.linalg.norm(point) * mean_norm, rtol=1e-10, atol=1e-12)


def test_mgda_of_gradients_that_cancel_is_nothing():
    """Their least norm is zero, and what a search leaves of it has no direction to enlarge."""
    images, signals = pulls([2.0, 1.0], [-6.0, -3.0])
    assert STRATEGIES["mgda"](images, signals, STEP).gradient.abs().max() == 0
    images, signals = pulls([1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)])
    assert STRATEGIES["mgda"](images, signals, STEP).gradient.abs().max() == 0


@pytest.mark.parametrize("seed", range(4))
def test_mgda_of_three_against_a_search_over_all_weights(seed):
    gradients = draw(3, 6, seed=seed).numpy() + 0.5
    images, signals = pulls(*gradients.tolist())
    found = STRATEGIES["mgda"](images, signals, STEP).gradient.flatten().numpy()
    grid = [(i, j, 100 - i - j) for i in range(101) for j in range(101 - i)]
    point = min((np.array(w) / 100 @ gradients for w in grid), key=np.linalg.norm)
    norms = [np.linalg.norm(g) for g in gradients]
    assert np.linalg.norm(point) < 0.95 * min(norms)
    assert np.linalg.norm(found) == pytest.approx(np.mean(norms))
    assert cosine(found, point) > 0.999


def test_weights_of_the_gramian():
    """Of one sign for mgda; for grad_norm_avg the louder has the smaller weight, and w_k |g_k| is the same for all."""
    for seed in range(5):
        gradients = draw(4, 6, seed=seed)
        gramian = gradients @ gradients.T
        weights = weights_mgda(gramian, STEP)
        assert (weights >= 0).all()
        assert (weights @ gradients).norm().item() == pytest.approx(gradients.norm(dim=1).mean().item())
        loud = weights_grad_norm(gramian, STEP) * gradients.norm(dim=1)
        torch.testing.assert_close(loud, gradients.norm(dim=1).mean().expand(4) / 4)
    assert weights_pcgrad(torch.eye(4, dtype=torch.float64), STEP).tolist() == [0.25] * 4


@pytest.mark.parametrize("name", ["pcgrad", "mgda"])
def test_torchjd_missing(name, monkeypatch):
    images, signals = pulls([1.0], [2.0])
    monkeypatch.setitem(sys.modules, "torchjd.aggregation", None)
    with pytest.raises(ImportError, match="need TorchJD: pip install torchjd"):
        STRATEGIES[name](images, signals, STEP)


# --- by image ---------------------------------------------------------------------------------------------


def test_weights_of_confidence_in_numbers():
    """Two PTMs give an image's class 1/2 and 1/4: of 1/p the shares are 1/3 and 2/3, and for K = 2 they swap."""
    losses = -torch.tensor([[0.5, 1.0], [0.25, 1.0]], dtype=torch.float64).log()
    torch.testing.assert_close(weights_confidence(losses), torch.tensor([[2 / 3, 0.5], [1 / 3, 0.5]]).double())
    assert torch.equal(weights_confidence(losses[:1]), torch.ones(1, 2, dtype=torch.float64)), "one PTM decides alone"
    many = weights_confidence(draw(5, 7).abs())
    torch.testing.assert_close(many.sum(0), torch.ones(7, dtype=torch.float64))
    assert (many >= 0).all()


def test_no_gradient_goes_through_the_weights_of_images():
    """Weights that depend on the losses, and the same as constants: one gradient."""
    images, signals = some_images(), different("clom")
    with torch.no_grad():
        logits = [signal.outputs(images).logits for signal in signals]
        losses = torch.stack([torch.nn.functional.cross_entropy(x, LABELS, reduction="none") for x in logits])
    fixed = ImageWeighting(weights=lambda _: weights_confidence(losses), **ABOUT)(images, signals, STEP)
    assert torch.equal(STRATEGIES["confidence_weighted"](images, signals, STEP).gradient, fixed.gradient)


@pytest.mark.parametrize("guidance", tuple(GUIDANCE)[1:])
def test_over_all_ways_to_deal_ptms_to_images_per_image_is_loss_avg(guidance):
    """Of means exactly, gradient by gradient; of ratios in scale, for each PTM's part shares one denominator."""
    images, signals = some_images(), [a_signal(i, guidance) for i in range(K)]
    dealt = [
        Dividing(judge=lambda n, k, whose=whose: torch.tensor(whose), **ABOUT)(images, signals, STEP)
        for whose in itertools.product(range(K), repeat=N)
    ]
    expected = STRATEGIES["loss_avg"](images, signals, STEP)
    gradient = torch.stack([found.gradient for found in dealt]).mean(0)
    exact = guidance in ("clom", "cos_mean")
    assert (gradient - expected.gradient).norm() < (1e-12 if exact else 0.4) * expected.gradient.norm()
    mean_loss = torch.stack([found.loss for found in dealt]).mean()
    assert mean_loss.item() == pytest.approx(expected.loss.item(), rel=1e-12 if exact else 0.1)


def test_per_image_gives_each_image_one_ptm_throughout():
    images = some_images()
    for k in (2, K, N + 2):  # more PTMs than images: the last are not asked
        signals = [a_signal(i, "clom") for i in range(k)]
        found = STRATEGIES["per_image"](images, signals, STEP).gradient
        assert torch.equal(found, STRATEGIES["per_image"](images, signals, Step(9, 9)).gradient)
        for i in range(N):
            alone = STRATEGIES["single"](images, [signals[i % k]], STEP).gradient[i]
            torch.testing.assert_close(found[i], alone, rtol=1e-12, atol=1e-15)


# --- prediction -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["logit_avg", "prob_avg"])
def test_jensen(name):
    """The loss of the mean is below the mean of the losses, strictly if the PTMs differ."""
    images = some_images()
    for seed in range(5):
        signals = [a_signal(10 * seed + i, "clom") for i in range(K)]
        together, apart = (STRATEGIES[n](images, signals, STEP).loss for n in (name, "loss_avg"))
        assert together < apart - 1e-4


def test_the_two_prediction_averages_differ():
    images, signals = some_images(), different("clom")
    logits, probabilities = (STRATEGIES[name](images, signals, STEP) for name in ("logit_avg", "prob_avg"))
    assert abs(logits.loss - probabilities.loss) > 1e-3
    assert (logits.gradient - probabilities.gradient).abs().max() > 1e-3


def test_prob_avg_of_a_ptm_that_excludes_the_true_class():
    """Probabilities 0 and 1/2, mean 1/4: finite, where the mean of the logarithms is not."""
    images = torch.zeros(1, 1, 2, 2, dtype=torch.float64, requires_grad=True)

    @dataclass
    class Says:
        logits: list

        labels, alphas, counts = torch.tensor([0]), Alphas(clom=2.0), None

        def outputs(self, images):
            return Outputs(torch.tensor([self.logits], dtype=torch.float64) + 0 * images.sum())

    found = STRATEGIES["prob_avg"](images, [Says([-2000.0, 0.0]), Says([0.0, 0.0])], STEP)
    assert found.loss.item() == pytest.approx(2 * math.log(4))
    assert found.gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_prob_avg_is_minus_the_log_of_the_mean_probability_up_to_rounding(dtype, scale):
    """Its cross-entropy normalises the log of the mean probability once more: by log 1, which is 0 but for rounding."""
    signals = different("clom", dtype)
    images = (scale * some_images().detach()).to(dtype).requires_grad_()
    logs = torch.stack([signal.outputs(images).logits.log_softmax(1) for signal in signals])
    log_mean = torch.logsumexp(logs, 0) - math.log(K)
    alpha = sum(signal.alphas.clom for signal in signals) / K
    direct = alpha * torch.nn.functional.nll_loss(log_mean, LABELS)
    (gradient,) = torch.autograd.grad(direct, images)
    found = STRATEGIES["prob_avg"](images, signals, STEP)
    rounding = 8 * torch.finfo(dtype).eps
    assert abs(found.loss - direct.detach()) <= rounding * (alpha + abs(direct.detach()))
    assert (found.gradient - gradient).norm() <= 4 * rounding * gradient.norm()


def test_the_average_of_probabilities_is_one():
    """Its logits are logarithms of probabilities that sum to one: a constant would not show in the loss."""
    outputs = [signal.outputs(some_images()) for signal in different("clom")]
    found = average_probabilities(outputs).logits.exp()
    expected = np.mean([plain_probabilities(said.logits.detach().numpy()) for said in outputs], axis=0)
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-12)
    np.testing.assert_allclose(found.sum(1).detach(), np.ones(N), rtol=1e-12)


def test_logit_avg_of_cclom_is_the_ratio_of_the_mean_distances():
    images, signals = some_images(), [a_signal(i, "cclom", alpha_features=1.0) for i in range(K)]
    parts = [s.outputs(images).distances for s in signals]
    same, total = (sum(p[i].item() for p in parts) for i in range(2))
    together, apart = (STRATEGIES[name](images, signals, STEP).loss.item() for name in ("logit_avg", "loss_avg"))
    assert together == pytest.approx(same / total, rel=1e-12)
    assert apart == pytest.approx(sum((p[0] / p[1]).item() for p in parts) / K, rel=1e-12)
    assert abs(together - apart) > 1e-4


# --- alpha ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["loss_avg", "grad_avg", "logit_avg"])
def test_alpha_of_each_architecture_is_honoured(name):
    images = some_images()
    split = Split(REAL.float(), REAL_LABELS)
    dataset = Dataset("toy", split, split, tuple("abc"), ImageFormat(1, 2, (0.0,), (1.0,)))
    object.__setattr__(dataset, "train", Split(REAL, REAL_LABELS))  # float64, to compare sums: a data set refuses it
    ptms = [a_ptm(0, "ConvNet-3"), a_ptm(1, "AlexNet")]
    alphas = {"AlexNet": 10.0, "ConvNet-3": 100.0}
    signals = Guidance("both", ptms, alpha_clom=alphas, alpha_cclom=4.0).signals(dataset, LABELS)
    assert [(s.alphas.clom, s.alphas.cclom) for s in signals] == [(100, 4), (10, 4)]
    at = images.detach().flatten(1).numpy()
    found = STRATEGIES[name](images, signals, STEP)
    assert found.loss.item() == pytest.approx(plain_loss(name, signals, at), rel=1e-10)
    swapped = Guidance("both", ptms, alpha_clom={"AlexNet": 100.0, "ConvNet-3": 10.0}, alpha_cclom=4.0).signals(
        dataset, LABELS
    )
    changed = STRATEGIES[name](images, swapped, STEP)
    assert ((changed.gradient - found.gradient).abs().max() > 1e-3) == (name != "logit_avg")  # it uses the mean alpha


# --- choosing a row ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("guidance", GUIDANCE)
@pytest.mark.parametrize("name", STRATEGIES)
def test_get_strategy(name, guidance):
    if guidance == "none" or guidance in STRATEGIES[name].guidance:
        assert get_strategy(name, guidance) is STRATEGIES[name]
        return
    able = "single, random, sequential, shuffled, loss_avg, grad_avg, grad_norm_avg"
    with pytest.raises(ValueError, match=f"{name!r} is not defined for guidance '{guidance}'; use one of {able}"):
        get_strategy(name, guidance)


def test_an_unknown_strategy_lists_the_known_ones():
    with pytest.raises(ValueError, match=f"Unknown strategy 'best'; known: {', '.join(STRATEGIES)}"):
        get_strategy("best", "clom")


def test_an_unknown_guidance_lists_the_known_ones():
    with pytest.raises(ValueError, match="Unknown guidance 'clip'; known: none, clom, ce_ratio, cos_mean, cclom, both"):
        get_strategy("single", "clip")


ABOUT = {"rule": "a rule", "source": "this test"}
NEW_ROWS = {  # one of each family, the gradient of pulls of 1, 2 and 6, and the number of passes
    "the last": (Selecting(select=lambda num_ptms, step: num_ptms - 1, **ABOUT), 6.0, 1),
    "halves": (Weighting(weights=lambda accuracies: [0.5] * len(accuracies), **ABOUT), 4.5, 3),
    "halves at once": (Weighting(weights=lambda accuracies: [0.5] * len(accuracies), together=True, **ABOUT), 4.5, 3),
    "the longest": (GradientWeighting(weights=lambda gram, step: (gram.diagonal() > 30).to(gram), **ABOUT), 6.0, 3),
    "the second alone": (Dividing(judge=lambda n, k: torch.ones(n, dtype=torch.int64), **ABOUT), 2.0, 1),
    "the middle": (Averaging(average=lambda outputs: outputs[1], **ABOUT), 2.0, 3),
}


@pytest.mark.parametrize("name", NEW_ROWS)
def test_a_new_row_is_all_a_strategy_needs(monkeypatch, name):
    row, gradient, passes = NEW_ROWS[name]
    monkeypatch.setitem(ddlib.combine.STRATEGIES, name, row)
    images, signals = pulls([1.0], [2.0], [6.0])
    found = get_strategy(name, "both")(images, signals, STEP)
    assert (found.gradient.item(), found.passes, row.one_ptm) == (gradient, passes, passes == 1)
    assert not found.loss.requires_grad
    with pytest.raises(ValueError, match=f"known: .*, {name}"):
        get_strategy("another", "both")


def test_a_strategy_belongs_to_a_family():
    with pytest.raises(NotImplementedError):
        Strategy(**ABOUT)(*pulls([1.0]), STEP)


def test_weights_together_are_those_one_at_a_time():
    """Of a loss that is no mean, too: one backward pass, or one for each PTM."""
    images, signals = some_images(), different("both")
    together, apart = (
        Weighting(weights=lambda accuracies: [0.2, 0.0, 1.5], together=at_once, **ABOUT)(images, signals, STEP)
        for at_once in (True, False)
    )
    torch.testing.assert_close(together.gradient, apart.gradient, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(together.loss, apart.loss, rtol=1e-12, atol=0)


# --- measures ---------------------------------------------------------------------------------------------


def test_jacobian():
    images, signals, gradients = conflicting()
    losses, jacobian = jacobian_of(images, signals)
    np.testing.assert_array_equal(jacobian, gradients)
    np.testing.assert_allclose(losses, gradients.sum(1))


def test_gradient_agreement_against_a_plain_version():
    images, signals = some_images(), different("both")
    gradients = jacobian_of(images, signals)[1].numpy()
    norms, found = gradient_agreement(images, signals)
    np.testing.assert_allclose(norms, [math.sqrt(sum(g * g)) for g in gradients], rtol=1e-12)
    assert found.shape == (K, K)
    for i, j in itertools.product(range(K), repeat=2):
        a, b = gradients[i], gradients[j]
        expected = sum(a * b) / math.sqrt(sum(a * a) * sum(b * b))
        assert found[i, j].item() == pytest.approx(expected, rel=1e-10)


def test_gradient_cosines_in_numbers():
    images, signals = pulls([1.0, 0.0], [5.0, 5.0], [-2.0, 0.0], [0.0, 0.0])
    half = math.sqrt(0.5)
    expected = [[1, half, -1, 0], [half, 1, -half, 0], [-1, -half, 1, 0], [0, 0, 0, 0]]
    norms, cosines = gradient_agreement(images, signals)
    np.testing.assert_allclose(cosines, expected, atol=1e-12)
    np.testing.assert_allclose(norms, [1, 50**0.5, 2, 0])


def test_gradient_cosines_stay_within_their_range():
    gradient = draw(1000, seed=5).float().view(1, 1, 1, -1)
    images = torch.ones_like(gradient).requires_grad_()
    found = gradient_agreement(images, [Pull(gradient * x) for x in (1.0, 3.0, -7.0, 0.1)]).cosines
    assert found.max() <= 1
    assert found.min() >= -1
