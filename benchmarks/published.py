"""``python -m benchmarks.published``: the published baselines again, by ``params/paper.yaml`` with fewer repetitions.

One run is one synthetic set. Each leaves its record as soon as it is done, and what has a record is not run again; an
interrupted distillation goes on from its checkpoint. So the command may be ended and started at any time, while the
code stays as it is: a checkpoint of other code is refused, and the table counts the versions of code behind its
records. Neither Jupyter nor papermill is needed.
"""

import argparse
import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import yaml

from ddlib.study import run as study
from ddlib.study.parameters import check_parameters
from ddlib.study.places import runs_folder
from ddlib.study.record import read_record, record_path

PROJECT = Path(__file__).parent.parent
NOTEBOOK = "01_guidance"


@dataclass(frozen=True)
class Published:
    """One published number: accuracy of ConvNet-3 in percent, at ten images per class."""

    name: str
    accuracy: float
    augment: bool  # whether it was evaluated with DSA augmentation
    dataset: str
    settings: dict[str, object]


TABLE = [
    Published("DM", 48.9, True, "cifar10", {"base_method": "dm", "iterations": 20000}),
    Published("random real images", 31.0, True, "cifar10", {"base_method": "random"}),
    Published("random real images, plain", 26.0, False, "cifar10", {"base_method": "random"}),
    Published("full data", 84.8, True, "cifar10", {"base_method": "full"}),
    Published("DSA", 52.1, True, "cifar10", {"base_method": "dsa", "iterations": 1000}),
    Published("DC, plain", 44.9, False, "cifar10", {"base_method": "dc", "iterations": 1000}),
    Published("DSA", 84.6, True, "fashion_mnist", {"base_method": "dsa", "iterations": 1000}),
    Published("DC, plain", 82.3, False, "fashion_mnist", {"base_method": "dc", "iterations": 1000}),
]
"""In the order in which they are run, CIFAR-10 and Fashion-MNIST. The numbers are those that later papers repeat in
their tables; how the network of 84.8 was trained on the full data, augmented or not, is not told with it."""

# Instead of 5 sets and 20 networks of five architectures.
COMMON = {"guidance": "none", "architectures": "ConvNet-3", "num_sets": 3, "num_eval": 5, "eval_epochs_plain": 300}


def parameters(row: Published, profile: Path, overrides: dict[str, object]) -> SimpleNamespace:
    """The notebook's defaults, the profile, and what the row needs; checked."""
    cells = json.loads((PROJECT / "notebooks" / f"{NOTEBOOK}.ipynb").read_text(encoding="utf-8"))["cells"]
    source = next(cell["source"] for cell in cells if "parameters" in cell["metadata"].get("tags", []))
    defaults = {line.target.id: ast.literal_eval(line.value) for line in ast.parse("".join(source)).body}
    unknown = ", ".join(set(overrides) - set(defaults))
    if unknown:
        raise ValueError(f"unknown parameter {unknown}; there are {', '.join(defaults)}")
    profile = yaml.safe_load(profile.read_text(encoding="utf-8"))
    known = {name: value for name, value in profile.items() if name in defaults}
    return check_parameters({**defaults, **known, **COMMON, "dataset": row.dataset, **row.settings, **overrides})


def records_of(row: Published, profile: Path, overrides: dict[str, object]) -> Iterator[Path]:
    """Run what has no record yet; yields the record of each set as soon as it is there."""
    p, data = parameters(row, profile, overrides), None
    for seed in range(p.seed, p.seed + p.num_sets):
        one = SimpleNamespace(**{**vars(p), "seed": seed, "num_sets": 1})
        path = record_path(runs_folder(p.runs_folder), NOTEBOOK, study.recorded(one, p.dataset), seed)
        if not path.exists() or read_record(path)["status"] == "failed":
            data = data or study.open_dataset(one)
            study.run_arm(one, data, [], NOTEBOOK)
        yield path


def compared(row: Published, records: list[Path]) -> dict[str, object]:
    """One line of the table: n sets, mean and spread over them in percent, and the distance to what was published."""
    read = [read_record(path) for path in records]
    table = pd.concat([record["accuracies"].assign(seed=index) for index, record in enumerate(read)])
    means = 100 * table[table["augment"] == row.augment].groupby("seed")["accuracy"].mean()
    return {
        "dataset": row.dataset,
        "method": row.name,
        "n": len(means),
        "accuracy": means.mean(),
        "std": means.std(),
        "published": row.accuracy,
        "difference": means.mean() - row.accuracy,
        "versions": len({record["code_hash"] for record in read}),
    }


def main(arguments: list[str] | None = None) -> pd.DataFrame:
    """Run all rows in order and print the table so far after each of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.published", description=__doc__.splitlines()[0])
    parser.add_argument("--profile", type=Path, default=PROJECT / "params" / "paper.yaml")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="override a parameter of all rows")
    options = parser.parse_args(arguments)
    overrides = {name: yaml.safe_load(value) for name, _, value in (item.partition("=") for item in options.set)}
    for row in TABLE:
        parameters(row, options.profile, overrides)  # a mistake ends here, not after the first row
    lines = []
    for row in TABLE:
        lines.append(compared(row, list(records_of(row, options.profile, overrides))))
        print(pd.DataFrame(lines).round(1).to_string(index=False), end="\n\n", flush=True)
    return pd.DataFrame(lines)


if __name__ == "__main__":
    main()
