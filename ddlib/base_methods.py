"""Base methods: DM, DC and DSA as generators of losses, one for each update of the synthetic images.

A method is a function ``(images, task, iteration)`` that yields ``L_base`` of the images as they are *now*. Who
iterates over it takes a step on the images between two yields; so DC can train its network on the images that
this step has left. Nothing is kept between iterations: iteration t can be done without those before it.
"""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddlib.augmentation import DSA_STRATEGY, apply_dsa, sample_dsa
from ddlib.compute import Compute
from ddlib.data.dataset import Dataset
from ddlib.devices import moved
from ddlib.losses import distribution_matching_loss, gradient_matching_loss
from ddlib.networks import build_network
from ddlib.rng import generator
from ddlib.training import features_of, train_network

CHUNK = 512  # real images in one forward pass
LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}  # of the reference


@dataclass(frozen=True)
class Matching:
    """A base method (a key of :data:`BASE_METHODS`) and its settings; None: that of the method's authors.

    Raises ValueError for an unknown method and impossible numbers.
    """

    method: str = "dm"
    network: str = "ConvNet-3"  # the random networks that it matches with
    width: int = 128
    batch_real: int = 256  # real images per class and update, at most
    outer_loops: int | None = None  # updates of the images in one iteration (DC, DSA)
    inner_loops: int | None = None  # epochs of network training between two of them
    lr_net: float = 0.01  # of that training

    def __post_init__(self):
        if self.method not in BASE_METHODS:
            raise ValueError(f"unknown base method {self.method!r}; known: {', '.join(BASE_METHODS)}.")
        for name in ("batch_real", "outer_loops", "inner_loops"):
            require_at_least_one(name, getattr(self, name))

    @property
    def row(self) -> "BaseMethod":
        """Of the table."""
        return BASE_METHODS[self.method]

    def for_ipc(self, ipc: int) -> "Matching":
        """With the authors' numbers of loops for ``ipc`` images per class where none are given."""
        outer, inner = self.row.loops_for(ipc)
        given = self.outer_loops, self.inner_loops
        outer, inner = (authors if own is None else own for own, authors in zip(given, (outer, inner), strict=True))
        return dataclasses.replace(self, outer_loops=outer, inner_loops=inner)


def require_at_least_one(name: str, value: int | None) -> None:
    """Raise ValueError for a number below 1; None passes."""
    if value is not None and value < 1:
        raise ValueError(f"{name} must be at least 1; found {value}.")


@dataclass(frozen=True, eq=False)
class Task:
    """What a base method matches: a data set, and a synthetic set with ``labels [N]``, class after class."""

    dataset: Dataset
    labels: Tensor
    matching: Matching
    seed: int = 0
    compute: Compute = dataclasses.field(default_factory=Compute)

    @cached_property
    def members(self) -> list[Tensor]:
        """Indices of the real training images of each class, on the CPU: there they are drawn."""
        labels = self.dataset.train.labels.cpu()
        return [(labels == label).nonzero().flatten() for label in range(self.dataset.num_classes)]

    @cached_property
    def counts(self) -> list[int]:
        """Synthetic images of each class."""
        return self.labels.bincount(minlength=self.dataset.num_classes).tolist()

    def real_batch(self, label: int, iteration: int, update: int) -> Tensor:
        """Real images of one class ``[batch_real or all, C, H, W]``, without replacement."""
        draw = generator(self.seed, "real batches", iteration, update, label)
        members = self.members[label]
        chosen = torch.randperm(len(members), generator=draw, device="cpu")[: self.matching.batch_real]
        return self.dataset.train.images[moved(members[chosen], self.dataset.device)]

    def pairs(
        self, images: Tensor, iteration: int, update: int, augment: str
    ) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """For each class: synthetic images, their labels, real images, their labels; augmented alike (Siamese)."""
        # classes are slices: a GPU would wait for the host to count what a mask selects
        classes = zip(images.split(self.counts), self.labels.split(self.counts), strict=True)
        for label, (syn, syn_labels) in enumerate(classes):
            real = self.real_batch(label, iteration, update)
            draw = generator(self.seed, "augmentation", iteration, update, label)
            params = sample_dsa(images.shape, draw, augment)
            real_labels = torch.full((len(real),), label, device=real.device)
            yield apply_dsa(syn, params), syn_labels, apply_dsa(real, params), real_labels

    def fresh_network(self, iteration: int) -> nn.Module:
        """A randomly initialised network, another one in each iteration."""
        network = build_network(
            self.matching.network,
            self.dataset.channels,
            self.dataset.num_classes,
            self.dataset.image_size,
            width=self.matching.width,
            generator=generator(self.seed, "network", iteration),
            device=self.dataset.device,
        )
        return self.compute.applied_to(network)


Updates = Callable[[Tensor, Task, int], Iterator[Tensor | None]]


def dm_updates(images: Tensor, task: Task, iteration: int) -> Iterator[Tensor]:
    """DM, one update: mean features of each class under a fresh random network."""
    network = task.fresh_network(iteration).requires_grad_(False)
    pairs = zip(*task.pairs(images, iteration, 0, DSA_STRATEGY), strict=True)
    syn, syn_labels, real, real_labels = (torch.cat(parts) for parts in pairs)
    real_features = features_of(network.features, real, batch_size=CHUNK)
    yield distribution_matching_loss(
        network.features(syn), syn_labels, real_features, real_labels, task.dataset.num_classes
    )


def gradient_matching(augment: str) -> Updates:
    """DC (no augmentation) or DSA: match gradients class by class, train the network on the images, repeat."""

    def updates(images: Tensor, task: Task, iteration: int) -> Iterator[Tensor]:
        network = task.fresh_network(iteration)
        parameters = list(network.parameters())
        for update in range(task.matching.outer_loops):
            if update:
                train_network(
                    network,
                    images.detach(),
                    task.labels,
                    epochs=task.matching.inner_loops,
                    generator=generator(task.seed, "network training", iteration, update),
                    lr=task.matching.lr_net,
                    momentum=0,
                    weight_decay=0,
                    augment=augment,
                )
            loss = images.new_zeros(())
            for syn, syn_labels, real, real_labels in task.pairs(images, iteration, update, augment):
                target = torch.autograd.grad(F.cross_entropy(network(real), real_labels), parameters)
                mine = F.cross_entropy(network(syn), syn_labels)
                gradients = torch.autograd.grad(mine, parameters, create_graph=True)
                loss = loss + gradient_matching_loss(gradients, target)
            yield loss

    return updates


def no_updates(images: Tensor, task: Task, iteration: int) -> Iterator[None]:
    """No base loss: guidance alone, the limit of a large alpha."""
    yield None


@dataclass(frozen=True, kw_only=True)
class BaseMethod:
    """One row: the updates, and the settings that its authors use."""

    updates: Updates
    lr_img: float
    start: str
    source: str
    loops: bool = False  # whether one iteration has several updates
    compiles: bool = False  # whether its networks may be compiled
    augments: bool = False  # whether DSA stands between the synthetic images and the loss

    def loops_for(self, ipc: int) -> tuple[int, int]:
        """The authors' outer and inner loops for ``ipc``; between the rows of their table, its rule."""
        return LOOPS.get(ipc, (ipc, max(1, min(50, round(500 / ipc))))) if self.loops else (1, 1)


BASE_METHODS: dict[str, BaseMethod] = {
    "dm": BaseMethod(
        updates=dm_updates, lr_img=1.0, start="real", source="Zhao and Bilen, WACV 2023", compiles=True, augments=True
    ),
    "dc": BaseMethod(
        updates=gradient_matching("none"), lr_img=0.1, start="noise", source="Zhao et al., ICLR 2021", loops=True
    ),
    "dsa": BaseMethod(
        updates=gradient_matching(DSA_STRATEGY),
        lr_img=0.1,
        start="real",
        source="Zhao and Bilen, ICML 2021",
        loops=True,
        augments=True,
    ),
    "none": BaseMethod(updates=no_updates, lr_img=0.1, start="real", source="arXiv 2310.03295, alpha to infinity"),
}
"""Every base method by its name. A new one is one row here."""
