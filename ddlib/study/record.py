"""Run records: one small JSON file for one run, which is one arm with one seed, and so one synthetic set.

A record holds what shaped the result (parameters, data, PTMs, code, software, machine), what it cost, and
every raw accuracy: the fields are those of ``ddlib.study.schema.Record``. Means and intervals are never stored;
``statistics`` computes them from records. The synthetic set of a run lies beside its record under the same stem:
``synthetic_path``.

The field ``sha256`` is a checksum of all others, whatever their order and layout: a changed digit is found.
"""

import datetime
import hashlib
import json
import math
import re
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ddlib.disk.files import replacing
from ddlib.study.provenance import environment, git_commit, run_hash
from ddlib.study.schema import ACCURACY_COLUMNS, SCHEMA, validate

HISTORY_ROWS = 200
ERROR_LENGTH = 300  # of the message in the reason of a failed run
# The folders of an absolute path: inside quotes, where they may hold spaces, and elsewhere.
FOLDERS = (
    re.compile(r"""(?<=['"])(?:~?/|[A-Za-z]:[\\/])(?:[^\\/'"]*[\\/]+)*(?=[^\\/'"])"""),
    re.compile(r"""(?<![\w.:/\\])(?:~?/|[A-Za-z]:[\\/])(?:[^\s\\/'"]+[\\/]+)*(?=[^\s\\/'"])"""),
)


def parameter_hash(parameters: Mapping[str, object]) -> str:
    """16 hex digits for a set of parameters in any order; floats count with all digits (1 is not 1.0).

    Raises:
        ValueError: a number is infinite or NaN.
        TypeError: a value is not a number, text, None, list or dict of these.
    """
    text = json.dumps(plain(parameters, "parameters"), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def record_path(folder: str | Path, notebook: str, parameters: Mapping[str, object], seed: int) -> Path:
    """Where the record of a run lies. All seeds of one setting share the hash in the name."""
    if not re.fullmatch(r"[\w.]+", notebook):
        raise ValueError(f"notebook is {notebook!r}; expected letters, digits, '_', such as '01_guidance'")
    if not isinstance(seed, Integral):
        raise ValueError(f"seed is {seed!r}; expected a whole number")
    shared = {name: value for name, value in parameters.items() if name != "seed"}
    return Path(folder) / f"{notebook}-{parameter_hash(shared)}-seed{seed}.json"


def synthetic_path(record: str | Path) -> Path:
    """Where the synthetic set of a record lies: beside it, with the same stem."""
    return Path(record).with_suffix(".safetensors")


def write_record(
    folder: str | Path,
    *,
    notebook: str,
    arm: str,
    parameters: Mapping[str, object],
    seed: int,
    dataset_hash: str,
    ptm_hashes: Sequence[str],
    accuracies: pd.DataFrame,
    history: pd.DataFrame,
    seconds: Mapping[str, float],
    peak_memory_bytes: int | None,
    ptm_passes: int,
    synthetic_hash: str | None,
    device: torch.device | str,
    class_names: Sequence[str] = (),
    ptms: Sequence[Mapping[str, object]] = (),
    ptm_accuracies: Sequence[Mapping[str, object]] = (),
    ptm_gradients: Sequence[Mapping[str, object]] = (),
    status: str = "ok",
    error: str | None = None,
) -> Path:
    """Write the record of one run and return its path; a record of the same run is replaced, atomically.

    The keywords are fields of ``ddlib.study.schema.Record``. ``parameters`` holds all that shaped the result and
    nothing else: folders or the device would make equal runs look different and publish local paths. ``accuracies``
    has the columns ``ACCURACY_COLUMNS``. Of ``history``, a row for each recorded iteration, at most 200 evenly spaced
    ones are kept, the first and the last among them, with six digits. ``error`` is the ``reason`` of a failed run.
    Raises ValueError if a value cannot be right (accuracy of 65, seed of another run, unknown status).
    """
    path = record_path(folder, notebook, parameters, seed)
    if parameters.get("seed", seed) != seed:
        raise ValueError(f"seed is {seed}, but parameters['seed'] is {parameters['seed']}: they must agree")
    record = {
        "schema": SCHEMA,
        "status": status,
        **({} if error is None else {"error": error}),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "notebook": notebook,
        "arm": arm,
        "seed": seed,
        "parameters": parameters,
        "parameter_hash": path.stem.split("-")[1],
        "code_hash": run_hash(),
        "git_commit": git_commit(),
        "dataset_hash": dataset_hash,
        "class_names": list(class_names),
        "ptm_hashes": list(ptm_hashes),
        "ptms": list(ptms),
        "ptm_accuracies": list(ptm_accuracies),
        "ptm_gradients": list(ptm_gradients),
        "synthetic_hash": synthetic_hash,
        "device": str(device),
        "environment": environment(device),
        "seconds": seconds,
        "peak_memory_bytes": peak_memory_bytes,
        "ptm_passes": ptm_passes,
        "accuracies": _columns(accuracies),
        "history": _columns(_thin(history), 6),
        "history_length": len(history),
    }
    _write(path, {name: plain(value, name) for name, value in record.items()})
    return path


def write_failure(
    folder: str | Path,
    error: Exception,
    *,
    notebook: str,
    parameters: Mapping[str, object],
    seed: int,
    **about: object,
) -> Path | None:
    """Write that a run failed, and why; ``about`` is the rest that is known (arguments of :func:`write_record`).

    A result that the same code wrote stays, and None is returned: then the machine failed, not the method. A result
    of other code does not speak for this one; it is set aside, as ``<run>.<its code hash>``.
    """
    path = record_path(folder, notebook, parameters, seed)
    code = _code_of_result(path)
    if code == run_hash():
        return None
    if code:
        shutil.copy2(path, path.with_suffix(f".{code}"))
    nothing = {
        "accuracies": pd.DataFrame(columns=ACCURACY_COLUMNS),
        "history": pd.DataFrame(columns=["iteration"]),
        "seconds": {},
        "ptm_passes": 0,
        "synthetic_hash": None,
    }
    run = {**nothing, **about, "notebook": notebook, "parameters": parameters, "seed": seed}
    return write_record(folder, **run, status="failed", error=reason(error))


def reason(error: Exception) -> str:
    """An error in one line, ``"ValueError: ..."``: the first line of its message, and its notes; no local paths."""
    message = (str(error).strip().splitlines() or [""])[0]
    text = f"{type(error).__name__}: {textwrap.shorten(message, ERROR_LENGTH, placeholder=' ...')}".removesuffix(": ")
    text = " ".join([text, *getattr(error, "__notes__", ())])
    home = Path.home()
    text = text.replace(str(home), "~") if home != home.parent else text  # it may hold spaces
    for folders in FOLDERS:
        text = folders.sub("", text)
    return " ".join(text.split())


def read_record(path: str | Path) -> dict[str, object]:
    """One record, checked; ``accuracies`` and ``history`` as DataFrames.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: names the file and the field that is wrong, or says that the content is not what was written.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        record = json.loads(text, object_pairs_hook=_unique, parse_int=_int, parse_float=_float, parse_constant=_float)
        found = checksum(record) if isinstance(record, dict) else None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON as ddlib writes it ({error}); delete it and run again") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path}: holds a {type(record).__name__}, expected an object with named fields")
    validate(record, path)
    if record.pop("sha256", found) != found:  # one written by another tool may have none
        raise ValueError(f"{path}: damaged or edited, its checksum does not match its content; delete it and run again")
    record["accuracies"] = _frame(record["accuracies"])
    record["history"] = _frame(record["history"])
    return record


def checksum(record: Mapping[str, object]) -> str:
    """16 hex digits for all fields of a record but ``sha256``, in any order and layout."""
    held = {name: value for name, value in record.items() if name != "sha256"}
    text = json.dumps(held, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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


def _write(path: Path, record: dict[str, object]) -> None:
    validate(record, path.name)
    record["sha256"] = checksum(record)
    # One line a field: readable, small, and a changed field is one changed line.
    text = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in record.items())
    with replacing(path) as temporary:
        temporary.write_text("{\n" + text + "\n}\n", encoding="utf-8")


def _code_of_result(path: Path) -> str | None:
    """The code hash of the record there, if it holds a result."""
    try:
        record = read_record(path)
    except (OSError, ValueError):
        return None
    return record["code_hash"] if record["status"] == "ok" else None


def _thin(history: pd.DataFrame) -> pd.DataFrame:
    if len(history) <= HISTORY_ROWS:
        return history
    kept = np.linspace(0, len(history) - 1, HISTORY_ROWS).round().astype(int)
    return history.iloc[kept]


def _columns(frame: pd.DataFrame, digits: int = 17) -> dict[str, list[object]]:
    def shorten(value: object) -> object:
        if isinstance(value, list | tuple | np.ndarray):
            return [shorten(v) for v in value]
        if isinstance(value, float | np.floating):
            return float(f"{value:.{digits}g}") if math.isfinite(value) else None  # JSON knows no NaN
        return value

    return {str(name): [shorten(value) for value in frame[name]] for name in frame}


def _frame(columns: Mapping[str, list[object]]) -> pd.DataFrame:
    there = {name: values for name, values in columns.items() if values is not None}
    filled = {name: [math.nan if v is None else v for v in values] for name, values in there.items()}
    return pd.DataFrame(filled)


# What json.loads lets through, and no record of ours holds: doubled names, numbers beyond 64 bits, NaN.


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(named := dict(pairs)) < len(pairs):
        raise ValueError(f"a name stands twice among {[name for name, _ in pairs]!r:.80}")
    return named


def _int(digits: str) -> int:
    if len(digits) > 19:
        raise ValueError(f"the number {digits:.20}... is too large")
    return int(digits)


def _float(digits: str) -> float:
    if not math.isfinite(value := float(digits)):
        raise ValueError(f"{digits:.20} is no finite number")
    return value
