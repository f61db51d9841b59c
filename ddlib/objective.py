"""The guidance objective: what a PTM says about a synthetic set, and the one loss that is made of it."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from torch import Tensor

from ddlib.losses import ce_ratio_loss, clom_loss


class Outputs(NamedTuple):
    """What one PTM says about a synthetic set, before any loss; None where the guidance does not ask."""

    logits: Tensor | None = None  # [N, num_classes], for CLoM and the CE ratio
    distances: tuple[Tensor, Tensor] | None = None  # (same-class, total) distance, for CCLoM
    cosines: Tensor | None = None  # [N], mean distance of each image from its class, for the mean cosine
    weights: Tensor | None = None  # [N], of the images, for CLoM; None: 1 each


class Alphas(NamedTuple):
    """The weight of each guidance loss; None: that loss is not asked for."""

    clom: float | None = None
    ce_ratio: float | None = None
    cos_mean: float | None = None
    cclom: float | None = None


class Signal(Protocol):
    """One PTM as a strategy sees it (the library's own is :class:`ddlib.guidance.PTMSignal`)."""

    labels: Tensor  # [N]
    alphas: Alphas
    accuracy: float | None  # of the PTM on what it was trained on, in [0, 1]; the test set is not for choosing
    counts: Tensor | None  # [num_classes], real images of each class, for the CE ratio

    def outputs(self, images: Tensor) -> Outputs:
        """What the PTM says about images ``[N, C, H, W]``."""

    def part(self, index: Tensor) -> "Signal":
        """The same for the images ``index [n]`` of the set alone."""


LOSSES: dict[str, Callable[[Outputs, Tensor, Tensor | None], Tensor]] = {
    "clom": lambda said, labels, counts: clom_loss(said.logits, labels, said.weights),
    "ce_ratio": lambda said, labels, counts: ce_ratio_loss(said.logits, labels, counts),
    "cos_mean": lambda said, labels, counts: said.cosines.mean(),
    "cclom": lambda said, labels, counts: said.distances[0] / said.distances[1],
}
"""Each guidance loss, of what is said, labels ``[N]`` and real images of each class; its alpha has the same name."""


def objective(outputs: Outputs, labels: Tensor, alphas: Alphas, counts: Tensor | None = None) -> Tensor:
    """The sum of ``alpha * loss`` over the losses that are asked for: the only place where alphas multiply.

    Args: what one PTM, or an average of several, says about the synthetic images with ``labels [N]``; for the CE ratio
    the ``counts [num_classes]`` of the real set. Returns a scalar. Source: Lu et al., arXiv 2310.03295.

    >>> import torch
    >>> said = Outputs(torch.zeros(1, 10), (torch.tensor(1.0), torch.tensor(4.0)))
    >>> f"{objective(said, torch.tensor([0]), Alphas(clom=10.0, cclom=100.0)):.3f}"  # 10 log 10 + 100 / 4
    '48.026'
    """
    asked = {name: alpha for name, alpha in alphas._asdict().items() if alpha is not None}
    return sum(alpha * LOSSES[name](outputs, labels, counts) for name, alpha in asked.items())


def loss_of(signal: Signal, images: Tensor) -> Tensor:
    """The guidance loss of one PTM for images ``[N, C, H, W]``, alphas inside; a scalar."""
    return objective(signal.outputs(images), signal.labels, signal.alphas, signal.counts)
