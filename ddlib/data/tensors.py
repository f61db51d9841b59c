"""Images and labels that somebody hands over, and torch data sets: checked, and brought into one form."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from ddlib.data.pictures import suited_size, to_picture, to_pixels_alike

SAMPLED = 100  # pictures that are looked at to choose a size
CHANNELS = (1, 3, 4)  # where they stand last, images are channel-last
OBLONG = "not supported, because networks and augmentation here take squares: cut or pad them"


def pixels_of(images: object, what: str) -> Tensor:
    """Images as float32 in [0, 1], ``[N, C, H, H]``, in memory of their own. Raises ValueError that says ``what``."""
    images = torch.as_tensor(images).detach()
    images = images[:, None] if images.ndim == 3 else images
    if images.ndim != 4 or not images.numel():
        raise ValueError(f"{what} are {list(images.shape)}; expected [N, C, H, W], or [N, H, W] if grey.")
    if images.shape[-1] in CHANNELS and images.shape[1] not in CHANNELS:
        raise ValueError(f"{what} are {list(images.shape)}, channels last; bring them forward: permute(0, 3, 1, 2).")
    if images.shape[-1] != images.shape[-2]:
        raise ValueError(f"{what} are {images.shape[-2]} x {images.shape[-1]} pixels; {OBLONG}.")
    low, high = (value.item() for value in images.aminmax())
    white = 1 if images.is_floating_point() else 255
    if not 0 <= low <= high <= white:  # NaN neither
        raise ValueError(
            f"{what} are {images.dtype} from {low:.4g} to {high:.4g}; expected pixels, floats from 0 to 1 or integers "
            "from 0 to 255. If they are normalised, undo it first (x * std + mean); a transform with Normalize must go."
        )
    return images.to(torch.float32, copy=True).div_(white)


def labels_of(labels: object, what: str) -> Tensor:
    """Labels as int64 ``[N]``. Raises ValueError that says ``what`` for numbers with a fraction, and other shapes."""
    labels = torch.as_tensor(labels)
    if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex():
        raise ValueError(
            f"{what} are {labels.dtype} {list(labels.shape)}; expected whole numbers [N] (for one-hot rows: argmax(1))."
        )
    return labels.long()


def read_torch(
    train: TorchDataset, test: TorchDataset, image_size: int | None
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[str, ...]]:
    """Two torch data sets of ``(picture, label)`` as ``(train pixels, labels), (test pixels, labels), class names``.

    A picture is a PIL image, which is treated as one of an image folder, or a tensor ``[C, H, H]`` of pixels. Class
    names are the attribute ``classes`` (of the data set in a ``Subset``), else the labels as text. Raises ValueError
    for items of another kind, and if train and test name different classes.
    """
    names = [_class_names(source) for source in (train, test)]
    if None not in names and names[0] != names[1]:
        raise ValueError(f"train and test have different classes: {_short(names[0])} and {_short(names[1])}.")
    first = _item(train, 0, "train")[0]
    read = _read_pil if isinstance(first, Image.Image) else _read_tensors
    pixels, labels = read({"train": train, "test": test}, image_size)
    class_names = names[0] or tuple(str(label) for label in range(int(max(map(max, labels))) + 1))
    return *zip(pixels, (torch.tensor(one, device="cpu") for one in labels), strict=True), class_names


def _read_pil(parts: dict[str, TorchDataset], size: int | None) -> tuple[list[Tensor], list[list[int]]]:
    if size is None:
        count = len(parts["train"])
        size = suited_size(_item(parts["train"], i, "train")[0].size for i in range(0, count, -(-count // SAMPLED)))
    pictures, labels = [], []
    for part, source in parts.items():
        items = [_item(source, index, part) for index in range(len(source))]
        pictures.append([to_picture(image, size) for image, _ in items])
        labels.append([label for _, label in items])
    return to_pixels_alike("the data set", pictures), labels


def _read_tensors(parts: dict[str, TorchDataset], size: int | None) -> tuple[list[Tensor], list[list[int]]]:
    pixels, labels = [], []
    for part, source in parts.items():
        items = [_item(source, index, part) for index in range(len(source))]
        shapes = {tuple(torch.as_tensor(image).shape) for image, _ in items}
        if len(shapes) > 1:
            raise ValueError(f"{part} images have {len(shapes)} shapes, such as {_short(shapes)}: bring them to one.")
        images = pixels_of(torch.stack([torch.as_tensor(image) for image, _ in items]), f"{part} images")
        if size and size != images.shape[-1]:
            images = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
        pixels.append(images)
        labels.append([label for _, label in items])
    return pixels, labels


def _item(source: TorchDataset, index: int, part: str) -> tuple[object, int]:
    """A picture and its label."""
    item = source[index]
    try:
        image, label = item
        return image, int(label)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"item {index} of the {part} data set is a {type(item).__name__}; expected (picture, label), a number"
        ) from error


def _class_names(source: TorchDataset) -> tuple[str, ...] | None:
    while not hasattr(source, "classes") and hasattr(source, "dataset"):  # a Subset
        source = source.dataset
    names = getattr(source, "classes", None)
    return None if names is None else tuple(map(str, names))


def _short(values: Sequence[object]) -> str:
    return ", ".join(map(str, list(values)[:3])) + (", ..." if len(values) > 3 else "")
