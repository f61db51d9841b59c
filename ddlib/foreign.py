"""Synthetic sets of other projects: the layouts of their files, and what their pixels and labels mean.

A file says neither how its pixels are scaled nor where the channels stand. Shapes and the spread of the real images
tell it in most cases; where they do not, nothing is guessed.
"""

import math
import os
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ddlib.data.dataset import Dataset, ImageFormat
from ddlib.data.readers import reference_format
from ddlib.synthetic import SyntheticSet, require_probabilities

# Published .pt files hold numpy arrays and scalars beside tensors: harmless, but to be named to the safe loader.
HARMLESS = [np._core.multiarray.scalar, np._core.multiarray._reconstruct, np.ndarray, np.dtype]
HARMLESS += [getattr(np.dtypes, name) for name in np.dtypes.__all__ if not name.startswith(("Object", "Void"))]
HARMLESS += [  # as numpy 1 named them
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),
    (np._core.multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),
]
IMAGES, LABELS = ("images", "x", "data", "arr_0"), ("labels", "y", "targets", "arr_1")  # names in dicts and archives
LAYOUTS = (
    '{"data": [[images, labels], ...]} (the reference), {"images": ..., "labels": ...}, [images, labels], or images '
    "alone, with labels in a file of the same name (images_best.pt and labels_best.pt) or as labels="
)
ENOUGH = 1000  # real images, to compare with
QUANTILES = (0.01, 0.99)
NARROWEST, WIDEST, APART = 0.6, 4, 0.5  # what the spread of a set may be, and how far off, in spreads of real images
ALIKE = 0.6  # of the correlation of neighbours in real images; ZCA leaves less than half of it, noise nothing


@dataclass(frozen=True)
class Scale:
    """What pixels may mean: how they become [0, 1], their least and most, and words for it."""

    to_unit: Callable[[Tensor, ImageFormat], Tensor]
    low: float
    high: float
    words: str


PIXELS = {
    "uint8": Scale(lambda values, form: values / 255, 0, 255, "numbers from 0 to 255"),
    "unit": Scale(lambda values, form: values, -0.1, 1.1, "numbers from 0 to 1"),
    "normalised": Scale(lambda values, form: form.denormalise(values), -math.inf, math.inf, "(pixel - mean) / std"),
}
"""Every scale of pixels by its name."""
SIGNED = Scale(lambda values, form: (values + 1) / 2, -1.02, 1.02, "numbers from -1 to 1")  # too like normalised ones


def load_synthetic(
    path: str | os.PathLike,
    dataset: Dataset,
    labels: object = None,
    pixels: str = "auto",
    *,
    index: int = -1,
) -> SyntheticSet:
    """A synthetic set of anybody, with the classes of ``dataset``, normalised as its images and on its device.

    Reads what ddlib wrote (:meth:`SyntheticSet.save`, :meth:`SyntheticSet.export`) and, from files of torch, numpy or
    safetensors: the reference's ``{"data": [[images, labels], ...]}`` (set number ``index``), ``{"images", "labels"}``,
    ``[images, labels]``, and images alone, as in MTT's ``images_best.pt`` with ``labels_best.pt`` beside it. Images may
    be channel-last. Nothing in a file is run.

    Args:
        labels: of the images, or the path of their file, where ``path`` holds none: classes ``[N]``, or probabilities
            ``[N, num_classes]`` (soft labels).
        pixels: what the numbers are: ``uint8`` (0 to 255), ``unit`` (0 to 1), ``normalised`` (as the reference does
            with this data set, else as ``dataset`` itself), or ``auto``: judged by the spread of the real images, with
            a warning that says the result.

    Raises FileNotFoundError, or ValueError if the file has another layout, does not fit ``dataset``, holds logits, or
    holds pixels that ``auto`` takes for none of these, such as whitened (ZCA) ones.
    """
    if pixels not in ("auto", *PIXELS):
        raise ValueError(f"unknown pixels {pixels!r}; known: auto, {', '.join(PIXELS)}.")
    path = Path(path)
    if path.is_dir():
        return SyntheticSet.from_folder(path).normalised_for(dataset)
    if _is_safetensors(path) and "ddlib" in _safetensors_header(path):
        return SyntheticSet.load(path).normalised_for(dataset)
    try:
        images, inside = _pair(_read(path), index)
        if labels is None and inside is None:
            labels = _labels_beside(path)
        if isinstance(labels, str | os.PathLike):
            labels = _read(Path(labels))
        found = _labels(_tensor(inside if labels is None else labels), dataset.num_classes)
        return _judged(_channels_first(_tensor(images), dataset.format), found, dataset, pixels, path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read(path: Path) -> object:
    """What a file holds, by its first bytes. Raises FileNotFoundError, or ValueError."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        if _is_safetensors(path):
            return safetensors.torch.load_file(path)
        if _is_numpy(path):
            held = np.load(path)  # it builds no objects unless told to
            return held if isinstance(held, np.ndarray) else dict(held)
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # loaders raise many types on a file that is none of theirs
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"cannot be read as tensors alone, and nothing else in it was run: {reason}") from error


def _is_safetensors(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _safetensors_header(path: Path) -> Mapping[str, str]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except safetensors.SafetensorError:
        return {}


def _is_numpy(path: Path) -> bool:
    with path.open("rb") as file:
        if file.read(6) == b"\x93NUMPY":
            return True
    return zipfile.is_zipfile(path) and all(name.endswith(".npy") for name in zipfile.ZipFile(path).namelist())


def _pair(held: object, index: int) -> tuple[object, object]:
    """Images and labels of what a file holds; None where there are no labels. Raises ValueError for other layouts."""
    if _is_array(held):
        return held, None
    if isinstance(held, Mapping):
        images = next((held[name] for name in IMAGES if name in held), None)
        if _is_array(images):
            return images, next((held[name] for name in LABELS if name in held), None)
        held = images
    if _is_list(held) and len(held) == 2 and _is_array(held[0]) and held[0].ndim >= 3:
        return held[0], held[1]
    if _is_list(held) and held and all(_is_list(item) and len(item) == 2 and _is_array(item[0]) for item in held):
        if type(index) is int and -len(held) <= index < len(held):
            return held[index][0], held[index][1]
        raise ValueError(f"holds {len(held)} sets, and index is {index!r}: choose one from 0 to {len(held) - 1}.")
    raise ValueError(f"does not hold a synthetic set in a known layout; known: {LAYOUTS}")


def _is_array(value: object) -> bool:
    return isinstance(value, Tensor | np.ndarray)


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


def _labels_beside(path: Path) -> Path:
    """The file of the labels that belongs to one of images. Raises ValueError."""
    beside = path.with_name(path.name.replace("images", "labels"))
    if beside == path or not beside.is_file():
        raise ValueError(f"holds images without labels: hand them in as labels=, a path or a tensor; known: {LAYOUTS}")
    return beside


def _tensor(value: object) -> Tensor:
    """Of an array, or of a list of numbers or tensors. Raises ValueError for anything else."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    try:
        items = [item.tolist() if _is_array(item) else item for item in value] if _is_list(value) else value
        array = np.asarray(items)
        return torch.from_numpy(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))))
    except (TypeError, ValueError) as error:
        raise ValueError(f"images and labels must be arrays of numbers; found a {type(value).__name__}.") from error


def _channels_first(images: Tensor, form: ImageFormat) -> Tensor:
    """``[N, C, H, W]`` of images of the form of the data set that may be channel-last, or grey without a channel."""
    shape = tuple(images.shape[1:])
    if images.ndim == 3 and form.channels == 1:
        return images[:, None]
    last = (*form.shape[1:], form.channels)
    return images.permute(0, 3, 1, 2).contiguous() if shape == last != form.shape else images


def _labels(labels: Tensor, num_classes: int) -> Tensor:
    """Classes ``[N]`` int64, or probabilities ``[N, num_classes]`` float32. Raises ValueError for logits and others."""
    labels = labels.squeeze(1) if labels.ndim == 2 and labels.shape[1] == 1 < num_classes else labels
    if labels.ndim == 2 and labels.shape[1] == num_classes:
        labels = labels.float()
        require_probabilities(labels)
        labels = labels / labels.sum(1, keepdim=True)
        return labels.argmax(1) if (labels.max(1).values == 1).all() else labels  # one-hot ones are hard
    if labels.ndim != 1 or labels.is_complex() or not torch.equal(labels, labels.long().to(labels.dtype)):
        expected = f"whole numbers [N], or probabilities [N, {num_classes}]"
        raise ValueError(f"labels are {labels.dtype} {list(labels.shape)}; expected {expected}.")
    return labels.long()


def _judged(images: Tensor, labels: Tensor, dataset: Dataset, pixels: str, path: Path) -> SyntheticSet:
    """The set, its pixels taken for what ``pixels`` says or, by ``auto``, for what they must be."""
    theirs = reference_format(dataset.name, dataset.format)
    values, scale = images.float(), pixels
    fits = tuple(values.shape[1:]) == theirs.shape and values.numel() and bool(torch.isfinite(values).all())
    if tuple(values.shape[1:]) != theirs.shape:
        found, wanted = ("x".join(map(str, shape)) for shape in (values.shape[1:], theirs.shape))
        raise ValueError(
            f"its images are {found}, those of {dataset.name} here {wanted}: is dataset or image_size another?"
        )
    if fits and pixels == "auto":  # else the set itself says what is wrong
        scale = _scale_of(values, dataset, theirs)
        warnings.warn(
            f"{path.name}: its pixels are taken for {scale} ({PIXELS[scale].words}). pixels={scale!r} says so without "
            "this warning.",
            stacklevel=3,
        )
    elif fits and not _within(_spread(values), PIXELS[pixels]):
        raise ValueError(f"its pixels go from {_range(values)}; those of {pixels!r} are {PIXELS[pixels].words}.")
    if fits and scale != "normalised":
        values = theirs.normalise(PIXELS[scale].to_unit(values, theirs))
    about = {"dataset": dataset.name, "dataset_hash": dataset.hash, "source": path.name, "pixels": scale}
    return SyntheticSet(values, labels, theirs, dataset.class_names, about).normalised_for(dataset)


def _scale_of(values: Tensor, dataset: Dataset, theirs: ImageFormat) -> str:
    """The one scale by which pixels are spread as those of real images. Raises ValueError for none and for several."""
    step = max(1, len(dataset.train) // ENOUGH)
    real = dataset.train.images[::step].cpu()
    low, high = _spread(dataset.denormalise(real))
    width, fitting = high - low, []
    for name, scale in {**PIXELS, "signed": SIGNED}.items():
        least, most = _spread(scale.to_unit(values, theirs))
        near = abs(least + most - low - high) / 2 <= APART * width
        if _within(_spread(values), scale) and near and NARROWEST <= (most - least) / width <= WIDEST:
            fitting.append(name)
    mine, alike = _correlation(values), _correlation(real)
    if len(fitting) == 1 and fitting[0] in PIXELS and mine >= ALIKE * alike:
        return fitting[0]
    found = f"its pixels go from {_range(values)}"
    if mine < ALIKE * alike:
        found += (
            f", and neighbours hardly resemble each other (correlation {mine:.2f}, in real images {alike:.2f}), as "
        )
        found += "after whitening (ZCA), which must be undone first, or in noise"
    raise ValueError(
        f"{found}: what they mean cannot be told, so say pixels='uint8' (0 to 255), 'unit' (0 to 1; "
        f"(x + 1) / 2 of -1 to 1) or 'normalised' (mean {_listed(theirs.mean)}, std {_listed(theirs.std)})."
    )


def _within(spread: tuple[float, float], scale: Scale) -> bool:
    return scale.low <= spread[0] and spread[1] <= scale.high


def _range(values: Tensor) -> str:
    return f"{float(values.min()):.4g} to {float(values.max()):.4g}"


def _spread(values: Tensor) -> tuple[float, float]:
    """The first and the last percentile."""
    return tuple(np.quantile(values.numpy(), QUANTILES).tolist())


def _correlation(images: Tensor) -> float:
    """Between pixels beside each other, of ``[N, C, H, W]``."""
    x = images - images.mean((0, 2, 3), keepdim=True)
    products = (x[..., 1:] * x[..., :-1]).mean() + (x[..., 1:, :] * x[..., :-1, :]).mean()
    return float(products / 2 / x.square().mean().clamp(min=1e-12))


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:.4g}" for number in numbers)
