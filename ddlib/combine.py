"""Strategies: how the signals of K pre-trained models become one gradient on the synthetic images.

A strategy is one row of :data:`STRATEGIES`. It belongs to a family of :mod:`ddlib.families`, and one small function
makes it: ``select(K, step) -> k`` (:class:`~ddlib.families.Selecting`, which asks one PTM in a step),
``judge(N, K) -> [N]`` (:class:`~ddlib.families.Dividing`, which asks each PTM for some of the images), or one for which
all K are asked for the whole set: ``weights(accuracies) -> [K]`` (:class:`~ddlib.families.Weighting`),
``weights(Gramian, step) -> [K]`` (:class:`~ddlib.families.GradientWeighting`), ``weights(losses) -> [K, N]``
(:class:`~ddlib.families.ImageWeighting`) and ``average(outputs) -> outputs`` (:class:`~ddlib.families.Averaging`).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ddlib.devices import moved
from ddlib.families import (
    Averaging,
    Dividing,
    GradientWeighting,
    ImageWeighting,
    Selecting,
    Step,
    Strategy,
    Weighting,
    summed_distances,
)
from ddlib.objective import Outputs
from ddlib.rng import derive_seed, generator

# --- select -----------------------------------------------------------------------------------


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


CANCELLED = 1e-3  # of the mean norm: a combination below it is what MGDA's search, exact to 1e-3, leaves of zero
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
    """MGDA: the direction of the convex combination with the smallest norm, at the mean norm of the gradients.

    That norm shrinks where gradients conflict or differ in length: as it stands, guidance would be weaker at one alpha.
    Gradients that cancel each other give none. On the CPU, for MGDA's steps are tiny.

    >>> weights_mgda(torch.eye(2), Step(0, 0))  # halves have the least norm, 1 / sqrt 2; the mean norm is 1
    tensor([0.7071, 0.7071])
    """
    here = gramian.cpu()
    weights = _torchjd().MGDAWeighting()(here)
    least, mean = (weights @ here @ weights).clamp(min=0).sqrt(), here.diagonal().sqrt().mean()
    scale = mean / least if least > CANCELLED * mean else 0.0
    return moved(weights * scale, gramian.device)


def weights_confidence(losses: Tensor) -> Tensor:
    """``w_ki = (1 - softmax_k(CE_ki)) / (K - 1)`` from cross-entropies ``[K, N]``: PTMs surer of a class count more.

    The weights of an image sum to one.

    >>> weights_confidence(torch.tensor([[0.0], [3.0]]).log()).flatten()  # softmax: shares of 0 and 3
    tensor([1., 0.])
    """
    others = len(losses) - 1
    return (1 - losses.softmax(0)) / others if others else torch.ones_like(losses)


# --- judge ------------------------------------------------------------------------------------------------


def judge_in_turn(num_images: int, num_ptms: int) -> Tensor:
    """Image i has PTM i mod K throughout: in sets that stand class after class, each class is divided alike.

    >>> judge_in_turn(5, 2)
    tensor([0, 1, 0, 1, 0])
    """
    return torch.arange(num_images, device="cpu") % num_ptms


# --- average ----------------------------------------------------------------------------------------------


def average_logits(outputs: Sequence[Outputs]) -> Outputs:
    """The mean logits ``[N, num_classes]``; for CCLoM, the sums over the distance matrices of all PTMs."""
    logits = None if outputs[0].logits is None else torch.stack([said.logits for said in outputs]).mean(0)
    return Outputs(logits, summed_distances(outputs))


def average_probabilities(outputs: Sequence[Outputs]) -> Outputs:
    """The log of the mean probability ``[N, num_classes]``: its cross-entropy is minus the log of that mean.

    >>> sure, unsure = torch.tensor([[100.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    >>> average_probabilities([Outputs(sure, None), Outputs(unsure, None)]).logits.exp()
    tensor([[0.7500, 0.2500]])
    """
    logs = torch.stack([said.logits.log_softmax(1) for said in outputs])
    return Outputs(torch.logsumexp(logs, 0) - math.log(len(outputs)))


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
        average=average_logits,
        rule="CE of the mean logits; CCLoM of the mean distance",
        source="prediction ensemble",
        guidance=("clom", "ce_ratio", "cclom", "both"),
    ),
    "prob_avg": Averaging(
        average=average_probabilities,
        rule="-log of the mean probability",
        source="prediction ensemble",
        guidance=("clom", "ce_ratio"),
    ),
    "accuracy_weighted": Weighting(
        weights=accuracy_weights,
        rule="weights softmax(acc_k / T): loss_avg unless the PTMs differ, as mixed or early ones do",
        source="own",
        needs_accuracy=True,
    ),
    "pcgrad": GradientWeighting(
        weights=weights_pcgrad, rule="project conflicts away", cost="K (F + B) + Gram", source="arXiv 2001.06782"
    ),
    "mgda": GradientWeighting(
        weights=weights_mgda,
        rule="least-norm convex combination, at the mean norm",
        cost="K (F + B) + Gram",
        source="Désidéri 2012",
    ),
    "confidence_weighted": ImageWeighting(
        weights=weights_confidence, rule="for each image, weights (1 - softmax_k(CE_k)) / (K - 1)", source="CA-MKD"
    ),
    "per_image": Dividing(
        judge=judge_in_turn, rule="image i has PTM i mod K throughout", source="CV-DD's pairs; PRISM, arXiv 2511.09905"
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


def _torchjd():
    try:
        import torchjd.aggregation
    except ImportError as error:
        raise ImportError("The strategies pcgrad and mgda need TorchJD: pip install torchjd") from error
    return torchjd.aggregation
