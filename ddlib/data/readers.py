"""Data sets by name: `load_dataset` gives train and test images, normalised, on one device.

Pixels are integers / 255 (digits: / 16), then `(pixel - mean) / std` with the mean and standard deviation of the
train split, per channel. A data set is one row of `DATASETS`.
"""

import contextlib
import dataclasses
import io
import os
import socket
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from filelock import FileLock
from torch import Tensor

from ddlib.data.dataset import CHUNK, Dataset, ImageFormat, Split
from ddlib.data.image_folder import LAYOUT, read_folder
from ddlib.disk.paths import data_folder
from ddlib.disk.progress import watched

TIMEOUT = 20  # seconds of silence after which a download counts as failed
CONSTANT = 1e-4  # a channel with a smaller std (1/40 of a grey level) holds rounding noise, no signal

Raw = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[str, ...]]
"""Train and test as (pixels [N, C, H, W] in [0, 1], labels [N]), and the class names."""


def load_dataset(
    name: str | os.PathLike,
    root: str | os.PathLike | None = None,
    image_size: int | None = None,
    device: torch.device | str = "cpu",
) -> Dataset:
    """Load a data set by name (a key of `DATASETS`), or an image folder by its path (`ddlib.data.image_folder`).

    root: folder of the downloaded sets; else the environment variable DDLIB_DATA, else the user's cache.
    image_size: height = width in pixels, 8 to 256. None: the native size, for an image folder 32.
    A known name wins over a folder of that name: write `./digits` for the folder. A channel that is constant
    in the train split is divided by 1, with a warning.

    Raises ValueError for an unknown name, a bad size or a bad image folder, and FileNotFoundError for a set
    that is not there (whole) and cannot be downloaded.

    >>> data = load_dataset("digits")
    >>> data.num_classes, data.channels, data.image_size, len(data.train) + len(data.test)
    (10, 1, 8, 1797)
    """
    if image_size is not None and not (type(image_size) is int and 8 <= image_size <= 256):
        raise ValueError(f"image_size must be None or an integer from 8 to 256, found {image_size!r}")
    torch.empty(0, device=device)  # a wrong or absent device fails here, before the long work
    if name in DATASETS:
        train, test, class_names = DATASETS[name].read(root, image_size)
    else:
        folder = _folder(name)
        if not os.path.isdir(folder):  # Path.is_dir raises on a name that is too long
            known = f"neither a known data set ({', '.join(DATASETS)}) nor a folder"
            raise ValueError(f"{str(name)!r} is {known}. " + LAYOUT.format(folder=folder))
        train, test, class_names = read_folder(folder, image_size)
        name = dataset_name(name)
    mean, std = channel_moments(train[0])
    for channel in (std < CONSTANT).nonzero().flatten().tolist():
        warnings.warn(f"channel {channel} of {name} is constant: its std is set to 1", stacklevel=2)
        std[channel] = 1
    for pixels, _ in (train, test):  # in place: a second copy would double the memory
        pixels.sub_(mean.view(-1, 1, 1)).div_(std.view(-1, 1, 1))
    form = ImageFormat.of(train[0], mean, std)
    return Dataset(name, Split(*train), Split(*test), class_names, form).to(device)


def dataset_name(name: str | os.PathLike) -> str:
    """The name that `load_dataset` gives a data set: for an image folder that of the folder, without its path."""
    if name in DATASETS:
        return str(name)
    folder = _folder(name).name
    return f"{folder}-folder" if folder in DATASETS else folder


def _folder(name: str | os.PathLike) -> Path:
    return Path(os.path.abspath(os.path.expanduser(name)))  # Path's own expanduser raises on an unknown user


def channel_moments(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (population) std `[C]` of pixels `[N, C, H, W]`, float32, summed in float64."""
    count = pixels.numel() / pixels.shape[1]
    mean = sum(chunk.double().sum((0, 2, 3)) for chunk in pixels.split(CHUNK)) / count
    deviations = (chunk.double().sub_(mean.view(-1, 1, 1)) for chunk in pixels.split(CHUNK))
    variance = sum(deviation.square_().sum((0, 2, 3)) for deviation in deviations) / count
    return mean.float(), variance.sqrt().float()


def to_pixels(raw: Tensor, white: int, image_size: int | None) -> Tensor:
    """Integers 0..`white`, `[N, C, H, W]`, as float32 in [0, 1]; resized (bilinear, antialias) if asked."""
    size = image_size or raw.shape[-1]
    pixels = torch.empty(len(raw), raw.shape[1], size, size)
    for source, target in zip(raw.split(CHUNK), pixels.split(CHUNK), strict=True):
        chunk = source.float() / white
        if chunk.shape != target.shape:
            chunk = F.interpolate(chunk, size=(size, size), mode="bilinear", antialias=True)
        target.copy_(chunk)
    return pixels


def _read_digits(root: object, image_size: int | None) -> Raw:
    """scikit-learn's digits (no `root` needed). Test split: the third of every five images of a class."""
    from sklearn.datasets import load_digits  # here, because the import takes a second

    source = load_digits()
    pixels = to_pixels(torch.from_numpy(source.images)[:, None], 16, image_size)
    labels = torch.from_numpy(source.target).long()
    rank = (F.one_hot(labels).cumsum(0) - 1).gather(1, labels[:, None]).squeeze(1)  # of an image in its class
    test = rank % 5 == 2
    return (pixels[~test], labels[~test]), (pixels[test], labels[test]), tuple("0123456789")


@dataclass(frozen=True)
class Torchvision:
    """A reader of the data set ``torchvision.datasets.<kind>``, whose folder holds ``files``."""

    kind: str
    files: str
    class_names: str = ""  # a letter each; empty: those of torchvision
    splits: tuple[Mapping[str, object], Mapping[str, object]] = ({"train": True}, {"train": False})
    labels: str = "targets"
    channels_first: bool = False

    def __call__(self, root: str | os.PathLike | None, image_size: int | None) -> Raw:
        """Train and test split, the pixels resized if ``image_size`` says so."""
        parts = []
        for which in self.splits:
            source = self.open(data_folder(root), which)
            raw = torch.as_tensor(source.data)  # [N, H, W], [N, H, W, C] or [N, C, H, W]
            raw = raw[:, None] if raw.ndim == 3 else raw if self.channels_first else raw.permute(0, 3, 1, 2)
            labels = torch.as_tensor(getattr(source, self.labels), dtype=torch.int64)
            parts.append((to_pixels(raw, 255, image_size), labels))
        return parts[0], parts[1], tuple(self.class_names or source.classes)

    def open(self, folder: Path, which: Mapping[str, object]):
        """The torchvision data set from ``folder``, downloaded to it if need be. Raises FileNotFoundError."""
        import torchvision  # here, because the import takes seconds

        opener = partial(getattr(torchvision.datasets, self.kind), folder, **which)
        try:
            return opener()
        except Exception as error:  # missing files, wrong checksums, damaged content: many types
            found = f"{type(error).__name__}: {error}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / f".{self.kind}.lock"), _download_manners():
                return opener(download=True)
        except Exception as error:
            raise FileNotFoundError(
                f"{self.kind} is not (whole) in {folder} and could not be downloaded. Put {self.files} there, after "
                "removing damaged files if there are any, or let the environment variable DDLIB_DATA (or the "
                f"argument root) name the folder that has it.\n    reading: {found}\n"
                f"    downloading: {type(error).__name__}: {error}"
            ) from error


@contextlib.contextmanager
def _download_manners() -> Iterator[None]:
    """Give up a silent server (torchvision waits for ever); show no progress bar in a log file."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    try:
        with contextlib.nullcontext() if watched() else contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(before)


@dataclass(frozen=True)
class Source:
    """One row: how a data set is read, and the mean and std that the reference normalises it by, if it does."""

    read: Callable[[str | os.PathLike | None, int | None], Raw]
    reference_mean: tuple[float, ...] = ()
    reference_std: tuple[float, ...] = ()


DATASETS: dict[str, Source] = {
    "digits": Source(_read_digits),
    "mnist": Source(Torchvision("MNIST", "MNIST/raw/*-ubyte (four files)", "0123456789"), (0.1307,), (0.3081,)),
    "fashion_mnist": Source(Torchvision("FashionMNIST", "FashionMNIST/raw/*-ubyte (four files)"), (0.2861,), (0.3530,)),
    "svhn": Source(
        Torchvision(
            "SVHN",
            "train_32x32.mat and test_32x32.mat",
            "0123456789",
            splits=({"split": "train"}, {"split": "test"}),
            labels="labels",
            channels_first=True,
        ),
        (0.4377, 0.4438, 0.4728),
        (0.1980, 0.2010, 0.1970),
    ),
    "cifar10": Source(
        Torchvision("CIFAR10", "cifar-10-batches-py/ or cifar-10-python.tar.gz"),
        (0.4914, 0.4822, 0.4465),
        (0.2023, 0.1994, 0.2010),
    ),
    "cifar100": Source(
        Torchvision("CIFAR100", "cifar-100-python/ or cifar-100-python.tar.gz"),
        (0.5071, 0.4866, 0.4409),
        (0.2673, 0.2564, 0.2762),
    ),
}
"""Every data set by its name. A new one is one row here.

The reference is github.com/VICO-UoE/DatasetCondensation (utils.py).
"""


def reference_format(dataset: str, own: ImageFormat) -> ImageFormat:
    """How the reference normalises a data set and its hold-out; one that it lacks keeps its ``own`` format."""
    source = DATASETS.get(dataset.removesuffix("-holdout"))
    if source is None or not source.reference_mean:
        return own
    return dataclasses.replace(own, mean=source.reference_mean, std=source.reference_std)
