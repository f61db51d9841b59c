"""The same computations as the field's code writes them: class by class, batch by batch, nothing kept, nothing shared.

These are transcriptions of the algorithms in github.com/VICO-UoE/DatasetCondensation and
github.com/yaolu-zjut/DDInterpreter, to be timed and compared against. Weights, real batches, orders and augmentations
come from ddlib's generators, so that both ways compute the same numbers. The augmentation itself is ddlib's in both.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision import transforms

from ddlib import networks
from ddlib.augmentation import DSA_STRATEGY, apply_dsa, sample_dsa
from ddlib.base_methods import Task
from ddlib.rng import generator


class PlainNetwork(nn.Module):
    """A network of ddlib with the same weights, but PyTorch's pooling and whole batches."""

    def __init__(self, network: networks.Network):
        super().__init__()
        pool = networks.AveragePool
        self.body = nn.Sequential(*[nn.AvgPool2d(2) if isinstance(layer, pool) else layer for layer in network.body])
        self.classifier = network.classifier

    def embed(self, images: Tensor) -> Tensor:
        """Features ``[N, d]``."""
        maps = self.body(images)
        return maps.view(len(maps), -1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``[N, num_classes]``."""
        return self.classifier(self.embed(images))


def clom(ptm: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of a frozen PTM and its gradient on the images."""
    loss = F.cross_entropy(ptm(images), labels)
    return loss.detach(), torch.autograd.grad(loss, images)[0]


def cclom(
    ptm: PlainNetwork, images: Tensor, labels: Tensor, real: Tensor, real_labels: Tensor, num_classes: int
) -> tuple[Tensor, Tensor]:
    """The real batch goes through the PTM in every step; one-hot labels make the mask."""
    same = F.one_hot(labels, num_classes).float() @ F.one_hot(real_labels, num_classes).float().T
    features, real_features = ptm.embed(images), ptm.embed(real)
    features = features / features.norm(dim=-1, keepdim=True)
    real_features = real_features / real_features.norm(dim=-1, keepdim=True)
    distance = 1 - features @ real_features.T
    loss = (same * distance).sum() / distance.sum()
    return loss.detach(), torch.autograd.grad(loss, images)[0]


def siamese_batches(task: Task, images: Tensor, t: int, augment: str) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Class by class: label, augmented real images, augmented synthetic images."""
    ipc = len(images) // task.dataset.num_classes
    for label in range(task.dataset.num_classes):
        real, syn = task.real_batch(label, t, 0), images[label * ipc : (label + 1) * ipc]
        params = sample_dsa(images.shape, generator(task.seed, "augmentation", t, 0, label), augment)
        yield label, apply_dsa(real, params), apply_dsa(syn, params)


def dm_step(task: Task, images: Tensor, t: int) -> tuple[Tensor, Tensor]:
    """One step of distribution matching: loss and gradient on the images."""
    network = PlainNetwork(task.fresh_network(t)).requires_grad_(False)
    loss = torch.zeros((), device=images.device)
    for _, real, syn in siamese_batches(task, images, t, DSA_STRATEGY):
        output_real, output_syn = network.embed(real).detach(), network.embed(syn)
        loss = loss + ((output_real.mean(0) - output_syn.mean(0)) ** 2).sum()
    return loss.detach(), torch.autograd.grad(loss, images)[0]


def matching_step(task: Task, images: Tensor, t: int, augment: str) -> tuple[Tensor, Tensor]:
    """One step of gradient matching (DC: ``augment`` "none"; DSA): loss and gradient on the images."""
    network = PlainNetwork(task.fresh_network(t))
    parameters = list(network.parameters())
    loss = torch.zeros((), device=images.device)
    for label, real, syn in siamese_batches(task, images, t, augment):
        labels_real, labels_syn = (torch.full((len(x),), label, device=x.device) for x in (real, syn))
        target = torch.autograd.grad(F.cross_entropy(network(real), labels_real), parameters)
        target = [gradient.detach().clone() for gradient in target]
        mine = torch.autograd.grad(F.cross_entropy(network(syn), labels_syn), parameters, create_graph=True)
        for a, b in zip(mine, target, strict=True):
            if a.ndim > 1:
                a, b = a.flatten(1), b.flatten(1)
                loss = loss + (1 - (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1) + 1e-6)).sum()
    return loss.detach(), torch.autograd.grad(loss, images)[0]


def train_epochs(
    network: nn.Module,
    loader: DataLoader,
    epochs: int,
    draw: torch.Generator,
    weight_decay: float,
    device: torch.device,
    decay_after: int | None = None,
    augment: str = "none",
) -> None:
    """Batches from a DataLoader, loss and accuracy brought to the CPU after each of them."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=weight_decay)
    network.train()
    for epoch in range(epochs):
        if epoch == decay_after:
            optimizer.param_groups[0]["lr"] *= 0.1
        hits, total, count = 0, 0.0, 0
        for images, labels in loader:
            images, labels = images.float().to(device), labels.long().to(device)
            if augment != "none":
                images = apply_dsa(images, sample_dsa(images.shape, draw, augment, siamese=False))
            output = network(images)
            loss = F.cross_entropy(output, labels)
            hits += np.sum(np.equal(np.argmax(output.cpu().data.numpy(), axis=-1), labels.cpu().data.numpy()))
            total += loss.item() * len(labels)
            count += len(labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


class Shuffled(torch.utils.data.Sampler):
    """The order of each epoch from one generator, the one that draws the augmentation too."""

    def __init__(self, length: int, draw: torch.Generator):
        self.length, self.draw = length, draw

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(self.length, generator=self.draw).tolist())

    def __len__(self) -> int:
        return self.length


def evaluation(
    network: networks.Network, images: Tensor, labels: Tensor, test: TensorDataset, epochs: int, draw: torch.Generator
) -> float:
    """Train one network on a synthetic set with DSA, then its accuracy on the test set."""
    network, data = PlainNetwork(network), TensorDataset(images, labels)
    loader = DataLoader(data, batch_size=256, sampler=Shuffled(len(data), draw))
    train_epochs(network, loader, epochs, draw, 5e-4, images.device, decay_after=epochs // 2, augment=DSA_STRATEGY)
    network.eval()
    hits = 0
    for x, y in DataLoader(test, batch_size=256):
        x, y = x.float().to(images.device), y.long().to(images.device)
        output = network(x)
        F.cross_entropy(output, y).item()
        hits += np.sum(np.equal(np.argmax(output.cpu().data.numpy(), axis=-1), y.cpu().data.numpy()))
    return float(hits) / len(test)


class Pictures(torch.utils.data.Dataset):
    """uint8 pictures [N, H, W, 3] that become normalised tensors one by one, as torchvision's data sets do it."""

    def __init__(self, pictures: np.ndarray, labels: list[int], mean: list[float], std: list[float]):
        self.pictures, self.labels = pictures, labels
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pictures[index])), self.labels[index]

    def __len__(self) -> int:
        return len(self.labels)


def ptm_training(network: networks.Network, data: Pictures, epochs: int, draw: torch.Generator, device: torch.device):
    """Train one PTM."""
    loader = DataLoader(data, batch_size=256, sampler=Shuffled(len(data), draw))
    train_epochs(PlainNetwork(network), loader, epochs, draw, 0.005, device)
