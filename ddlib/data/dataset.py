"""What a data set is: two splits of labelled images as tensors, and how their pixels were normalised.

A data set here is small enough to live in memory as one float32 tensor a split (CIFAR-10: 0.74 GB in all), so
there is no loader, no worker and no transform on the way.
"""

import dataclasses
import hashlib
import math
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from torch import Tensor

from ddlib.rng import generator

CHUNK = 256  # images handled at a time: bounds the working memory, at 256 x 256 pixels too


@dataclass(frozen=True, eq=False)
class Split:
    """Images float32 `[N, C, H, W]`, normalised, and their labels int64 `[N]`."""

    images: Tensor
    labels: Tensor

    def __post_init__(self):
        images, labels = self.images, self.labels
        if images.ndim != 4 or labels.shape != images.shape[:1] or labels.dtype != torch.int64:
            raise ValueError(
                "a split needs images [N, C, H, W] and int64 labels [N], found images "
                f"{list(images.shape)} and {labels.dtype} labels {list(labels.shape)}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "Split":
        """The same split on `device`."""
        return Split(self.images.to(device), self.labels.to(device))

    def select(self, index: Tensor) -> "Split":
        """A copy of the images at `index` (positions or a mask, on any device)."""
        index = torch.as_tensor(index, device=self.images.device)
        return Split(self.images[index], self.labels[index])


@dataclass(frozen=True)
class ImageFormat:
    """What images are like: channels, side in pixels, and the mean and std per channel (of pixels in [0, 1]).

    Mean and std are rounded to float32, as files hold them, so that a format equals itself after saving and loading.
    Raises ValueError if mean or std do not have one number for each channel, or a std is not above 0.
    """

    channels: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self):
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(np.asarray(getattr(self, name), np.float32).tolist()))
        if len(self.mean) != self.channels or len(self.std) != self.channels or not all(std > 0 for std in self.std):
            raise ValueError(f"mean and std need one number for each of {self.channels} channels, std > 0.")
        if not all(map(math.isfinite, (*self.mean, *self.std))):
            raise ValueError("mean and std need finite numbers; found NaN or infinity.")

    @classmethod
    def of(cls, images: Tensor, mean: Tensor, std: Tensor) -> "ImageFormat":
        """That of square images ``[N, C, H, W]`` normalised by ``mean [C]`` and ``std [C]``."""
        return cls(images.shape[1], images.shape[-1], tuple(mean.tolist()), tuple(std.tolist()))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image: channels, height, width."""
        return self.channels, self.image_size, self.image_size

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 1], ``[..., C, H, W]``, as the networks see them."""
        mean, std = _moments(self, pixels.dtype, pixels.device)
        return (pixels - mean) / std

    def denormalise(self, images: Tensor) -> Tensor:
        """The inverse of :meth:`normalise`. Synthetic images may leave [0, 1]: clamp before showing them."""
        mean, std = _moments(self, images.dtype, images.device)
        return images * std + mean


@cache  # a copy to a GPU would wait for it, in every step
@torch.inference_mode(False)  # else moments first asked for in inference would be of no use in training
def _moments(form: ImageFormat, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and std as ``[C, 1, 1]``."""
    mean, std = (torch.tensor(values, dtype=dtype, device=device) for values in (form.mean, form.std))
    return mean.view(-1, 1, 1), std.view(-1, 1, 1)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Two splits, class names, and the format of the images, whose mean and std normalised both.

    Raises ValueError if images are not of that format.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    format: ImageFormat

    def __post_init__(self):
        for part, split in (("train", self.train), ("test", self.test)):
            if (found := tuple(split.images.shape[1:])) != self.format.shape:
                raise ValueError(
                    f"the {part} images of {self.name} are {list(found)}; its format says {list(self.format.shape)}."
                )

    @property
    def num_classes(self) -> int:
        """The number of classes; labels are below it."""
        return len(self.class_names)

    @property
    def channels(self) -> int:
        """C of `[N, C, H, W]`: 1 for grey, 3 for RGB."""
        return self.format.channels

    @property
    def image_size(self) -> int:
        """Height = width of the images, in pixels."""
        return self.format.image_size

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.train.images.device

    @cached_property  # fits a frozen dataclass: it writes to the instance's __dict__, past __setattr__
    def hash(self) -> str:
        """16 hexadecimal digits of the SHA-256 of everything but the name: splits, class names, mean, std.

        Equal hashes mean equal bits, wherever the files lay and whatever the device. Computed once, so do not
        write into the tensors. At another than the native `image_size` the last bits, and so the hash, may
        differ between kinds of CPU.
        """
        digest = hashlib.sha256(repr(self.class_names).encode())
        splits = (self.train.images, self.train.labels, self.test.images, self.test.labels)
        moments = (torch.tensor(values, dtype=torch.float32) for values in (self.format.mean, self.format.std))
        for tensor in (*splits, *moments):
            digest.update(f"{tensor.dtype}{list(tensor.shape)}".encode())
            for chunk in tensor.split(CHUNK):
                digest.update(chunk.cpu().contiguous().numpy())
        return digest.hexdigest()[:16]

    def to(self, device: torch.device | str) -> "Dataset":
        """The same data set on `device`."""
        return dataclasses.replace(self, train=self.train.to(device), test=self.test.to(device))

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels in [0, 1], `[..., C, H, W]`, as the networks see them."""
        return self.format.normalise(pixels)

    def denormalise(self, images: Tensor) -> Tensor:
        """The inverse of `normalise`. Synthetic images may leave [0, 1]: clamp before showing them."""
        return self.format.denormalise(images)

    def holdout(self, fraction: float = 0.1, seed: int = 0) -> "Dataset":
        """To choose hyper-parameters on: test = a held-out part of the *train* split, train = the rest of it.

        The held-out part has equally many images of every class: `fraction` of the smallest class, rounded,
        at least one. The real test split is not in it; mean and std stay. Name and hash are new, so that
        nothing cached or recorded for one is taken for the other. Raises ValueError if `fraction` is not
        between 0 and 1 or leaves a class without an image on either side.
        """
        counts = torch.bincount(self.train.labels, minlength=self.num_classes)
        smallest = int(counts.min())
        held = max(1, round(fraction * smallest)) if 0 < fraction < 1 else 0
        if not 0 < held < smallest:
            raise ValueError(
                f"the fraction of {self.name} to hold out must be between 0 and 1 and leave an image of "
                f"every class on both sides, found {fraction}; the smallest class, "
                f"{self.class_names[int(counts.argmin())]!r}, has {smallest}"
            )
        labels, draw = self.train.labels.cpu(), generator(seed, "holdout")
        mask = torch.zeros(len(labels), dtype=torch.bool)
        for label in range(self.num_classes):
            members = (labels == label).nonzero().flatten()
            mask[members[torch.randperm(len(members), generator=draw)[:held]]] = True
        train, test = self.train.select(~mask), self.train.select(mask)
        return dataclasses.replace(self, name=f"{self.name}-holdout", train=train, test=test)
