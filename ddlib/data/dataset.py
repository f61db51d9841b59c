"""What a data set is: two splits of labelled images as tensors, and how their pixels were normalised.

A data set here is small enough to live in memory as one float32 tensor a split (CIFAR-10: 0.74 GB in all), so
there is no loader, no worker and no transform on the way.
"""

import dataclasses
import hashlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from torch import Tensor

from ddlib.data.doubts import warn_of_doubts
from ddlib.data.tensors import OBLONG, labels_of, pixels_of
from ddlib.rng import generator

CHUNK = 256  # images handled at a time: bounds the working memory, at 256 x 256 pixels too
CONSTANT = 1e-4  # a channel with a smaller std (1/40 of a grey level) holds rounding noise, no signal


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


def _wrong_with(split: Split, form: ImageFormat, num_classes: int) -> str | None:
    """Why a split is not one of a data set of this format, in words."""
    images, labels = split.images, split.labels
    if (found := tuple(images.shape[1:])) != form.shape:
        oblong = f"; oblong images are {OBLONG}" if found[1] != found[2] else ""
        return f"are {list(found)}; its format says {list(form.shape)}{oblong}"
    if images.dtype != torch.float32:
        return f"are {images.dtype}; expected float32, normalised (Dataset.from_tensors takes pixels)"
    if not len(labels):
        return "are none"
    if labels.device.type != "meta" and not 0 <= (odd := _farthest(labels, num_classes)) < num_classes:
        return f"have the label {odd}; with {num_classes} class names, labels are 0 to {num_classes - 1}"
    return None


def _farthest(labels: Tensor, num_classes: int) -> int:
    """The smallest label if it is below 0, else the largest."""
    low, high = map(int, labels.aminmax())
    return low if low < 0 else high


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Two splits, class names, and the format of the images, whose mean and std normalised both.

    ``from_tensors`` makes one from pixels. Raises ValueError if images or labels do not fit the format or the classes,
    or if a class has no training image.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    format: ImageFormat

    def __post_init__(self):
        object.__setattr__(self, "class_names", tuple(map(str, self.class_names)))
        if twice := {name for name in self.class_names if self.class_names.count(name) > 1}:
            raise ValueError(f"class names of {self.name} stand twice: {', '.join(map(repr, sorted(twice)))}.")
        for part, split in (("train", self.train), ("test", self.test)):
            if problem := _wrong_with(split, self.format, self.num_classes):
                raise ValueError(f"the {part} images of {self.name} {problem}.")
        there = range(self.num_classes) if self.device.type == "meta" else self.train.labels.unique().tolist()
        if empty := sorted(set(range(self.num_classes)) - set(there)):
            names = ", ".join(repr(self.class_names[label]) for label in empty[:5])
            raise ValueError(f"{self.name} has {len(empty)} classes without training images ({names}): leave them out.")

    def __repr__(self) -> str:
        splits = f"{len(self.train)} training and {len(self.test)} test images {list(self.format.shape)}"
        return f"<Dataset {self.name}: {splits} of {self.num_classes} classes on {self.device}>"

    @classmethod
    def from_tensors(
        cls,
        name: str,
        train: tuple[Tensor, Tensor],
        test: tuple[Tensor, Tensor],
        class_names: Sequence[str],
    ) -> "Dataset":
        """A data set from ``(images, labels)`` of train and test in memory, tensors or numpy arrays.

        Images are pixels: integers from 0 to 255 or floats from 0 to 1, ``[N, C, H, H]``, or ``[N, H, H]`` if grey.
        Labels are whole numbers ``[N]`` below the number of classes. Both splits are normalised by mean and std of the
        train split; what was handed in is not changed. Warns of uneven classes, and of images in both splits. Raises
        ValueError for values of another range (images that are normalised already have a format: use the constructor),
        oblong images, and all that the constructor refuses.
        """
        pairs = [
            (pixels_of(images, f"{part} images of {name}"), labels_of(labels, f"{part} labels of {name}"))
            for part, (images, labels) in (("train", train), ("test", test))
        ]
        data = normalised(name, *pairs, class_names)
        warn_of_doubts(name, *((split.images, split.labels) for split in (data.train, data.test)), data.class_names)
        return data

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
        moments = torch.tensor((self.format.mean, self.format.std), dtype=torch.float32, device="cpu")
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
        mask = torch.zeros(len(labels), dtype=torch.bool, device="cpu")
        for label in range(self.num_classes):
            members = (labels == label).nonzero().flatten()
            mask[members[torch.randperm(len(members), generator=draw, device="cpu")[:held]]] = True
        train, test = self.train.select(~mask), self.train.select(mask)
        return dataclasses.replace(self, name=f"{self.name}-holdout", train=train, test=test)


def normalised(
    name: str, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], class_names: Sequence[str]
) -> Dataset:
    """A data set from pixels in [0, 1] and labels, which it takes over: normalised in place.

    A channel that is constant in the train split is divided by 1, with a warning.
    """
    mean, std = channel_moments(train[0])
    for channel in (std < CONSTANT).nonzero().flatten().tolist():
        warnings.warn(f"channel {channel} of {name} is constant: its std is set to 1", stacklevel=3)
        std[channel] = 1
    for pixels, _ in (train, test):  # in place: a second copy would double the memory
        pixels.sub_(mean.view(-1, 1, 1)).div_(std.view(-1, 1, 1))
    return Dataset(name, Split(*train), Split(*test), class_names, ImageFormat.of(train[0], mean, std))


def channel_moments(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (population) std `[C]` of pixels `[N, C, H, W]`, float32, summed in float64."""
    count = pixels.numel() / pixels.shape[1]
    mean = sum(chunk.double().sum((0, 2, 3)) for chunk in pixels.split(CHUNK)) / count
    deviations = (chunk.double().sub_(mean.view(-1, 1, 1)) for chunk in pixels.split(CHUNK))
    variance = sum(deviation.square_().sum((0, 2, 3)) for deviation in deviations) / count
    return mean.float(), variance.sqrt().float()
