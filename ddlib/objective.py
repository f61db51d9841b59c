"""The guidance objective: what a PTM says about a synthetic set, and the one loss that is made of it."""

from typing import NamedTuple, Protocol

from torch import Tensor

from ddlib.losses import clom_loss


class Outputs(NamedTuple):
    """What one PTM says about a synthetic set, before any loss; None where the guidance does not ask."""

    logits: Tensor | None  # [N, num_classes], for CLoM
    distances: tuple[Tensor, Tensor] | None  # (same-class, total) distance, for CCLoM


class Alphas(NamedTuple):
    """The weight of each guidance loss; None: that loss is not asked for."""

    clom: float | None
    cclom: float | None


class Signal(Protocol):
    """One PTM as a strategy sees it (the library's own is :class:`ddlib.guidance.PTMSignal`)."""

    labels: Tensor  # [N]
    alphas: Alphas
    accuracy: float | None  # of the PTM on what it was trained on, in [0, 1]; the test set is not for choosing

    def outputs(self, images: Tensor) -> Outputs:
        """What the PTM says about images ``[N, C, H, W]``."""


def objective(outputs: Outputs, labels: Tensor, alphas: Alphas) -> Tensor:
    """``alpha_clom * CLoM + alpha_cclom * CCLoM``, as far as asked for: the only place where alphas multiply.

    Args: what one PTM, or an average of several, says about the synthetic images with ``labels [N]``.
    Returns a scalar. Source: Lu et al., arXiv 2310.03295.

    >>> import torch
    >>> said = Outputs(torch.zeros(1, 10), (torch.tensor(1.0), torch.tensor(4.0)))
    >>> f"{objective(said, torch.tensor([0]), Alphas(clom=10.0, cclom=100.0)):.3f}"  # 10 log 10 + 100 / 4
    '48.026'
    """
    terms = []
    if alphas.clom is not None:
        terms.append(alphas.clom * clom_loss(outputs.logits, labels))
    if alphas.cclom is not None:
        same, total = outputs.distances
        terms.append(alphas.cclom * same / total)
    return sum(terms)


def loss_of(signal: Signal, images: Tensor) -> Tensor:
    """The guidance loss of one PTM for images ``[N, C, H, W]``, alphas inside; a scalar."""
    return objective(signal.outputs(images), signal.labels, signal.alphas)
