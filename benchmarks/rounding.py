"""``python -m benchmarks.rounding``: what bf16 changes in results, beside float32 with the same seeds.

Writes ``results/rounding/DEVICE.json``, which the page "What it costs" shows. Where bf16 is emulated the numbers are
those of bf16 all the same, only slow; so this is a small setting: handwritten digits.
"""

import argparse
import functools
import json
import tempfile

import pandas as pd
import torch

from benchmarks import record
from benchmarks.measure import difference
from benchmarks.rows import RESULTS, base_step, random_ptms, stand_in, synthetic_images
from ddlib import distill, evaluate, load_dataset, train_ptms
from ddlib.base_methods import Matching, Task
from ddlib.compute import Compute
from ddlib.study.contrasts import paired_difference
from ddlib.study.devices import pick_device
from ddlib.study.record import plain

PRECISIONS = ("float32", "bf16")
SEEDS, WIDTH, IPC = range(6), 16, 10
FOLDER = RESULTS / "rounding"


def differences(device: torch.device) -> list[dict[str, object]]:
    """Relative differences, bf16 against float32, of one update by DM, DC and DSA, and of the class sums of a PTM."""
    data = stand_in(device, per_class=64)
    images, labels = synthetic_images(data)
    rows = []
    for method in ("dm", "dc", "dsa"):
        matching = Matching(method, width=32, batch_real=64, outer_loops=1, inner_loops=1)
        exact, rounded = (
            base_step(method, Task(data, labels, matching, compute=Compute(precision)), images)
            for precision in PRECISIONS
        )
        rows.append({"what": f"update of {method.upper()}", "difference": difference(rounded[1:], exact[1:])})
    ptm = random_ptms(data, 1, 32)[0]
    exact, rounded = (
        ptm.computing(Compute(precision), data.train.images, 1).class_sums(data).sums for precision in PRECISIONS
    )
    return [*rows, {"what": "class sums of a PTM", "difference": difference([rounded], [exact])}]


def accuracies(device: torch.device) -> pd.DataFrame:
    """Of PTMs, and of sets learned without guidance and with CLoM, by ``arm``, ``precision`` and ``seed``."""
    data, rows = load_dataset("digits", image_size=16, device=device), []
    with tempfile.TemporaryDirectory() as cache:
        for precision in PRECISIONS:
            how = {"width": WIDTH, "precision": precision}
            for seed in SEEDS:
                ptms = train_ptms(data, epochs=15, seed=seed, cache=cache, **how)
                row = {"precision": precision, "seed": seed, "architecture": "ConvNet-3"}
                rows.append(row | {"arm": "PTM", "accuracy": ptms[0].accuracy})
                for guidance in ("none", "clom"):
                    learn = functools.partial(distill, data, ipc=IPC, iterations=50, batch_real=32, alpha_clom=10.0)
                    learned = learn(guidance=guidance, ptms=ptms, seed=seed, **how).synthetic
                    judged = evaluate(learned, data, num_eval=2, eval_epochs=50, seed=seed, **how)
                    rows.append(row | {"arm": guidance, "accuracy": judged["accuracy"].mean()})
                print(precision, seed, rows[-3:], flush=True)
    return pd.DataFrame(rows)


def compared(table: pd.DataFrame) -> list[dict[str, object]]:
    """bf16 minus float32, paired by seed, for each arm."""
    found = []
    for arm, rows in table.groupby("arm", sort=False):
        pairs = paired_difference(rows.assign(arm=rows["precision"]), "bf16", "float32").iloc[0]
        kept = pairs[["n", "difference", "std", "t_low", "t_high", "p_value", "p_equivalence"]]
        found.append({"arm": arm, **plain(kept.to_dict(), arm)})
    return found


def main() -> None:
    """Measure on one device and write the record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rounding", description=__doc__)
    parser.add_argument("--device", default="auto", help="auto | cpu | cuda")
    device = pick_device(parser.parse_args().device)
    updates, table = differences(device), accuracies(device)
    found = {"differences": updates, "pairs": compared(table)}
    record.write(FOLDER / f"{device.type}.json", device, accuracies=table.to_dict("records"), **found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
