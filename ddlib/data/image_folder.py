"""A person's own pictures: `train/<class>/*` and `test/<class>/*` become two tensors of pixels.

Every picture ends up square and in one of two forms:

- turned upright (EXIF orientation), scaled so that its shorter side fits, cut square around its centre;
- RGB. Palette and CMYK pictures are converted, transparent ones lie on white, of several frames the first
  counts. Only if *every* picture of the folder is grey by its file mode (1, L, 16-bit grey) is there one
  channel. The mode decides, not the content: a grey photo saved as RGB is RGB. 16-bit grey keeps its depth.

Nothing outside of the folder is read: links that lead out of it are refused, as are files of more than
`MAX_BYTES`, files that are no regular ones, and images of more pixels than Pillow takes for safe.

The order is fixed: classes and files by name (as text: "10" stands before "2"), in train and test alike.
"""

import os
import stat
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

DEFAULT_SIZE = 32
MAX_BYTES = 2**28  # of one file: no picture within Pillow's limit of pixels needs more, in any usual form
MAX_NAMED = 5  # so many culprits are named at once: enough to see a pattern, short enough to read
IGNORED = {"thumbs.db", "desktop.ini", "__macosx"}  # left by file managers and archives; besides ".*"
GREY_16_BIT = {"I", "I;16", "I;16L", "I;16B", "I;16N"}  # "I": 16-bit PGM, and PNG in older versions of Pillow

LAYOUT = """An image folder looks like this, with the same classes (two or more) in both parts:
    {folder}/train/<class>/<any name>.jpg
    {folder}/test/<class>/<any name>.jpg"""

Files = dict[str, list[Path]]  # class name -> its files


def read_folder(
    folder: Path, image_size: int | None = None
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[str, ...]]:
    """Read an image folder: `(train pixels, labels), (test pixels, labels), class names`.

    Pixels are float32 in [0, 1], `[N, C, image_size, image_size]`, C = 1 or 3; labels int64 `[N]`. Without an
    `image_size` it is 32, with a warning if that changed any picture. Raises ValueError, naming the culprits,
    for a wrong layout, unequal, empty or too few classes, and files that are no (whole) image.
    """
    train, test = find_files(folder, "train"), find_files(folder, "test")
    _check_classes(folder, train, test)
    size = image_size or DEFAULT_SIZE
    images, sizes = read_images([*_in_order(train), *_in_order(test)], size)
    if image_size is None and sizes != {(size, size)}:
        warnings.warn(
            f"the pictures in {folder} were scaled and cut to {size} x {size} pixels, the default; "
            "image_size chooses another size",
            stacklevel=3,
        )
    num_train, channels = len(_in_order(train)), max(len(image) for image in images)
    train_pixels, test_pixels = _stack(images[:num_train], channels), _stack(images[num_train:], channels)
    return (train_pixels, _labels(train)), (test_pixels, _labels(test)), tuple(train)


def find_files(folder: Path, part: str) -> Files:
    """The files of `train` or `test` by class, both in order; hidden files are left out."""
    _check_inside(folder, [folder / part])
    if not (folder / part).is_dir():
        raise ValueError(f"{folder} has no folder {part}/. " + LAYOUT.format(folder=folder))
    paths = _visible(folder / part)
    _check_inside(folder, paths)
    files = {path.name: _visible(path) for path in paths if path.is_dir()}
    _check_inside(folder, _in_order(files))
    stray = [path for path in paths if not path.is_dir()] + [path for path in _in_order(files) if path.is_dir()]
    if stray:
        more = f" and {len(stray) - MAX_NAMED} more" if len(stray) > MAX_NAMED else ""
        names = ", ".join(map(str, stray[:MAX_NAMED])) + more
        raise ValueError(f"not in its place: {names}. " + LAYOUT.format(folder=folder))
    return files


def _check_inside(folder: Path, paths: list[Path]) -> None:
    root = os.path.realpath(folder)
    links = [path for path in paths if path.is_symlink()]
    outside = [path for path in links if not Path(os.path.realpath(path)).is_relative_to(root)]
    if outside:
        more = f" and {len(outside) - MAX_NAMED} more" if len(outside) > MAX_NAMED else ""
        names = ", ".join(map(str, outside[:MAX_NAMED])) + more
        raise ValueError(f"links that lead out of {folder}: {names}. Put copies of the files there instead")


def read_images(paths: list[Path], size: int) -> tuple[list[np.ndarray], set[tuple[int, int]]]:
    """Read every file with `read_image`: the arrays, and the set of (width, height) found on disk.

    Raises one ValueError that names up to 5 unreadable files with the reason for each.
    """
    images, sizes, bad = [], set(), []
    for path in paths:
        try:
            image, original_size = read_image(path, size)
        except Exception as error:  # decoders of damaged files raise almost anything, SyntaxError included
            bad.append(f"    {path}: {_reason(error)}")
            if len(bad) == MAX_NAMED:
                bad.append("    (reading stopped here; there may be more)")
                break
        else:
            images.append(image)
            sizes.add(original_size)
    if bad:
        raise ValueError("\n".join(["files that cannot be read as images; repair or remove them:", *bad]))
    return images, sizes


def read_image(path: Path, size: int) -> tuple[np.ndarray, tuple[int, int]]:
    """One file as `[C, size, size]` in 0..255 (uint8; float32 if 16-bit) and its (width, height) on disk."""
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):
        raise ValueError("not a regular file")  # opening a pipe would wait for ever
    if about.st_size > MAX_BYTES:
        raise ValueError(f"{about.st_size / 1e6:.0f} MB, more than the limit of {MAX_BYTES / 1e6:.0f} MB")
    with warnings.catch_warnings():
        # between one and two times its limit of pixels Pillow only warns; such a file is refused just as well
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path) as image:
            original_size = image.size
            # decode a large JPEG at 1/2, 1/4 or 1/8 while twice the wanted size remains: several times faster
            image.draft(None, (2 * size, 2 * size))
            plain = _to_plain(ImageOps.exif_transpose(image))
    pixels = np.array(ImageOps.fit(plain, (size, size), Image.Resampling.BILINEAR))
    return (pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)), original_size


def _to_plain(image: Image.Image) -> Image.Image:
    """Any mode as L (grey), F (16-bit grey, in 0..255) or RGB; transparency becomes white."""
    if image.mode in GREY_16_BIT:
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("32-bit values: save it with 8 or 16 bits")
        return Image.fromarray((values / 257).astype(np.float32))
    if image.mode == "F":
        raise ValueError("floating-point values, whose white is unknown: save it with 8 or 16 bits")
    mode = "L" if image.mode in ("1", "L") else "RGB"
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def _check_classes(folder: Path, train: Files, test: Files) -> None:
    """Raise unless both parts have the same classes, two or more, none of them empty."""
    if train.keys() != test.keys():
        alone = {"train": train.keys() - test.keys(), "test": test.keys() - train.keys()}
        found = "; ".join(f"only in {part}: {', '.join(sorted(names))}" for part, names in alone.items() if names)
        raise ValueError(f"train and test of {folder} must have the same classes; {found}")
    if len(train) < 2:
        found = f"only the class {next(iter(train))!r}" if train else "no class"
        raise ValueError(f"{folder} has {found}; a classifier needs two. " + LAYOUT.format(folder=folder))
    parts = {"train": train, "test": test}
    empty = [f"{part}/{name}" for part, files in parts.items() for name in files if not files[name]]
    if empty:
        names = ", ".join(empty)
        raise ValueError(f"classes of {folder} without any image: {names}; add images or remove the class")


def _visible(folder: Path) -> list[Path]:
    names = sorted(path.name for path in folder.iterdir())
    return [folder / name for name in names if not name.startswith(".") and name.lower() not in IGNORED]


def _in_order(files: Files) -> list[Path]:
    return [path for paths in files.values() for path in paths]


def _stack(images: list[np.ndarray], channels: int) -> Tensor:
    """Arrays in 0..255 as pixels `[N, channels, H, W]` in [0, 1]; grey is repeated if others have colour."""
    pixels = torch.empty(len(images), channels, *images[0].shape[1:])
    for slot, image in zip(pixels, images, strict=True):
        slot.copy_(torch.from_numpy(image))
    return pixels.div_(255)


def _labels(files: Files) -> Tensor:
    counts = torch.tensor([len(paths) for paths in files.values()])
    return torch.arange(len(counts)).repeat_interleave(counts)


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombWarning | Image.DecompressionBombError):
        limit = f"the limit, PIL.Image.MAX_IMAGE_PIXELS, is {Image.MAX_IMAGE_PIXELS}"
        return f"too many pixels, refused as a possible decompression bomb ({limit}): scale it down"
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image in a format that Pillow reads"
    return str(error) or type(error).__name__
