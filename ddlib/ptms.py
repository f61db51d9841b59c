"""Pools of pre-trained models (PTMs), trained on a data set once and kept in a cache on disk.

The cache's key is a hash of everything that shaped a PTM: data, architecture, recipe, seed and code.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from ddlib.data import Dataset
from ddlib.files import locked, read_tensors, write_tensors
from ddlib.networks import build_network
from ddlib.paths import cache_folder
from ddlib.progress import progress_bar
from ddlib.provenance import code_hash
from ddlib.ptm import PTM, InputFormat
from ddlib.rng import generator
from ddlib.training import accuracy, augment_strategy, train_network

SHAPING = ("augmentation", "networks", "ptms", "rng", "training")  # modules whose code shapes a PTM


def train_ptms(
    dataset: Dataset,
    architectures: Sequence[str] = ("ConvNet-3",),
    num_ptms: int = 1,
    epochs: int = 150,
    keep: Iterable[int] = (),
    *,
    width: int = 128,
    norm: str | None = None,
    lr: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 0.005,
    batch_size: int = 256,
    augment: bool | str = False,
    seed: int = 0,
    cache: str | os.PathLike | None = None,
) -> list[PTM]:
    """A pool of ``num_ptms`` initialisations for each of ``architectures``, trained on ``dataset.train``.

    The recipe is that of the paper's code: SGD, the rate times 0.1 after one and after two thirds of the epochs,
    no augmentation. ``keep`` lists the epochs (1 to ``epochs``) whose checkpoints are wanted, by default the
    last; sub-optimal PTMs are such early checkpoints of a long training. Order: by initialisation, then
    architecture, then epoch, so that a larger pool begins with a smaller one.

    What is trained lands in ``cache`` (default :func:`ddlib.paths.cache_folder`); a second process that wants
    the same PTM waits for the first. A damaged file there is trained again. Works on the device of ``dataset``.

    Raises ValueError for impossible numbers and unknown names, before anything is trained.
    Source: Lu et al., arXiv 2310.03295, and their code.
    """
    keep = sorted(set(keep)) or [epochs]
    if num_ptms < 1 or not 1 <= keep[0] <= keep[-1] <= epochs:
        raise ValueError(
            f"a pool needs num_ptms >= 1 and epochs to keep from 1 to {epochs}; found {num_ptms} and {keep}."
        )
    recipe = {"epochs": epochs, "width": width, "norm": norm, "lr": lr, "momentum": momentum}
    recipe |= {"weight_decay": weight_decay, "batch_size": batch_size, "augment": augment_strategy(augment)}
    jobs = [
        _Job(dataset, architecture, index, seed, recipe, Path(cache or cache_folder()))
        for index in range(num_ptms)
        for architecture in architectures
    ]
    for job in jobs[: len(architectures)]:
        job.build()  # an unknown name fails here, not after the others have been trained
    with progress_bar(len(jobs), "PTMs") as bar:
        pool = []
        for job in jobs:
            pool += job.obtain(keep)
            bar.update()
    return pool


@dataclass(frozen=True)
class _Job:
    """One PTM to train or to find in the cache."""

    dataset: Dataset
    architecture: str
    index: int
    seed: int
    recipe: dict[str, object]
    cache: Path

    @property
    def key(self) -> str:
        shaped_by = [
            self.dataset.hash,
            self.architecture,
            self.index,
            self.seed,
            self.recipe,
            code_hash(SHAPING),
        ]
        return hashlib.sha256(json.dumps(shaped_by, sort_keys=True).encode()).hexdigest()[:16]

    def build(self) -> nn.Module:
        data = self.dataset
        return build_network(
            self.architecture,
            data.channels,
            data.num_classes,
            data.image_size,
            width=self.recipe["width"],
            norm=self.recipe["norm"],
            generator=generator(self.seed, f"ptm {self.architecture}", self.index),
            device=data.device,
        )

    def path(self, epoch: int) -> Path:
        return self.cache / f"{self.key}-epoch{epoch:04d}.safetensors"

    def obtain(self, keep: Sequence[int]) -> list[PTM]:
        with locked(self.cache / self.key):
            try:
                return [self.load(epoch) for epoch in keep]
            except (FileNotFoundError, ValueError):  # not there, or damaged
                self.train(keep)
        return [self.load(epoch) for epoch in keep]

    def train(self, keep: Sequence[int]) -> None:
        """Train up to the last wanted epoch and write each wanted checkpoint."""
        recipe, data, network = dict(self.recipe), self.dataset, self.build()
        total, clock = recipe.pop("epochs"), _Clock()

        def checkpoint(epoch: int) -> None:
            if epoch not in keep:
                return
            clock.stop()
            about = {
                "accuracy": accuracy(network, data.test.images, data.test.labels),
                "train_accuracy": accuracy(network, data.train.images, data.train.labels),
                "seconds": clock.seconds,
                "epoch": epoch,
                "architecture": self.architecture,
                "source_dataset": data.name,
                "recipe": self.recipe,
                "device": str(data.device),
            }
            write_tensors(self.path(epoch), network.state_dict(), about)
            clock.start()

        train_network(
            network,
            data.train.images,
            data.train.labels,
            epochs=max(keep),
            milestones=[total // 3, 2 * total // 3],
            generator=generator(self.seed, f"ptm training {self.architecture}", self.index),
            after_epoch=checkpoint,
            **{name: value for name, value in recipe.items() if name not in ("width", "norm")},
        )

    def load(self, epoch: int) -> PTM:
        weights, about = read_tensors(self.path(epoch))
        network = self.build()
        network.load_state_dict(weights)
        return PTM(
            network,
            self.architecture,
            self.dataset.name,
            self.dataset.class_names,
            InputFormat.of(self.dataset),
            hash=f"{self.key}-{epoch}",
            index=self.index,
            epoch=epoch,
            **{name: about[name] for name in ("accuracy", "train_accuracy", "seconds")},
        )


class _Clock:
    """Seconds of training alone, without the measuring between."""

    def __init__(self):
        self.seconds = 0.0
        self.start()

    def start(self) -> None:
        self.since = time.perf_counter()

    def stop(self) -> None:
        self.seconds += time.perf_counter() - self.since
