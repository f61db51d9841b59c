"""Pictures of images: a data set or a synthetic set as a grid, and several synthetic sets side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ddlib.data.dataset import Dataset
from ddlib.study.arms import FULL_NAME, Arm, ordered
from ddlib.study.record import synthetic_path
from ddlib.study.run import Run
from ddlib.study.style import CLASS, ON_ANY_PAGE, caption, captions, nothing_to_draw, style
from ddlib.synthetic import SyntheticSet


def show_images(
    records: pd.DataFrame, folder: str | Path, seed: int | None = None, per_class: int = 1
) -> Figure | None:
    """The synthetic sets of all arms side by side, for one seed (by default the smallest of those that most arms have).

    The arm ``full_data`` keeps no set. Without any other arm one line of text says so. Arms whose classes are others
    than those of the first have no place beside it: their names are printed. Raises FileNotFoundError if no set is
    there.
    """
    records = records[records["arm"] != FULL_NAME]
    if records.empty:
        return nothing_to_draw("no arm of this ablation has images of its own in this setting")
    arms = records.groupby("seed")["arm"].nunique()  # sorted by seed; a set from a file may have any
    seed = int(arms.idxmax()) if seed is None else seed
    runs = records[records["seed"] == seed].drop_duplicates("arm").set_index("arm")["run"]
    paths = {arm: synthetic_path(Path(folder) / f"{runs[arm]}.json") for arm in ordered(runs.index)}
    sets = {arm: SyntheticSet.load(path) for arm, path in paths.items() if path.is_file()}
    if not sets:
        raise FileNotFoundError(
            f"no synthetic sets of seed {seed} lie beside the records in {folder}: run an arm again."
        )
    first = next(iter(sets.values()))
    labels = first.classes.sort().values  # sets from files may be in another order
    alike = {arm: one for arm, one in sets.items() if torch.equal(one.classes.sort().values, labels)}
    if others := [Arm.named(arm).label for arm in sets if arm not in alike]:
        print(f"Not shown, since they hold other numbers of images a class: {', '.join(others)}.")
    pixels = {Arm.named(arm).label: one.pixels[one.classes.argsort(stable=True)] for arm, one in alike.items()}
    return side_by_side(pixels, labels, first.class_names, per_class)


GAP = 1  # pixels between images


def mosaic(pixels: Tensor, labels: Tensor, classes: Sequence[int], per_class: int) -> np.ndarray:
    """One array [rows, columns, 3] in 0..1: a row for each class with its first ``per_class`` images.

    Args:
        pixels: [N, C, H, W] with C = 1 or 3, in 0..1; values outside are clipped, for synthetic images may
            leave the range of real ones.
        labels: [N].
    Places without an image, and the gaps, are white.
    """
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3) or len(pixels) != len(labels):
        shapes = f"{list(pixels.shape)} and {list(labels.shape)}"
        raise ValueError(f"expected pixels [N, C, H, W] with C = 1 or 3 and labels [N], got {shapes}")
    images = pixels.detach().cpu().float().clamp(0, 1).expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    labels = labels.cpu().numpy()
    height, width = images.shape[1] + GAP, images.shape[2] + GAP
    canvas = np.ones((len(classes) * height - GAP, per_class * width - GAP, 3), dtype=np.float32)
    for row, label in enumerate(classes):
        for column, image in enumerate(images[labels == label][:per_class]):
            top, left = row * height, column * width
            canvas[top : top + height - GAP, left : left + width - GAP] = image
    return canvas


def atlas(pixels: Tensor, labels: Tensor) -> np.ndarray:
    """One picture without gaps, [rows, columns, 3] in 0..255: a column for each class, its images below each other.

    ``pixels`` [N, C, H, W] in 0..1, clipped; ``labels`` [N]. Places without an image are white.
    """
    classes = sorted(labels.unique().tolist())
    columns = [pixels[labels == label] for label in classes]
    height, width = pixels.shape[2:]
    canvas = np.full((max(map(len, columns)) * height, len(classes) * width, 3), 255, dtype=np.uint8)
    for place, images in enumerate(columns):
        values = images.detach().cpu().float().clamp(0, 1).mul(255).round().byte().expand(-1, 3, -1, -1)
        column = values.permute(0, 2, 3, 1).reshape(len(images) * height, width, 3)
        canvas[: len(column), place * width : (place + 1) * width] = column.numpy()
    return canvas


def turned(grid: np.ndarray, classes: int) -> np.ndarray:
    """A picture with a row for each class (``SyntheticSet.save_grid`` without gaps) with a column for each instead."""
    side = grid.shape[0] // classes  # images are square
    blocks = grid.reshape(classes, side, grid.shape[1] // side, side, grid.shape[2])
    return blocks.transpose(2, 1, 0, 3, 4).reshape(-1, classes * side, grid.shape[2])


@style()
def image_grid(
    pixels: Tensor,
    labels: Tensor,
    class_names: Sequence[str],
    per_class: int = 10,
    max_classes: int = 10,
    title: str = "",
) -> Axes:
    """Images as a grid, a row for each class; ``pixels`` [N, C, H, W] in 0..1 (``Dataset.denormalise``)."""
    return side_by_side({title: pixels}, labels, class_names, per_class, max_classes).axes[0]


@style()
def side_by_side(
    arms: Mapping[str, Tensor],
    labels: Tensor,
    class_names: Sequence[str],
    per_class: int = 1,
    max_classes: int = 10,
) -> Figure:
    """Synthetic sets of several arms, a panel each and a row for each class: one row compares one class.

    Args:
        arms: name: pixels [N, C, H, W] in 0..1; all share ``labels`` [N].
        per_class: images of each class and arm, at most; the title says how many of how many are shown.
    """
    if not arms:
        raise ValueError("no images to show: `arms` is empty")
    classes = sorted(labels.unique().tolist())
    shown, most = classes[:max_classes], int(labels.bincount().max())
    per_class = min(per_class, most)
    pictures = [mosaic(pixels, labels, shown, per_class) for pixels in arms.values()]
    titles, rows = [caption(name, CLASS) for name in arms], captions((class_names[c] for c in shown), CLASS)
    # Inches for an image, and for a panel, which must hold its title.
    size = 0.5 if per_class > 1 else 0.62
    width = max(size * per_class, *(0.08 * len(title) for title in titles), 0.6)
    left = max(1.2, 0.2 + 0.1 * max(map(len, rows)))  # for the names of the classes
    fig, axes = plt.subplots(
        1, len(arms), figsize=(left + (width + 0.15) * len(arms), 0.6 + size * len(shown)), squeeze=False
    )
    for ax, title, picture in zip(axes[0], titles, pictures, strict=True):
        ax.imshow(picture, interpolation="nearest")
        ax.set_title(title, color=ON_ANY_PAGE)
        ax.set_anchor("W")  # centred, it would be moved after the room for the names was measured
        ax.set_xticks([])
        ax.set_yticks([])
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)
    step = (picture.shape[0] + GAP) / len(shown)
    axes[0, 0].set_yticks(step * (np.arange(len(shown)) + 0.5) - 0.5 - GAP / 2, rows)
    axes[0, 0].tick_params(length=0, labelcolor=ON_ANY_PAGE)
    left_out = []
    if len(shown) < len(classes):
        left_out.append(f"{len(shown)} of {len(classes)} classes")
    if per_class < most:
        left_out.append(f"{per_class} of {most} images for each class")
    if left_out:
        fig.supxlabel(", ".join(left_out), fontsize="small", color=ON_ANY_PAGE)
    return fig


def picture(run: Run, data: Dataset, per_class: int = 10) -> Figure:
    """The images of one run, beside those it started from if it was distilled."""
    arms = {"synthetic images" if run.distilled else "chosen real images": run.synthetic.pixels}
    if run.distilled:
        arms = {"start": data.denormalise(run.distilled.snapshots[0]), **arms}
    return side_by_side(arms, run.synthetic.labels, data.class_names, min(per_class, 50 // len(arms)))
