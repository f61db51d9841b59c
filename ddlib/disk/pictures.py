"""Pictures on disk: one PNG, and a folder of them in class folders with a card that says what they are.

The pictures of class k lie in its folder as ``<position in the set>.png``. torchvision's ``ImageFolder`` numbers the
folders in the order of their names, so these are numbered themselves unless the names are in the order of the classes.
"""

import json
import os
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ddlib.disk.files import new_folder, replacing
from ddlib.disk.paths import absolute

CARD, README = "card.json", "README.md"
LONGEST = 48  # characters of a folder's name: with four bytes each still a name that file systems take
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}  # on Windows


def write_png(pixels: Tensor, path: str | os.PathLike) -> None:
    """Pixels ``[C, H, W]`` in [0, 1] as an 8-bit PNG: grey, RGB; other numbers of channels as their mean."""
    with replacing(path) as temporary:
        _image(pixels).save(temporary, format="PNG")


def write_folder(
    folder: str | os.PathLike, pixels: Tensor, classes: Tensor, names: Sequence[str], card: Mapping[str, object]
) -> None:
    """Pictures of ``pixels [N, C, H, W]`` by their ``classes [N]``, with ``card`` beside them: all of it or nothing.

    Pixels are in [0, 1]. The card also gets the ``folders`` of the classes. A class without images has an empty folder.
    Raises FileExistsError if something lies in ``folder`` already.
    """
    folders, digits = folder_names(names), max(4, len(str(len(classes) - 1)))
    card = {**card, "folders": folders}
    with new_folder(folder) as temporary:
        for name in folders:
            (temporary / name).mkdir()
        for place, (image, label) in enumerate(zip(pixels.cpu(), classes.tolist(), strict=True)):
            _image(image).save(temporary / folders[label] / f"{place:0{digits}d}.png")
        (temporary / CARD).write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        (temporary / README).write_text(_in_words(card), encoding="utf-8")


def read_card(folder: str | os.PathLike) -> dict[str, object]:
    """The card of an exported folder. Raises FileNotFoundError if there is none, ValueError if it is none of ours."""
    path = absolute(folder) / CARD
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {CARD} in {folder}, so SyntheticSet.export did not write it; ddlib.load_dataset reads "
            "folders of your own pictures. Of a set that lies in a file there, name the file."
        )
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        whole = len(card["folders"]) == len(card["class_names"]) and card["images"] > 0 and card["image_size"] > 0
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is no card that SyntheticSet.export wrote ({error!r:.100}).") from error
    if not whole:
        raise ValueError(f"{path} is no card that SyntheticSet.export wrote: its numbers do not fit together.")
    return card


def read_folder(folder: str | os.PathLike, card: Mapping[str, object]) -> tuple[Tensor, Tensor]:
    """Pixels ``[N, C, H, W]`` in [0, 1] and classes ``[N]`` of what :func:`write_folder` wrote, in their order.

    Raises ValueError if pictures are missing or added, or one is of another size.
    """
    size, mode = (card["image_size"],) * 2, "L" if card["channels"] == 1 else "RGB"
    folder = absolute(folder)
    paths = [path for name in card["folders"] for path in (folder / str(name)).glob("*.png")]
    numbers = {path: int(path.stem) if path.stem.isdecimal() else -1 for path in paths}
    if sorted(numbers.values()) != list(range(card["images"])):
        raise ValueError(
            f"{folder} holds {len(paths)} pictures, not {card['images']} numbered from 0, as its card says."
        )
    arrays, paths = [], sorted(paths, key=numbers.get)
    for path in paths:
        with Image.open(path) as image:
            if image.size != size:
                raise ValueError(f"{path} has {image.size[0]} x {image.size[1]} pixels, its card says {size[0]}.")
            arrays.append(np.atleast_3d(np.asarray(image.convert(mode))))
    places = {str(name): label for label, name in enumerate(card["folders"])}
    labels = torch.tensor([places[path.parent.name] for path in paths])
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255, labels


def folder_names(class_names: Sequence[str]) -> list[str]:
    """A folder for each class: none hidden or outside, and sorted as the classes are.

    The names themselves, made safe, where their order is that of the classes; else with the class's number in front.

    >>> folder_names(["ant", "bee"]), folder_names(["T-shirt/top", "Ankle boot"])
    (['ant', 'bee'], ['0_T-shirt_top', '1_Ankle boot'])
    """
    names = ["".join(c if c.isalnum() or c in " ._-" else "_" for c in _composed(name)) for name in class_names]
    names = [name[:LONGEST].strip(" .") for name in names]
    plain = len({name.casefold() for name in names}) == len(names) and names == sorted(names)
    if plain and not any(name == "" or name.split(".")[0].casefold() in RESERVED for name in names):
        return names
    digits = len(str(len(names) - 1))
    return [f"{label:0{digits}d}_{name}".rstrip("_") for label, name in enumerate(names)]


def _composed(name: str) -> str:
    """In the one form of Unicode that a file system does not change behind our back."""
    return unicodedata.normalize("NFC", name)


def _image(pixels: Tensor) -> Image.Image:
    pixels = pixels if len(pixels) in (1, 3) else pixels.mean(0, keepdim=True)
    array = (pixels * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


WORDS = """# A synthetic set of {images} images

{about} {size} x {size} pixels, {channels} channel(s). Licence: {licence}.

| label | class | folder |
|---|---|---|
{rows}

Labels are those of `torchvision.datasets.ImageFolder` on this folder. Networks see `(pixel / 255 - mean) / std`, with
mean {mean} and std {std}. The pictures have 8 bits a channel: values were rounded, and
those outside black and white, {clamped:.2%} of all, clamped. `{card}` says all this in a form for programs;
`ddlib.SyntheticSet.from_folder` reads both.
"""


def _in_words(card: Mapping[str, object]) -> str:
    """The card for people."""
    rows = zip(card["class_names"], card["folders"], strict=True)
    lines = [f"| {label} | {_cell(name)} | `{folder}` |" for label, (name, folder) in enumerate(rows)]
    named = {name: card[name] for name in ("images", "channels", "licence", "clamped")}
    named |= {name: ", ".join(f"{value:.4f}" for value in card[name]) for name in ("mean", "std")}
    return WORDS.format(**named, about=card["about"], size=card["image_size"], rows="\n".join(lines), card=CARD)


def _cell(text: str) -> str:
    """One line of a table, whatever the class is called."""
    return " ".join(text.split()).replace("|", "\\|")
