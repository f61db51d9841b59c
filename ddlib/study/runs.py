"""A folder of run records as one table, and what is chosen from it: settings, ablations, failures."""

import itertools
import json
import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from ddlib.guidance import GUIDANCE
from ddlib.study.ablations import ABLATIONS, first_named
from ddlib.study.allowed import counted
from ddlib.study.arms import FILE, Arm, is_selection
from ddlib.study.parameters import PARAMETERS
from ddlib.study.record import read_record

UNKNOWN = "not recorded"  # the reason of a failed run, in the first records
# The leading columns of the table that load_records gives.
SETTING = ("run", "notebook", "dataset", "arm", "base_method", "guidance", "strategy", "num_ptms", "ipc")
FIRST_COLUMNS = (*SETTING, "seed", "architecture", "network", "augment", "accuracy")
ORIGIN = ("device", "status", "created", "code_hash", "git_commit", "parameter_hash", "dataset_hash")
FILES = ("dataset_files", "source_files")  # ddlib.study.run adds them to the parameters, for image folders
# What tells arms of one ablation apart; everything else that was set is the setting they share.
ARM_COLUMNS = ("base_method", "guidance", "strategy", "num_ptms", "equal_passes", "guide_every", "seed", "setting")
ALPHAS = {losses: f"alpha_{losses[0]}" for losses in GUIDANCE.values() if len(losses) == 1}
POOL = "unusual_pool"  # a column, for a while


def load_records(folder: str | Path) -> pd.DataFrame:
    """All records of a folder as one tidy table, one row per (run, architecture, network, augment).

    Columns: ``FIRST_COLUMNS``, then ``seconds`` (of this network) and costs of the run (``seconds_<part>``,
    ``ptm_passes``, ``peak_memory_mb`` in 10^6 bytes), ``guide_accuracy`` and ``judge_accuracy`` (the mean share of the
    set that PTMs recognise), origin (hashes, device, ...), and all other parameters;
    lists in parameters become text. A record's own field wins over a parameter of the same name.
    Runs without accuracies (status "failed") have no row, and a warning names them.

    Raises:
        FileNotFoundError: no folder, or no record in it.
        ValueError: records are damaged; names every one of them.
    """
    records = _read_all(folder)
    table = _accuracies(records)
    empty = {run: record for run, record in records.items() if record["accuracies"].empty}
    if table.empty:
        reasons = [f"{run}.json: {record.get('error', UNKNOWN)}" for run, record in empty.items()]
        raise ValueError("\n".join([f"no record in {folder} holds accuracies, all its runs failed:", *reasons]))
    if empty:
        names = ", ".join(f"{run}.json ({record['status']})" for run, record in empty.items())
        warnings.warn(f"runs without accuracies are left out: {names}", stacklevel=2)
    return table


def load_gradients(folder: str | Path) -> pd.DataFrame:
    """How the gradients of PTMs lay to each other in the runs of a folder, a row for each logged pair.

    Columns: ``run``, ``arm``, ``seed``, ``iteration``, ``pair`` (two numbers of PTMs), ``cosine``, ``ratio`` (of the
    longer gradient to the shorter; infinite beside one of length 0). No rows for runs of one PTM. Raises as
    ``load_records`` does for no or damaged records.
    """
    rows = []
    for run, record in _read_all(folder).items():
        for logged in record.get("ptm_gradients", []):
            about = {"run": run, "arm": record["arm"], "seed": record["seed"], "iteration": logged["iteration"]}
            for i, j in itertools.combinations(range(len(logged["norms"])), 2):
                shorter, longer = sorted((logged["norms"][i], logged["norms"][j]))
                pair = {"pair": f"{i}-{j}", "cosine": logged["cosines"][i][j]}
                rows.append({**about, **pair, "ratio": longer / shorter if shorter > 0 else math.inf})
    return pd.DataFrame(rows, columns=["run", "arm", "seed", "iteration", "pair", "cosine", "ratio"])


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


def _accuracies(records: Mapping[str, Mapping[str, object]]) -> pd.DataFrame:
    rows = []
    for run, record in records.items():
        about = _about(run, record)
        rows += [{**about, **row} for row in record["accuracies"].to_dict("records")]
    return _ordered_columns(pd.DataFrame(rows))


def _failures(records: Mapping[str, Mapping[str, object]]) -> pd.DataFrame:
    rows = [
        {**_about(run, record), "error": record.get("error", UNKNOWN)}
        for run, record in records.items()
        if record["status"] == "failed"
    ]
    return _ordered_columns(pd.DataFrame(rows)) if rows else pd.DataFrame(columns=[*SETTING, "seed", "error"])


def _about(run: str, record: Mapping[str, object]) -> dict[str, object]:
    """All of a record but its accuracies and its history, flat."""
    memory = record["peak_memory_bytes"]
    own = ("notebook", "arm", "seed", "ptm_passes", *ORIGIN, "ptm_hashes", "synthetic_hash")
    shared = {
        "run": run,
        **{name: _text(record[name]) for name in own},
        **{f"seconds_{part}": value for part, value in record["seconds"].items()},
        "seconds_ptms": _training_seconds(record),
        "peak_memory_mb": math.nan if memory is None else memory / 1e6,
        **record["environment"],
        "class_names": tuple(record.get("class_names", ())),
        "ptms": json.dumps(record.get("ptms", [])),
        **{f"{role}_accuracy": _recognised(record, role) for role in ("guide", "judge")},
    }
    parameters = {name: _text(value) for name, value in record["parameters"].items() if name not in shared}
    return {**parameters, **shared}


def _training_seconds(record: Mapping[str, object]) -> float:
    """Of the training of the PTMs that a run asked: of a pool the first alone, if that is fixed or chooses images."""
    parameters = record["parameters"]
    first = parameters.get("strategy") == "single" or is_selection(str(parameters.get("base_method")))
    if first and record.get("ptms"):
        return record["ptms"][0].get("seconds") or 0.0
    return record["seconds"].get("ptms", math.nan)


def _recognised(record: Mapping[str, object], role: str) -> float:
    """The mean share of the synthetic set that its PTMs of a role recognise; NaN without any."""
    shares = [said["accuracy"] for said in record.get("ptm_accuracies", []) if said["role"] == role]
    return sum(shares) / len(shares) if shares else math.nan


def _ordered_columns(table: pd.DataFrame) -> pd.DataFrame:
    first = [column for column in FIRST_COLUMNS if column in table]
    return table[[*first, *(column for column in table if column not in first)]]


def _text(value: object) -> object:
    """Lists and dicts as text, so that table columns can be grouped by."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return json.dumps(value) if isinstance(value, dict) else value


def load_runs(folder: str | Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The records of a folder (``load_records``) and its failed runs, a row each, both with the column ``setting``.

    Failed runs have the same columns without accuracies, and ``error``; one that was killed or interrupted leaves no
    record. Either table may have no rows.

    Raises:
        FileNotFoundError: no folder, or no record in it.
        ValueError: records are damaged; names every one of them.
    """
    read = _read_all(folder)
    records, failures = _accuracies(read), _failures(read)
    together = pd.concat([table for table in (records, failures) if not table.empty], ignore_index=True)
    settings = with_settings(together.assign(accuracy=together.get("accuracy")))["setting"].to_numpy()
    return records.assign(setting=settings[: len(records)]), failures.assign(setting=settings[len(records) :])


def with_settings(records: pd.DataFrame) -> pd.DataFrame:
    """The records with a column ``setting``: 0 for the setting with most runs, then 1, 2, ...

    Runs of one setting share the data and every parameter but those that make the arm, so they can be compared. Failed
    runs, which have no accuracy, do not count, nor do sets from files: they stand beside runs of any setting. Guidance
    alone has alphas of its own, for its learning rate is another: on the test split, where each arm has one, they make
    no setting.
    """
    records = records.assign(**{POOL: _unusual_pool(records)})
    columns = [*setting_columns(records), "dataset_hash", POOL]
    keys, own = keys_of(records, columns), _alphas_of_its_own(records)
    if own.any():
        rest = keys_of(records, [name for name in columns if name not in ALPHAS.values()])
        usual = keys[~own].groupby(rest[~own]).agg(lambda of: of.mode().iloc[0])
        keys = keys.where(~own, rest.map(usual).fillna(keys))
    runs = records["run"].where(records["accuracy"].notna() & (records["base_method"] != FILE))
    order = runs.groupby(keys).nunique().sort_values(ascending=False, kind="stable").index
    return records.assign(setting=keys.map({key: index for index, key in enumerate(order)})).drop(columns=POOL)


def _unusual_pool(records: pd.DataFrame) -> pd.Series:
    """``num_ptms`` where it is not the usual one of the notebook: ablations differ in it, and their arms do not."""
    sizes = records["num_ptms"].where(records["guidance"].fillna("none") != "none")
    usual = sizes.groupby(records["notebook"]).agg(lambda of: of.mode().min())
    return sizes.where(sizes != records["notebook"].map(usual))


def _alphas_of_its_own(records: pd.DataFrame) -> pd.Series:
    tested = records["evaluate_on"] == "test" if "evaluate_on" in records else False
    return (records["base_method"] == "none") & tested


def choose_setting(records: pd.DataFrame, setting: int, base_method: str = "dm") -> pd.DataFrame:
    """The records of one setting and base method, and those of real images and of guidance alone, which need none.

    Raises ValueError, naming the settings there are, for another number.
    """
    known = sorted(records["setting"].unique())
    if not known:
        raise ValueError("no run has accuracies: all failed")
    if setting not in known:
        raise ValueError(f"setting is {setting}; the records have the settings {', '.join(map(str, known))}")
    return _of_setting(records, setting, base_method)


def failed_arms(
    failures: pd.DataFrame, chosen: pd.DataFrame, setting: int, base_method: str = "dm"
) -> dict[str, dict[str, int]]:
    """How many runs failed, by notebook and arm, in what ``choose_setting`` and ``ablation`` select (``chosen``)."""
    failures = _of_setting(failures, setting, base_method)
    return {notebook: _failed_arms(failures, ablation(chosen, notebook), notebook) for notebook in ABLATIONS}


def _failed_arms(failures: pd.DataFrame, shown: pd.DataFrame, notebook: str) -> dict[str, int]:
    failed = failures[failures["notebook"] == notebook]
    return _without_twins(failed, notebook, shown["arm"])["arm"].value_counts().to_dict()


def ablation(records: pd.DataFrame, notebook: str, augment: bool = True) -> pd.DataFrame:
    """The rows of one notebook (a key of ``ABLATIONS``), of networks trained with augmentation or without.

    Of two strategies that are one method (``Ablation.one_method``) one row is enough: one is left out.
    """
    rows = records[(records["notebook"] == notebook) & (records["augment"] == augment)]
    return _without_twins(rows, notebook, rows["arm"])


def _without_twins(runs: pd.DataFrame, notebook: str, there: Iterable[str]) -> pd.DataFrame:
    """The runs without those arms that an arm which is there stands for."""
    one_method, there = ABLATIONS[notebook].one_method, set(there)
    arms = {arm for arm in map(Arm.named, runs["arm"].unique()) if arm.strategy in one_method}
    twins = {arm.name for arm in arms if replace(arm, strategy=one_method[arm.strategy]).name in there}
    return runs[~runs["arm"].isin(twins)]


def reference(records: pd.DataFrame) -> pd.DataFrame:
    """The rows of one ablation that its contrasts are about: those of its reference architecture."""
    if records.empty:
        return records
    first = records.iloc[0]
    names = list(counted(first["architectures"]))
    choose = ABLATIONS[first["notebook"]].reference if first["notebook"] in ABLATIONS else first_named
    return records[records["architecture"] == choose(names)]


def stacked(*tables: pd.DataFrame) -> pd.DataFrame:
    """Tables of records below each other; empty ones, whose columns have no types, are left out."""
    return pd.concat([table for table in tables if not table.empty] or [tables[0]], ignore_index=True)


def _of_setting(runs: pd.DataFrame, setting: int, base_method: str) -> pd.DataFrame:
    of_all = (base_method, "none", FILE)
    methods = [name for name in runs["base_method"].unique() if name in of_all or is_selection(name)]
    return runs[(runs["setting"] == setting) & runs["base_method"].isin(methods)]


def keys_of(records: pd.DataFrame, columns: list[str]) -> pd.Series:
    """Some columns of each row as one text; None and NaN are one, for a column of numbers has no None."""
    return records[columns].map(lambda value: "None" if pd.isna(value) else str(value)).agg("|".join, axis=1)


def setting_columns(records: pd.DataFrame) -> list[str]:
    """The parameters that make a setting: all but those that tell its arms apart."""
    return [name for name in records if (name in PARAMETERS or name in FILES) and name not in ARM_COLUMNS]
