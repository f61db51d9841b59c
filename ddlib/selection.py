"""Coreset selection: sets of real images, chosen or all, judged by the same evaluation as synthetic ones.

A selection chooses by a function ``(dataset, ipc, seed, features) -> index [num_classes * ipc]`` into the train split,
class after class; or it makes images ``[num_classes * ipc, C, H, W]`` of real ones, in that order. ``features [N, d]``
are those of a PTM, or the pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral

import torch
from torch import Tensor

from ddlib.data.dataset import Dataset
from ddlib.losses import class_means
from ddlib.rng import generator
from ddlib.synthetic import SyntheticSet, labels_of

Choose = Callable[[Dataset, int, int, Tensor], Tensor]


def random_real(dataset: Dataset, ipc: int, seed: int, features: Tensor | None = None) -> Tensor:
    """Uniform without replacement within each class. Distillation with ``start="real"`` starts from these."""

    def choose(members: Tensor, label: int) -> Tensor:
        draw = generator(seed, "start", label)
        return torch.randperm(len(members), generator=draw, device="cpu")[:ipc].to(members.device)

    return _by_class(dataset, ipc, choose)


def herding(dataset: Dataset, ipc: int, seed: int, features: Tensor) -> Tensor:
    """One image after the other such that their mean feature stays nearest to that of the class.

    Source: Welling, "Herding dynamical weights to learn", ICML 2009, in the form of Rebuffi et al., "iCaRL",
    CVPR 2017, equation 4. Deterministic: ``seed`` changes nothing.
    """

    def choose(members: Tensor, label: int) -> Tensor:
        x = features[members]
        mean, total = x.mean(0), torch.zeros_like(x[0])
        free, chosen = torch.ones(len(x), dtype=torch.bool, device=x.device), []
        for count in range(1, ipc + 1):
            distance = (mean - (total + x) / count).square().sum(1).masked_fill(~free, torch.inf)
            chosen.append(int(distance.argmin()))
            total, free[chosen[-1]] = total + x[chosen[-1]], False
        return torch.tensor(chosen, device=x.device)

    return _by_class(dataset, ipc, choose)


def k_center(dataset: Dataset, ipc: int, seed: int, features: Tensor) -> Tensor:
    """Greedy K-Center within each class: first the image nearest to the mean, then always the farthest left.

    Source: Sener and Savarese, "Active learning for convolutional neural networks", ICLR 2018, algorithm 1,
    started as in the coreset code of the field. Deterministic: ``seed`` changes nothing.
    """

    def choose(members: Tensor, label: int) -> Tensor:
        x = features[members]
        chosen = [int((x - x.mean(0)).square().sum(1).argmin())]
        nearest = torch.full((len(x),), torch.inf, device=x.device)
        while len(chosen) < ipc:
            nearest = torch.minimum(nearest, (x - x[chosen[-1]]).square().sum(1))
            nearest[chosen] = -1
            chosen.append(int(nearest.argmax()))
        return torch.tensor(chosen, device=x.device)

    return _by_class(dataset, ipc, choose)


def k_means(dataset: Dataset, ipc: int, seed: int, features: Tensor) -> Tensor:
    """Of each class the real images nearest to the centres of ``ipc`` clusters of its features, each image once.

    Lloyd's algorithm from the random images of seed 0. Source: Cui et al., "DC-BENCH", NeurIPS 2022, whose best
    coreset this is. ``seed`` changes nothing.
    """
    started = random_real(dataset, ipc, 0).view(-1, ipc)

    def choose(members: Tensor, label: int) -> Tensor:
        x, centres = features[members], features[started[label]]
        for _ in range(LLOYD):
            before, nearest = centres, torch.cdist(x, centres).argmin(1)
            empty = nearest.bincount(minlength=ipc)[:, None] == 0
            centres = torch.where(empty, centres, class_means(x, nearest, ipc))
            if torch.equal(centres, before):
                break
        distance, chosen = torch.cdist(x, centres), []
        for centre in range(ipc):
            chosen.append(int(distance[:, centre].argmin()))
            distance[chosen[-1]] = torch.inf
        return torch.tensor(chosen, device=x.device)

    return _by_class(dataset, ipc, choose)


def means_of_classes(dataset: Dataset, ipc: int, seed: int, features: Tensor | None = None) -> Tensor:
    """No real images: of each class the mean image, or of more the means of ``ipc`` equal parts of the class.

    The parts are runs of images as the data set has them. Deterministic: ``seed`` changes nothing.
    """
    require_enough_images(dataset, ipc)
    images, labels = dataset.train.images, dataset.train.labels
    parts = [part for label in range(dataset.num_classes) for part in images[labels == label].tensor_split(ipc)]
    return torch.stack([part.mean(0) for part in parts])


@dataclass(frozen=True)
class Selection:
    """One row: the function, and what a reader asks of it."""

    choose: Choose
    label: str  # in tables and figures
    source: str
    uses_features: bool = True  # of a PTM
    seeded: bool = False  # else every seed gives the same set
    real: bool = True  # else ``choose`` makes images of real ones


SELECTIONS: dict[str, Selection] = {
    "random": Selection(random_real, "random real images", "control", uses_features=False, seeded=True),
    "herding": Selection(herding, "herding", "Welling, ICML 2009; iCaRL, CVPR 2017"),
    "k_center": Selection(k_center, "K-Center", "Sener and Savarese, ICLR 2018"),
    "k_means": Selection(k_means, "k-means", "DC-BENCH, NeurIPS 2022"),
    "class_means": Selection(
        means_of_classes, "class means (not real images)", "control", uses_features=False, real=False
    ),
}
"""Ways to choose real images, or to make some of them, by name. A new one is one row here."""

LLOYD = 100  # steps of k-means at most; a few dozen are usual


def select_real(
    dataset: Dataset, ipc: int, method: str = "random", *, seed: int = 0, features: Tensor | None = None
) -> SyntheticSet:
    """``ipc`` training images of each class, chosen by ``method`` (a key of ``SELECTIONS``), or made of them.

    ``features [N, d]`` of the train split, e.g. ``ptm.features_of(dataset.train.images)``; None: the pixels.
    Raises ValueError for an unknown method, or if a class has fewer images.

    >>> from ddlib import load_dataset
    >>> len(select_real(load_dataset("digits"), ipc=2, method="k_center"))
    20
    """
    if method not in SELECTIONS:
        raise ValueError(f"unknown selection {method!r}; known: {', '.join(SELECTIONS)}.")
    features = dataset.train.images.flatten(1) if features is None else features
    row = SELECTIONS[method]
    chosen = row.choose(dataset, ipc, seed, features)
    images, labels = (
        dataset.train.images[chosen] if row.real else chosen,
        labels_of(dataset.num_classes, ipc, dataset.device),
    )
    return SyntheticSet.of(dataset, images, labels, method=method, ipc=ipc, seed=seed)


def full_data(dataset: Dataset) -> SyntheticSet:
    """The whole train split as a set: what distillation is measured against."""
    return SyntheticSet.of(dataset, dataset.train.images, dataset.train.labels, method="full")


def require_enough_images(dataset: Dataset, ipc: int) -> None:
    """Raise ValueError if a class of the train split has fewer than ``ipc`` images, or ``ipc`` is below 1."""
    require_one_number(ipc)
    counts = dataset.train.labels.bincount(minlength=dataset.num_classes)
    smallest = int(counts.argmin())
    if ipc < 1 or int(counts[smallest]) < ipc:
        raise ValueError(
            f"ipc must be from 1 to {int(counts[smallest])}, the number of training images of class "
            f"{dataset.class_names[smallest]!r} of {dataset.name}; found {ipc}."
        )


def require_one_number(ipc: object) -> None:
    """Raise ValueError if ``ipc`` is no whole number, such as one for each class."""
    if not isinstance(ipc, Integral) or isinstance(ipc, bool):
        raise ValueError(
            f"ipc is one whole number for all classes; found a {type(ipc).__name__}. A number for each class is not "
            "supported: the base methods and class sums are computed for all classes at once, in equal blocks."
        )


def _by_class(dataset: Dataset, ipc: int, choose: Callable[[Tensor, int], Tensor]) -> Tensor:
    require_enough_images(dataset, ipc)
    members = [(dataset.train.labels == label).nonzero().flatten() for label in range(dataset.num_classes)]
    return torch.cat([of_class[choose(of_class, label)] for label, of_class in enumerate(members)])


def starting_images(dataset: Dataset, ipc: int, start: str | SyntheticSet, seed: int) -> tuple[Tensor, Tensor]:
    """Images and labels that a distillation starts from: ``real`` (random real images), ``noise`` (normal), or a set.

    Raises ValueError for another start, and for a set of other classes, images or numbers, or with soft labels.
    """
    labels = labels_of(dataset.num_classes, ipc, dataset.device)
    if isinstance(start, SyntheticSet):
        return _images_of(start.normalised_for(dataset), labels).clone(), labels
    if start == "real":
        return dataset.train.images[random_real(dataset, ipc, seed)].clone(), labels
    if start == "noise":
        shape = (len(labels), *dataset.train.images.shape[1:])
        return torch.randn(shape, generator=generator(seed, "noise"), device="cpu").to(dataset.device), labels
    shown = repr(start) if isinstance(start, str) else f"a {type(start).__name__}"
    raise ValueError(f"unknown start {shown}; known: real, noise, or a SyntheticSet to continue from.")


def _images_of(start: SyntheticSet, labels: Tensor) -> Tensor:
    """The images of a set in the order of balanced ``labels``."""
    if start.soft:
        raise ValueError("a start with soft labels is not supported: base methods match each image with one class.")
    order = start.labels.argsort(stable=True)
    if not torch.equal(start.labels[order], labels):
        counts = start.labels.bincount(minlength=int(labels.max()) + 1).tolist()
        raise ValueError(
            f"the start has {min(counts)} to {max(counts)} images of a class, and ipc is "
            f"{len(labels) // len(counts)}: give the ipc of the start."
        )
    return start.images[order]
