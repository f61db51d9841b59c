"""Records of a sweep that nobody ran, for tests of what pages make of results. No page of the book may read them.

``PYTHONPATH=. python tests/imagined.py FOLDER`` writes a whole study, to look at the pages that it would give.
"""

import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from made import ROOT

from ddlib.data.readers import dataset_name
from ddlib.guidance import GUIDANCE
from ddlib.study.allowed import counted
from ddlib.study.arms import Arm
from ddlib.study.record import write_record
from ddlib.study.run import recorded
from workflow.grid import read_grid

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def draw_of(*words: object) -> np.random.Generator:
    """The same numbers for the same words."""
    return np.random.default_rng(zlib.crc32(repr(words).encode()))


def write_sweep(grid: str, folder: Path, mean_of: Callable[[SimpleNamespace, Arm], float], pictures: int = 0) -> int:
    """A record for every job of a grid in params/sweeps; ``mean_of`` gives the accuracy of an arm. How many.

    Sets that share a seed share half of their spread. Of the first ``pictures`` seeds an image lies beside the record.
    """
    jobs, count = read_grid(ROOT / "params" / "sweeps" / f"{grid}.yaml").jobs, 0
    folder.mkdir(parents=True, exist_ok=True)
    first = min(job.parameters["seed"] for job in jobs)
    for job in jobs:
        p = SimpleNamespace(**job.parameters)
        arm = Arm.planned(p)
        for seed in range(p.seed, p.seed + p.num_sets):
            path = write_record(folder, **record(p, arm, job.notebook, seed, mean_of(p, arm)))
            count += 1
            if seed < first + pictures and p.base_method != "full" and p.evaluate_on == "test":
                picture(path, p.ipc, seed)
    return count


def record(p: SimpleNamespace, arm: Arm, notebook: str, seed: int, mean: float) -> dict[str, object]:
    """The arguments of ``write_record``."""
    own, shared = draw_of(arm.name, seed, mean), draw_of(p.dataset, p.ipc, seed)
    level = mean + 0.004 * shared.normal() + 0.004 * own.normal()
    rows = [
        {"architecture": name, "network": network, "augment": True, "seconds": 10.0}
        | {"accuracy": float(np.clip(level - 0.02 * place + 0.006 * own.normal(), 0, 1))}
        for place, (name, times) in enumerate(counted(p.architectures).items())
        for network in range(times * p.num_eval)
    ]
    guided = arm.guidance != "none"
    ptms = p.num_ptms if guided and arm.strategy not in ("", "single") else 1
    said = [{"ptm": f"{seed:016x}-10", "role": "guide", "accuracy": float(np.clip(0.9 + 0.05 * own.normal(), 0, 1))}]
    if p.judges:
        said.append({"ptm": f"{seed:016x}-11", "role": "judge", "accuracy": float(np.clip(2 * level, 0, 1))})
    cosines = [[1.0 if i == j else round(0.4 + 0.1 * own.normal(), 4) for j in range(ptms)] for i in range(ptms)]
    gradients = [
        {"iteration": step, "norms": [float(abs(0.02 + 0.004 * own.normal())) for _ in range(ptms)], "cosines": cosines}
        for step in (0, 250, 450)
    ]
    return {
        "notebook": notebook,
        "arm": arm.name,
        "parameters": recorded(p, dataset_name(p.dataset)),
        "seed": seed,
        "dataset_hash": f"{zlib.crc32(p.dataset.encode()):016x}",
        "class_names": CLASSES,
        "ptm_hashes": [f"{seed:016x}-10"] * ptms * guided,
        "accuracies": pd.DataFrame(rows),
        "history": pd.DataFrame({"iteration": [0, p.iterations - 1], "base_loss": [1.0, 0.5]}),
        "seconds": {"ptms": 300.0 * ptms * guided, "distill": 100.0 + 20 * ptms * guided, "evaluate": 60.0},
        "peak_memory_bytes": 2 * 10**9,
        "ptm_passes": p.iterations * ptms * bool(GUIDANCE.get(arm.guidance)),
        "synthetic_hash": f"{zlib.crc32(repr((arm.name, seed if arm.replicated else 0)).encode()):016x}",
        "device": torch.device("cpu"),
        "ptm_accuracies": said if guided else [],
        "ptm_gradients": gradients if ptms > 1 else [],
    }


def picture(path: Path, ipc: int, seed: int) -> None:
    """Noise in the place of synthetic images: a row for each class."""
    from PIL import Image

    pixels = draw_of(path.stem, seed).integers(0, 255, (10 * 32, ipc * 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path.with_suffix(".png"))


LEVELS = {"none": 0.40, "clom": 0.44, "ce_ratio": 0.435, "cos_mean": 0.43, "cclom": 0.432, "both": 0.442}
STRATEGIES = {"": 0.0, "single": 0.0, "mgda": 0.02, "pcgrad": 0.031, "per_image": 0.015, "logit_avg": 0.025}
SELECTIONS = {"random": 0.28, "herding": 0.31, "k_center": 0.22, "k_means": 0.33, "class_means": 0.25, "full": 0.72}


def plausible(p: SimpleNamespace, arm: Arm) -> float:
    """Accuracies of the size that such runs have; nothing more."""
    if arm.selection:
        return SELECTIONS[arm.selection]
    level = LEVELS[arm.guidance] + STRATEGIES.get(arm.strategy, 0.03) - 0.06 * arm.alone
    level += 0.3 * (p.dataset == "fashion_mnist") - 0.12 * (p.ipc == 1) + 0.1 * (p.ipc == 50)
    if arm.guidance != "none":
        alpha = getattr(p, f"alpha_{GUIDANCE[arm.guidance][0]}")
        level -= 0.006 * np.log10(alpha / 300) ** 2
        level -= 0.02 * (p.ptm_epoch in (0, 1)) + 0.015 * (p.source_dataset is not None)
    return level


def write_study(folder: Path, grids: tuple[str, ...] = ("guidance", "ensemble"), pictures: int = 0) -> None:
    """The sweeps of the study, each in its folder."""
    for grid in grids:
        write_sweep(f"desk-{grid}", folder / f"desk-{grid}", plausible, pictures)


if __name__ == "__main__":
    ALL = ("alpha", "guidance", "ensemble-alpha", "ensemble", "elsewhere-alpha", "elsewhere", "options")
    write_study(Path(sys.argv[1]), ALL, pictures=2)
