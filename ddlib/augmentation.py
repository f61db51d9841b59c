"""Differentiable Siamese augmentation, DSA (Zhao & Bilen 2021, arXiv 2102.08259).

A draw is one operation and a few numbers in [0, 1); the operation turns these into its own parameters. So a
draw does not know the images it will meet, and real and synthetic batches of any size share one. The ranges
are those of the paper's code. As there, the two axes of crop, cutout and scale are drawn independently.

Pixels that enter from outside the image are 0, which is the mean colour of normalised images.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ddlib.devices import moved

DSA_STRATEGY = "color_crop_cutout_flip_scale_rotate"
IDENTITY = "none"

BRIGHTNESS = 1.0  # added to all pixels: -0.5 to 0.5 (of normalised images, so in units of their std)
SATURATION = 2.0  # distance from the pixel's grey (mean over channels) times 0 to 2
CONTRAST = 0.5  # distance from the image's mean times 0.5 to 1.5
CROP = 0.125  # shift per axis: up to an eighth of the side, both ways
CUTOUT = 0.5  # side of the erased square, as a fraction of the image's
FLIP = 0.5  # probability
SCALE = 1.2  # per axis: shrunk or enlarged by up to this factor
ROTATE = 15.0  # degrees, both ways


@dataclass(frozen=True, eq=False)
class DSAParams:
    """One draw of the augmentation.

    ``operation`` is a key of ``OPERATIONS`` or "none". ``uniform`` [3, n] holds numbers in [0, 1) on the CPU,
    of which the operation uses one to three: n = 1 for one value for a whole batch, of any size; n = N for
    one value per image.
    """

    operation: str
    uniform: Tensor


def sample_dsa(
    shape: Sequence[int], generator: torch.Generator, strategy: str = DSA_STRATEGY, siamese: bool = True
) -> DSAParams:
    """Draw one of the operations of ``strategy``, all equally likely, and its parameters.

    ``shape`` is that of the images, [N, C, H, W]. ``strategy`` names operations, joined by "_"; "none" or ""
    changes nothing. With ``siamese`` all images share one set of parameters, which fits batches of any N;
    otherwise each image gets its own (but the same operation). The generator is a CPU one.
    Raises ValueError for an unknown operation.
    """
    if strategy in (IDENTITY, ""):
        return DSAParams(IDENTITY, torch.empty(3, 1, device="cpu"))
    names = strategy.split("_")
    unknown = [name for name in names if name not in OPERATIONS]
    if unknown:
        raise ValueError(
            f"unknown operation {unknown[0]!r} in strategy {strategy!r}; "
            f"known: {', '.join(OPERATIONS)}, joined by '_', or {IDENTITY!r}"
        )
    choice = torch.randint(len(names), (1,), generator=generator, device="cpu").item()
    return DSAParams(names[choice], torch.rand(3, 1 if siamese else shape[0], generator=generator, device="cpu"))


def apply_dsa(images: Tensor, params: DSAParams) -> Tensor:
    """Augment images [N, C, H, W] of any float type and device; deterministic and differentiable in them.

    (On a GPU the backward pass of scale and rotate adds in no fixed order: equal up to rounding only.)
    Raises ValueError if ``params`` were drawn per image for another number of images.
    """
    if params.operation == IDENTITY:
        return images
    n = params.uniform.shape[1]
    if n not in (1, len(images)):
        raise ValueError(
            f"the parameters were drawn for {n} images, but the batch has {len(images)}; "
            "draw with siamese=True to share one draw between batches of different size"
        )
    return OPERATIONS[params.operation](images, moved(params.uniform, images.device))


def color(images: Tensor, uniform: Tensor) -> Tensor:
    """Brightness, then saturation, then contrast."""
    brightness, saturation, contrast = uniform.to(images.dtype)[..., None, None, None]
    images = images + (brightness - 0.5) * BRIGHTNESS
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * (saturation * SATURATION)
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * (contrast + CONTRAST)


def crop(images: Tensor, uniform: Tensor) -> Tensor:
    """Shift by whole pixels along both axes; what enters is 0."""
    height, width = images.shape[2:]
    border_y, border_x = int(height * CROP + 0.5), int(width * CROP + 0.5)
    rows = positions(images, 2) + whole_number(uniform[0], 2 * border_y)
    columns = positions(images, 3) + whole_number(uniform[1], 2 * border_x)
    padded = F.pad(images, (border_x, border_x, border_y, border_y))
    return torch.take_along_dim(torch.take_along_dim(padded, rows, 2), columns, 3)


def cutout(images: Tensor, uniform: Tensor) -> Tensor:
    """Set a square to 0; its centre lies anywhere in the image, so part of it may lie outside."""
    inside = torch.ones((), dtype=torch.bool, device=images.device)
    for axis, u in zip((2, 3), uniform, strict=False):
        side = images.shape[axis]
        length = int(side * CUTOUT + 0.5)
        # A square of even length has its centre between two pixels, where there is one place more.
        start = whole_number(u, side - length % 2) - length // 2
        offset = positions(images, axis) - start
        inside = inside & (offset >= 0) & (offset < length)
    return images.masked_fill(inside, 0)


def flip(images: Tensor, uniform: Tensor) -> Tensor:
    """Exchange left and right, or not."""
    return torch.where(uniform[0, :, None, None, None] < FLIP, images.flip(3), images)


def scale(images: Tensor, uniform: Tensor) -> Tensor:
    """Shrink or enlarge each axis about the centre."""
    y, x = 1 / SCALE + uniform[:2] * (SCALE - 1 / SCALE)
    zero = torch.zeros_like(x)
    return resample(images, [[x, zero], [zero, y]])


def rotate(images: Tensor, uniform: Tensor) -> Tensor:
    """Turn about the centre."""
    angle = torch.deg2rad((2 * uniform[0] - 1) * ROTATE)
    return resample(images, [[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])


def whole_number(uniform: Tensor, highest: int) -> Tensor:
    """Numbers in [0, 1) [n] -> whole numbers from 0 to ``highest``, included, [n, 1, 1, 1]."""
    return (uniform * (highest + 1)).long()[:, None, None, None]


def positions(images: Tensor, axis: int) -> Tensor:
    """Row (axis 2, [1, 1, H, 1]) or column (axis 3, [1, 1, 1, W]) of each pixel."""
    index = torch.arange(images.shape[axis], device=images.device)
    return index[None, None, :, None] if axis == 2 else index[None, None, None, :]


def resample(images: Tensor, matrix: list[list[Tensor]]) -> Tensor:
    """What stood at matrix @ (x, y), measured from the centre, comes to (x, y); bilinear."""
    rows = [torch.stack([*row, torch.zeros_like(row[0])], -1) for row in matrix]  # no translation
    theta = torch.stack(rows, 1).to(images.dtype)  # [n, 2, 3]
    grid = F.affine_grid(theta, [len(theta), *images.shape[1:]], align_corners=False)
    return F.grid_sample(images, grid.expand(len(images), -1, -1, -1), align_corners=False)


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "color": color,
    "crop": crop,
    "cutout": cutout,
    "flip": flip,
    "scale": scale,
    "rotate": rotate,
}
