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
    return _records(Path(folder), NEEDED, "make bench")


def _records(folder: Path, needed: Sequence[str], command: str) -> list[dict[str, object]]:
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise FileNotFoundError(f"no benchmark records (*.json) in {folder}: run `{command}` first")
    return [_record(path, needed, command) for path in paths]


def _record(path: Path, needed: Sequence[str], command: str) -> dict[str, object]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); run `{command}` again") from error
    missing = [name for name in needed if name not in record] if isinstance(record, dict) else needed
    if missing:
        raise ValueError(f"{path}: {', '.join(missing)} missing; run `{command}` again")
    return record


def machine_table(records: Sequence[Mapping[str, object]]) -> pd.DataFrame:
    """What was measured where, a row for each record."""
    rows = [
        {
            "device": record["environment"]["device_name"],
            "cores used": record["environment"]["torch_threads"],
            "torch": record["environment"]["torch"],
            **{f"GFLOP/s in {name}": round(rate) for name, rate in record["gflops"].items()},
            "GB/s": round(record["bandwidth_gb"]),
            "measured on": record["created"][:10],
            "commit": record["git_commit"],
        }
        for record in records
    ]
    return pd.DataFrame(rows).set_index("device").rename_axis(None)


def rows_of(record: Mapping[str, object]) -> pd.DataFrame:
    """The rows that were measured as numbers: ``work``, ``ratio``, ``ratio_min``, ``ratio_max``, ``target``, ..."""
    return pd.DataFrame([row for row in record["rows"] if "skipped" not in row])


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


def not_measured(record: Mapping[str, object]) -> pd.DataFrame:
    """The rows that this machine could not measure, with the reason; no rows if there are none."""
    rows = {row["work"]: row for row in record["rows"] if "skipped" in row}
    columns = {
        "target": ["" if row["target"] is None else f"{row['target']:g}" for row in rows.values()],
        "not measured, because": [row["skipped"] for row in rows.values()],
    }
    return pd.DataFrame(columns, index=list(rows))


def missed(record: Mapping[str, object]) -> pd.DataFrame:
    """The rows below their targets: by how much, and the share of their time that no code around it could save."""
    rows = rows_of(record).dropna(subset="target")
    rows = rows[rows["ratio"] < rows["target"]]
    columns = {
        "ratio": rows["ratio"].map("{:.2f}".format),
        "target": rows["target"].map("{:g}".format),
        "seconds for the target": (rows["seconds_against"] / rows["target"]).map("{:.3g}".format),
        "in convolutions (s)": rows["convolution_seconds"].map("{:.3g}".format),
        "the floor (s)": rows["floor_seconds"].map("{:.3g}".format),
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
            "a run beside one busy core, times alone": record.get("beside_one_busy_core", {}).get("ratio"),
        }
        for record in records
    ]
    return pd.DataFrame(rows).set_index("device").rename_axis(None)


def load_rounding(folder: str | Path) -> list[dict[str, object]]:
    """What ``python -m benchmarks.rounding`` measured, one for each device. Raises FileNotFoundError, ValueError."""
    needed = ("environment", "differences", "pairs")
    return _records(Path(folder) / "rounding", needed, "python -m benchmarks.rounding")


def rounding_table(record: Mapping[str, object]) -> pd.DataFrame:
    """How far bf16 is from float32, as a norm relative to that of the float32 result, in percent."""
    rows = {row["what"]: f"{100 * row['difference']:.2g} %" for row in record["differences"]}
    return pd.DataFrame({"relative difference": rows})


def rounding_pairs(record: Mapping[str, object]) -> pd.DataFrame:
    """Accuracy in bf16 minus accuracy in float32, in points: PTMs, and sets without guidance and with CLoM."""
    names = {"PTM": "PTMs", "none": "sets learned without guidance", "clom": "sets learned with CLoM"}
    pairs = pd.DataFrame(record["pairs"])
    low, high = (100 * pairs[name] for name in ("t_low", "t_high"))
    columns = {
        "difference (points)": (100 * pairs["difference"]).map("{:+.2f}".format),
        "95 % interval": [f"{a:+.2f} to {b:+.2f}" for a, b in zip(low, high, strict=True)],
        "p of equality within 1 point": pairs["p_equivalence"].map("{:.3f}".format),
        "n": pairs["n"],
    }
    return pd.DataFrame(columns).set_axis([names[arm] for arm in pairs["arm"]])


def load_sweep_growth(folder: str | Path) -> dict[str, object]:
    """What ``python -m benchmarks.sweeps`` measured and simulated. Raises FileNotFoundError, ValueError."""
    path, command = Path(folder) / "sweeps" / "growth.json", "python -m benchmarks.sweeps"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: run `{command}` first")
    return _record(path, ("engine", "job", "in_process", "growth"), command)


def sweep_overhead_table(record: Mapping[str, object]) -> pd.DataFrame:
    """What the engine takes for a sweep of so many jobs, before the first of them starts."""
    table = pd.DataFrame(record["engine"]).set_index("jobs").map("{:.1f}".format)
    names = [f"{number:,} jobs" for number in table.index]
    return table.set_axis(["reading the grid (s)", "planning (s)"], axis=1).set_axis(names)


def sweep_job(record: Mapping[str, object]) -> str:
    """What a job costs beyond its run, in one line."""
    job, shared, machine = record["job"], record["in_process"], record["environment"]["device_name"]
    return (
        f"{machine}, commit {record['git_commit']}: a job takes {job['seconds']:.1f} s beyond its run "
        f"(median of {job['repeats']}) and leaves {job['bytes'] / 1e6:.2f} MB in {job['files']:.0f} files; with "
        f"--in-process {shared['seconds']:.1f} s (mean of {shared['jobs']})"
    )


def sweep_growth_table(record: Mapping[str, object]) -> pd.DataFrame:
    """The simulated sweep: a row for each length of a run, number that share a GPU, and jobs in flight."""
    table = pd.DataFrame(record["growth"])
    columns = {
        "runs on a GPU": table["per_gpu"],
        "jobs in flight": table["in_flight"],
        "hours": table["hours"].map("{:.1f}".format),
        "hours without any loss": table["ideal_hours"].map("{:.1f}".format),
        "GPUs at work (%)": (100 * table["used"]).round(0).astype(int),
    }
    return pd.DataFrame(columns).set_axis([f"runs of {minutes} min" for minutes in table["minutes"]])


def shown(table: pd.DataFrame, name: str, caption: str = "") -> Styler:
    """A table with whole texts, in the look of the book's tables; ``name`` keeps its page the same in every build."""
    styler = table.style.set_table_attributes('class="dataframe"').set_uuid(name)
    return styler.set_caption(caption) if caption else styler
