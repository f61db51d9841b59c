"""Synthetic sets: a few images for each class, with all that is needed to use and to judge them."""

import dataclasses
import io
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ddlib.data.dataset import Dataset, ImageFormat
from ddlib.data.readers import reference_format
from ddlib.disk.files import replacing
from ddlib.disk.pictures import read_card, read_folder, write_folder, write_png
from ddlib.disk.tensors import read_tensors, tensor_hash, write_tensors
from ddlib.fingerprint import code_hash, installed_version

SUMS = 1e-3  # how far a row of soft labels may be from a sum of one


@dataclass(frozen=True, eq=False, repr=False)
class SyntheticSet:
    """Square images ``[N, C, H, W]`` float32, normalised by the mean and std of ``format``, with their labels.

    Labels are int64 ``[N]``, or soft: float32 ``[N, num_classes]``, the probabilities of the classes.
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
        hard = labels.dtype == torch.int64 and labels.ndim == 1
        soft = labels.dtype == torch.float32 and labels.shape[1:] == (classes,)
        if images.ndim != 4 or labels.shape[:1] != images.shape[:1] or not (hard or soft):
            found = f"{list(images.shape)} and {labels.dtype} labels {list(labels.shape)}"
            kinds = f"int64 labels [N] or float32 labels [N, {classes}]"
            raise ValueError(f"a synthetic set needs images [N, C, H, W] and {kinds}; found {found}.")
        if soft:
            require_probabilities(labels)
        elif not len(labels) or not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise ValueError(f"a synthetic set needs images with labels from 0 to {classes - 1}.")
        if not images.numel() or images.dtype != torch.float32 or not torch.isfinite(images).all():
            raise ValueError("a synthetic set needs finite float32 images with pixels.")
        if tuple(images.shape[1:]) != self.format.shape:
            raise ValueError(f"images {list(images.shape[1:])} are not of their format, {list(self.format.shape)}.")

    def __repr__(self) -> str:
        labels = "soft labels" if self.soft else "labels"
        return (
            f"<SyntheticSet: {len(self)} images {list(self.format.shape)}, {labels} of {len(self.class_names)} classes>"
        )

    @classmethod
    def of(cls, dataset: Dataset, images: Tensor, labels: Tensor, **provenance: object) -> "SyntheticSet":
        """Images and labels in the normalisation and with the classes of ``dataset``."""
        provenance = {"dataset": dataset.name, "dataset_hash": dataset.hash, **provenance}
        return cls(images.detach(), labels, dataset.format, dataset.class_names, provenance)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def soft(self) -> bool:
        """Whether the labels are probabilities."""
        return self.labels.is_floating_point()

    @property
    def classes(self) -> Tensor:
        """The class of each image ``[N]`` int64: of soft labels the most probable."""
        return self.labels.argmax(1) if self.soft else self.labels

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
        try:
            tensors, about = read_tensors(path)
        except ValueError as error:
            raise ValueError(f"{error} A set from elsewhere is read by ddlib.load_synthetic(path, dataset).") from error
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
        counts = self.classes.bincount(minlength=len(self.class_names))
        _, channels, height, width = self.images.shape
        rows, columns = len(counts), int(counts.max())
        grid = torch.ones(channels, rows * (height + gap) - gap, columns * (width + gap) - gap, device="cpu")
        place = [0] * rows
        for image, label in zip(self.pixels.cpu(), self.classes.tolist(), strict=True):
            top, left = label * (height + gap), place[label] * (width + gap)
            grid[:, top : top + height, left : left + width] = image
            place[label] += 1
        write_png(grid, path)

    def export(self, folder: str | os.PathLike, licence: str = "not stated") -> Path:
        """Write a folder to publish: PNGs that torchvision's ``ImageFolder`` reads with the same labels, and a card.

        ``card.json`` (and, for people, ``README.md``) say class order, mean, std, hash, licence and how it was made.
        Pictures have 8 bits a channel: what leaves [0, 1] is clamped, and the card says how much. The pictures of soft
        labels lie with the most probable class, the labels in the card. Returns the folder.

        Raises FileExistsError if something lies in ``folder`` already, ValueError for other than 1 or 3 channels.
        """
        if self.format.channels not in (1, 3):
            raise ValueError(f"PNGs have 1 or 3 channels, these images {self.format.channels}: use save() instead.")
        pixels = self.format.denormalise(self.images)
        card = {
            "about": f"{'Soft' if self.soft else 'Hard'} labels of {len(self.class_names)} classes.",
            "class_names": self.class_names,
            "images": len(self),
            **dataclasses.asdict(self.format),
            "clamped": float(((pixels < 0) | (pixels > 1)).float().mean()),
            "hash": self.hash,
            "licence": licence,
            "made_by": {"ddlib": installed_version(), "code": code_hash()},
            "provenance": self.provenance,
            "soft_labels": self.labels.tolist() if self.soft else None,
        }
        write_folder(folder, self.pixels, self.classes, self.class_names, card)
        return Path(folder)

    @classmethod
    def from_folder(cls, folder: str | os.PathLike) -> "SyntheticSet":
        """Read what :meth:`export` wrote: the same images in the same order, but for their rounding to 8 bits.

        The provenance says ``"pixels": "8 bits"`` and the hash of the set that was exported. Raises FileNotFoundError
        without a card, ValueError if card and pictures do not fit together.
        """
        card = read_card(folder)
        pixels, labels = read_folder(folder, card)
        try:
            form = ImageFormat(*(card[field.name] for field in dataclasses.fields(ImageFormat)))
            if card["soft_labels"] is not None:
                labels = torch.tensor(card["soft_labels"], dtype=torch.float32)
            provenance = {**card["provenance"], "pixels": "8 bits", "exported": card["hash"]}
            return cls(form.normalise(pixels), labels, form, tuple(card["class_names"]), provenance)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{folder} holds a card that is not whole: {error!r:.200}; export the set again."
            ) from error

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

    def __getattr__(self, name: str) -> object:
        """Say what took the place of a name of earlier versions."""
        if name == "save_pngs":
            raise AttributeError("SyntheticSet.save_pngs is now SyntheticSet.export(folder), with a card beside them")
        raise AttributeError(f"a SyntheticSet has no attribute {name!r}")


def require_probabilities(labels: Tensor) -> None:
    """Raise ValueError unless the rows of ``labels [N, num_classes]`` are of 0 or more and sum to one."""
    if not ((labels >= 0).all() and ((labels.sum(1) - 1).abs() <= SUMS).all()):
        raise ValueError(
            "soft labels are probabilities: each row of 0 or more, with a sum of one. Logits become such by "
            "labels.div(T).softmax(1), with the temperature T that their authors trained with."
        )


def _format_of(images: Tensor, mean: Tensor, std: Tensor) -> ImageFormat:
    """Of the tensors in a file. Raises ValueError if these are no moments of such images."""
    if images.ndim != 4 or mean.dtype != torch.float32 or std.dtype != torch.float32 or mean.ndim != 1 or std.ndim != 1:
        raise ValueError("it needs images [N, C, H, W], and mean [C] and std [C] in float32.")
    return ImageFormat.of(images, mean, std)


def labels_of(num_classes: int, ipc: int, device: torch.device | str = "cpu") -> Tensor:
    """Labels ``[num_classes * ipc]`` of a balanced set, class after class."""
    return torch.arange(num_classes, device=device).repeat_interleave(ipc)
