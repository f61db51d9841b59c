"""``python -m benchmarks.sweeps``: what a sweep costs beyond its runs, measured here, and how it would grow, simulated.

Writes ``results/sweeps/growth.json``, which the page "What it costs" shows. Minutes on 2 cores.
"""

import dataclasses
import heapq
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import yaml

from benchmarks import record
from benchmarks.processes import PROJECT
from benchmarks.rows import RESULTS
from ddlib.study.record import read_record
from workflow.grid import read_grid
from workflow.markers import write_whole
from workflow.plan import PLAN, Grid, plan_text

SIZES = (100, 1000, 10000)
SNAKEFILE = PROJECT / "workflow" / "Snakefile"
RECORD = RESULTS / "sweeps" / "growth.json"
NOTHING_TO_SPEAK_OF = {"base": "smoke", "iterations": 1, "eval_epochs": 1, "num_eval": 1, "architectures": "ConvNet-3"}
RUNS, GPUS, POLL = 10_000, 100, 60.0  # POLL: seconds between two looks of the engine at a cluster's queue
CASES = [  # (minutes of a run, runs that share a GPU, jobs in the queue and running at one time)
    *((minutes, 1, 100) for minutes in (1, 10, 60)),
    *((minutes, 1, 300) for minutes in (1, 10, 60)),
    *((minutes, 4, 1200) for minutes in (1, 10, 60)),
]


def grid_of(jobs: int, folder: Path) -> Path:
    """A grid of so many jobs, ten arms, no PTMs."""
    arms = [{"notebook": "01_guidance", "guidance": "none", "lr_img": [1.0 + index for index in range(10)]}]
    path = folder / f"grid{jobs}.yaml"
    path.write_text(yaml.safe_dump({"profile": NOTHING_TO_SPEAK_OF, "seeds": list(range(jobs // 10)), "arms": arms}))
    return path


def planned(path: Path, folder: Path) -> tuple[Grid, Path]:
    """The sweep of a grid file below ``folder``, and its plan."""
    grid = dataclasses.replace(read_grid(path), folder=folder / path.stem)
    write_whole(grid.folder / PLAN, plan_text(grid))
    return grid, grid.folder / PLAN


def engine(folder: Path) -> Iterator[dict[str, float]]:
    """Seconds to read a grid of some size and write its plan, and for the engine to plan it from nothing."""
    for jobs in SIZES:
        path = grid_of(jobs, folder)
        start = time.perf_counter()
        grid, plan = planned(path, folder)
        read = time.perf_counter() - start
        command = [sys.executable, "-m", "snakemake", "--snakefile", SNAKEFILE, "--directory", PROJECT]
        command += ["--dry-run", "--quiet", "all", "--nolock", "--config", f"plan={plan}"]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        yield {"jobs": len(grid.jobs), "read_seconds": read, "plan_seconds": time.perf_counter() - start}


def overhead(folder: Path, repeats: int = 3) -> dict[str, float]:
    """Seconds and bytes of a job beyond its run: process, imports, kernel, notebook, figures; one at a time."""
    grid, plan = planned(grid_of(10 * repeats, folder), folder)
    seconds = []
    for job in grid.jobs[:repeats]:
        command = [sys.executable, PROJECT / "workflow" / "run_job.py", plan, Path(job.marker).stem]
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        whole = time.perf_counter() - start
        run = read_record(grid.folder / job.records[0])["seconds"]
        seconds.append(whole - run["distill"] - run["evaluate"])
    left = [path for path in grid.folder.rglob("*") if path.is_file() and path != plan]
    return {
        "seconds": statistics.median(seconds),
        "repeats": repeats,
        "bytes": sum(path.stat().st_size for path in left) / repeats,
        "files": len(left) / repeats,
    }


def in_one_process(folder: Path, jobs: int = 20) -> dict[str, float]:
    """The same where one process does all jobs, its start shared by them: no kernel, no notebook, no figures."""
    path = grid_of(jobs, folder)
    command = [sys.executable, PROJECT / "workflow" / "sweep.py", path, "--in-process"]
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"DDLIB_RUNS": str(folder / "one")})
    whole = time.perf_counter() - start
    runs = [read_record(record)["seconds"] for record in (folder / "one" / "sweeps").glob("*/*.json")]
    return {"jobs": len(runs), "seconds": (whole - sum(run["distill"] + run["evaluate"] for run in runs)) / len(runs)}


def simulate(runs: int, slots: int, seconds: float, in_flight: int, poll: float = POLL) -> float:
    """Seconds until all runs are done.

    The engine looks at the queue every ``poll`` seconds, notices which jobs have ended and submits others, so that
    ``in_flight`` are queued or running; a free slot starts a queued job at once.
    """
    now, left, queued, running = 0.0, runs, 0, []
    while True:
        submitted = min(left, in_flight - queued - len(running))
        left, queued = left - submitted, queued + submitted
        until, ended = now + poll, now
        while queued and len(running) < slots:
            heapq.heappush(running, now + seconds)
            queued -= 1
        while running and running[0] <= until:
            ended = heapq.heappop(running)
            if queued:
                heapq.heappush(running, ended + seconds)
                queued -= 1
        if not (left or queued or running):
            return ended
        now = until


def growth(per_job: float) -> list[dict[str, float]]:
    """How long RUNS on GPUS would take in each of CASES; ``ideal`` is without overhead and waiting."""
    rows = []
    for minutes, per_gpu, in_flight in CASES:
        slots, work = GPUS * per_gpu, 60.0 * minutes * per_gpu  # runs that share a GPU share its speed
        took = simulate(RUNS, slots, work + per_job, in_flight)
        ideal = RUNS * 60.0 * minutes / GPUS
        row = {"minutes": minutes, "per_gpu": per_gpu, "in_flight": in_flight}
        rows.append(row | {"hours": took / 3600, "ideal_hours": ideal / 3600, "used": ideal / took})
    return rows


def main() -> None:
    """Measure, simulate, write the record."""
    with tempfile.TemporaryDirectory() as folder:
        planning = list(engine(Path(folder)))
        per_job = overhead(Path(folder))
        shared = in_one_process(Path(folder))
    found = {"engine": planning, "job": per_job, "in_process": shared, "growth": growth(per_job["seconds"])}
    record.write(RECORD, "cpu", **found, runs=RUNS, gpus=GPUS, poll_seconds=POLL)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
