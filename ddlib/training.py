"""Training a network on a labelled set by SGD, and measuring it: one recipe for PTMs, evaluation and baselines."""

import contextlib
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddlib.augmentation import DSA_STRATEGY, DSAParams, apply_dsa, sample_dsa
from ddlib.devices import moved
from ddlib.memory import fits_in_memory
from ddlib.threads import threads_for

TOGETHER = 1024  # images of all networks in one step of train_networks


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
    """Train ``network`` in place by SGD on ``images [N, C, H, W]`` and ``labels [N]`` or ``[N, num_classes]``.

    The learning rate is multiplied by 0.1 after each epoch in ``milestones`` (0 is none). ``augment`` is a DSA
    strategy, drawn anew for each batch, with parameters of its own for each image. ``generator`` draws the order of
    the images and the augmentation. ``after_epoch(epoch)`` is called with epochs counted from 1.
    """
    optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [m for m in milestones if m], gamma=0.1)
    for epoch in range(1, epochs + 1):
        network.train()
        order = moved(torch.randperm(len(labels), generator=generator, device="cpu"), labels.device)
        with threads_for(largest_map(network, images[:batch_size])):
            for index in order.split(batch_size):
                batch = augment_batch(images[index], augment, generator)
                optimizer.zero_grad(set_to_none=True)
                F.cross_entropy(network(batch), labels[index]).backward()
                optimizer.step()
        scheduler.step()
        if after_epoch:
            after_epoch(epoch)


def train_networks(
    networks: Sequence[nn.Module], images: Tensor, labels: Tensor, *, generators: Sequence[torch.Generator], **recipe
) -> None:
    """:func:`train_network` for K networks of one architecture at once, network k with ``generators[k]``.

    ``recipe`` is that of :func:`train_network`, all of it, without ``after_epoch``. Equal but for rounding, and made
    for a GPU that one small batch leaves idle: every layer of all K is one kernel. :func:`group_size` says how many to
    hand over. Raises ValueError for several networks with batch norm.
    """
    if len(networks) == 1:
        return train_network(networks[0], images, labels, generator=generators[0], **recipe)
    if has_batch_norm(networks[0]):
        raise ValueError("networks with batch norm cannot be trained together; train them one by one.")
    sgd = {name: recipe[name] for name in ("lr", "momentum", "weight_decay")}
    stacked, _ = torch.func.stack_module_state(list(networks))
    optimizer = torch.optim.SGD(stacked.values(), **sgd)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [m for m in recipe["milestones"] if m], gamma=0.1)

    @torch.vmap
    def losses(parameters: dict[str, Tensor], batch: Tensor, wanted: Tensor) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(networks[0], parameters, batch), wanted)

    for _ in range(recipe["epochs"]):
        orders = [torch.randperm(len(labels), generator=generator, device="cpu") for generator in generators]
        for index in moved(torch.stack(orders), labels.device).split(recipe["batch_size"], dim=1):
            batches = augment_together(images[index], recipe["augment"], generators)
            optimizer.zero_grad(set_to_none=True)
            losses(stacked, batches, labels[index]).sum().backward()  # no network's loss knows another's weights
            optimizer.step()
        scheduler.step()
    with torch.no_grad():
        for name, values in stacked.items():
            for network, value in zip(networks, values, strict=True):
                network.get_parameter(name).copy_(value)


def train_halved(
    indices: Sequence[int],
    fresh: Callable[[int], nn.Module],
    draw: Callable[[int], torch.Generator],
    *images_and_labels: Tensor,
    **recipe,
) -> list[nn.Module]:
    """Networks ``fresh(i)``, trained with generators ``draw(i)`` by :func:`train_networks`: together if they fit.

    Else the one half and then the other, and so on: each network starts and draws as it would in the group.
    """
    networks = [fresh(index) for index in indices]
    work = partial(train_networks, networks, *images_and_labels, generators=[draw(i) for i in indices], **recipe)
    if fits_in_memory(work, last_try=len(indices) == 1):
        return networks
    halves = indices[: len(indices) // 2], indices[len(indices) // 2 :]
    del networks, work
    return [network for half in halves for network in train_halved(half, fresh, draw, *images_and_labels, **recipe)]


def group_size(network: nn.Module, images: Tensor, batch_size: int = 256) -> int:
    """How many such networks to train together: one on a CPU; on a GPU TOGETHER images of 32x32, or fewer larger ones.

    Of the networks of the field ResNet-18 needs most: its saved maps are 10 GB. :func:`train_halved` takes fewer then.
    """
    if images.device.type != "cuda" or has_batch_norm(network):
        return 1
    pixels = images.shape[-2] * images.shape[-1]
    return max(1, TOGETHER * 32 * 32 // (pixels * min(batch_size, len(images))))


def largest_map(network: nn.Module, images: Tensor) -> int:
    """Numbers in the maps of the first convolution for ``images [N, C, H, W]``; without one, in the images."""
    first = next((layer for layer in network.modules() if isinstance(layer, nn.Conv2d)), None)
    return images[:, 0].numel() * (first.out_channels if first else images.shape[1])


def has_batch_norm(network: nn.Module) -> bool:
    """Whether it keeps running statistics."""
    return any(True for _ in network.buffers())


def augment_together(batches: Tensor, augment: str, generators: Sequence[torch.Generator]) -> Tensor:
    """:func:`augment_batch` of K batches ``[K, N, C, H, W]``; those that drew the same operation in one call."""
    if augment == "none":
        return batches
    draws = [sample_dsa(batches.shape[1:], generator, augment, siamese=False) for generator in generators]
    result: dict[int, Tensor] = {}
    for operation in {draw.operation for draw in draws}:
        of_it = [k for k, draw in enumerate(draws) if draw.operation == operation]
        params = DSAParams(operation, torch.cat([draws[k].uniform for k in of_it], dim=1))
        augmented = apply_dsa(torch.cat([batches[k] for k in of_it]), params).chunk(len(of_it))
        result |= dict(zip(of_it, augmented, strict=True))  # indices would be copies that a GPU waits for
    return torch.stack([result[k] for k in range(len(draws))])


def augment_batch(images: Tensor, augment: str, generator: torch.Generator) -> Tensor:
    """DSA as used in training: one operation for the batch, its parameters drawn for each image."""
    if augment == "none":
        return images
    return apply_dsa(images, sample_dsa(images.shape, generator, augment, siamese=False))


def augment_strategy(augment: bool | str) -> str:
    """The DSA strategy behind ``True`` (all six operations), ``False`` (none) or a strategy's own name."""
    return {True: DSA_STRATEGY, False: "none"}.get(augment, augment)


def accuracy(network: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 1024) -> float:
    """Share of images ``[N, C, H, W]`` that ``network`` in eval mode classifies as ``labels [N]``, in [0, 1]."""
    return float(hits(network, images, labels, batch_size).sum()) / len(labels)


@torch.no_grad()
def hits(network: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 1024) -> Tensor:
    """Which of images ``[N, C, H, W]`` ``network`` in eval mode classifies as ``labels [N]``: bool ``[N]``."""
    with evaluating(network), threads_for(largest_map(network, images[:batch_size])):
        batches = zip(images.split(batch_size), labels.split(batch_size), strict=True)
        return torch.cat([network(x).argmax(1) == y for x, y in batches])


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
