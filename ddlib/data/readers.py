"""Data sets by name: `load_dataset` gives train and test images, normalised, on one device.

Pixels are integers / 255 (digits: / 16), then `(pixel - mean) / std` with the mean and standard deviation of the
train split, per channel. A data set is one row of `DATASETS`.
"""

import contextlib
import io
import os
import socket
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from filelock import FileLock
from torch import Tensor

from ddlib.data.dataset import CHUNK, Dataset, Split
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
    """
    if image_size is not None and not (type(image_size) is int and 8 <= image_size <= 256):
        raise ValueError(f"image_size must be None or an integer from 8 to 256, found {image_size!r}")
    torch.empty(0, device=device)  # a wrong or absent device fails here, before the long work
    if name in DATASETS:
        train, test, class_names = DATASETS[name](root, image_size)
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
    return Dataset(name, Split(*train), Split(*test), class_names, mean, std).to(device)


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


def _read_torchvision(
    kind: str, files: str, class_names: str, root: str | os.PathLike | None, image_size: int | None
) -> Raw:
    """Read `torchvision.datasets.<kind>`, whose folder holds `files`. `class_names` "": torchvision's."""
    parts = []
    for train in (True, False):
        source = _open_torchvision(kind, files, data_folder(root), train)
        raw = torch.as_tensor(source.data)  # [N, H, W] or [N, H, W, C]
        raw = raw[:, None] if raw.ndim == 3 else raw.permute(0, 3, 1, 2)
        parts.append((to_pixels(raw, 255, image_size), torch.as_tensor(source.targets, dtype=torch.int64)))
    return parts[0], parts[1], tuple(class_names or source.classes)


def _open_torchvision(kind: str, files: str, folder: Path, train: bool):
    """The torchvision data set from `folder`, downloaded to it if need be."""
    import torchvision  # here, because the import takes seconds

    opener = partial(getattr(torchvision.datasets, kind), folder, train=train)
    try:
        return opener()
    except Exception as error:  # missing files, wrong checksums, damaged content: many types
        found = f"{type(error).__name__}: {error}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{kind}.lock"), _download_manners():
            return opener(download=True)
    except Exception as error:
        raise FileNotFoundError(
            f"{kind} is not (whole) in {folder} and could not be downloaded. Put {files} there, after "
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


DATASETS: dict[str, Callable[[str | os.PathLike | None, int | None], Raw]] = {
    "digits": _read_digits,
    "mnist": partial(_read_torchvision, "MNIST", "MNIST/raw/*-ubyte (four files)", "0123456789"),
    "fashion_mnist": partial(_read_torchvision, "FashionMNIST", "FashionMNIST/raw/*-ubyte (four files)", ""),
    "cifar10": partial(_read_torchvision, "CIFAR10", "cifar-10-batches-py/ or cifar-10-python.tar.gz", ""),
    "cifar100": partial(_read_torchvision, "CIFAR100", "cifar-100-python/ or cifar-100-python.tar.gz", ""),
}
"""Name -> reader(root, image_size). A new data set is one row here."""
