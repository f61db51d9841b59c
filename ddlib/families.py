"""The families of strategies: how one small function makes the guidance of a step out of what K PTMs say.

Write ``L_k`` for the guidance loss of PTM k, its alpha inside (:func:`ddlib.objective.loss_of`), ``g_k = dL_k/dS`` for
its gradient, and F, B for a forward and backward pass of one PTM over the synthetic set. The strategies themselves are
the rows of :data:`ddlib.combine.STRATEGIES`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ddlib.objective import Alphas, Outputs, Signal, loss_of, objective


class Step(NamedTuple):
    """Which synthetic update this is: all that random choices may depend on."""

    seed: int
    index: int


class Combined(NamedTuple):
    """The guidance of one step."""

    loss: Tensor  # scalar, detached
    gradient: Tensor  # [N, C, H, W]
    passes: int  # forward-backward passes of a PTM over the synthetic set


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """One row: what a reader asks of it. The families below add the piece that combines."""

    rule: str
    source: str
    cost: str = "K (F + B)"  # of a step
    guidance: tuple[str, ...] = ("clom", "ce_ratio", "cos_mean", "cclom", "both")
    needs_accuracy: bool = False  # of every PTM, on its train split

    one_ptm = False  # whether a step costs one pass over the set: of one PTM, or of each over its part

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
    """The loss of one average of what all PTMs say; alphas that differ between PTMs are averaged too.

    Of logits and probabilities this is an average before the cross-entropy, for CLoM and the CE ratio; of distances one
    before CCLoM's ratio. The mean cosine is linear in its distances: the loss of their average is ``loss_avg``.
    """

    average: Callable[[Sequence[Outputs]], Outputs]

    def __call__(self, images: Tensor, signals: Sequence[Signal], step: Step) -> Combined:
        """The gradient of the objective of the average."""
        said = self.average([signal.outputs(images) for signal in signals])
        loss = objective(said, signals[0].labels, _mean_alphas(signals), signals[0].counts)
        return _descend(loss, images, passes=len(signals))


@dataclass(frozen=True, kw_only=True)
class ImageWeighting(Strategy):
    """``sum_k alpha_k mean_i w_ki CE_ki`` with weights ``[K, N]`` from the cross-entropies ``[K, N]`` of this step.

    The weights are constants of the step: no gradient goes through them.
    """

    weights: Callable[[Tensor], Tensor]
    guidance: tuple[str, ...] = ("clom",)

    def __call__(self, images: Tensor, signals: Sequence[Signal], step: Step) -> Combined:
        """The gradient of the weighted sum."""
        said, labels = [signal.outputs(images) for signal in signals], signals[0].labels
        weights = self.weights(
            torch.stack([F.cross_entropy(s.logits.detach(), labels, reduction="none") for s in said])
        )
        losses = [
            objective(outputs._replace(weights=of_images), labels, signal.alphas)
            for outputs, of_images, signal in zip(said, weights, signals, strict=True)
        ]
        return _descend(torch.stack(losses).sum(), images, passes=len(signals))


@dataclass(frozen=True, kw_only=True)
class Dividing(Strategy):
    """Each image is judged by one PTM, ``judge(N, K)``: the loss of what they say of their parts, put together.

    So a mean is taken over all images, and a ratio after the sums over all images: as for one PTM. Alphas that differ
    between PTMs are averaged.
    """

    judge: Callable[[int, int], Tensor]
    cost: str = "F + B in total"

    one_ptm = True

    def __call__(self, images: Tensor, signals: Sequence[Signal], step: Step) -> Combined:
        """The gradient of that loss; all PTMs together see each image once."""
        whose = self.judge(len(images), len(signals)).to(images.device)
        parts = [(whose == k).nonzero().flatten() for k in range(len(signals))]
        said = [s.part(i).outputs(images[i]) for s, i in zip(signals, parts, strict=True) if len(i)]
        labels = signals[0].labels[torch.cat(parts)]
        return _descend(objective(_joined(said), labels, _mean_alphas(signals), signals[0].counts), images, passes=1)


def _joined(outputs: Sequence[Outputs]) -> Outputs:
    """What PTMs say of parts of a set, as one: images one after the other, distances summed."""

    def together(values: Sequence[Tensor | None]) -> Tensor | None:
        return None if values[0] is None else torch.cat(values)

    logits, cosines = together([said.logits for said in outputs]), together([said.cosines for said in outputs])
    return Outputs(logits, summed_distances(outputs), cosines)


def summed_distances(outputs: Sequence[Outputs]) -> tuple[Tensor, Tensor] | None:
    """CCLoM's two sums over several PTMs."""
    if outputs[0].distances is None:
        return None
    same, total = zip(*(said.distances for said in outputs), strict=True)
    return torch.stack(same).sum(), torch.stack(total).sum()


def _mean_alphas(signals: Sequence[Signal]) -> Alphas:
    values = zip(*(signal.alphas for signal in signals), strict=True)
    return Alphas(*(None if None in of_loss else sum(of_loss) / len(of_loss) for of_loss in values))


def jacobian_of(images: Tensor, signals: Sequence[Signal]) -> tuple[Tensor, Tensor]:
    """Losses ``[K]`` and gradients ``[K, pixels]`` of all PTMs, one graph at a time."""
    steps = [_descend(loss_of(signal, images), images, passes=1) for signal in signals]
    return torch.stack([s.loss for s in steps]), torch.stack([s.gradient.flatten() for s in steps])


class Agreement(NamedTuple):
    """How long the gradients of K PTMs are, and how much they agree on where the images should go."""

    norms: Tensor  # [K], alphas inside
    cosines: Tensor  # [K, K], of pairs


def gradient_agreement(images: Tensor, signals: Sequence[Signal]) -> Agreement:
    """Norms and pairwise cosines of the gradients of all PTMs."""
    jacobian = jacobian_of(images, signals)[1]
    unit = F.normalize(jacobian, dim=1)
    return Agreement(jacobian.norm(dim=1), (unit @ unit.T).clamp(-1, 1))


def _descend(loss: Tensor, images: Tensor, passes: int) -> Combined:
    return Combined(loss.detach(), torch.autograd.grad(loss, images)[0], passes)
