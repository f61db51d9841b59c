"""Synthetic sets as pictures beside their records, for the explorer and for dots that show their images."""

from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from ddlib.study.images import atlas, turned
from ddlib.synthetic import SyntheticSet

from .findings import Findings


def pictures_of(found: Findings) -> dict[str, bytes]:
    """The images of each set that lies beside its record, as one PNG."""
    if found.reference.empty:
        return {}
    names = found.reference.drop_duplicates("run").set_index("run")["class_names"]
    pictures = {run: png(found.folder / run, len(names[run])) for run in found.sets["run"]}
    return {run: content for run, content in pictures.items() if content}


@cache
def png(stem: Path, classes: int) -> bytes | None:
    """A synthetic set as a grid without gaps, a column for each class: of the picture that was kept, else of the set.

    None where there is neither.
    """
    kept, saved = stem.with_suffix(".png"), stem.with_suffix(".safetensors")
    if kept.is_file() and classes:
        pixels = turned(np.array(Image.open(kept).convert("RGB")), classes)
    elif saved.is_file():
        synthetic = SyntheticSet.load(saved)
        pixels = atlas(synthetic.pixels, synthetic.classes)
    else:
        return None
    held = BytesIO()
    Image.fromarray(pixels).save(held, "png", optimize=True)
    return held.getvalue()


def snapshots(folder: Path) -> dict[str, dict[int, Path]]:
    """Pictures of iterations that a sweep kept: ``snapshots/<run>/<iteration>.png`` beside its records."""
    found: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.glob("snapshots/*/*.png")):
        if path.stem.isdigit():
            found.setdefault(path.parent.name, {})[int(path.stem)] = path
    return {run: dict(sorted(steps.items())) for run, steps in found.items()}
