"""Evaluation: train fresh networks on a synthetic set and test them on real images."""

import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from torch import nn

from ddlib.data.dataset import Dataset
from ddlib.disk.progress import progress_bar
from ddlib.memory import keep_freed_memory
from ddlib.networks import build_network
from ddlib.rng import generator
from ddlib.synthetic import SyntheticSet
from ddlib.training import accuracy, augment_strategy, group_size, train_networks

if TYPE_CHECKING:
    import pandas as pd


def evaluate(
    synthetic: SyntheticSet,
    dataset: Dataset,
    architectures: Sequence[str] = ("ConvNet-3",),
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
) -> "pd.DataFrame":
    """Raw accuracies of ``num_eval`` fresh networks of each architecture, trained on ``synthetic``.

    The field's recipe: SGD with hard labels, the rate times 0.1 at half time, DSA augmentation or none
    (``augment``: True, False, or a DSA strategy), accuracy on ``dataset.test`` after the **last** epoch; no best
    of several. 1000 epochs with augmentation and 300 without are usual. Network i starts from the same weights
    and sees the same order and augmentation for every synthetic set of one size evaluated with this ``seed``.

    Returns one row per network: ``architecture``, ``network`` (0, 1, ...), ``augment`` (bool), ``accuracy``
    (fraction), ``seconds`` (on a GPU several train together and share their time equally). Raises ValueError for
    unknown names, impossible numbers, and a synthetic set of another kind of images, before anything is trained.

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
    fresh = partial(_fresh_network, dataset, seed, width, norm)
    sizes = {name: group_size(fresh(name, 0), synthetic.images, batch_size) for name in architectures}
    rows = []
    with progress_bar(len(architectures) * num_eval, "evaluation") as bar:
        for name, size in sizes.items():
            for first in range(0, num_eval, size):
                group, start = range(num_eval)[first : first + size], time.perf_counter()
                networks = [fresh(name, index) for index in group]
                draws = [generator(seed, f"evaluation training {name}", index) for index in group]
                train_networks(networks, synthetic.images, synthetic.labels, generators=draws, **recipe)
                reached = [accuracy(network, dataset.test.images, dataset.test.labels) for network in networks]
                seconds = (time.perf_counter() - start) / len(group)
                rows += [
                    (name, index, strategy != "none", value, seconds)
                    for index, value in zip(group, reached, strict=True)
                ]
                bar.update(len(group))
    return pd.DataFrame(rows, columns=["architecture", "network", "augment", "accuracy", "seconds"])


def _fresh_network(
    dataset: Dataset, seed: int, width: int, norm: str | None, architecture: str, index: int
) -> nn.Module:
    """Network number ``index`` of an architecture before its training, the same for every synthetic set."""
    return build_network(
        architecture,
        dataset.channels,
        dataset.num_classes,
        dataset.image_size,
        width=width,
        norm=norm,
        generator=generator(seed, f"evaluation {architecture}", index),
        device=dataset.device,
    )
