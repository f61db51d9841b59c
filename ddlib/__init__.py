"""Dataset distillation guided by pre-trained models."""

from ddlib import threads  # noqa: F401, before anything imports torch

# isort: split
from ddlib.base_methods import BASE_METHODS, Matching
from ddlib.combine import STRATEGIES
from ddlib.data.dataset import Dataset, ImageFormat, Split
from ddlib.data.readers import DATASETS, load_dataset
from ddlib.distill import Distilled, distill
from ddlib.evaluate import evaluate
from ddlib.foreign import load_synthetic
from ddlib.guidance import GUIDANCE, Guidance
from ddlib.networks import NETWORKS, build_network
from ddlib.ptms.imagenet import load_imagenet_ptm
from ddlib.ptms.pool import train_ptms
from ddlib.ptms.ptm import PTM
from ddlib.recipe import Optimisation, Recipe
from ddlib.selection import SELECTIONS, full_data, select_real
from ddlib.synthetic import SyntheticSet

__all__ = [
    "BASE_METHODS",
    "DATASETS",
    "GUIDANCE",
    "NETWORKS",
    "PTM",
    "SELECTIONS",
    "STRATEGIES",
    "Dataset",
    "Distilled",
    "Guidance",
    "ImageFormat",
    "Matching",
    "Optimisation",
    "Recipe",
    "Split",
    "SyntheticSet",
    "build_network",
    "distill",
    "evaluate",
    "full_data",
    "load_dataset",
    "load_imagenet_ptm",
    "load_synthetic",
    "select_real",
    "train_ptms",
]

MOVED = {
    "check_parameters": "ddlib.study.parameters",
    "keep_freed_memory": "ddlib.memory",
    "load_records": "ddlib.study.runs",
    "read_record": "ddlib.study.record",
    "write_record": "ddlib.study.record",
}


def __getattr__(name: str) -> object:
    """Say where a name of earlier versions is now."""
    if name in MOVED:
        raise AttributeError(f"ddlib.{name} has moved: from {MOVED[name]} import {name}")
    raise AttributeError(f"module 'ddlib' has no attribute {name!r}")
