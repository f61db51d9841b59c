"""``python -m benchmarks``: time all rows, print the table, write the record. The plain CCLoM takes up to 15 GB."""

import argparse
import sys
import time
from pathlib import Path

from benchmarks import curves, processes, record
from benchmarks.measure import Machine
from benchmarks.rows import RESULTS, all_rows
from ddlib.study.devices import pick_device


def main() -> None:
    """Run the suite on one device."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--device", default="auto", help="auto | cpu | cuda")
    parser.add_argument("--only", default="", help="rows whose name contains this; nothing is written")
    parser.add_argument("--out", type=Path, help="the record to write; default benchmarks/results/DEVICE.json")
    options = parser.parse_args()
    device, start = pick_device(options.device), time.perf_counter()
    names = [row.name for row in all_rows(device)]
    chosen = [name for name in names if options.only in name]
    if not chosen:
        parser.error(f"no row contains {options.only!r}; rows: {', '.join(names)}")
    processes.float32_means_float32()
    machine = Machine.measured(device)
    rates = ", ".join(f"{rate / 1e9:.0f} GFLOP/s in {name}" for name, rate in machine.flops.items())
    print(f"{rates}; {machine.bandwidth / 1e9:.0f} GB/s")
    rows, failed = [], []
    for name in chosen:
        try:
            rows.append(processes.alone(processes.measured, name, machine, device))
            print(line(rows[-1]), flush=True)
        except RuntimeError as error:  # the other rows are worth having all the same
            failed.append(f"{name}: {error}")
    if options.only:
        sys.exit("\n".join(failed) or None)
    measured = {
        "gflops": {name: rate / 1e9 for name, rate in machine.flops.items()},
        "bandwidth_gb": machine.bandwidth / 1e9,
        "rows": rows,
        "growth": curves.growth(device),
        "ensembles": curves.ensembles(device),
        "once": curves.one_off(device),
        "cifar10_memory": processes.cifar10_memory(),
        "notebook_start": processes.notebook_start(),
        "beside_one_busy_core": processes.beside_one_busy_core(),
    }
    path = options.out or RESULTS / f"{device.type}.json"
    record.write(path, device, **measured, seconds=time.perf_counter() - start)
    print(f"{time.perf_counter() - start:.0f} s; written to {path}")
    sys.exit("\n".join(failed) or None)


def line(row: dict[str, object]) -> str:
    """One row for the terminal."""
    if "skipped" in row:
        return f"{row['work']:48s} not measured: {row['skipped']}"
    target = "" if row["target"] is None else f"(target {row['target']:g})"
    agree = "" if row["difference"] is None else f"difference {row['difference']:.0e}"
    return (
        f"{row['work']:48s} {row['ratio']:7.2f} x [{row['ratio_min']:.2f}, {row['ratio_max']:.2f}] {target:14s}"
        f" {row['seconds']:8.3f} s, {row['seconds'] / row['floor_seconds']:5.1f} x the floor  {agree}"
    )


if __name__ == "__main__":
    main()
