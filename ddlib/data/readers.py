"""Data sets by name: `load_dataset` gives train and test images, normalised, on one device.

Pixels are integers / 255 (digits: / 16), then `(pixel - mean) / std` with the mean and standard deviation of the
train split, per channel. A data set is one row of `DATASETS`.
"""

import contextlib
import dataclasses
import io
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from filelock import FileLock
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from ddlib.data.dataset import CHUNK, Dataset, ImageFormat, normalised
from ddlib.data.doubts import warn_of_doubts
from ddlib.data.image_folder import LAYOUT, files_hash, read_folder
from ddlib.data.tensors import OBLONG, read_torch
from ddlib.disk.paths import data_folder
from ddlib.disk.progress import watched

TIMEOUT = 20  # seconds of silence after which a download counts as failed

Raw = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[str, ...]]
"""Train and test as (pixels [N, C, H, W] in [0, 1], labels [N]), and the class names."""


def load_dataset(
    name: str | os.PathLike | TorchDataset,
    root: str | os.PathLike | None = None,
    image_size: int | None = None,
    device: torch.device | str = "cpu",
    *,
    test: TorchDataset | None = None,
    on_bad: str = "error",
    max_pixels: int | None = None,
    split_seed: int = 0,
    zca: bool = False,
) -> Dataset:
    """Load a data set by name (a key of `DATASETS`), an image folder by its path (`ddlib.data.image_folder`), or
    torch data sets: `load_dataset(train, test=test)`, such as those of torchvision.

    root: folder of the downloaded sets; else the environment variable DDLIB_DATA, else the user's cache.
    image_size: height = width in pixels, 8 to 256. None: the native size; of pictures of many sizes one that suits
    them, 8 to 64. A known name wins over a folder of that name: write `./digits` for the folder. A channel that is
    constant in the train split is divided by 1, with a warning.

    For image folders, which print what was found: on_bad: "error", or "skip" to leave out files that are no pictures,
    with a warning that lists them; max_pixels: the most that a file may have (None: Pillow's limit); split_seed: of the
    draw of test pictures from a folder without `test/`. ZCA whitening is not supported: images could not be shown.

    Raises ValueError for an unknown name, a bad size or a bad image folder, TypeError for what is no source at all, and
    FileNotFoundError for a set that is not there (whole) and cannot be downloaded.

    >>> data = load_dataset("digits")
    >>> data.num_classes, data.channels, data.image_size, len(data.train) + len(data.test)
    (10, 1, 8, 1797)
    """
    _check_options(image_size, on_bad, max_pixels, zca)
    torch.empty(0, device=device)  # a wrong or absent device fails here, before the long work
    if isinstance(name, TorchDataset):
        if not isinstance(test, TorchDataset):
            found = "no test" if test is None else f"test of type {type(test).__name__}"
            raise ValueError(f"a torch data set is one split: load_dataset(train, test=...) takes two; found {found}")
        train, test, class_names = read_torch(name, test, image_size)
        name = type(name).__name__
        warn_of_doubts(name, train, test, class_names)
    elif test is not None:
        raise ValueError("test goes with a torch data set as the first argument; names and folders have their own")
    elif not isinstance(name, str | os.PathLike):
        raise TypeError(
            f"load_dataset takes a name ({', '.join(DATASETS)}), the path of an image folder, or a torch data set with "
            f"test=...; found {type(name).__name__}. For tensors there is ddlib.Dataset.from_tensors"
        )
    elif name in DATASETS:
        train, test, class_names = DATASETS[name].read(root, image_size)
    else:
        train, test, class_names = read_folder(_existing(name), image_size, on_bad, max_pixels, split_seed)
        name = dataset_name(name)
    return normalised(name, train, test, class_names).to(device)


def _check_options(image_size: object, on_bad: object, max_pixels: object, zca: object) -> None:
    """Raise ValueError for what no reader takes."""
    if image_size is not None and not (type(image_size) is int and 8 <= image_size <= 256):
        oblong = f"; oblong images are {OBLONG}" if isinstance(image_size, tuple | list) else ""
        raise ValueError(f"image_size must be None or an integer from 8 to 256, found {image_size!r}{oblong}")
    if on_bad not in ("error", "skip"):
        raise ValueError(f'on_bad must be "error" or "skip", found {on_bad!r}')
    if max_pixels is not None and not (type(max_pixels) is int and max_pixels > 0):
        raise ValueError(f"max_pixels must be None (Pillow's limit) or an integer above 0, found {max_pixels!r}")
    if zca:
        raise ValueError(
            "zca is not supported: whitened images mix all pixels, so formats, pictures and augmentation here, which "
            "take a mean and std per channel, would be wrong for them. Load the data without zca"
        )


def _existing(name: str | os.PathLike) -> Path:
    """The folder of that path. Raises ValueError if there is none."""
    folder = _folder(name)
    if not os.path.isdir(folder):  # Path.is_dir raises on a name that is too long
        known = f"neither a known data set ({', '.join(DATASETS)}) nor a folder"
        raise ValueError(f"{str(name)!r} is {known}. " + LAYOUT.format(folder=folder))
    return folder


def content_hash(name: str | os.PathLike) -> str | None:
    """A hash of the files of an image folder (`files_hash`); None for a known data set, whose name says it all."""
    return files_hash(_folder(name)) if name not in DATASETS and os.path.isdir(_folder(name)) else None


def dataset_name(name: str | os.PathLike) -> str:
    """The name that `load_dataset` gives a data set: for an image folder that of the folder, without its path."""
    if name in DATASETS:
        return str(name)
    folder = _folder(name).name
    return f"{folder}-folder" if folder in DATASETS else folder


def _folder(name: str | os.PathLike) -> Path:
    return Path(os.path.abspath(os.path.expanduser(name)))  # Path's own expanduser raises on an unknown user


def to_pixels(raw: Tensor, white: int, image_size: int | None) -> Tensor:
    """Integers 0..`white`, `[N, C, H, W]`, as float32 in [0, 1]; resized (bilinear, antialias) if asked."""
    size = image_size or raw.shape[-1]
    pixels = torch.empty(len(raw), raw.shape[1], size, size, device="cpu")
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
