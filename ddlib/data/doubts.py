"""Warnings about data that people bring: sound as files, and yet perhaps not what was meant."""

import hashlib
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

UNEVEN = 20  # times as many training images in the largest class as in the smallest: then accuracy says little
NAMED = 5  # so many examples are named


def warn_of_doubts(
    name: str,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    class_names: Sequence[str],
    told: Callable[[str, int], object] = lambda part, index: f"{part} image {index}",
) -> None:
    """Warn of very uneven classes, and of one picture (the same pixels) in both train and test.

    Train and test are ``(images [N, C, H, W], labels [N])``; ``told`` names the image at an index of a part.
    """
    counts = train[1].bincount(minlength=len(class_names))
    least, most = int(counts.argmin()), int(counts.argmax())
    if counts[most] >= UNEVEN * counts[least]:
        warnings.warn(
            f"the classes of {name} are very uneven: {counts[most]} training images of {class_names[most]!r}, "
            f"{counts[least]} of {class_names[least]!r}. Look at the accuracy of each class, not at the mean alone",
            stacklevel=3,
        )
    if pairs := same_pictures(train[0], test[0]):
        examples = ", ".join(f"{told('train', i)} = {told('test', j)}" for i, j in pairs[:NAMED])
        examples += ", ..." if len(pairs) > NAMED else ""
        warnings.warn(
            f"pictures in both train and test of {name}: {len(pairs)} ({examples}). "
            "Accuracies will flatter: remove them from one of the two",
            stacklevel=3,
        )


def same_pictures(train: Tensor, test: Tensor) -> list[tuple[int, int]]:
    """For each test image that is a training image too: the index there (of the last, if of several) and its own."""
    there = {digest: index for index, digest in enumerate(map(_digest, train))}
    return [(there[digest], index) for index, digest in enumerate(map(_digest, test)) if digest in there]


def _digest(image: Tensor) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(image.cpu().numpy())).digest()
