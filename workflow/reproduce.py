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
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from ddlib.disk.files import replacing
from ddlib.disk.paths import cache_folder
from ddlib.study.images import atlas
from ddlib.study.parameters import check
from ddlib.study.pools import open_ptms
from ddlib.study.record import read_record
from ddlib.study.run import open_dataset, run_arm
from ddlib.study.words import plural
from workflow.study import RESULTS

WAY = (0, 50, 200)  # iterations of which pictures are kept, before the last
# As little as can be, where pictures alone are wanted.
UNJUDGED = {"architectures": "ConvNet-3", "num_eval": 1, "eval_epochs": 1, "eval_epochs_plain": None, "judges": 0}
ELSEWHERE = "another machine, software or code"
NEAR = 3.0  # standard deviations between the kept sets of an arm
FEW = 0.02  # the accuracy allowed where an arm has one kept set


def kept_of(arm: str, grid: str | None = None) -> dict[int, Path]:
    """The kept records of an arm by their seeds: of a grid, or of the first that was judged on test images and has it.

    Raises ValueError that lists the arms if there is none, or if a grid has it in several settings.
    """
    known, several = set(), []
    folders = {folder: read_all(folder) for folder in sorted((RESULTS / "sweeps").glob(grid or "*"))}
    for folder, records in sorted(folders.items(), key=lambda item: (held_out(item[1]), item[0])):
        known |= {record["arm"] for record in records.values()}
        found = {path: record for path, record in records.items() if record["arm"] == arm and record["status"] == "ok"}
        if len({record["parameter_hash"] for record in found.values()}) > 1:
            several.append(folder.name)
        elif found:
            return {record["seed"]: path for path, record in found.items()}
    if several:
        raise ValueError(f"{arm!r} stands in several settings in {', '.join(several)}: name a grid where it has one.")
    raise ValueError(f"no record of arm {arm!r} is kept; known: {', '.join(sorted(known)) or 'none at all'}.")


def read_all(folder: Path) -> dict[Path, dict[str, object]]:
    """The records of a folder."""
    return {path: read_record(path) for path in sorted(folder.glob("*.json"))}


def held_out(records: dict[Path, dict[str, object]]) -> bool:
    """Whether they were judged on held-out training images, to choose something."""
    return any(record["parameters"].get("evaluate_on") == "holdout" for record in records.values())


def lend_ptms() -> None:
    """Put the PTMs of the study into the cache, where a run looks for them."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    for path in (RESULTS / "ptms").glob("*.safetensors"):
        lent = cache_folder() / path.name
        if not lent.exists():
            with replacing(lent) as temporary:
                shutil.copyfile(path, temporary)


def run_again(record: dict[str, object], folder: Path, pictures: bool = False) -> dict[str, object]:
    """The record of the same run, made in a folder; or its set alone, hardly judged, and pictures of the way there.

    Pictures are ``<iteration>.png`` in the folder, a column for each class.
    """
    torch.set_num_threads(record["environment"]["torch_threads"])  # sums of several threads are rounded otherwise
    given = record["parameters"] | {"seed": record["seed"], "num_sets": 1}
    given["device"] = "cpu" if record["device"] == "cpu" else "auto"  # PTMs are those of a kind of device
    given |= {"runs_folder": str(folder)} | (UNJUDGED if pictures else {})
    p = check(given, given)
    data = open_dataset(p)
    (run,) = run_arm(p, data, open_ptms(p, data), record["notebook"], [t for t in WAY if t < p.iterations])
    if pictures and run.distilled:
        for iteration, images in run.distilled.snapshots.items():
            picture = atlas(data.denormalise(images), run.synthetic.classes)
            Image.fromarray(picture).save(folder / f"{iteration}.png", optimize=True)
    return read_record(run.record)


def keep_pictures(record: dict[str, object], kept: Path) -> str:
    """Make the set of a kept record again, and put pictures of its way beside it if it is the same; in words.

    Raises ValueError for other bits, whose way is that of another set, and for a selection, which has none.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = run_again(record, Path(folder), pictures=True)
        if made["synthetic_hash"] != record["synthetic_hash"]:
            raise ValueError(f"Other bits than those of {kept.name}, so no picture is kept: {ELSEWHERE}.")
        found = sorted(Path(folder).glob("*.png"), key=lambda path: int(path.stem))
        if not found:
            raise ValueError(f"{record['arm']!r} is a selection: there is no way to it to keep pictures of.")
        pictures = kept.parent / "snapshots" / kept.stem
        pictures.mkdir(parents=True, exist_ok=True)
        for path in found:
            shutil.copy2(path, pictures)
    return f"Pictures of {plural(len(found), 'iteration')}: {pictures}"


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
    says = f"Other bits ({ELSEWHERE}): the mean accuracy is {100 * away:.2f} points away; "
    return away <= allowed, f"{says}{100 * allowed:.2f} are allowed."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one arm and seed again; not 0 if it comes out otherwise."""
    parser = argparse.ArgumentParser(prog="python workflow/reproduce.py", description=__doc__)
    parser.add_argument("arm", help="as the records name it, such as 'clom' or 'clom random'")
    parser.add_argument("--seed", type=int, help="default: the first that is kept")
    parser.add_argument("--pictures", action="store_true", help="make the set alone, and keep pictures of its way")
    parser.add_argument("--grid", help="of params/sweeps, without .yaml; default: the first that has the arm")
    given = parser.parse_args(arguments)
    try:
        paths = kept_of(given.arm, given.grid)
        kept = {seed: read_record(path) for seed, path in paths.items()}
        seed = min(kept) if given.seed is None else given.seed
        if seed not in kept:
            raise ValueError(f"no record of {given.arm!r} with seed {seed}; kept: {', '.join(map(str, sorted(kept)))}.")
    except ValueError as error:
        sys.exit(str(error))
    lend_ptms()
    if given.pictures:
        try:
            print(keep_pictures(kept[seed], paths[seed]))
        except ValueError as error:
            sys.exit(str(error))
        return 0
    took = sum(kept[seed]["seconds"].get(part, 0) for part in ("distill", "evaluate"))
    print(f"{given.arm}, seed {seed}: it took {took / 60:.0f} min on {kept[seed]['environment']['device_name']}")
    with tempfile.TemporaryDirectory() as folder:
        made = run_again(kept[seed], Path(folder))
    repeated, says = verdict(kept, seed, made)
    print(f"{beside(kept[seed], made).round(2).to_string()}\n{says}")
    return 0 if repeated else 1


if __name__ == "__main__":
    sys.exit(main())
