"""Evaluation: train fresh networks on a synthetic set and test them on real images."""

import time
from collections.abc import Sequence

import pandas as pd

from ddlib.data.dataset import Dataset
from ddlib.disk.progress import progress_bar
from ddlib.networks import build_network
from ddlib.rng import generator
from ddlib.synthetic import SyntheticSet
from ddlib.training import accuracy, augment_strategy, group_size, train_networks


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
) -> pd.DataFrame:
    """Raw accuracies of ``num_eval`` fresh networks of each architecture, trained on ``synthetic``.

    The field's recipe: SGD with hard labels, the rate times 0.1 at half time, DSA augmentation or none
    (``augment``: True, False, or a DSA strategy), accuracy on ``dataset.test`` after the **last** epoch; no best
    of several. 1000 epochs with augmentation and 300 without are usual. Network i starts from the same weights
    and sees the same order and augmentation for every synthetic set of one size evaluated with this ``seed``.

    Returns one row per network: ``architecture``, ``network`` (0, 1, ...), ``augment`` (bool), ``accuracy``
    (fraction), ``seconds`` (on a GPU several train together and share their time equally). Raises ValueError for
    unknown names, impossible numbers, and a synthetic set of another kind of images, before anything is trained.
    """
    if num_eval < 1 or eval_epochs < 1:
        raise ValueError(f"num_eval and eval_epochs must be at least 1; found {num_eval} and {eval_epochs}.")
    synthetic, strategy = synthetic.normalised_for(dataset), augment_strategy(augment) or "none"

    def fresh(architecture: str, index: int):
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

    sizes = {name: group_size(fresh(name, 0), synthetic.images, batch_size) for name in architectures}
    rows = []
    with progress_bar(len(architectures) * num_eval, "evaluation") as bar:
        for architecture in architectures:
            size = sizes[architecture]
            for first in range(0, num_eval, size):
                group = range(num_eval)[first : first + size]
                start, networks = time.perf_counter(), [fresh(architecture, index) for index in group]
                train_networks(
                    networks,
                    synthetic.images,
                    synthetic.labels,
                    epochs=eval_epochs,
                    generators=[generator(seed, f"evaluation training {architecture}", index) for index in group],
                    lr=lr,
                    momentum=momentum,
                    weight_decay=weight_decay,
                    batch_size=batch_size,
                    milestones=[eval_epochs // 2],
                    augment=strategy,
                )
                reached = [accuracy(network, dataset.test.images, dataset.test.labels) for network in networks]
                seconds = (time.perf_counter() - start) / len(group)
                for index, value in zip(group, reached, strict=True):
                    rows.append((architecture, index, strategy != "none", value, seconds))
                bar.update(len(group))
    return pd.DataFrame(rows, columns=["architecture", "network", "augment", "accuracy", "seconds"])
