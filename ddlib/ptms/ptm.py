"""A pre-trained model (PTM): a frozen network that judges synthetic images, and where it comes from.

A PTM of another data set sees images through an adapter of channels, size and normalisation.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddlib.data.dataset import Dataset, ImageFormat
from ddlib.losses import ClassSums, class_sums
from ddlib.threads import threads_for
from ddlib.training import largest_map

LUMA = (0.299, 0.587, 0.114)  # grey from RGB (ITU-R BT.601), as Pillow does it
CHUNK = 512  # real images in one forward pass


@dataclass(frozen=True, eq=False)
class PTM:
    """One frozen network in eval mode, and where it comes from. No gradient reaches its weights."""

    network: nn.Module  # gives features(x) [N, d]; its last layer is .classifier
    architecture: str
    source_dataset: str
    class_names: tuple[str, ...]
    expects: ImageFormat
    hash: str  # of everything that shaped it
    index: int = 0  # which initialisation
    epoch: int | None = None
    accuracy: float | None = None  # on the source's test split, to report; a fraction
    train_accuracy: float | None = None  # on its train split, to weight by: the test set stays unread
    seconds: float | None = None  # of training, up to this epoch
    given: ImageFormat | None = None  # of the images it is adapted to; None: what it expects
    adapt: Callable[[Tensor], Tensor] = field(default=nn.Identity(), repr=False)
    _sums: dict[str, ClassSums] = field(default_factory=dict, repr=False)

    def __post_init__(self):
        self.network.eval().requires_grad_(False)

    @property
    def name(self) -> str:
        """Short and unique in a pool, for tables and figures."""
        return f"{self.architecture} #{self.index}" + ("" if self.epoch is None else f" @{self.epoch}")

    @property
    def size_bytes(self) -> int:
        """Storage of its weights."""
        return sum(t.numel() * t.element_size() for t in self.network.state_dict().values())

    def features(self, images: Tensor) -> Tensor:
        """Normalised images of the data set it is adapted to, ``[N, C, H, W]`` -> features ``[N, d]``."""
        return self.network.features(self.adapt(images))

    def classify(self, features: Tensor) -> Tensor:
        """Features ``[N, d]`` -> logits ``[N, num_classes]`` over its own ``class_names``."""
        return self.network.classifier(features)

    def logits(self, images: Tensor) -> Tensor:
        """Normalised images ``[N, C, H, W]`` -> logits ``[N, num_classes]``."""
        return self.classify(self.features(images))

    def adapted_to(self, dataset: Dataset) -> "PTM":
        """The same PTM for the images of ``dataset``: channels, size and normalisation are converted first."""
        given = dataset.format
        if given == (self.given or self.expects):
            return self
        adapt = Adapter(given, self.expects)
        return dataclasses.replace(self, given=given, adapt=adapt, _sums={})

    def class_sums(self, dataset: Dataset) -> ClassSums:
        """:func:`ddlib.losses.class_sums` of this PTM's features over the train split; computed once."""
        if dataset.hash not in self._sums:
            features = self.features_of(dataset.train.images)
            self._sums[dataset.hash] = class_sums(features, dataset.train.labels, dataset.num_classes)
        return self._sums[dataset.hash]

    @torch.no_grad()
    def features_of(self, images: Tensor) -> Tensor:
        """Features ``[N, d]`` of many images, in chunks and without gradients."""
        with threads_for(largest_map(self.network, images[:CHUNK])):
            return torch.cat([self.features(chunk) for chunk in images.split(CHUNK)])


class Adapter(nn.Module):
    """Images as one format normalises them -> images as another network expects them."""

    def __init__(self, given: ImageFormat, expected: ImageFormat):
        super().__init__()
        self.given, self.expected = given, expected

    def forward(self, images: Tensor) -> Tensor:
        """``[N, C, H, W]`` -> ``[N, channels, size, size]``; grey repeats into RGB, RGB becomes its luma."""
        pixels, size = self.given.denormalise(images), self.expected.image_size
        if pixels.shape[1] == 3 and self.expected.channels == 1:
            pixels = (pixels * pixels.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)
        pixels = pixels.expand(-1, self.expected.channels, -1, -1)
        if pixels.shape[-1] != size:
            pixels = F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
        return self.expected.normalise(pixels)
