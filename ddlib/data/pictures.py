"""One picture, from a file or as Pillow holds it, as a square array of numbers.

- Turned upright (EXIF orientation), scaled so that its shorter side fits, cut square around its centre.
- Grey (1, L, 16-bit grey) or RGB by its mode, not its content. Palette and CMYK pictures are converted, transparent
  ones lie on white. 16-bit grey keeps its depth.
- Files of more than ``MAX_BYTES``, files that are no regular ones and images of more pixels than Pillow takes for safe
  are refused. HEIC is read if the package pillow-heif is there.
"""

import contextlib
import importlib
import stat
import statistics
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

SMALLEST, LARGEST = 8, 64  # of the sizes chosen for people: photos of any size train in minutes at 64
MAX_BYTES = 2**28  # of one file: no picture within Pillow's limit of pixels needs more, in any usual form
GREY_16_BIT = {"I", "I;16", "I;16L", "I;16B", "I;16N"}  # "I": 16-bit PGM, and PNG in older versions of Pillow
DEPTHS = (8, 10, 12, 14, 16)  # bits of grey that scanners, X-ray and CT store in files of 16
BRANDS = {  # what the first bytes of a file say that Pillow may not read, and what reads it
    "HEIC": ((b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"), "pillow-heif"),
    "AVIF": ((b"avif", b"avis"), "pillow-avif-plugin, or a newer Pillow"),
}


class Picture(NamedTuple):
    """A picture as numbers, and what was found on the way."""

    pixels: np.ndarray  # [C, size, size] in 0..255: uint8, float32 if it was 16-bit grey
    size: tuple[int, int]  # width and height as they were
    largest: int = 0  # value of a 16-bit grey; 0 for other pictures
    frames: int = 1  # or pages, of which the first counts


def read_image(path: Path, size: int, max_pixels: int | None = None) -> Picture:
    """One file, scaled and cut to ``size`` x ``size``. Damaged files raise almost anything."""
    with open_image(path, max_pixels) as image:
        # the further pictures in a phone's JPEG (MPO) are depth maps and previews of the first
        original, frames = image.size, 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        # decode a large JPEG at 1/2, 1/4 or 1/8 while twice the wanted size remains: several times faster
        image.draft(None, (2 * size, 2 * size))
        return to_picture(image, size)._replace(size=original, frames=frames)


@contextlib.contextmanager
def open_image(path: Path, max_pixels: int | None = None) -> Iterator[Image.Image]:
    """A file as Pillow opens it: its size and mode are known, its pixels not yet decoded.

    ``max_pixels`` is set as Pillow's own limit meanwhile, which all threads of the process share.
    """
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise ValueError("not a regular file")  # opening a pipe would wait for ever
    if about.st_size > MAX_BYTES:
        raise ValueError(f"{about.st_size / 1e6:.0f} MB, more than the limit of {MAX_BYTES / 1e6:.0f} MB")
    _read_heif_too()
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        # between one and two times its limit of pixels Pillow only warns; such a file is refused just as well
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            Image.MAX_IMAGE_PIXELS = max_pixels or before
            with Image.open(path) as image:
                yield image
        finally:
            Image.MAX_IMAGE_PIXELS = before


def to_picture(image: Image.Image, size: int) -> Picture:
    """What Pillow holds, upright, scaled and cut to ``size`` x ``size``."""
    upright = ImageOps.exif_transpose(image)
    plain, largest = _sixteen_bits(upright) if upright.mode in GREY_16_BIT else (_eight_bits(upright), 0)
    pixels = np.array(ImageOps.fit(plain, (size, size), Image.Resampling.BILINEAR))
    return Picture(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1), image.size, largest)


def suited_size(sizes: Iterable[tuple[int, int]]) -> int:
    """The side for pictures of these (width, height): the median of their shorter sides, from 8 to 64."""
    sides = [min(size) for size in sizes]
    return max(SMALLEST, min(LARGEST, int(statistics.median(sides)))) if sides else LARGEST


def to_pixels_alike(name: str, parts: Sequence[Sequence[Picture]]) -> list[Tensor]:
    """For each part of a data set its pictures as pixels ``[N, C, size, size]`` in [0, 1].

    C is 1 if all pictures of all parts are grey, else 3. All 16-bit greys share one white: the largest value that the
    fewest of 8, 10, 12, 14, 16 bits hold, if they hold the largest of all; a warning says so if these are not 16.
    """
    everything = [picture for part in parts for picture in part]
    deep = [picture.largest for picture in everything if picture.largest]
    bits = next(bits for bits in DEPTHS if max(deep, default=2**16 - 1) < 2**bits)
    factor = (2**16 - 1) / (2**bits - 1)
    if bits < 16:
        warnings.warn(
            f"the largest grey of the {len(deep)} 16-bit pictures of {name} is {max(deep)}: they are taken for "
            f"{bits}-bit ones, {2**bits - 1} is white in all of them",
            stacklevel=4,
        )
    channels = max(len(picture.pixels) for picture in everything)
    return [_stack(part, channels, factor) for part in parts]


def why_unreadable(error: Exception, path: Path, max_pixels: int | None = None) -> str:
    """What is wrong with a file, in words, and what helps."""
    if isinstance(error, Image.DecompressionBombWarning | Image.DecompressionBombError):
        limit = f"the limit, PIL.Image.MAX_IMAGE_PIXELS, is {Image.MAX_IMAGE_PIXELS}"
        limit = f"the limit, max_pixels, is {max_pixels}" if max_pixels else limit
        return (
            f"too many pixels, refused as a possible decompression bomb ({limit}): scale it down, or set max_pixels of "
            "load_dataset if you trust the file"
        )
    if isinstance(error, Image.UnidentifiedImageError):
        with contextlib.suppress(OSError), path.open("rb") as file:
            start = file.read(12)
            for kind, (brands, package) in BRANDS.items():
                if start[4:8] == b"ftyp" and start[8:] in brands:
                    return f"{kind}, which Pillow does not read here: pip install {package}, or save it as JPEG or PNG"
        return "not an image in a format that Pillow reads"
    return str(error) or type(error).__name__


@cache
def _read_heif_too() -> None:
    """If the package is there; ddlib does not ask for it."""
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()


def _sixteen_bits(image: Image.Image) -> tuple[Image.Image, int]:
    """16-bit grey as F in 0..255, and its largest value."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("32-bit values: save it with 8 or 16 bits")
    return Image.fromarray((values / 257).astype(np.float32)), int(values.max())


def _eight_bits(image: Image.Image) -> Image.Image:
    """Any other mode as L (grey) or RGB; transparency becomes white."""
    if image.mode == "F":
        raise ValueError("floating-point values, whose white is unknown: save it with 8 or 16 bits")
    mode = "L" if image.mode in ("1", "L") else "RGB"
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def _stack(pictures: Sequence[Picture], channels: int, factor: float) -> Tensor:
    """Grey is repeated if others have colour; ``factor`` brightens 16-bit greys."""
    pixels = torch.empty(len(pictures), channels, *pictures[0].pixels.shape[1:], device="cpu")
    for slot, picture in zip(pixels, pictures, strict=True):
        slot.copy_(torch.from_numpy(picture.pixels))
        if picture.largest and factor != 1:
            slot.mul_(factor).clamp_(max=255)
    return pixels.div_(255)
