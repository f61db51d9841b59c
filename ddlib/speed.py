"""What ``make bench`` measured: its records, read and put into tables."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from pandas.io.formats.style import Styler

NEEDED = ("device", "environment", "gflops", "bandwidth_gb", "rows", "growth", "ensembles")
RATIO = "ratio (spread)"


def load_benchmarks(folder: str | Path) -> list[dict[str, object]]:
    """The records in ``folder``, one for each device, sorted by name.

    Raises FileNotFoundError if there is none, and ValueError that names a damaged one.
    """
    paths = sorted(Path(folder).glob("*.json"))
    if not paths:
        raise FileNotFoundError(f"no benchmark records (*.json) in {folder}: run `make bench` first")
    records = []
    for path in paths:
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: not JSON ({error}); run `make bench` again") from error
        missing = [name for name in NEEDED if name not in record] if isinstance(record, dict) else NEEDED
        if missing:
            raise ValueError(f"{path}: {', '.join(missing)} missing; run `make bench` again")
        records.append(record)
    return records


def machine_table(records: Sequence[Mapping[str, object]]) -> pd.DataFrame:
    """What was measured where, a row for each record."""
    rows = [
        {
            "device": record["environment"]["device_name"],
            "cores used": record["environment"]["torch_threads"],
            "torch": record["environment"]["torch"],
            "GFLOP/s": round(record["gflops"]),
            "GB/s": round(record["bandwidth_gb"]),
            "measured on": record["created"][:10],
            "commit": record["git_commit"],
        }
        for record in records
    ]
    return pd.DataFrame(rows).set_index("device").rename_axis(None)


def rows_of(record: Mapping[str, object]) -> pd.DataFrame:
    """The rows of one record as numbers: ``work``, ``ratio``, ``ratio_min``, ``ratio_max``, ``target``, ..."""
    return pd.DataFrame(record["rows"])


def speed_table(record: Mapping[str, object]) -> pd.DataFrame:
    """The rows of one record for a reader: seconds, ratio with its spread, target, distance to the floor, agreement."""
    rows = rows_of(record)
    spread = [
        f"{ratio:.2f} ({low:.2f}–{high:.2f})"
        for ratio, low, high in zip(rows["ratio"], rows["ratio_min"], rows["ratio_max"], strict=True)
    ]
    columns = {
        "ddlib (s)": [f"{value:.3g}" for value in rows["seconds"]],
        "to beat (s)": [f"{value:.3g}" for value in rows["seconds_against"]],
        RATIO: spread,
        "target": ["" if pd.isna(value) else f"{value:g}" for value in rows["target"]],
        "times the floor": [f"{value:.1f}" for value in rows["seconds"] / rows["floor_seconds"]],
        "convolutions (s)": [f"{value:.3g}" if pd.notna(value) else "" for value in rows["convolution_seconds"]],
        "difference": ["" if pd.isna(value) else f"{value:.0e}" if value else "0" for value in rows["difference"]],
        "n": rows["repeats"],
    }
    return pd.DataFrame(columns).set_axis(pd.Index(rows["work"].tolist()))


def notes_of(record: Mapping[str, object]) -> pd.DataFrame:
    """What the names of the rows leave out."""
    notes = {row["work"]: row["note"] for row in record["rows"] if row["note"]}
    return pd.DataFrame({"how it was measured": notes})


def once(records: Sequence[Mapping[str, object]]) -> pd.DataFrame:
    """What is paid once: memory of a data set, class sums of a PTM, the start of a run; empty where not measured."""
    rows = [
        {
            "device": record["environment"]["device_name"],
            "CIFAR-10's tensors (MB)": record.get("cifar10_memory", {}).get("tensors_mb"),
            "memory with them, above imports (MB)": record.get("cifar10_memory", {}).get("resident_mb"),
            "its peak while loading (MB)": record.get("cifar10_memory", {}).get("peak_mb"),
            "class sums of 10,000 images (s)": record.get("once", {}).get("class_sums_seconds_per_10000"),
            "papermill to the first step (s)": record.get("notebook_start", {}).get("seconds"),
        }
        for record in records
    ]
    return pd.DataFrame(rows).set_index("device").rename_axis(None)


def shown(table: pd.DataFrame, name: str, caption: str = "") -> Styler:
    """A table with whole texts, in the look of the book's tables; ``name`` keeps its page the same in every build."""
    styler = table.style.set_table_attributes('class="dataframe"').set_uuid(name)
    return styler.set_caption(caption) if caption else styler
