"""What several test modules make: runs, synthetic sets, files of others, and what a notebook leaves behind."""

import contextlib
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import safetensors.torch
import torch
import yaml
from PIL import Image

from ddlib.checkpoint import State
from ddlib.data.dataset import Dataset, ImageFormat, Split
from ddlib.study.cells import INJECTED
from ddlib.study.parameters import check_parameters
from ddlib.synthetic import SyntheticSet, labels_of
from workflow.inputs import cells

ROOT = Path(__file__).parents[1]


# The book

BOOK = ROOT / "book"
HTML = BOOK / "_build" / "html"
TOC = yaml.safe_load((BOOK / "_toc.yml").read_text())


def pages_of(entries: list[dict]) -> list[str]:
    """The pages of a table of contents, those below each other page included."""
    return [page for entry in entries for page in (entry["file"], *pages_of(entry.get("sections", [])))]


PAGES = [TOC["root"], *pages_of([chapter for part in TOC["parts"] for chapter in part["chapters"]])]


# Randomness


def seeded(seed: int = 0) -> torch.Generator:
    """A generator of the CPU."""
    return torch.Generator().manual_seed(seed)


# Runs and their records

SHORT = {  # the parameters of a run that takes a moment
    "guidance": "clom",
    "strategy": "loss_avg",
    "num_ptms": 2,
    "ptm_architectures": "ConvNet-3",
    "equal_passes": False,
    "base_method": "dm",
    "alpha_clom": 1.0,
    "alpha_ce_ratio": 1.0,
    "alpha_cos_mean": 1.0,
    "alpha_cclom": 1.0,
    "guide_every": 1,
    "dataset": "digits",
    "image_size": None,
    "evaluate_on": "test",
    "ipc": 1,
    "iterations": 3,
    "lr_img": None,
    "batch_real": 4,
    "start": None,
    "outer_loops": None,
    "inner_loops": None,
    "lr_net": 0.01,
    "base_network": "ConvNet-3",
    "width": 4,
    "precision": "float32",
    "compile": "never",
    "ptm_epochs": 1,
    "ptm_epoch": None,
    "ptm_seed": 0,
    "source_dataset": None,
    "ptm_image_size": None,
    "judges": 0,
    "architectures": "ConvNet-3",
    "num_eval": 1,
    "eval_epochs": 2,
    "eval_epochs_plain": None,
    "full_epochs": 1,
    "seed": 5,
    "num_sets": 1,
    "device": "cpu",
}
KEPT = {  # parameters that a record may hold
    "dataset": "digits",
    "base_method": "dm",
    "guidance": "clom",
    "strategy": "loss_avg",
    "num_ptms": 2,
    "ipc": 1,
    "alpha": 100.0,
    "seed": 3,
    "architectures": ["ConvNet-3", "VGG-11"],
    "alphas": {"AlexNet": 2000.0},
}


def accuracies(values: tuple[float, ...] = (0.1, 1 / 3, 0.5, 0.75)) -> pd.DataFrame:
    """Of two networks of two architectures."""
    rows = [("ConvNet-3", 0, True), ("ConvNet-3", 1, True), ("VGG-11", 0, True), ("VGG-11", 1, True)]
    frame = pd.DataFrame(rows, columns=["architecture", "network", "augment"])
    return frame.assign(accuracy=list(values), seconds=0.25)


def a_run(**changes: object) -> dict[str, object]:
    """The arguments of ``write_record`` for a complete run."""
    return {
        "notebook": "02_ensemble",
        "arm": "clom loss_avg",
        "parameters": KEPT,
        "seed": 3,
        "dataset_hash": "d" * 16,
        "ptm_hashes": ("a" * 16, "b" * 16),
        "accuracies": accuracies(),
        "history": pd.DataFrame({"iteration": [0, 1, 2], "loss": [3.0, float("nan"), 1.23456789]}),
        "seconds": {"ptms": 1.5, "distill": 2.5},
        "peak_memory_bytes": 3_000_000,
        "ptm_passes": 40,
        "synthetic_hash": "s" * 16,
        "device": "cpu",
        **changes,
    }


LEVELS = {"random_real": 0.30, "none": 0.40, "clom": 0.50, "cclom": 0.45, "both": 0.52, "full_data": 0.90}


def records_of(notebook, arm, level, seeds=3, **changes) -> list[dict[str, object]]:
    """The records of one arm: two networks of two architectures a seed, the second one 0.1 lower."""
    words = arm.split(" ")
    return [
        {
            "run": f"{notebook}-{arm}-{seed}-{changes.get('alpha_clom', 10.0)}",
            "notebook": notebook,
            "dataset": "digits",
            "dataset_hash": "d",
            "arm": arm,
            "base_method": "dm",
            "guidance": words[0],
            "strategy": words[1] if words[1:2] not in ([], ["alone"]) else "single",
            "num_ptms": 4 if words[1:2] not in ([], ["alone"]) else 1,
            "equal_passes": arm.endswith("equal_passes"),
            "ipc": 1,
            "alpha_clom": 10.0,
            "architectures": "ConvNet-3, VGG-11",
            "seed": seed,
            "architecture": architecture,
            "network": network,
            "augment": True,
            "accuracy": level + 0.01 * seed - (0.1 if architecture == "VGG-11" else 0),
            "seconds_distill": 2.0,
            "seconds_ptms": 1.0,
            "ptm_passes": 30,
            "peak_memory_mb": 300.0,
            **changes,
        }
        for seed in range(seeds)
        for architecture in ("ConvNet-3", "VGG-11")
        for network in range(2)
    ]


# Images and sets

IMAGES = torch.randn(3, 1, 4, 4, generator=seeded())
MEAN, STD = (0.5, 0.25, 0.125), (0.5, 0.25, 0.5)


def write_image(path, image=None, size=(32, 32), color=(255, 0, 0), **options) -> Path:
    """Save ``image``, or one of a single colour, and make its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or Image.new("RGB", size, color)).save(path, **options)
    return path


def a_set(n=6, channels=3, size=8, names=("ant", "bee", "cat"), seed=0, **changes) -> SyntheticSet:
    """Noise; ``changes`` are arguments of ``SyntheticSet``."""
    images = torch.randn(n, channels, size, size, generator=seeded(seed))
    form = ImageFormat(channels, size, MEAN[:channels], STD[:channels])
    given = {"images": images, "labels": torch.arange(n) % len(names), "format": form}
    return SyntheticSet(**(given | {"class_names": names, "provenance": {"seed": 1, "alpha": [0.1, None]}} | changes))


def dataset_like(name, channels, size, num_classes=10, seed=0) -> Dataset:
    """Two images a class that are in the form of a known data set, with moments of their own."""
    draw = seeded(seed)
    labels = labels_of(num_classes, 2)
    split = Split(torch.randn(len(labels), channels, size, size, generator=draw), labels)
    moments = (torch.rand(2, channels, generator=draw) / 4 + 0.2).unbind()
    form = ImageFormat.of(split.images, *moments)
    return Dataset(name, split, split, tuple(f"class {i}" for i in range(num_classes)), form)


def a_state(num_ptms: int = 2) -> State:
    """What a checkpoint holds of a distillation of ``IMAGES`` after one step."""
    images = IMAGES.clone().requires_grad_()
    optimizer = torch.optim.SGD([images], lr=0.1, momentum=0.5)
    images.grad = torch.ones_like(images)
    optimizer.step()
    made = State(images, optimizer, num_ptms, {"seed": 0})
    made.snapshots[0] = IMAGES
    made.log([(1.0, 2.0, 3)], 0.5)
    return made


# Files of others


def saved(save, file="set.pt"):
    """A layout: how images and labels are written into a folder, and the file to read."""

    def write(folder, images, labels):
        save(folder / file, images, labels)
        return folder / file

    return write


def write_pair(folder, images, labels):
    torch.save(labels, folder / "labels_best.pt")
    torch.save(images, folder / "images_best.pt")
    return folder / "images_best.pt"


LAYOUTS = {  # a function that writes images and labels into a folder
    "reference": saved(lambda path, x, y: torch.save({"data": [[x, y]], "accs_all_exps": {"a": np.float64(1)}}, path)),
    "reference, one": saved(lambda path, x, y: torch.save({"data": (x, y)}, path)),
    "dict": saved(lambda path, x, y: torch.save({"images": x, "labels": y}, path)),
    "dict of a list": saved(lambda path, x, y: torch.save({"images": x, "labels": y.tolist()}, path)),
    "list": saved(lambda path, x, y: torch.save([x, y], path)),
    "tuple": saved(lambda path, x, y: torch.save((x, y[:, None]), path)),
    "several": saved(lambda path, x, y: torch.save([[x + 1, y], [x, y]], path)),
    "MTT": write_pair,
    "npz": saved(lambda path, x, y: np.savez(path, images=x.numpy(), labels=y.numpy()), "set.npz"),
    "npz by place": saved(lambda path, x, y: np.savez(path, x.numpy(), y.numpy().astype(">i4")), "set.npz"),
    "arrays": saved(lambda path, x, y: torch.save({"images": x.numpy(), "labels": y.numpy()}, path)),
    "safetensors": saved(
        lambda path, x, y: safetensors.torch.save_file({"images": x, "labels": y}, path), "set.safetensors"
    ),
    "channel-last": saved(lambda path, x, y: torch.save([x.permute(0, 2, 3, 1).contiguous(), y], path)),
    "without channel": saved(lambda path, x, y: torch.save([x[:, 0], y], path)),
    "half precision": saved(lambda path, x, y: torch.save([x.half(), y], path)),
    "with gradient": saved(lambda path, x, y: torch.save([x.clone().requires_grad_(), y], path)),
}
SCALES = {
    "uint8": lambda pixels, form: (pixels * 255).round().byte(),
    "uint8 as floats": lambda pixels, form: pixels * 255,
    "unit": lambda pixels, form: pixels,
    "normalised": lambda pixels, form: form.normalise(pixels),
}


# Folders and grids

QUICK = {"base": "smoke", "iterations": 2, "eval_epochs": 2, "eval_epochs_plain": 1, "num_eval": 1, "ptm_epochs": 1}
QUICK |= {"architectures": "ConvNet-3", "width": 4, "full_epochs": 1, "guidance": "none"}
ARMS = [
    {"notebook": "01_guidance", "base_method": "dm", "published": {"augmented": 48.9}},
    {"notebook": "01_guidance", "base_method": "random", "published": {"augmented": 31.0, "plain": 26.0}},
    {"notebook": "01_guidance", "guidance": "clom"},
]


def files_in(folder: Path) -> list[str]:
    """The names of files, not of folders."""
    return sorted(path.name for path in folder.glob("*.*"))


# Notebooks


def with_parameters(notebook: str, given: dict[str, object]) -> list[str]:
    """The code cells of a notebook, with parameters as papermill would give them after the first."""
    first, *rest = cells(notebook)
    return [first, "\n".join([INJECTED, *(f"{name} = {value!r}" for name, value in given.items())]), *rest]


def executed(notebook: str, display: Callable[..., object] = print, **given: object) -> dict[str, object]:
    """The names that a notebook leaves, its cells run one after the other with some parameters."""
    sources = with_parameters(notebook, given)
    namespace = {"In": sources[:2], "display": display}
    for source in sources:
        exec(source, namespace)
    return namespace


def guarded(notebook: str, **given: object) -> SimpleNamespace:
    """What the guard of a notebook says to some parameters."""
    sources = with_parameters(notebook, given)[:2]
    namespace = {"In": sources}
    for source in sources:
        exec(source, namespace)
    return check_parameters(namespace)


# What is left alone


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Within, no file may grow beyond some bytes, as with a quota; needs no rights."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def nothing_drawn() -> Iterator[None]:
    """PyTorch's global generator is afterwards as it was."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(torch.get_rng_state(), before), "the global generator was drawn from, or seeded"


@contextlib.contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Within, PyTorch's global generator starts from a seed; afterwards it is as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
