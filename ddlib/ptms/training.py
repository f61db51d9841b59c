"""How a PTM is trained: this file and what it imports are all the code that shapes one (``code_hash``)."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from torch import nn

from ddlib.compute import Compute
from ddlib.networks import build_network
from ddlib.rng import generator
from ddlib.training import train_network

if TYPE_CHECKING:
    from ddlib.data.dataset import Dataset


def fresh_network(
    dataset: "Dataset", architecture: str, index: int, seed: int, recipe: Mapping[str, object]
) -> nn.Module:
    """The network of initialisation ``index`` before its training, for the images and on the device of ``dataset``."""
    return build_network(
        architecture,
        dataset.channels,
        dataset.num_classes,
        dataset.image_size,
        width=recipe["width"],
        norm=recipe["norm"],
        generator=generator(seed, f"ptm {architecture}", index),
        device=dataset.device,
    )


def train(
    network: nn.Module,
    dataset: "Dataset",
    architecture: str,
    index: int,
    seed: int,
    recipe: Mapping[str, object],
    epochs: int,
    after_epoch: Callable[[int], None],
) -> None:
    """Train ``network`` in place for the first ``epochs`` of those in ``recipe``, which place the steps of the rate."""
    total = recipe["epochs"]
    compute, passes = Compute(recipe["precision"], recipe["compile"]), 3 * total * len(dataset.train.labels)
    train_network(
        compute.settled(network, dataset.train.images, passes).applied_to(network),
        dataset.train.images,
        dataset.train.labels,
        epochs=epochs,
        milestones=[total // 3, 2 * total // 3],
        generator=generator(seed, f"ptm training {architecture}", index),
        after_epoch=after_epoch,
        **{name: recipe[name] for name in ("lr", "momentum", "weight_decay", "batch_size", "augment")},
    )
