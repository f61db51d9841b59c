"""Strategies: how the signals of K pre-trained models become one gradient on the synthetic images.

Write ``L_k`` for the guidance loss of PTM k (its alpha inside), ``g_k = dL_k/dS`` for its gradient, and F, B
for a forward and backward pass of one PTM over the synthetic set. A strategy is one row of
:data:`STRATEGIES`: a function ``(images, signals, step) -> Combined``.

Three families: *selection* asks one PTM a step; *weighting* turns the K losses into one weighted sum of
gradients; *prediction* averages what the PTMs say before the loss is taken.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from ddlib.losses import clom_loss
from ddlib.rng import derive_seed, generator


class Outputs(NamedTuple):
    """What one PTM says about a synthetic set, before any loss; None where the guidance does not ask."""

    logits: Tensor | None  # [N, num_classes], for CLoM
    distances: tuple[Tensor, Tensor] | None  # (same-class, total) distance, for CCLoM


class Signal(Protocol):
    """One PTM as a strategy sees it (the library's own is :class:`ddlib.guidance.PTMSignal`)."""

    labels: Tensor  # [N]
    accuracy: float | None  # of the PTM on what it was trained on, in [0, 1]; the test set is not for choosing
    alpha_clom: float
    alpha_cclom: float

    def outputs(self, images: Tensor) -> Outputs:
        """What the PTM says about images ``[N, C, H, W]``."""

    def loss(self, images: Tensor) -> Tensor:
        """Its guidance loss, alphas inside; a scalar."""


class Step(NamedTuple):
    """Which synthetic update this is: all that random choices may depend on."""

    seed: int
    index: int


class Combined(NamedTuple):
    """The guidance of one step."""

    loss: Tensor  # scalar, detached
    gradient: Tensor  # [N, C, H, W]
    passes: int  # forward-backward passes of a PTM over the synthetic set


Combine = Callable[[Tensor, Sequence[Signal], Step], Combined]


# --- selection: F + B a step ------------------------------------------------------------------------------


def select_single(num_ptms: int, step: Step) -> int:
    """Always the first PTM."""
    return 0


def select_random(num_ptms: int, step: Step) -> int:
    """k uniform in each step, with replacement."""
    return int(torch.randint(num_ptms, (), generator=generator(step.seed, "selection", step.index)))


def select_sequential(num_ptms: int, step: Step) -> int:
    """k = t mod K."""
    return step.index % num_ptms


def select_shuffled(num_ptms: int, step: Step) -> int:
    """The t-th entry of permutations of the K PTMs, a fresh one every K steps."""
    turn, place = divmod(step.index, num_ptms)
    return int(torch.randperm(num_ptms, generator=generator(step.seed, "selection", turn))[place])


def selecting(select: Callable[[int, Step], int]) -> Combine:
    """The strategy that follows the one PTM ``select`` names."""

    def combine(images: Tensor, signals: Sequence[Signal], step: Step) -> Combined:
        return _descend(signals[select(len(signals), step)].loss(images), images, passes=1)

    return combine


# --- weighting: K (F + B) a step --------------------------------------------------------------------------


def loss_avg(images: Tensor, signals: Sequence[Signal], step: Step) -> Combined:
    """Backward of ``mean_k L_k``: one backward pass, the graphs of all K PTMs in memory."""
    losses = torch.stack([signal.loss(images) for signal in signals])
    return _descend(losses.mean(), images, passes=len(signals))


def grad_avg(images: Tensor, signals: Sequence[Signal], step: Step) -> Combined:
    """``mean_k g_k``: equal to :func:`loss_avg` but for rounding, with the memory of one graph."""
    return _weighted_sum(images, signals, [1 / len(signals)] * len(signals))


TEMPERATURE = 0.1  # of accuracy_weighted: ten points of accuracy multiply a PTM's weight by e


def accuracy_weights(accuracies: Sequence[float | None], temperature: float = TEMPERATURE) -> list[float]:
    """``softmax(acc_k / T)``, accuracies as fractions; the weights sum to one."""
    if any(a is None for a in accuracies):
        raise ValueError("accuracy_weighted needs the accuracy of every PTM, and one of these has none recorded.")
    return torch.softmax(torch.tensor(accuracies, dtype=torch.float64) / temperature, 0).tolist()


def accuracy_weighted(images: Tensor, signals: Sequence[Signal], step: Step) -> Combined:
    """``sum_k w_k g_k`` with ``w = softmax(accuracy / T)``: better PTMs count more."""
    return _weighted_sum(images, signals, accuracy_weights([s.accuracy for s in signals]))


def weights_grad_norm(gramian: Tensor, step: Step) -> Tensor:
    """Weights of ``mean_k g_k / |g_k|``, times the mean norm: every PTM speaks equally loud."""
    norms = gramian.diagonal().sqrt()
    weights = norms.mean() / (len(norms) * norms)
    return torch.where(norms > 0, weights, 0)  # a PTM without a gradient has no direction to give


def weights_pcgrad(gramian: Tensor, step: Step) -> Tensor:
    """PCGrad: each gradient loses its component against those it conflicts with; then the mean of them."""
    weighting = _torchjd().PCGradWeighting()
    with torch.random.fork_rng(devices=[]):  # TorchJD draws its order from the global generator: lend it one
        # torch.manual_seed would reseed the GPU too, which fork_rng does not give back here
        torch.default_generator.manual_seed(derive_seed(step.seed, "pcgrad", step.index))
        return weighting(gramian) / len(gramian)  # TorchJD sums; the mean keeps alpha's meaning for every K


def weights_mgda(gramian: Tensor, step: Step) -> Tensor:
    """MGDA: the convex combination of the gradients with the smallest norm."""
    return _torchjd().MGDAWeighting()(gramian)


def weighting(weights: Callable[[Tensor, Step], Tensor]) -> Combine:
    """The strategy ``sum_k w_k g_k`` whose weights come from the Gramian ``[K, K]`` of the gradients."""

    def combine(images: Tensor, signals: Sequence[Signal], step: Step) -> Combined:
        losses, jacobian = jacobian_of(images, signals)
        w = weights(jacobian @ jacobian.T, step)
        return Combined(losses.mean(), (w @ jacobian).view_as(images), len(signals))

    return combine


# --- prediction: K (F + B) a step -------------------------------------------------------------------------


def logit_avg(images: Tensor, signals: Sequence[Signal], step: Step) -> Combined:
    """Cross-entropy of the mean logits; for CCLoM, the loss of the mean distance matrix."""
    said = [signal.outputs(images) for signal in signals]
    return _predict(images, signals, said, lambda logits: clom_loss(torch.stack(logits).mean(0), signals[0].labels))


def prob_avg(images: Tensor, signals: Sequence[Signal], step: Step) -> Combined:
    """``-log`` of the mean probability of the true class. CLoM only: CCLoM has no probabilities."""
    said = [signal.outputs(images) for signal in signals]

    def loss(logits: list[Tensor]) -> Tensor:
        log_mean = torch.logsumexp(torch.stack([x.log_softmax(1) for x in logits]), 0) - math.log(len(logits))
        return torch.nn.functional.nll_loss(log_mean, signals[0].labels)

    return _predict(images, signals, said, loss)


def _predict(images, signals, said: list[Outputs], loss_of_logits: Callable[[list[Tensor]], Tensor]) -> Combined:
    """One loss of all predictions; alphas that differ between PTMs are averaged, as the predictions are."""
    loss = images.new_zeros(())
    if said[0].logits is not None:
        loss = loss + _mean([s.alpha_clom for s in signals]) * loss_of_logits([o.logits for o in said])
    if said[0].distances is not None:
        same, total = (torch.stack(parts).sum() for parts in zip(*(o.distances for o in said), strict=True))
        loss = loss + _mean([s.alpha_cclom for s in signals]) * same / total
    return _descend(loss, images, passes=len(signals))


# --- the table --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Strategy:
    """One row: the function, and what a reader asks of it."""

    combine: Combine
    rule: str
    cost: str
    source: str
    guidance: tuple[str, ...] = ("clom", "cclom", "both")
    needs_accuracy: bool = False  # of every PTM, on its train split

    @property
    def one_ptm(self) -> bool:
        """Whether a step asks one PTM only."""
        return self.cost == "F + B"

    def __call__(self, images: Tensor, signals: Sequence[Signal], step: Step) -> Combined:
        """The guidance of one step for images ``[N, C, H, W]``."""
        return self.combine(images, signals, step)


STRATEGIES: dict[str, Strategy] = {
    "single": Strategy(selecting(select_single), "one fixed PTM", "F + B", "control"),
    "random": Strategy(selecting(select_random), "k uniform in each step", "F + B", "arXiv 2310.03295"),
    "sequential": Strategy(selecting(select_sequential), "k = t mod K", "F + B", "G-VBSM, arXiv 2311.17950"),
    "shuffled": Strategy(
        selecting(select_shuffled), "a fresh permutation every K steps", "F + B", "without replacement"
    ),
    "loss_avg": Strategy(loss_avg, "gradient of mean_k L_k", "K (F + B), K graphs", "CV-DD, equal weights"),
    "grad_avg": Strategy(grad_avg, "mean_k g_k", "K (F + B), one graph", "identical to loss_avg"),
    "grad_norm_avg": Strategy(
        weighting(weights_grad_norm),
        "mean of g_k / |g_k|, times the mean norm",
        "K (F + B)",
        "normalised gradients",
    ),
    "logit_avg": Strategy(
        logit_avg,
        "CE of the mean logits; CCLoM of the mean distance",
        "K (F + B)",
        "prediction-level ensemble",
    ),
    "prob_avg": Strategy(
        prob_avg, "-log of the mean probability", "K (F + B)", "prediction-level ensemble", guidance=("clom",)
    ),
    "accuracy_weighted": Strategy(
        accuracy_weighted, "weights softmax(acc_k / T)", "K (F + B)", "CV-DD, prior weights", needs_accuracy=True
    ),
    "pcgrad": Strategy(weighting(weights_pcgrad), "project conflicts away", "K (F + B) + Gram", "arXiv 2001.06782"),
    "mgda": Strategy(weighting(weights_mgda), "least-norm convex combination", "K (F + B) + Gram", "Désidéri 2012"),
}


def get_strategy(name: str, guidance: str) -> Strategy:
    """The row ``name`` for ``guidance``. Raises ValueError, listing what is allowed, if there is none."""
    if name not in STRATEGIES:
        raise ValueError(f"Unknown strategy {name!r}; known: {', '.join(STRATEGIES)}.")
    if guidance not in ("none", *Strategy.guidance):
        raise ValueError(f"Unknown guidance {guidance!r}; known: none, {', '.join(Strategy.guidance)}.")
    if guidance != "none" and guidance not in STRATEGIES[name].guidance:
        able = [key for key, row in STRATEGIES.items() if guidance in row.guidance]
        raise ValueError(f"Strategy {name!r} is not defined for guidance {guidance!r}; use one of {', '.join(able)}.")
    return STRATEGIES[name]


# --- measures and small parts -----------------------------------------------------------------------------


def jacobian_of(images: Tensor, signals: Sequence[Signal]) -> tuple[Tensor, Tensor]:
    """Losses ``[K]`` and gradients ``[K, pixels]`` of all PTMs, one graph at a time."""
    steps = [_descend(signal.loss(images), images, passes=1) for signal in signals]
    return torch.stack([s.loss for s in steps]), torch.stack([s.gradient.flatten() for s in steps])


def gradient_cosines(images: Tensor, signals: Sequence[Signal]) -> Tensor:
    """Pairwise cosines ``[K, K]`` of the gradients: how much the PTMs agree on where the images should go."""
    unit = torch.nn.functional.normalize(jacobian_of(images, signals)[1], dim=1)
    return (unit @ unit.T).clamp(-1, 1)


def _weighted_sum(images: Tensor, signals: Sequence[Signal], weights: Sequence[float]) -> Combined:
    """``sum_k w_k g_k``, one backward pass and one graph at a time."""
    loss, gradient = images.new_zeros(()), torch.zeros_like(images)
    for weight, signal in zip(weights, signals, strict=True):
        one = _descend(signal.loss(images), images, passes=1)
        loss, gradient = loss + weight * one.loss, gradient.add_(one.gradient, alpha=weight)
    return Combined(loss, gradient, len(signals))


def _descend(loss: Tensor, images: Tensor, passes: int) -> Combined:
    return Combined(loss.detach(), torch.autograd.grad(loss, images)[0], passes)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _torchjd():
    try:
        import torchjd.aggregation
    except ImportError as error:
        raise ImportError("The strategies pcgrad and mgda need TorchJD: pip install torchjd") from error
    return torchjd.aggregation
