"""Evaluation: train fresh networks on a synthetic set and test them on real images."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import nn

from ddlib.compute import Compute, tf32
from ddlib.data.dataset import Dataset
from ddlib.disk.progress import progress_bar
from ddlib.memory import keep_freed_memory
from ddlib.networks import NETWORKS, build_network
from ddlib.rng import derive_seed, generator
from ddlib.synthetic import SyntheticSet
from ddlib.training import augment_strategy, evaluating, group_size, hits, train_halved

if TYPE_CHECKING:
    import pandas as pd

Factory = Callable[[], nn.Module]
"""Makes a fresh network, images ``[N, C, H, W]`` to logits ``[N, num_classes]``; drawn by torch's generator."""

COLUMNS = ("architecture", "network", "augment", "accuracy", "balanced_accuracy", "class_accuracies", "seconds")


def evaluate(
    synthetic: SyntheticSet,
    dataset: Dataset,
    architectures: Sequence[str | tuple[str, Factory]] | Mapping[str, Factory] = ("ConvNet-3",),
    num_eval: int = 5,
    eval_epochs: int = 1000,
    augment: bool | str = True,
    *,
    seed: int = 0,
    width: int = 128,
    norm: str | None = None,
    lr: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    batch_size: int = 256,
    precision: str = "float32",
    compile: str = "never",
) -> "pd.DataFrame":
    """Raw accuracies of ``num_eval`` fresh networks of each architecture, trained on ``synthetic``.

    The field's recipe: SGD on the cross-entropy with hard or soft labels, the rate times 0.1 at half time, DSA
    augmentation or none (``augment``: True, False, or a DSA strategy), accuracy on ``dataset.test`` after the **last**
    epoch; no best of several. 1000 epochs with augmentation and 300 without are usual. Network i starts from the same
    weights and sees the same order and augmentation for every synthetic set of one size evaluated with this ``seed``.

    ``architectures`` are names of :data:`ddlib.networks.NETWORKS` (for which ``width`` and ``norm`` are), and pairs of
    a new name and a factory, such as ``("my net", lambda: MyNet(num_classes=10))``; or a mapping of such.
    ``precision`` and ``compile`` (:class:`ddlib.compute.Compute`) are for networks of ddlib; a GPU trains several of
    them together, and these are not compiled.

    Returns a row per network: ``architecture``, ``network`` (0, 1, ...), ``augment`` (bool), ``accuracy`` (fraction),
    ``class_accuracies`` (in the order of the labels, None without test images), ``balanced_accuracy`` (their mean),
    ``seconds`` (on a GPU several train together and share their time equally). Raises ValueError for unknown names,
    impossible numbers, networks and sets that do not fit the data, before anything is trained.

    >>> from ddlib import load_dataset, select_real
    >>> data = load_dataset("digits")
    >>> table = evaluate(select_real(data, ipc=1), data, num_eval=2, eval_epochs=1, width=4)
    >>> table["architecture"].tolist(), table["accuracy"].between(0, 1).all().item()
    (['ConvNet-3', 'ConvNet-3'], True)
    """
    if num_eval < 1 or eval_epochs < 1:
        raise ValueError(f"num_eval and eval_epochs must be at least 1; found {num_eval} and {eval_epochs}.")
    import pandas as pd  # here, so that `import ddlib` is light

    keep_freed_memory()
    synthetic, strategy = synthetic.normalised_for(dataset), augment_strategy(augment) or "none"
    recipe = {"epochs": eval_epochs, "milestones": [eval_epochs // 2], "augment": strategy, "batch_size": batch_size}
    recipe |= {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
    compute = Compute(precision, "never" if dataset.device.type == "cuda" else compile)
    compute.check(dataset.device)
    passes = num_eval * (3 * eval_epochs * len(synthetic) + len(dataset.test.labels))  # of images, by an architecture
    factories = _factories(architectures)
    fresh = partial(_fresh_network, dataset, seed, width, norm, factories, compute, passes)
    rows, sizes = [], _group_sizes(factories, fresh, synthetic, batch_size, dataset)
    images_and_labels = synthetic.images, synthetic.labels
    with progress_bar(len(factories) * num_eval, "evaluation") as bar, tf32(precision == "tf32"):
        for name, size in sizes.items():
            for first in range(0, num_eval, size):
                group, start = range(num_eval)[first : first + size], time.perf_counter()
                draws = partial(generator, seed, f"evaluation training {name}")
                with _own_randomness(factories[name], dataset.device, seed, f"own training {name}", first):
                    networks = train_halved(group, partial(fresh, name), draws, *images_and_labels, **recipe)
                reached = [_accuracies(network, dataset) for network in networks]
                seconds = (time.perf_counter() - start) / len(group)
                rows += [(name, first + i, strategy != "none", *values, seconds) for i, values in enumerate(reached)]
                bar.update(len(group))
    return pd.DataFrame(rows, columns=COLUMNS)


def _group_sizes(
    factories: Mapping[str, Factory | None],
    fresh: Callable[[str, int], nn.Module],
    synthetic: SyntheticSet,
    batch_size: int,
    dataset: Dataset,
) -> dict[str, int]:
    """How many networks of each architecture to train together; raises ValueError for own networks that do not fit."""
    sizes = {}
    for name, factory in factories.items():
        network = fresh(name, 0)
        if factory:  # trained one by one: what it does with its weights is not known
            _check_own(network, fresh(name, 1), name, dataset)
        sizes[name] = 1 if factory else group_size(network, synthetic.images, batch_size)
    return sizes


def _accuracies(network: nn.Module, dataset: Dataset) -> tuple[float, float, list[float | None]]:
    """On the test split: the accuracy, the mean of those of the classes, and those of the classes."""
    labels = dataset.test.labels.cpu()
    right = hits(network, dataset.test.images, dataset.test.labels).cpu()
    counts = torch.bincount(labels, minlength=dataset.num_classes).tolist()
    found = torch.bincount(labels[right], minlength=dataset.num_classes).tolist()
    classes = [n / count if count else None for n, count in zip(found, counts, strict=True)]
    there = [value for value in classes if value is not None]
    return float(right.sum()) / len(labels), sum(there) / len(there), classes


def _factories(
    architectures: Sequence[str | tuple[str, Factory]] | Mapping[str, Factory],
) -> dict[str, Factory | None]:
    """The factory of each architecture by its name; None for those of ddlib."""
    items = architectures.items() if isinstance(architectures, Mapping) else architectures
    pairs = [(item, None) if isinstance(item, str) else item for item in items]
    for pair in pairs:
        name, factory = pair if isinstance(pair, tuple | list) and len(pair) == 2 else (None, None)
        if not isinstance(name, str) or not (factory is None or callable(factory)) or isinstance(factory, nn.Module):
            raise ValueError(f"an own architecture is a name and a function that makes a network; found {pair!r:.100}.")
        if factory and name in NETWORKS:
            raise ValueError(f"{name!r} is a network of ddlib; give your own another name.")
    return dict(pairs)


@contextlib.contextmanager
def _own_randomness(factory: Factory | None, device: torch.device, *seed: object) -> Iterator[None]:
    """Own networks draw (weights, dropout) from torch's global generators: here they are seeded, and put back after."""
    if factory is None:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(derive_seed(*seed))
        yield


@torch.no_grad()
def _check_own(network: nn.Module, another: nn.Module, name: str, dataset: Dataset) -> None:
    """Raises ValueError unless own networks are two, and give logits for the classes of ``dataset``."""
    if network is another:
        raise ValueError(f"The factory of {name!r} gives the same network twice; expected a fresh one at every call.")
    images = dataset.test.images[:2]
    try:
        with evaluating(network):
            found = list(network(images).shape)
    except Exception as error:  # somebody's code raises what it likes
        raise ValueError(f"The network {name!r} fails on images {list(images.shape)}: {error!r:.200}.") from error
    if found != (expected := [len(images), dataset.num_classes]):
        raise ValueError(f"The network {name!r} gives {found} for images {list(images.shape)}; expected {expected}.")


def _fresh_network(
    dataset: Dataset,
    seed: int,
    width: int,
    norm: str | None,
    factories: Mapping[str, Factory | None],
    compute: Compute,
    passes: int,
    architecture: str,
    index: int,
) -> nn.Module:
    """Network number ``index`` of an architecture before its training, the same for every synthetic set."""
    if factory := factories[architecture]:
        with _own_randomness(factory, dataset.device, seed, f"own {architecture}", index):
            network = factory()
        if not isinstance(network, nn.Module):
            raise ValueError(f"{architecture!r} makes a {type(network).__name__}; expected a torch.nn.Module.")
        return network.to(dataset.device)
    network = build_network(
        architecture,
        dataset.channels,
        dataset.num_classes,
        dataset.image_size,
        width=width,
        norm=norm,
        generator=generator(seed, f"evaluation {architecture}", index),
        device=dataset.device,
    )
    return compute.settled(network, dataset.test.images, passes).applied_to(network)
