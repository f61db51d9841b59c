"""What a comparison shows beside its arms, sets from files and longer runs without guidance, and what it leaves out."""

import pandas as pd

from ddlib.base_methods import BASE_METHODS
from ddlib.study.ablations import ABLATIONS
from ddlib.study.allowed import names
from ddlib.study.arms import FILE, Arm, is_selection
from ddlib.study.runs import keys_of, setting_columns
from ddlib.study.words import plural

# What a set from a file shares with the runs that it stands beside: data, size, and how it was evaluated.
JUDGED = ("dataset_hash", "evaluate_on", "image_size", "ipc", "width")
JUDGED += ("architectures", "num_eval", "eval_epochs", "eval_epochs_plain")


def from_files(records: pd.DataFrame, chosen: pd.DataFrame, soft: bool = False, augment: bool = True) -> pd.DataFrame:
    """The rows of sets from files, with hard or soft labels, that were judged as some of the ``chosen`` runs were.

    Different sets under one name are told apart by their hashes.
    """
    files = records[(records["base_method"] == FILE) & (records["augment"] == augment)]
    if files.empty:
        return files
    files = files[files["label_kind"] == ("soft" if soft else "hard")]
    if files.empty:
        return files
    files = files[keys_of(files, [*JUDGED]).isin(keys_of(chosen, [*JUDGED]))]
    several = files.groupby(["arm", "seed"])["synthetic_hash"].transform("nunique") > 1
    return files.assign(
        arm=files["arm"].where(~several, files["arm"] + files["synthetic_hash"].str[:8].map(" ({})".format))
    )


def left_out(records: pd.DataFrame, setting: int, base_method: str = "dm") -> list[str]:
    """A line for each kind of run that the comparison of a setting does not show, with the reason."""
    lines, kinds = [], ["setting", "arm", "base_method", "notebook"]
    for (place, arm, method, notebook), runs in records.groupby(kinds, dropna=False)["run"]:
        if reason := _why_left_out(place == setting, method, notebook, base_method):
            lines.append(f"Not shown: {plural(runs.nunique(), 'run')} of arm {arm!r} in setting {place}: {reason}.")
    return lines


def as_long(records: pd.DataFrame, shown: pd.DataFrame) -> pd.DataFrame:
    """The runs without guidance that took as many iterations as those with ``equal_passes`` among the ``shown`` ones.

    These run K times as long, and what more iterations do by themselves should stand beside them. All else is equal.
    The arm is named by its number of iterations. No rows if there are no such runs.
    """
    if "equal_passes" not in shown or "iterations" not in shown:
        return records.head(0)
    longer = shown[shown["equal_passes"].isin([True]) & (shown["guidance"] != "none")]  # of files it is NaN
    if longer.empty:
        return records.head(0)
    architectures = longer["ptm_architectures"].map(names).map(len) if "ptm_architectures" in longer else 1
    length = (longer["iterations"] * longer["num_ptms"] * architectures).astype(int)
    columns = [name for name in setting_columns(records) if name != "iterations"] + ["dataset_hash"]
    wanted = {f"{key}|{n}" for key, n in zip(keys_of(longer, columns), length, strict=True)}
    unguided = records[(records["arm"] == Arm().name) & records["augment"]]
    unguided = unguided.assign(iterations=unguided["iterations"].astype(int))  # beside files it is a column of floats
    rows = unguided[(keys_of(unguided, columns) + "|" + unguided["iterations"].astype(str)).isin(wanted)]
    rows = rows.drop_duplicates(["iterations", "seed", "architecture", "network"])
    return rows.assign(arm=Arm().label + ", " + rows["iterations"].astype(str) + " iterations")


def _why_left_out(here: bool, method: object, notebook: str, base_method: str) -> str:
    """Empty for a run that is shown, or that belongs to another setting and would be shown there."""
    if method not in BASE_METHODS and method != FILE and not is_selection(method):
        return f"base_method {method!r} is unknown to this version (05_evaluate.ipynb judges sets that others made)"
    if notebook not in ABLATIONS and method != FILE:
        return f"notebook {notebook!r} has no row in ddlib.study.ablations.ABLATIONS"
    if here and method in BASE_METHODS and method not in (base_method, "none"):
        return f"its base_method is {method}, to be seen with -p base_method {method}"
    return ""
