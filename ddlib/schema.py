"""What a run record is made of: its fields, their types, and how to check one."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

SCHEMA = 1
ACCURACY_COLUMNS = ("architecture", "network", "augment", "accuracy", "seconds")
FIELDS = {  # field: the types it may have
    **dict.fromkeys(("schema", "seed", "ptm_passes", "history_length"), (int,)),
    **dict.fromkeys(("status", "created", "notebook", "arm", "device"), (str,)),
    **dict.fromkeys(("parameter_hash", "code_hash", "dataset_hash"), (str,)),
    **dict.fromkeys(("git_commit", "synthetic_hash"), (str, type(None))),
    **dict.fromkeys(("parameters", "environment", "seconds", "accuracies", "history"), (dict,)),
    "ptm_hashes": (list,),
    "peak_memory_bytes": (int, type(None)),
}
OPTIONAL = {"error": (str,)}  # why a run failed, in one line; records of schema 1 from before it lack it
STATUSES = ("ok", "failed")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


COLUMNS = {  # of accuracies, the accuracy itself aside: what each value must be, and the same in words
    "architecture": (lambda value: isinstance(value, str), "names"),
    "network": (lambda value: _is_number(value) and value == int(value) >= 0, "whole numbers"),
    "augment": (lambda value: isinstance(value, bool), "true or false"),
    "seconds": (lambda value: value is None or (_is_number(value) and value >= 0), "numbers of 0 or more"),
}


def validate(record: Mapping[str, object], where: str | Path) -> None:
    """Raises ValueError naming ``where`` (the file) and the field that is missing, unknown, mistyped or impossible."""

    def wrong(field: str, found: str) -> ValueError:
        return ValueError(f"{where}: field {field!r} {found}")

    if unknown := record.keys() - FIELDS.keys() - OPTIONAL.keys() - {"sha256"}:
        raise wrong(min(unknown), "is unknown")
    if missing := [field for field in FIELDS if field not in record]:
        raise wrong(missing[0], "is missing")
    for field, kinds in (FIELDS | OPTIONAL).items():
        if field not in record:
            continue
        value = record[field]
        if not isinstance(value, kinds) or isinstance(value, bool):
            expected = " or ".join(kind.__name__ for kind in kinds)
            raise wrong(field, f"is {value!r:.60}, expected {expected}")
        if field == "schema" and value != SCHEMA:
            raise wrong(field, f"is {value}, this ddlib reads {SCHEMA}: use a matching ddlib or run again")
    if record["status"] not in STATUSES:
        raise wrong("status", f"is {record['status']!r}, expected one of {', '.join(STATUSES)}")
    if "error" in record and (record["status"] != "failed" or len(record["error"].splitlines()) != 1):
        raise wrong("error", f"is {record['error']!r:.60}, expected one line, and that of a failed run only")
    for field in ("accuracies", "history"):
        if no_list := [name for name, values in record[field].items() if not isinstance(values, list)]:
            raise wrong(field, f"has columns that are no lists: {no_list}")
        lengths = {name: len(values) for name, values in record[field].items()}
        if len(set(lengths.values())) > 1:
            raise wrong(field, f"has columns of unequal length: {lengths}")
    if missing := [name for name in ACCURACY_COLUMNS if name not in record["accuracies"]]:
        raise wrong("accuracies", f"lacks the columns {missing}")
    accuracies = record["accuracies"]["accuracy"]
    if bad := [value for value in accuracies if not (_is_number(value) and 0 <= value <= 1)]:
        raise wrong("accuracies", f"holds {bad[:3]!r:.60}, expected fractions in 0..1")
    for column, (fits, expected) in COLUMNS.items():
        if bad := [value for value in record["accuracies"][column] if not fits(value)]:
            raise wrong("accuracies", f"holds {bad[:3]!r:.60} as {column}, expected {expected}")
    if bad := [value for value in record["seconds"].values() if not (_is_number(value) and value >= 0)]:
        raise wrong("seconds", f"holds {bad[:3]!r:.60}, expected numbers of 0 or more")
    if record["status"] == "ok" and not accuracies:
        raise wrong("accuracies", "is empty, but the status is ok: write a run without accuracies as failed")


def plain(value: object, name: str) -> object:
    """The value in types JSON knows: numpy and torch scalars become Python's, tuples lists.

    Raises ValueError for NaN and infinity, TypeError for other types, both naming the value by ``name``.
    """
    if isinstance(value, np.generic) or (isinstance(value, torch.Tensor) and value.ndim == 0):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{name}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, name) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value}: records hold finite numbers, or None for 'no value'")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}; records hold numbers, text, None, lists and dicts")
