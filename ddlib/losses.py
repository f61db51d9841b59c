"""The losses of the field, as pure functions of tensors: no model, no device, no alpha in here.

A forward pass of a network happens outside; ``alpha`` multiplies in the objective
(``L(S) = L_base(S, T) + alpha * L_PTM(S)``, Lu et al., arXiv 2310.03295).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class ClassSums(NamedTuple):
    """What the losses on features need to know of a whole real set: see :func:`class_sums`."""

    sums: Tensor  # [num_classes, d], sum of the unit features of each class
    counts: Tensor  # [num_classes], images of each class


def clom_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """CLoM: the classification loss of a pre-trained model on the synthetic set.

    Args: ``logits [N, num_classes]`` of the frozen PTM, ``labels [N]`` int64; ``weights [N]`` of the images, 1 each.
    Returns the scalar mean cross-entropy. Raises ValueError on shapes that do not fit.
    Source: Lu et al., arXiv 2310.03295 (called CLOM in their first code, CLoM with distance ``ce`` later).

    >>> logits, labels = torch.zeros(2, 10), torch.tensor([3, 7])
    >>> f"{clom_loss(logits, labels):.4f}"  # the PTM knows nothing: log 10
    '2.3026'
    """
    _check_rows("logits", logits, labels)
    if weights is None:
        return F.cross_entropy(logits, labels)
    return (weights * F.cross_entropy(logits, labels, reduction="none")).mean()


def ce_ratio_loss(logits: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """The CE ratio: CLoM's cross-entropy in the contrastive form of CCLoM, over the whole real set.

    ``D[i, j] = -log p_{y_j}(s_i)``, the PTM's cross-entropy of synthetic image i for the class of real image j,
    ``M[i, j] = [y_i == y_j]``, loss ``sum(D * M) / sum(D)``. Of a real set only the counts ``n_c`` of its classes
    matter: ``sum_i n_{y_i} CE_{y_i}(s_i) / sum_i sum_c n_c CE_c(s_i)``.

    Args: ``logits [N, num_classes]`` of the frozen PTM, ``labels [N]``, ``counts [num_classes]`` of the real set.
    Returns a scalar in [0, 1]. Raises ValueError on shapes that do not fit.
    Source: the readme of the code of Lu et al., arXiv 2310.03295 (their code has the mean, which is CLoM).

    >>> logits, labels = torch.zeros(2, 10), torch.tensor([3, 7])
    >>> f"{ce_ratio_loss(logits, labels, torch.ones(10)):.4f}"  # the PTM knows nothing: one class of ten
    '0.1000'
    """
    _check_rows("logits", logits, labels)
    if counts.shape != logits.shape[1:]:
        raise ValueError(f"counts must be [{logits.shape[1]}], one for each class; found {list(counts.shape)}.")
    distance = -F.log_softmax(logits, dim=1) * counts
    return distance.gather(1, labels[:, None]).sum() / distance.sum()


def cclom_loss(syn_features: Tensor, syn_labels: Tensor, real_features: Tensor, real_labels: Tensor) -> Tensor:
    """CCLoM: the contrastive classification loss between PTM features of synthetic and real images.

    ``D[i, j] = 1 - cos(f_i, g_j)``, ``M[i, j] = [y_i == y_j]``, loss ``sum(D * M) / sum(D)``: the share of
    the total distance that lies between images of the same class.

    Args: ``syn_features [N, d]``, ``syn_labels [N]``, ``real_features [B, d]``, ``real_labels [B]``.
    Returns a scalar in [0, 1]. Raises ValueError on shapes that do not fit.
    Source: Lu et al., arXiv 2310.03295 (CLoM with distance ``cos`` in their later code). This is the plain
    formula; over a whole real set use :func:`cclom_loss_from_sums`.

    >>> synthetic, real = torch.eye(2), torch.eye(2)  # each image equal to that of its class, orthogonal to the other
    >>> labels = torch.tensor([0, 1])
    >>> float(cclom_loss(synthetic, labels, real, labels))
    0.0
    >>> float(cclom_loss(synthetic, labels, real, labels.flip(0)))
    1.0
    """
    _check_rows("syn_features", syn_features, syn_labels)
    _check_rows("real_features", real_features, real_labels)
    _check_width(syn_features, real_features)
    distance = 1 - F.normalize(syn_features, dim=1) @ F.normalize(real_features, dim=1).T
    same_class = syn_labels[:, None] == real_labels[None, :]
    return (distance * same_class).sum() / distance.sum()


def class_sums(real_features: Tensor, real_labels: Tensor, num_classes: int) -> ClassSums:
    """Sums of the unit features of each class: all that CCLoM and the mean cosine ever need of a real set.

    Args: ``real_features [B, d]``, ``real_labels [B]`` with values in ``[0, num_classes)``.
    Returns ``ClassSums(sums [num_classes, d], counts [num_classes])``. Sums of several parts of a set
    add up to the sums of the set. Raises ValueError on shapes or labels that do not fit.

    >>> class_sums(torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([1, 1]), num_classes=2).counts
    tensor([0., 2.])
    """
    _check_rows("real_features", real_features, real_labels)
    if len(real_labels) and not 0 <= int(real_labels.min()) <= int(real_labels.max()) < num_classes:
        raise ValueError(
            f"real_labels must lie in [0, {num_classes}), found {int(real_labels.min())} to {int(real_labels.max())}."
        )
    unit = F.normalize(real_features, dim=1)
    sums = unit.new_zeros(num_classes, unit.shape[1]).index_add_(0, real_labels, unit)
    return ClassSums(sums, torch.bincount(real_labels, minlength=num_classes).to(unit.dtype))


def cclom_parts_from_sums(syn_features: Tensor, syn_labels: Tensor, sums: ClassSums) -> tuple[Tensor, Tensor]:
    """Numerator ``sum(D * M)`` and denominator ``sum(D)`` of CCLoM over the whole real set, as scalars.

    With unit features: ``sum_j D[i, j] = B - f_i . sum_j g_j`` and, over the class of i only,
    ``n_{y_i} - f_i . sum_{j in class} g_j``.
    """
    _check_rows("syn_features", syn_features, syn_labels)
    _check_width(syn_features, sums.sums)
    unit = F.normalize(syn_features, dim=1)
    same = sums.counts[syn_labels] - (unit * sums.sums[syn_labels]).sum(1)
    total = sums.counts.sum() - unit @ sums.sums.sum(0)
    return same.sum(), total.sum()


def cclom_loss_from_sums(syn_features: Tensor, syn_labels: Tensor, sums: ClassSums) -> Tensor:
    """:func:`cclom_loss` over the *whole* real set, exact, without any real batch.

    Args: ``syn_features [N, d]``, ``syn_labels [N]``, ``sums`` from :func:`class_sums` over the same PTM.
    Returns the scalar loss. The PTM is frozen and real images are not augmented, so the sums never change.

    >>> labels = torch.tensor([0, 1])
    >>> sums = class_sums(torch.eye(2), labels, num_classes=2)
    >>> float(cclom_loss_from_sums(torch.eye(2), labels, sums))
    0.0
    """
    same, total = cclom_parts_from_sums(syn_features, syn_labels, sums)
    return same / total


def cosine_distances(syn_features: Tensor, syn_labels: Tensor, sums: ClassSums) -> Tensor:
    """``1 - f_i . m_{y_i}`` for each image, ``[N]``: its mean cosine distance from all real images of its class.

    f_i is the unit feature of the image, m the mean *unit* feature of a class: of unit vectors, and not one itself.
    Without real images in the class the distance is 1.
    """
    _check_rows("syn_features", syn_features, syn_labels)
    _check_width(syn_features, sums.sums)
    means = sums.sums / sums.counts.clamp(min=1)[:, None]
    return 1 - (F.normalize(syn_features, dim=1) * means[syn_labels]).sum(1)


def cos_mean_loss(syn_features: Tensor, syn_labels: Tensor, sums: ClassSums) -> Tensor:
    """The mean cosine: CCLoM's cosine distance in the form of CLoM, a mean over pairs of the same class alone.

    Args: ``syn_features [N, d]``, ``syn_labels [N]``, ``sums`` from :func:`class_sums` over the same PTM.
    Returns the scalar mean of :func:`cosine_distances`, in [0, 2]. Raises ValueError on shapes that do not fit.
    Source: own, the fourth of two distances (cross-entropy, cosine) times two forms (mean, ratio).

    >>> labels = torch.tensor([0, 1])
    >>> float(cos_mean_loss(torch.eye(2), labels, class_sums(torch.eye(2), labels.flip(0), num_classes=2)))
    1.0
    """
    return cosine_distances(syn_features, syn_labels, sums).mean()


def class_means(features: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Mean feature of each class ``[num_classes, d]``; a class without images gives zeros.

    >>> class_means(torch.tensor([[1.0], [3.0]]), torch.tensor([0, 0]), num_classes=2).flatten()
    tensor([2., 0.])
    """
    sums = features.new_zeros(num_classes, features.shape[1]).index_add_(0, labels, features)
    return sums / torch.bincount(labels, minlength=num_classes).clamp(min=1)[:, None]


def distribution_matching_loss(
    syn_features: Tensor, syn_labels: Tensor, real_features: Tensor, real_labels: Tensor, num_classes: int
) -> Tensor:
    """DM: squared distance between the mean features of synthetic and real images, summed over classes.

    Args: features ``[N, d]`` and ``[B, d]`` of one random network, labels ``[N]`` and ``[B]``.
    Source: Zhao and Bilen, "Dataset Condensation with Distribution Matching", WACV 2023, eq. 6.

    >>> labels = torch.tensor([0])
    >>> float(distribution_matching_loss(torch.tensor([[3.0, 4.0]]), labels, torch.zeros(1, 2), labels, num_classes=1))
    25.0
    """
    _check_rows("syn_features", syn_features, syn_labels)
    _check_rows("real_features", real_features, real_labels)
    _check_width(syn_features, real_features)
    syn = class_means(syn_features, syn_labels, num_classes)
    real = class_means(real_features, real_labels, num_classes)
    return (syn - real).square().sum()


def gradient_matching_loss(syn_gradients: Sequence[Tensor], real_gradients: Sequence[Tensor]) -> Tensor:
    """DC / DSA: layer-wise distance between two lists of parameter gradients.

    For each weight tensor, one minus the cosine for every output unit, summed; one-dimensional
    parameters (biases, norms) do not count, as in the authors' code.

    Args: gradients of the same network, one tensor a parameter, in the same order.
    Source: Zhao et al., "Dataset Condensation with Gradient Matching", ICLR 2021, eq. 9 and 10.

    >>> syn, real = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[2.0, 0.0], [1.0, 0.0]])
    >>> f"{gradient_matching_loss([syn], [real]):.3f}"  # the first row points the same way, the second at a right angle
    '1.000'
    """
    if [g.shape for g in syn_gradients] != [g.shape for g in real_gradients]:
        raise ValueError("syn_gradients and real_gradients must hold the same parameters in the same order.")
    distances = [
        (1 - _row_cosine(syn.flatten(1), real.flatten(1))).sum()
        for syn, real in zip(syn_gradients, real_gradients, strict=True)
        if syn.ndim > 1
    ]
    if not distances:
        raise ValueError("there is no weight tensor among the gradients, only one-dimensional ones: nothing to match.")
    return torch.stack(distances).sum()


def _row_cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of matching rows; the small constant keeps a zero gradient finite."""
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + 1e-6)


def _check_rows(name: str, values: Tensor, labels: Tensor) -> None:
    if values.ndim != 2 or labels.ndim != 1 or len(values) != len(labels):
        raise ValueError(
            f"{name} must be [N, d] and its labels [N]; found {list(values.shape)} and {list(labels.shape)}."
        )
    if labels.dtype != torch.int64:
        raise ValueError(f"labels must be int64 class indices; found {labels.dtype}.")


def _check_width(a: Tensor, b: Tensor) -> None:
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"features of one PTM have one length; found {a.shape[1]} and {b.shape[1]}.")
