"""How cost grows: one step against images per class, classes, image size and number of PTMs."""

import torch

from benchmarks.measure import best_of
from benchmarks.rows import base_step, guided, random_ptms, stand_in, synthetic_images
from ddlib.base_methods import Matching, Task
from ddlib.guidance import Guidance
from ddlib.study.step_costs import GraphMemory, step_costs

WORKS = ("DM step", "CLoM", "CCLoM")
AXES = {"ipc": (1, 10, 50), "num_classes": (10, 100), "image_size": (32, 64)}
NUM_PTMS = (1, 2, 4, 8, 16)
USUAL = {"ipc": 10, "num_classes": 10, "image_size": 32}


def sizes(device: torch.device) -> dict[str, int]:
    """Full size on a GPU; on a CPU a quarter of the width and an eighth of the real batch: a minute instead of ten."""
    return {"width": 128, "batch_real": 256} if device.type == "cuda" else {"width": 32, "batch_real": 32}


def growth(device: torch.device) -> list[dict[str, object]]:
    """Rows of ``axis``, ``value``, ``work``, ``seconds`` and ``graph_mb`` (memory that autograd keeps, 10^6 bytes)."""
    rows = []
    for axis, values in AXES.items():
        for value in values:
            setting = {**USUAL, axis: value}
            data = stand_in(device, setting["num_classes"], setting["image_size"], sizes(device)["batch_real"])
            for work, call in zip(WORKS, steps(data, setting["ipc"], **sizes(device)), strict=True):
                seconds = best_of(call, device, 2)
                with GraphMemory() as memory:
                    call()
                rows.append(
                    {"axis": axis, "value": value, "work": work, "seconds": seconds, "graph_mb": memory.peak / 1e6}
                )
    return rows


def steps(data, ipc: int, width: int, batch_real: int) -> list:
    """One call for each of ``WORKS``."""
    images, labels = synthetic_images(data, ipc)
    ptms = random_ptms(data, 1, width)
    task = Task(data, labels, Matching(width=width, batch_real=batch_real))
    guidance = [Guidance(kind, ptms).signals(data, labels) for kind in ("clom", "cclom")]
    return [
        lambda: base_step("dm", task, images),
        *(lambda signals=signals: guided("single", images, signals) for signals in guidance),
    ]


def ensembles(device: torch.device) -> list[dict[str, object]]:
    """``ddlib.study.step_costs.step_costs`` of K PTMs of width 128 on 100 images."""
    data = stand_in(device, per_class=1)
    images, labels = synthetic_images(data)
    signals = Guidance("clom", random_ptms(data, max(NUM_PTMS))).signals(data, labels)
    return step_costs(images, signals, num_ptms=NUM_PTMS, repeats=3).to_dict("records")


def one_off(device: torch.device) -> dict[str, float]:
    """What CCLoM pays once for each PTM: its features of the whole real set, per 10,000 images of CIFAR's shape."""
    data = stand_in(device, per_class=100)
    ptm = random_ptms(data, 1)[0]
    return {"class_sums_seconds_per_10000": 10 * best_of(lambda: ptm.features_of(data.train.images), device, 3)}
