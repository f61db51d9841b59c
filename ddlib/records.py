"""Run records: one small JSON file for one run, which is one arm with one seed, and so one synthetic set.

A record holds what shaped the result (parameters, data, PTMs, code, software, machine), what it cost, and
every raw accuracy. Means and intervals are never stored; ``statistics`` computes them from records. The
synthetic set of a run lies beside its record under the same stem: ``synthetic_path``.

The field ``sha256`` is a checksum of all others, whatever their order and layout: a changed digit is found.
"""

import datetime
import hashlib
import json
import math
import re
import shutil
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ddlib.files import replacing
from ddlib.provenance import code_hash, environment, git_commit
from ddlib.schema import ACCURACY_COLUMNS, SCHEMA, plain, validate

HISTORY_ROWS = 200
UNKNOWN = "not recorded"  # the reason of a failed run, in the first records
ERROR_LENGTH = 300  # of the message in the reason of a failed run
# The folders of an absolute path: inside quotes, where they may hold spaces, and elsewhere.
FOLDERS = (
    re.compile(r"""(?<=['"])(?:~?/|[A-Za-z]:[\\/])(?:[^\\/'"]*[\\/]+)*(?=[^\\/'"])"""),
    re.compile(r"""(?<![\w.:/\\])(?:~?/|[A-Za-z]:[\\/])(?:[^\s\\/'"]+[\\/]+)*(?=[^\s\\/'"])"""),
)
# The leading columns of the table that load_records gives.
SETTING = ("run", "notebook", "dataset", "arm", "base_method", "guidance", "strategy", "num_ptms", "ipc")
FIRST_COLUMNS = (*SETTING, "seed", "architecture", "network", "augment", "accuracy")
ORIGIN = ("device", "status", "created", "code_hash", "git_commit", "parameter_hash", "dataset_hash")


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
    status: str = "ok",
    error: str | None = None,
    arm: str = "",
) -> Path:
    """Write the record of one run and return its path; a record of the same run is replaced, atomically.

    Args:
        folder: made if absent.
        parameters: everything that shaped the result; leave out what did not (folders, device), for it
            would make equal runs look different and publish local paths.
        seed: of the synthetic set.
        accuracies: raw, columns ``ACCURACY_COLUMNS`` (accuracy a fraction, seconds per network).
        history: one row per recorded iteration; at most 200 evenly spaced rows are kept, the first and the
            last among them, with six digits.
        seconds: parts of the run by name, such as ``{"ptms": 3.1, "distill": 20.5, "evaluate": 8.0}``.
        error: of a failed run, its reason in one line (``reason``).
        arm: name of the arm in tables; the default is made of guidance and strategy.
    Raises:
        ValueError: a value cannot be right (accuracy of 65, seed of another run, unknown status).
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
        "arm": arm or default_arm(parameters),
        "seed": seed,
        "parameters": parameters,
        "parameter_hash": path.stem.split("-")[1],
        "code_hash": code_hash(),
        "git_commit": git_commit(),
        "dataset_hash": dataset_hash,
        "ptm_hashes": list(ptm_hashes),
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
    record = {name: plain(value, name) for name, value in record.items()}
    validate(record, path.name)
    record["sha256"] = checksum(record)
    # One line a field: readable, small, and a changed field is one changed line.
    text = ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in record.items())
    with replacing(path) as temporary:
        temporary.write_text("{\n" + text + "\n}\n", encoding="utf-8")
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
    if code == code_hash():
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
    if record.pop("sha256", found) != found:  # records of earlier versions have none
        raise ValueError(f"{path}: damaged or edited, its checksum does not match its content; delete it and run again")
    record["accuracies"] = _frame(record["accuracies"])
    record["history"] = _frame(record["history"])
    return record


def checksum(record: Mapping[str, object]) -> str:
    """16 hex digits for all fields of a record but ``sha256``, in any order and layout."""
    held = {name: value for name, value in record.items() if name != "sha256"}
    text = json.dumps(held, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_records(folder: str | Path) -> pd.DataFrame:
    """All records of a folder as one tidy table, one row per (run, architecture, network, augment).

    Columns: ``FIRST_COLUMNS``, then ``seconds`` (of this network) and costs of the run (``seconds_<part>``,
    ``ptm_passes``, ``peak_memory_mb`` in 10^6 bytes), origin (hashes, device, ...), and all other parameters;
    lists in parameters become text. A record's own field wins over a parameter of the same name.
    Runs without accuracies (status "failed") have no row, and a warning names them.

    Raises:
        FileNotFoundError: no folder, or no record in it.
        ValueError: records are damaged; names every one of them.
    """
    records = _read_all(folder)
    rows = [row for run, record in records.items() for row in _tidy(run, record)]
    empty = {run: record for run, record in records.items() if record["accuracies"].empty}
    if not rows:
        reasons = [f"{run}.json: {record.get('error', UNKNOWN)}" for run, record in empty.items()]
        raise ValueError("\n".join([f"no record in {folder} holds accuracies, all its runs failed:", *reasons]))
    if empty:
        names = ", ".join(f"{run}.json ({record['status']})" for run, record in empty.items())
        warnings.warn(f"runs without accuracies are left out: {names}", stacklevel=2)
    return _ordered_columns(pd.DataFrame(rows))


def load_failures(folder: str | Path) -> pd.DataFrame:
    """The runs of a folder that failed, a row each: the columns of ``load_records`` without accuracies, and ``error``.

    No rows if none failed; a run that was killed or interrupted leaves no record. Raises as ``load_records`` does for
    no or damaged records.
    """
    rows = [
        {**_about(run, record), "error": record.get("error", UNKNOWN)}
        for run, record in _read_all(folder).items()
        if record["status"] == "failed"
    ]
    return _ordered_columns(pd.DataFrame(rows)) if rows else pd.DataFrame(columns=[*SETTING, "seed", "error"])


def default_arm(parameters: Mapping[str, object]) -> str:
    """The name of an arm when none is given: its guidance, and the strategy if that combines several PTMs."""
    guidance, strategy = parameters.get("guidance", "none"), parameters.get("strategy", "single")
    return str(guidance) if guidance == "none" or strategy == "single" else f"{guidance} {strategy}"


def _read_all(folder: str | Path) -> dict[str, dict[str, object]]:
    """All records by the names of their runs."""
    paths = sorted(Path(folder).glob("*.json"))
    if not paths:
        raise FileNotFoundError(
            f"no run records (*.json) in {folder}: run a notebook first, for example "
            "`papermill notebooks/01_guidance.ipynb out.ipynb`, or `make book`"
        )
    records, damaged = {}, []
    for path in paths:
        try:
            records[path.stem] = read_record(path)
        except ValueError as error:
            damaged.append(str(error))
    if damaged:
        raise ValueError("\n".join([f"{len(damaged)} of {len(paths)} records cannot be read:", *damaged]))
    return records


def _code_of_result(path: Path) -> str | None:
    """The code hash of the record there, if it holds a result."""
    try:
        record = read_record(path)
    except (OSError, ValueError):
        return None
    return record["code_hash"] if record["status"] == "ok" else None


def _tidy(run: str, record: Mapping[str, object]) -> list[dict[str, object]]:
    about = _about(run, record)
    return [{**about, **row} for row in record["accuracies"].to_dict("records")]


def _about(run: str, record: Mapping[str, object]) -> dict[str, object]:
    """All of a record but its accuracies and its history, flat."""
    memory = record["peak_memory_bytes"]
    own = ("notebook", "arm", "seed", "ptm_passes", *ORIGIN, "ptm_hashes", "synthetic_hash")
    shared = {
        "run": run,
        **{name: _text(record[name]) for name in own},
        **{f"seconds_{part}": value for part, value in record["seconds"].items()},
        "peak_memory_mb": math.nan if memory is None else memory / 1e6,
        **record["environment"],
    }
    parameters = {name: _text(value) for name, value in record["parameters"].items() if name not in shared}
    return {**parameters, **shared}


def _ordered_columns(table: pd.DataFrame) -> pd.DataFrame:
    first = [column for column in FIRST_COLUMNS if column in table]
    return table[[*first, *(column for column in table if column not in first)]]


def _text(value: object) -> object:
    """Lists and dicts as text, so that table columns can be grouped by."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return json.dumps(value) if isinstance(value, dict) else value


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
    filled = {name: [math.nan if v is None else v for v in values] for name, values in columns.items()}
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
