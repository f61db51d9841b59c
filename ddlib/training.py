"""Training a network on a labelled set by SGD, and measuring it: one recipe for PTMs, evaluation and baselines."""

import contextlib
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddlib.augmentation import DSA_STRATEGY, apply_dsa, sample_dsa


def train_network(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    generator: torch.Generator,
    lr: float = 0.01,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    batch_size: int = 256,
    milestones: Sequence[int] = (),
    augment: str = "none",
    after_epoch: Callable[[int], None] | None = None,
) -> None:
    """Train ``network`` in place by SGD on ``images [N, C, H, W]``, ``labels [N]``.

    The learning rate is multiplied by 0.1 after each epoch in ``milestones`` (0 is none). ``augment`` is a DSA
    strategy, drawn anew for each batch, with parameters of its own for each image. ``generator`` draws the order of
    the images and the augmentation. ``after_epoch(epoch)`` is called with epochs counted from 1.
    """
    optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [m for m in milestones if m], gamma=0.1)
    for epoch in range(1, epochs + 1):
        network.train()
        order = torch.randperm(len(labels), generator=generator).to(labels.device)
        for index in order.split(batch_size):
            batch = augment_batch(images[index], augment, generator)
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(network(batch), labels[index]).backward()
            optimizer.step()
        scheduler.step()
        if after_epoch:
            after_epoch(epoch)


def augment_batch(images: Tensor, augment: str, generator: torch.Generator) -> Tensor:
    """DSA as used in training: one operation for the batch, its parameters drawn for each image."""
    if augment == "none":
        return images
    return apply_dsa(images, sample_dsa(images.shape, generator, augment, siamese=False))


def augment_strategy(augment: bool | str) -> str:
    """The DSA strategy behind ``True`` (all six operations), ``False`` (none) or a strategy's own name."""
    return {True: DSA_STRATEGY, False: "none"}.get(augment, augment)


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 1024) -> float:
    """Share of images ``[N, C, H, W]`` that ``network`` in eval mode classifies as ``labels [N]``, in [0, 1]."""
    with evaluating(network):
        hits = [
            (network(x).argmax(1) == y).sum()
            for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True)
        ]
    return float(torch.stack(hits).sum()) / len(labels)


@torch.no_grad()
def features_of(network: Callable[[Tensor], Tensor], images: Tensor, batch_size: int = 1024) -> Tensor:
    """``network(images)`` in batches without gradients, e.g. ``features_of(ptm.features, images) -> [N, d]``."""
    return torch.cat([network(x) for x in images.split(batch_size)])


@contextlib.contextmanager
def evaluating(network: nn.Module):
    """Put ``network`` in eval mode for a while, then back to the mode it was in."""
    was_training = network.training
    network.eval()
    try:
        yield network
    finally:
        network.train(was_training)
