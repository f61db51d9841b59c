"""Pools of pre-trained models (PTMs), trained on a data set once and kept in a cache on disk.

The cache's key is a hash of everything that shaped a PTM: data, architecture, recipe, seed and code.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import torch
from torch import Tensor, nn

from ddlib.compute import Compute, tf32
from ddlib.data.dataset import Dataset
from ddlib.devices import synchronise
from ddlib.disk.files import locked
from ddlib.disk.paths import cache_folder
from ddlib.disk.progress import progress_bar
from ddlib.disk.tensors import read_tensors, write_tensors
from ddlib.fingerprint import code_hash
from ddlib.memory import keep_freed_memory
from ddlib.ptms.cache import make_room, touch
from ddlib.ptms.ptm import PTM
from ddlib.ptms.training import fresh_network, train
from ddlib.training import accuracy, augment_strategy


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
    precision: str = "float32",
    compile: str = "never",
    seed: int = 0,
    first: int = 0,
    cache: str | os.PathLike | None = None,
) -> list[PTM]:
    """A pool of ``num_ptms`` initialisations for each of ``architectures``, trained on ``dataset.train``.

    The recipe is that of the paper's code: SGD, the rate times 0.1 after one and after two thirds of the epochs,
    no augmentation. ``keep`` lists the epochs (0 to ``epochs``) whose checkpoints are wanted, by default the
    last; sub-optimal PTMs are such early checkpoints of a long training, and epoch 0 is a network before any.
    Order: by initialisation, then architecture, then epoch, so that a larger pool begins with a smaller one;
    ``first`` is the number of the first initialisation, so that ``first=5`` gives those that a pool of five leaves
    out. ``precision`` and ``compile`` are those of :class:`ddlib.compute.Compute`.

    What is trained lands in ``cache`` (default :func:`ddlib.disk.paths.cache_folder`); a second process that wants
    the same PTM waits for the first. A damaged file there is trained again. Works on the device of ``dataset``.

    Raises ValueError for impossible numbers and unknown names, and if there is no room, before anything is trained.
    Source: Lu et al., arXiv 2310.03295, and their code.
    """
    keep_freed_memory()
    keep = list(keep) or [epochs]
    if not all(isinstance(number, Integral) for number in (num_ptms, epochs, *keep, first)):
        found = f"{num_ptms!r}, {epochs!r} and {keep!r}; first {first!r}"
        raise ValueError(f"num_ptms, epochs, keep and first are whole numbers; found {found}.")
    keep = sorted(set(keep))
    if num_ptms < 1 or epochs < 1 or not 0 <= keep[0] <= keep[-1] <= epochs:
        raise ValueError(
            f"a pool needs num_ptms and epochs >= 1, and epochs to keep from 0 to {epochs}; found {num_ptms}, {keep}."
        )
    if first < 0:
        raise ValueError(f"first is the number of an initialisation, from 0 on; found {first}.")
    recipe = {"epochs": epochs, "width": width, "norm": norm, "lr": lr, "momentum": momentum}
    recipe |= {"weight_decay": weight_decay, "batch_size": batch_size, "augment": augment_strategy(augment)}
    recipe |= {"precision": precision, "compile": compile}
    Compute(precision, compile).check(dataset.device)
    jobs = [
        _Job(dataset, architecture, index, seed, recipe, Path(cache or cache_folder()))
        for index in range(first, first + num_ptms)
        for architecture in architectures
    ]
    # an unknown name and a full disk fail here, not after the others have been trained
    sizes = [_bytes(job.build()) for job in jobs[: len(architectures)]]
    make_room({job.path(epoch): sizes[i % len(sizes)] for i, job in enumerate(jobs) for epoch in keep})
    with progress_bar(len(jobs), "PTMs") as bar, tf32(precision == "tf32"):
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
            self.dataset.device.type,  # a GPU rounds differently: PTMs of one hash are equal in every bit
            self.architecture,
            self.index,
            self.seed,
            self.recipe,
            code_hash("ptms/training"),
        ]
        return hashlib.sha256(json.dumps(shaped_by, sort_keys=True).encode()).hexdigest()[:16]

    def build(self) -> nn.Module:
        return fresh_network(self.dataset, self.architecture, self.index, self.seed, self.recipe)

    def path(self, epoch: int) -> Path:
        return file_of(self.cache, self.key, epoch)

    def obtain(self, keep: Sequence[int]) -> list[PTM]:
        with locked(self.cache / self.key):
            try:
                return [self.load(epoch) for epoch in keep]
            except (FileNotFoundError, ValueError):  # not there, or damaged
                self.train(keep)
            return [self.load(epoch) for epoch in keep]

    def train(self, keep: Sequence[int]) -> None:
        """Train up to the last wanted epoch and write each wanted checkpoint."""
        data, network, clock = self.dataset, self.build(), _Clock(self.dataset.device)

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
                "seed": self.seed,
                "device": str(data.device),
            }
            write_tensors(self.path(epoch), network.state_dict(), about)
            clock.start()

        checkpoint(0)
        if max(keep) == 0:
            return
        train(
            network,
            data,
            self.architecture,
            self.index,
            self.seed,
            self.recipe,
            epochs=max(keep),
            after_epoch=checkpoint,
        )

    def load(self, epoch: int) -> PTM:
        path, network = self.path(epoch), self.build()
        weights, about = read_tensors(path)
        measured = {name: about.get(name) for name in ("accuracy", "train_accuracy", "seconds")}
        if (
            _form(weights) != _form(network.state_dict())
            or not all(type(value) in (int, float) and value >= 0 for value in measured.values())
            or max(measured["accuracy"], measured["train_accuracy"]) > 1
        ):
            raise ValueError(f"{path} does not hold the PTM that its name says; delete it.")
        if not all(torch.isfinite(value).all() for value in weights.values()):
            raise ValueError(f"The weights in {path} are not finite: the training diverged. Train with a lower lr.")
        network.load_state_dict(weights)
        touch(path)
        return PTM(
            network,
            self.architecture,
            self.dataset.name,
            self.dataset.class_names,
            self.dataset.format,
            hash=f"{self.key}-{epoch}",
            index=self.index,
            epoch=epoch,
            seed=self.seed,
            recipe=self.recipe,
            device=about.get("device"),
            **measured,
        )


def file_of(cache: Path, key: str, epoch: int) -> Path:
    """Where the cache keeps a checkpoint."""
    return cache / f"{key}-epoch{epoch:04d}.safetensors"


def cached_file(ptm: PTM) -> Path:
    """Where the cache keeps a PTM that :func:`train_ptms` gave, by its hash."""
    return file_of(cache_folder(), ptm.hash.rpartition("-")[0], ptm.epoch or 0)


def _bytes(network: nn.Module) -> int:
    """What its file takes: the weights, and some for the header."""
    return 2**16 + sum(value.numel() * value.element_size() for value in network.state_dict().values())


def _form(weights: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (value.shape, value.dtype) for name, value in weights.items()}


class _Clock:
    """Seconds of training alone, without the measuring between."""

    def __init__(self, device: torch.device):
        self.device, self.seconds = device, 0.0
        self.start()

    def start(self) -> None:
        self.since = time.perf_counter()

    def stop(self) -> None:
        synchronise(self.device)
        self.seconds += time.perf_counter() - self.since
