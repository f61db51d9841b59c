"""Strategies: how the signals of K pre-trained models become one gradient on the synthetic images.

Write ``L_k`` for the guidance loss of PTM k, its alpha inside (:func:`ddlib.objective.loss_of`), ``g_k = dL_k/dS`` for
its gradient, and F, B for a forward and backward pass of one PTM over the synthetic set.

A strategy is one row of :data:`STRATEGIES`. It belongs to a family, and one small function makes it:
``select(K, step) -> k`` (:class:`Selecting`, which asks one PTM in a step), ``weights(accuracies) -> [K]``
(:class:`Weighting`), ``weights(Gramian, step) -> [K]`` (:class:`GradientWeighting`) or ``average(outputs) -> outputs``
(:class:`Averaging`); the last three ask all K.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ddlib.devices import moved
from ddlib.objective import Alphas, Outputs, Signal, loss_of, objective
from ddlib.rng import derive_seed, generator


class Step(NamedTuple):
    """Which synthetic update this is: all that random choices may depend on."""

    seed: int
    index: int


class Combined(NamedTuple):
    """The guidance of one step."""

    loss: Tensor  # scalar, detached
    gradient: Tensor  # [N, C, H, W]
    passes: int  # forward-backward passes of a PTM over the synthetic set


# --- the families -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """One row: what a reader asks of it. The families below add the piece that combines."""

    rule: str
    source: str
    cost: str = "K (F + B)"  # of a step
    guidance: tuple[str, ...] = ("clom", "cclom", "both")
    needs_accuracy: bool = False  # of every PTM, on its train split

    one_ptm = False  # whether a step asks one PTM only

    def __call__(self, images: Tensor, signals: Sequence[Signal], step: Step) -> Combined:
        """The guidance of one step for images ``[N, C, H, W]``, a leaf that requires a gradient."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Selecting(Strategy):
    """Follow the one PTM that ``select(K, step)`` names: F + B a step."""

    select: Callable[[int, Step], int]
    cost: str = "F + B"

    one_ptm = True

    def __call__(self, images: Tensor, signals: Sequence[Signal], step: Step) -> Combined:
        """``g_k`` for the k of this step."""
        return _descend(loss_of(signals[self.select(len(signals), step)], images), images, passes=1)


@dataclass(frozen=True, kw_only=True)
class Weighting(Strategy):
    """``sum_k w_k g_k`` with weights that are known beforehand, from the accuracies of the PTMs ``[K]``.

    ``together``: one backward pass through the graphs of all K PTMs, else K passes through one graph at a time. The
    two differ in memory and in rounding.
    """

    weights: Callable[[Sequence[float | None]], list[float]]
    together: bool = False

    def __call__(self, images: Tensor, signals: Sequence[Signal], step: Step) -> Combined:
        """The weighted sum of the gradients, and of the losses."""
        weights = self.weights([signal.accuracy for signal in signals])
        if self.together:
            losses = torch.stack([loss_of(signal, images) for signal in signals])
            return _descend((losses * losses.new_tensor(weights)).sum(), images, passes=len(signals))
        loss, gradient = images.new_zeros(()), torch.zeros_like(images)
        for weight, signal in zip(weights, signals, strict=True):
            one = _descend(loss_of(signal, images), images, passes=1)
            loss, gradient = loss + weight * one.loss, gradient.add_(one.gradient, alpha=weight)
        return Combined(loss, gradient, len(signals))


@dataclass(frozen=True, kw_only=True)
class GradientWeighting(Strategy):
    """``sum_k w_k g_k`` with weights ``[K]`` from the Gramian ``[K, K]`` of the gradients: the gradient of no loss."""

    weights: Callable[[Tensor, Step], Tensor]

    def __call__(self, images: Tensor, signals: Sequence[Signal], step: Step) -> Combined:
        """The weighted sum of the gradients; the loss is the mean of all."""
        losses, jacobian = jacobian_of(images, signals)
        weights = self.weights(jacobian @ jacobian.T, step)
        return Combined(losses.mean(), (weights @ jacobian).view_as(images), len(signals))


@dataclass(frozen=True, kw_only=True)
class Averaging(Strategy):
    """The loss of one average of what all PTMs say; alphas that differ between PTMs are averaged too."""

    average: Callable[[Sequence[Outputs]], Outputs]

    def __call__(self, images: Tensor, signals: Sequence[Signal], step: Step) -> Combined:
        """The gradient of the objective of the average."""
        said = self.average([signal.outputs(images) for signal in signals])
        alphas = Alphas(*map(_mean, zip(*(signal.alphas for signal in signals), strict=True)))
        return _descend(objective(said, signals[0].labels, alphas), images, passes=len(signals))


# --- the pieces: select -----------------------------------------------------------------------------------


def select_single(num_ptms: int, step: Step) -> int:
    """Always the first PTM."""
    return 0


def select_random(num_ptms: int, step: Step) -> int:
    """k uniform in each step, with replacement."""
    return int(torch.randint(num_ptms, (), generator=generator(step.seed, "selection", step.index), device="cpu"))


def select_sequential(num_ptms: int, step: Step) -> int:
    """k = t mod K.

    >>> [select_sequential(3, Step(seed=0, index=t)) for t in range(5)]
    [0, 1, 2, 0, 1]
    """
    return step.index % num_ptms


def select_shuffled(num_ptms: int, step: Step) -> int:
    """The t-th entry of permutations of the K PTMs, a fresh one every K steps."""
    turn, place = divmod(step.index, num_ptms)
    return int(torch.randperm(num_ptms, generator=generator(step.seed, "selection", turn), device="cpu")[place])


# --- weights ----------------------------------------------------------------------------------------------


def equal_weights(accuracies: Sequence[float | None]) -> list[float]:
    """``1 / K`` for each."""
    return [1 / len(accuracies)] * len(accuracies)


TEMPERATURE = 0.1  # of accuracy_weighted: ten points of accuracy multiply a PTM's weight by e


def accuracy_weights(accuracies: Sequence[float | None], temperature: float = TEMPERATURE) -> list[float]:
    """``softmax(acc_k / T)``, accuracies as fractions; the weights sum to one. Raises ValueError if one is None.

    >>> [round(weight, 2) for weight in accuracy_weights([0.7, 0.6])]
    [0.73, 0.27]
    """
    if any(a is None for a in accuracies):
        raise ValueError("accuracy_weighted needs the accuracy of every PTM, and one of these has none recorded.")
    return torch.softmax(torch.tensor(accuracies, dtype=torch.float64) / temperature, 0).tolist()


def weights_grad_norm(gramian: Tensor, step: Step) -> Tensor:
    """Weights of ``mean_k g_k / |g_k|``, times the mean norm: every PTM speaks equally loud.

    >>> weights_grad_norm(torch.tensor([[1.0, 0.0], [0.0, 9.0]]), Step(0, 0))  # norms 1 and 3, mean 2
    tensor([1.0000, 0.3333])
    """
    norms = gramian.diagonal().sqrt()
    weights = norms.mean() / (len(norms) * norms)
    return torch.where(norms > 0, weights, 0)  # a PTM without a gradient has no direction to give


def weights_pcgrad(gramian: Tensor, step: Step) -> Tensor:
    """PCGrad: each gradient loses its component against those it conflicts with; then the mean of them."""
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):  # TorchJD's order is of the global generator: lend it
        # torch.manual_seed would reseed the GPU too, which fork_rng does not give back here
        torch.default_generator.manual_seed(derive_seed(step.seed, "pcgrad", step.index))
        return _torchjd().PCGradWeighting()(gramian) / len(gramian)  # TorchJD sums; the mean keeps alpha's meaning


def weights_mgda(gramian: Tensor, step: Step) -> Tensor:
    """MGDA: the convex combination of the gradients with the smallest norm; on the CPU, for its steps are tiny."""
    return moved(_torchjd().MGDAWeighting()(gramian.cpu()), gramian.device)


# --- average ----------------------------------------------------------------------------------------------


def average_logits(outputs: Sequence[Outputs]) -> Outputs:
    """The mean logits ``[N, num_classes]``; for CCLoM, the sums over the distance matrices of all PTMs."""
    logits = None if outputs[0].logits is None else torch.stack([said.logits for said in outputs]).mean(0)
    if outputs[0].distances is None:
        return Outputs(logits, None)
    same, total = (torch.stack(parts).sum() for parts in zip(*(said.distances for said in outputs), strict=True))
    return Outputs(logits, (same, total))


def average_probabilities(outputs: Sequence[Outputs]) -> Outputs:
    """The log of the mean probability ``[N, num_classes]``: its cross-entropy is minus the log of that mean.

    >>> sure, unsure = torch.tensor([[100.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    >>> average_probabilities([Outputs(sure, None), Outputs(unsure, None)]).logits.exp()
    tensor([[0.7500, 0.2500]])
    """
    logs = torch.stack([said.logits.log_softmax(1) for said in outputs])
    return Outputs(torch.logsumexp(logs, 0) - math.log(len(outputs)), None)


STRATEGIES: dict[str, Strategy] = {
    "single": Selecting(select=select_single, rule="one fixed PTM", source="control"),
    "random": Selecting(select=select_random, rule="k uniform in each step", source="arXiv 2310.03295"),
    "sequential": Selecting(select=select_sequential, rule="k = t mod K", source="G-VBSM, arXiv 2311.17950"),
    "shuffled": Selecting(
        select=select_shuffled, rule="a fresh permutation every K steps", source="without replacement"
    ),
    "loss_avg": Weighting(
        weights=equal_weights,
        together=True,
        rule="gradient of mean_k L_k",
        cost="K (F + B), K graphs",
        source="CV-DD, equal weights",
    ),
    "grad_avg": Weighting(
        weights=equal_weights, rule="mean_k g_k", cost="K (F + B), one graph", source="identical to loss_avg"
    ),
    "grad_norm_avg": GradientWeighting(
        weights=weights_grad_norm, rule="mean of g_k / |g_k|, times the mean norm", source="normalised gradients"
    ),
    "logit_avg": Averaging(
        average=average_logits, rule="CE of the mean logits; CCLoM of the mean distance", source="prediction ensemble"
    ),
    "prob_avg": Averaging(
        average=average_probabilities,
        rule="-log of the mean probability",
        source="prediction ensemble",
        guidance=("clom",),
    ),
    "accuracy_weighted": Weighting(
        weights=accuracy_weights, rule="weights softmax(acc_k / T)", source="softmax of accuracies", needs_accuracy=True
    ),
    "pcgrad": GradientWeighting(
        weights=weights_pcgrad, rule="project conflicts away", cost="K (F + B) + Gram", source="arXiv 2001.06782"
    ),
    "mgda": GradientWeighting(
        weights=weights_mgda, rule="least-norm convex combination", cost="K (F + B) + Gram", source="Désidéri 2012"
    ),
}
"""Every strategy by its name. A new one is one row here."""


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


def jacobian_of(images: Tensor, signals: Sequence[Signal]) -> tuple[Tensor, Tensor]:
    """Losses ``[K]`` and gradients ``[K, pixels]`` of all PTMs, one graph at a time."""
    steps = [_descend(loss_of(signal, images), images, passes=1) for signal in signals]
    return torch.stack([s.loss for s in steps]), torch.stack([s.gradient.flatten() for s in steps])


def gradient_cosines(images: Tensor, signals: Sequence[Signal]) -> Tensor:
    """Pairwise cosines ``[K, K]`` of the gradients: how much the PTMs agree on where the images should go."""
    unit = torch.nn.functional.normalize(jacobian_of(images, signals)[1], dim=1)
    return (unit @ unit.T).clamp(-1, 1)


def _descend(loss: Tensor, images: Tensor, passes: int) -> Combined:
    return Combined(loss.detach(), torch.autograd.grad(loss, images)[0], passes)


def _mean(values: Sequence[float | None]) -> float | None:
    return None if None in values else sum(values) / len(values)


def _torchjd():
    try:
        import torchjd.aggregation
    except ImportError as error:
        raise ImportError("The strategies pcgrad and mgda need TorchJD: pip install torchjd") from error
    return torchjd.aggregation
