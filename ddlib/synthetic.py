"""Synthetic sets: a few images for each class, with all that is needed to use and to judge them."""

import dataclasses
import io
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ddlib.data.dataset import Dataset, ImageFormat
from ddlib.data.readers import reference_format
from ddlib.disk.files import replacing
from ddlib.disk.tensors import read_tensors, tensor_hash, write_tensors

# Published .pt files keep accuracies as numpy scalars: harmless, but to be named to the safe loader.
NUMPY_SCALARS = [np._core.multiarray.scalar, np.dtype, np.dtypes.Float64DType, np.dtypes.Float32DType]
NUMPY_SCALARS += [(np._core.multiarray.scalar, "numpy.core.multiarray.scalar")]  # as numpy 1 named it


@dataclass(frozen=True, eq=False)
class SyntheticSet:
    """Square images ``[N, C, H, W]`` float32, normalised by the mean and std of ``format``, with labels ``[N]`` int64.

    ``provenance`` says in JSON's types how it was made.

    Raises ValueError if shapes or labels do not fit together, or a pixel is not finite.
    """

    images: Tensor
    labels: Tensor
    format: ImageFormat
    class_names: tuple[str, ...]
    provenance: dict[str, object] = field(default_factory=dict)

    def __post_init__(self):
        images, labels, classes = self.images, self.labels, len(self.class_names)
        if images.ndim != 4 or labels.shape != images.shape[:1] or labels.dtype != torch.int64:
            found = f"{list(images.shape)} and {labels.dtype} labels {list(labels.shape)}"
            raise ValueError(f"a synthetic set needs images [N, C, H, W] and int64 labels [N]; found {found}.")
        if not len(labels) or not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise ValueError(f"a synthetic set needs images with labels from 0 to {classes - 1}.")
        if not images.numel() or images.dtype != torch.float32 or not torch.isfinite(images).all():
            raise ValueError("a synthetic set needs finite float32 images with pixels.")
        if tuple(images.shape[1:]) != self.format.shape:
            raise ValueError(f"images {list(images.shape[1:])} are not of their format, {list(self.format.shape)}.")

    @classmethod
    def of(cls, dataset: Dataset, images: Tensor, labels: Tensor, **provenance: object) -> "SyntheticSet":
        """Images and labels in the normalisation and with the classes of ``dataset``."""
        provenance = {"dataset": dataset.name, "dataset_hash": dataset.hash, **provenance}
        return cls(images.detach(), labels, dataset.format, dataset.class_names, provenance)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def pixels(self) -> Tensor:
        """The images as pixels in [0, 1], to look at: what leaves that range is clamped."""
        return self.format.denormalise(self.images).clamp(0, 1)

    @cached_property
    def hash(self) -> str:
        """16 hexadecimal digits of the images and labels, bit by bit."""
        return tensor_hash({"images": self.images, "labels": self.labels})

    def to(self, device: torch.device | str) -> "SyntheticSet":
        """The same set on ``device``."""
        return dataclasses.replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def normalised_for(self, dataset: Dataset) -> "SyntheticSet":
        """The same pixels, normalised as those of ``dataset`` and on its device.

        Raises ValueError if its classes or image shape are others.
        """
        theirs = dataset.format
        if self.class_names != dataset.class_names or self.format.shape != theirs.shape:
            raise ValueError(
                f"this synthetic set has images {list(self.format.shape)} of the classes "
                f"{', '.join(self.class_names[:3])}, ...; {dataset.name} has {list(theirs.shape)} of "
                f"{', '.join(dataset.class_names[:3])}, ...: load the data set that it was made from."
            )
        moved = self.to(dataset.device)
        if self.format == theirs:
            return moved
        return dataclasses.replace(moved, images=theirs.normalise(self.format.denormalise(moved.images)), format=theirs)

    # --- files --------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike) -> None:
        """Write all of it as one safetensors file, atomically."""
        moments = {name: torch.tensor(getattr(self.format, name), device="cpu") for name in ("mean", "std")}
        tensors = {"images": self.images, "labels": self.labels, **moments}
        write_tensors(path, tensors, {"class_names": self.class_names, "provenance": self.provenance})

    @classmethod
    def load(cls, path: str | os.PathLike) -> "SyntheticSet":
        """Read what :meth:`save` wrote. Raises FileNotFoundError, or ValueError if the file is damaged or another."""
        tensors, about = read_tensors(path)
        if {"images", "labels", "mean", "std"} != set(tensors) or "class_names" not in about:
            raise ValueError(f"{path} holds {', '.join(tensors) or 'nothing'}: that is no synthetic set of ddlib.")
        names, provenance = about["class_names"], about.get("provenance", {})
        if (
            not (isinstance(names, list) and all(isinstance(name, str) for name in names))
            or type(provenance) is not dict
        ):
            raise ValueError(f"{path} is no synthetic set of ddlib: its class names are no list of names.")
        images, mean, std = (tensors.pop(name) for name in ("images", "mean", "std"))
        try:
            return cls(images, tensors["labels"], _format_of(images, mean, std), tuple(names), provenance)
        except ValueError as error:
            raise ValueError(f"{path} is no synthetic set of ddlib: {error}") from error

    def save_grid(self, path: str | os.PathLike, gap: int = 1) -> None:
        """Write one PNG, a row for each class, ``gap`` white pixels between images."""
        counts = self.labels.bincount(minlength=len(self.class_names))
        _, channels, height, width = self.images.shape
        rows, columns = len(counts), int(counts.max())
        grid = torch.ones(channels, rows * (height + gap) - gap, columns * (width + gap) - gap, device="cpu")
        place = [0] * rows
        for image, label in zip(self.pixels.cpu(), self.labels.tolist(), strict=True):
            top, left = label * (height + gap), place[label] * (width + gap)
            grid[:, top : top + height, left : left + width] = image
            place[label] += 1
        _write_png(grid, Path(path))

    def save_pngs(self, folder: str | os.PathLike) -> list[Path]:
        """Write each image as ``<folder>/<class>/<number>.png`` (an image folder again); returns the paths."""
        paths, names = [], _folder_names(self.class_names)
        place = [0] * len(self.class_names)
        for image, label in zip(self.pixels.cpu(), self.labels.tolist(), strict=True):
            paths.append(Path(folder) / names[label] / f"{place[label]:04d}.png")
            _write_png(image, paths[-1])
            place[label] += 1
        return paths

    def save_reference(self, path: str | os.PathLike, dataset: str = "") -> None:
        """Write the reference's layout, ``{"data": [[images, labels]]}``, normalised as the reference does.

        ``dataset``: whose normalisation that is (a key of ``DATASETS``), by default the one in the provenance; one that
        the reference lacks keeps its own.
        """
        theirs = reference_format(dataset or str(self.provenance.get("dataset")), self.format)
        images = theirs.normalise(self.format.denormalise(self.images)).cpu()
        content = io.BytesIO()  # writing to a full disk, torch.save raises an error that does not say so
        torch.save({"data": [[images, self.labels.cpu()]], "accs_all_exps": {}}, content)
        with replacing(path) as temporary:
            temporary.write_bytes(content.getvalue())

    @classmethod
    def load_reference(cls, path: str | os.PathLike, dataset: Dataset, index: int = -1) -> "SyntheticSet":
        """Read set number ``index`` of a .pt file in the reference's layout, normalised for ``dataset``.

        Nothing is unpickled that could run. Raises FileNotFoundError, or ValueError if the file is not of that
        layout or does not fit ``dataset``.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"There is no file {path}.")
        try:
            with torch.serialization.safe_globals(NUMPY_SCALARS):
                images, labels = torch.load(path, map_location="cpu", weights_only=True)["data"][index]
            images, labels = images.detach().float(), labels.detach().long()
        except Exception as error:  # the loader raises many types on a file that is none of its own
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(
                f'{path} does not hold {{"data": [[images, labels], ...]}}, set {index}: {reason}'
            ) from error
        theirs = reference_format(dataset.name, dataset.format)
        provenance = {"dataset": dataset.name, "dataset_hash": dataset.hash, "source": Path(path).name}
        try:
            return cls(images, labels, theirs, dataset.class_names, provenance).normalised_for(dataset)
        except ValueError as error:
            raise ValueError(f"{path}, set {index}: {error}") from error


def _format_of(images: Tensor, mean: Tensor, std: Tensor) -> ImageFormat:
    """Of the tensors in a file. Raises ValueError if these are no moments of such images."""
    if images.ndim != 4 or mean.dtype != torch.float32 or std.dtype != torch.float32 or mean.ndim != 1 or std.ndim != 1:
        raise ValueError("it needs images [N, C, H, W], and mean [C] and std [C] in float32.")
    return ImageFormat.of(images, mean, std)


def _write_png(pixels: Tensor, path: Path) -> None:
    """Pixels ``[C, H, W]`` in [0, 1] as an 8-bit PNG: grey, RGB; other numbers of channels as their mean."""
    pixels = pixels if len(pixels) in (1, 3) else pixels.mean(0, keepdim=True)
    array = (pixels * 255).round().byte().permute(1, 2, 0).numpy()
    with replacing(path) as temporary:
        Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(temporary, format="PNG")


def _folder_names(class_names: tuple[str, ...]) -> list[str]:
    """One folder a class, none hidden or outside; numbered if they would be one folder on some system."""
    names = ["".join(c if c.isalnum() or c in " ._-" else "_" for c in name).strip(" .") for name in class_names]
    if "" in names or len({name.casefold() for name in names}) < len(names):
        return [f"{label:04d}_{name}" for label, name in enumerate(names)]
    return names


def labels_of(num_classes: int, ipc: int, device: torch.device | str = "cpu") -> Tensor:
    """Labels ``[num_classes * ipc]`` of a balanced set, class after class."""
    return torch.arange(num_classes, device=device).repeat_interleave(ipc)
