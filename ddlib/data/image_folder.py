"""A person's own pictures: `train/<class>/*` and `test/<class>/*` become two tensors of pixels.

- `val/` and `validation/` are names for `test/` too, in upper or lower case; `test/` wins if there are several.
- A flat folder, `<class>/*`, is split: of each class a fifth, drawn with a seed, is set aside for testing.
- Pictures are converted as `ddlib.data.pictures` says. If *every* one is grey there is one channel, else three.
- What file managers leave (`Thumbs.db`, `@eaDir`, ...) is no picture. Links that lead out of the folder are refused.

Labels are in the order of torchvision's `ImageFolder`: classes and files by name, as text ("10" stands before "2").
Equal names are found in both parts however their accents are stored (macOS stores them apart: NFD).
"""

import contextlib
import hashlib
import os
import unicodedata
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ddlib.data.doubts import warn_of_doubts
from ddlib.data.pictures import Picture, open_image, read_image, suited_size, to_pixels_alike, why_unreadable
from ddlib.rng import generator

MAX_NAMED = 5  # so many culprits are named at once: enough to see a pattern, short enough to read
SHOWN = 10  # so many labels are shown
HELD_OUT = 5  # of a flat folder, one picture of so many is for testing
TEST_NAMES = ("test", "val", "validation")
# left by file managers, photo software, network storage and archives; besides ".*"
IGNORED = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "picasa.ini", "zbthumbnail.info"}
IGNORED |= {"__macosx", "@eadir", "@__thumb", "#recycle", "$recycle.bin", "system volume information", "lost+found"}

LAYOUT = """An image folder looks like this, with the same classes (two or more) in both parts:
    {folder}/train/<class>/<any name>.jpg
    {folder}/test/<class>/<any name>.jpg
or {folder}/<class>/<any name>.jpg, of which a fifth is then set aside for testing."""

Files = dict[str, list[Path]]  # class name -> its files


def read_folder(
    folder: Path,
    image_size: int | None = None,
    on_bad: str = "error",
    max_pixels: int | None = None,
    split_seed: int = 0,
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[str, ...]]:
    """Read an image folder: `(train pixels, labels), (test pixels, labels), class names`; prints what it found.

    Pixels are float32 in [0, 1], `[N, C, image_size, image_size]`, C = 1 or 3; labels int64 `[N]`. Without an
    `image_size` it suits the pictures (`suited_size`). Raises ValueError, naming the culprits, for a wrong layout,
    unequal, empty or too few classes, and files that are no (whole) image; these are left out, with a warning that
    lists them, if `on_bad` is "skip". Warns of all that may not be what was meant.
    """
    train, test = find_parts(folder, split_seed)
    _check_classes(folder, train, test)
    paths = [*_in_order(train), *_in_order(test)]
    size = image_size or suited_size(_sizes(paths, max_pixels))
    pictures = read_images(paths, size, on_bad, max_pixels)
    train, test = ({name: [p for p in part[name] if p in pictures] for name in part} for part in (train, test))
    _check_classes(folder, train, test)
    _warn_of_pages(folder, {path: picture.frames for path, picture in pictures.items() if picture.frames > 1})
    files = {"train": _in_order(train), "test": _in_order(test)}
    parts = to_pixels_alike(folder.name, [[pictures[path] for path in part] for part in files.values()])
    train, test, class_names = (parts[0], _labels(train)), (parts[1], _labels(test)), tuple(train)
    print(_summary(folder, train, test, class_names, pictures.values()))
    warn_of_doubts(folder.name, train, test, class_names, lambda part, i: files[part][i].relative_to(folder).as_posix())
    return train, test, class_names


def find_parts(folder: Path, split_seed: int = 0) -> tuple[Files, Files]:
    """The files of train and test by class, in the order of the classes of train."""
    parts = _part_folders(folder)
    if not parts:
        return _split(folder, find_files(folder, "."), split_seed)
    test_name = next((name for name in TEST_NAMES if name in parts), None)
    if "train" not in parts or not test_name:
        wanted = "train/" if "train" not in parts else "test/ (nor val/, validation/)"
        there = ", ".join(repr(path.name) for path in parts.values())
        raise ValueError(
            f"{folder} has no folder {wanted}, only {there}. If it is all there is, give load_dataset the path of that "
            f"folder: it is split then. {LAYOUT.format(folder=folder)}"
        )
    if unused := [repr(path.name) for name, path in parts.items() if name not in ("train", test_name)]:
        told = f"{folder.name}: test images are those of {parts[test_name].name!r}; {_listed(unused)} is not used"
        warnings.warn(told, stacklevel=4)
    train, test = (find_files(folder, parts[name].name) for name in ("train", test_name))
    return train, {name: test[name] for name in [*train, *test] if name in test}


def find_files(folder: Path, part: str) -> Files:
    """The files of `train` or `test`, or of a flat folder (`.`), by class, both in order; hidden ones are left out."""
    _check_inside(folder, [folder / part])
    paths = _visible(folder / part)
    _check_inside(folder, paths)
    folders = [path for path in paths if path.is_dir()]
    files = {_nfc(path.name): _visible(path) for path in folders}
    if len(files) < len(folders):
        raise ValueError(f"{folder / part} has two folders for one class: {_listed(ascii(p.name) for p in folders)}")
    _check_inside(folder, _in_order(files))
    stray = [path for path in paths if not path.is_dir() and (part != "." or _is_named_like_a_picture(path))]
    if stray := stray + [path for path in _in_order(files) if path.is_dir()]:
        raise ValueError(f"not in its place: {_listed(map(str, stray))}. " + LAYOUT.format(folder=folder))
    return files


def files_hash(folder: Path) -> str:
    """16 hexadecimal digits for the names and bytes of all files that count as pictures of a folder."""
    digest = hashlib.sha256()
    for part in _part_folders(folder).values() or [folder]:
        for path in sorted(path for path in part.glob("*/*") if path.is_file()):
            if not any(map(_is_ignored, path.relative_to(folder).parts)):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                digest.update(f"{_nfc(path.relative_to(folder).as_posix())} {content}\n".encode())
    return digest.hexdigest()[:16]


def _part_folders(folder: Path) -> dict[str, Path]:
    """The folders for train and test, by their names in lower case; none in a flat folder."""
    found = [path for path in _visible(folder) if path.name.lower() in ("train", *TEST_NAMES) and path.is_dir()]
    parts = {path.name.lower(): path for path in found}
    if len(parts) < len(found):
        raise ValueError(f"{folder} has two folders for one part: {_listed(repr(path.name) for path in found)}")
    return parts


def _split(folder: Path, files: Files, seed: int) -> tuple[Files, Files]:
    """A flat folder as train and test."""
    if few := [repr(name) for name, paths in files.items() if len(paths) < 2]:
        raise ValueError(
            f"{folder} has no train/ and test/, so it is to be split, but these classes have fewer than two pictures: "
            f"{_listed(few)}. " + LAYOUT.format(folder=folder)
        )
    train, test = {}, {}
    for index, (name, paths) in enumerate(files.items()):
        count = max(1, round(len(paths) / HELD_OUT))
        draw = generator(seed, "split of a folder", index)
        held = set(torch.randperm(len(paths), generator=draw, device="cpu")[:count].tolist())
        train[name] = [path for i, path in enumerate(paths) if i not in held]
        test[name] = [path for i, path in enumerate(paths) if i in held]
    if len(files) > 1:
        warnings.warn(
            f"{folder.name} has no train/ and test/: of its {len(_in_order(files))} pictures {len(_in_order(test))} "
            f"were set aside for testing, a fifth of each class (drawn with split_seed = {seed})",
            stacklevel=5,
        )
    return train, test


def read_images(
    paths: Sequence[Path], size: int, on_bad: str = "error", max_pixels: int | None = None
) -> dict[Path, Picture]:
    """Read every file with `read_image`.

    Raises one ValueError that names up to 5 unreadable files with the reason for each; or leaves them out with a
    warning that lists them all, if `on_bad` is "skip".
    """
    pictures, bad = {}, []
    for path in paths:
        try:
            pictures[path] = read_image(path, size, max_pixels)
        except Exception as error:  # decoders of damaged files raise almost anything, SyntaxError included
            bad.append(f"    {path}: {why_unreadable(error, path, max_pixels)}")
            if len(bad) == MAX_NAMED and on_bad == "error":
                bad.append("    (reading stopped here; there may be more)")
                break
    if bad and on_bad == "error":
        advice = 'repair or remove them; in Python, load_dataset(..., on_bad="skip") leaves them out:'
        raise ValueError("\n".join([f"files that cannot be read as images; {advice}", *bad]))
    if bad:
        warnings.warn("\n".join([f"{len(bad)} files that cannot be read as images were skipped:", *bad]), stacklevel=4)
    return pictures


def _sizes(paths: Sequence[Path], max_pixels: int | None) -> list[tuple[int, int]]:
    """Width and height of all readable files; the others are told of when they are read."""
    sizes = []
    for path in paths:
        with contextlib.suppress(Exception), open_image(path, max_pixels) as image:  # of any kind, as above
            sizes.append(image.size)
    return sizes


def _summary(
    folder: Path,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    class_names: Sequence[str],
    pictures: Collection[Picture],
) -> str:
    """What was read, in the words of a person who wants to know whether it is what she meant."""
    channels, size = train[0].shape[1:3]
    labels = ", ".join(f"{label} {name!r}" for label, name in enumerate(class_names[:SHOWN]))
    more = f", ... {len(class_names) - 1} {class_names[-1]!r}" if len(class_names) > SHOWN else ""
    smallest, largest = (choose((p.size for p in pictures), key=lambda s: s[0] * s[1]) for choose in (min, max))
    was = "{} x {}".format(*smallest) + ("" if smallest == largest else " to {} x {}".format(*largest))
    as_it_was = all(p.size == (size, size) for p in pictures)
    scaled = "" if as_it_was else f" (scaled and cut from {was}; image_size chooses another size)"
    return (
        f"{folder.name}: {len(train[1])} training and {len(test[1])} test images of {len(class_names)} classes, "
        f"{size} x {size} pixels{scaled}, {'grey' if channels == 1 else 'RGB'}; labels {labels}{more}"
    )


def _warn_of_pages(folder: Path, frames: Mapping[Path, int]) -> None:
    if frames:
        found = _listed(f"{path.name} ({count})" for path, count in frames.items())
        warnings.warn(
            f"files of {folder.name} that hold several pictures, of which only the first is used: {found}. "
            "Save the pages as files of their own if they are pictures of their own",
            stacklevel=4,
        )


def _check_classes(folder: Path, train: Files, test: Files) -> None:
    """Raise unless both parts have the same classes, two or more, none of them empty."""
    if train.keys() != test.keys():
        alone = {"train": train.keys() - test.keys(), "test": test.keys() - train.keys()}
        found = [f"only in {part}: {', '.join(map(repr, sorted(names)))}" for part, names in alone.items() if names]
        loose = [{name.strip().casefold() for name in names} for names in alone.values()]
        hint = ". Some differ only in spaces or capitals: rename them" if loose[0] & loose[1] else ""
        raise ValueError(f"train and test of {folder} must have the same classes; {'; '.join(found)}{hint}")
    if len(train) < 2:
        found = f"only the class {next(iter(train))!r}" if train else "no class"
        raise ValueError(f"{folder} has {found}; a classifier needs two. " + LAYOUT.format(folder=folder))
    parts = {"train": train, "test": test}
    empty = [f"{part}/{name}" for part, files in parts.items() for name in files if not files[name]]
    if empty:
        names = ", ".join(empty)
        raise ValueError(f"classes of {folder} without any image: {names}; add images or remove the class")


def _check_inside(folder: Path, paths: list[Path]) -> None:
    root = os.path.realpath(folder)
    links = [path for path in paths if path.is_symlink()]
    outside = [path for path in links if not Path(os.path.realpath(path)).is_relative_to(root)]
    if outside:
        found = _listed(map(str, outside))
        raise ValueError(f"links that lead out of {folder}: {found}. Put copies of the files there instead")


def _visible(folder: Path) -> list[Path]:
    names = sorted(path.name for path in folder.iterdir())
    return [folder / name for name in names if not _is_ignored(name)]


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name.lower() in IGNORED


def _is_named_like_a_picture(path: Path) -> bool:
    return path.suffix.lower() in Image.registered_extensions()


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:MAX_NAMED]) + (f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else "")


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _in_order(files: Files) -> list[Path]:
    return [path for paths in files.values() for path in paths]


def _labels(files: Files) -> Tensor:
    counts = torch.tensor([len(paths) for paths in files.values()], device="cpu")
    return torch.arange(len(counts), device="cpu").repeat_interleave(counts)
