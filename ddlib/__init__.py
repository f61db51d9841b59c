"""Dataset distillation guided by pre-trained models."""

from ddlib.base_methods import BASE_METHODS
from ddlib.baselines import SELECTIONS, full_data, select_real
from ddlib.combine import STRATEGIES
from ddlib.data import DATASETS, Dataset, Split, load_dataset
from ddlib.distill import Distilled, distill
from ddlib.evaluate import evaluate
from ddlib.guidance import GUIDANCE
from ddlib.imagenet import load_imagenet_ptm
from ddlib.memory import keep_freed_memory
from ddlib.networks import NETWORKS, build_network
from ddlib.parameters import check_parameters
from ddlib.ptm import PTM
from ddlib.ptms import train_ptms
from ddlib.records import load_records, read_record, write_record
from ddlib.synthetic import SyntheticSet

keep_freed_memory()

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
    "Split",
    "SyntheticSet",
    "build_network",
    "check_parameters",
    "distill",
    "evaluate",
    "full_data",
    "load_dataset",
    "load_imagenet_ptm",
    "load_records",
    "read_record",
    "select_real",
    "train_ptms",
    "write_record",
]
