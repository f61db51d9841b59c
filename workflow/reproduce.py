"""One run of the study again, beside what the book holds of it.

``python workflow/reproduce.py "clom" --seed 10`` takes the parameters of the record, makes the synthetic set anew with
the PTMs that lie in ``book/results/ptms``, judges it, and compares. The same machine, software and code give the same
bits; others round otherwise, and then a run is repeated if its mean accuracy lies as near as another seed's would.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[1]))

from ddlib.disk.paths import cache_folder
from ddlib.study.parameters import check
from ddlib.study.pools import open_ptms
from ddlib.study.record import read_record
from ddlib.study.run import open_dataset, run_arm
from workflow.study import RESULTS

NEAR = 3.0  # standard deviations between the kept sets of an arm
FEW = 0.02  # the accuracy allowed where an arm has one kept set


def records_of(arm: str, grid: str | None = None) -> dict[int, dict[str, object]]:
    """The kept records of an arm by their seeds, from the first grid that has it.

    Raises ValueError that lists the arms if there is none, or if a grid has it in several settings.
    """
    known = set()
    for folder in sorted((RESULTS / "sweeps").glob(grid or "*")):
        records = [read_record(path) for path in sorted(folder.glob("*.json"))]
        known |= {record["arm"] for record in records}
        found = [record for record in records if record["arm"] == arm and record["status"] == "ok"]
        if len({record["parameter_hash"] for record in found}) > 1:
            raise ValueError(f"{folder.name} has {arm!r} in several settings: name a grid where it has one.")
        if found:
            return {record["seed"]: record for record in found}
    raise ValueError(f"no record of arm {arm!r} is kept; known: {', '.join(sorted(known)) or 'none at all'}.")


def lend_ptms() -> None:
    """Put the PTMs of the study into the cache, where a run looks for them."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    for path in (RESULTS / "ptms").glob("*.safetensors"):
        if not (cache_folder() / path.name).exists():
            shutil.copy2(path, cache_folder())


def run_again(record: dict[str, object], folder: str) -> dict[str, object]:
    """The record of the same run, made here."""
    given = record["parameters"] | {"seed": record["seed"], "num_sets": 1, "runs_folder": folder, "device": "auto"}
    p = check(given, given)
    data = open_dataset(p)
    (run,) = run_arm(p, data, open_ptms(p, data), record["notebook"])
    return read_record(run.record)


def beside(kept: dict[str, object], made: dict[str, object]) -> pd.DataFrame:
    """Accuracy in percent of each architecture, with augmentation: the mean over its networks, then and now."""
    columns = {}
    for name, record in {"kept": kept, "made here": made}.items():
        table = record["accuracies"]
        columns[name] = 100 * table[table["augment"]].groupby("architecture", sort=False)["accuracy"].mean()
    table = pd.DataFrame(columns)
    return table.assign(difference=table["made here"] - table["kept"])


def mean_accuracy(record: dict[str, object]) -> float:
    """Over all networks."""
    return float(record["accuracies"]["accuracy"].mean())


def verdict(kept: dict[int, dict[str, object]], seed: int, made: dict[str, object]) -> tuple[bool, str]:
    """Whether a run is repeated, and in words how well."""
    if made["synthetic_hash"] == kept[seed]["synthetic_hash"]:
        return True, "The synthetic set is the same, bit by bit."
    means = [mean_accuracy(record) for record in kept.values()]
    allowed = NEAR * statistics.stdev(means) if len(means) > 1 else FEW
    away = abs(mean_accuracy(made) - mean_accuracy(kept[seed]))
    says = f"Other bits (another machine, software or code): the mean accuracy is {100 * away:.2f} points away; "
    return away <= allowed, f"{says}{100 * allowed:.2f} are allowed."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one arm and seed again; not 0 if it comes out otherwise."""
    parser = argparse.ArgumentParser(prog="python workflow/reproduce.py", description=__doc__)
    parser.add_argument("arm", help="as the records name it, such as 'clom' or 'clom random'")
    parser.add_argument("--seed", type=int, help="default: the first that is kept")
    parser.add_argument("--grid", help="of params/sweeps, without .yaml; default: the first that has the arm")
    given = parser.parse_args(arguments)
    try:
        kept = records_of(given.arm, given.grid)
        seed = min(kept) if given.seed is None else given.seed
        if seed not in kept:
            raise ValueError(f"no record of {given.arm!r} with seed {seed}; kept: {', '.join(map(str, sorted(kept)))}.")
    except ValueError as error:
        sys.exit(str(error))
    lend_ptms()
    took = sum(kept[seed]["seconds"].get(part, 0) for part in ("distill", "evaluate"))
    print(f"{given.arm}, seed {seed}: it took {took / 60:.0f} min on {kept[seed]['environment']['device_name']}")
    with tempfile.TemporaryDirectory() as folder:
        made = run_again(kept[seed], folder)
    repeated, says = verdict(kept, seed, made)
    print(f"{beside(kept[seed], made).round(2).to_string()}\n{says}")
    return 0 if repeated else 1


if __name__ == "__main__":
    sys.exit(main())
