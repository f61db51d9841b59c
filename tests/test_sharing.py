"""Two, then eight processes share a PTM cache and a folder of records: each PTM is trained once, no record is lost."""

import os
import subprocess
import sys

import pytest
from made import ROOT

from ddlib.study.record import read_record
from ddlib.study.runs import load_records

PROCESSES = """
import sys, os
from multiprocessing import get_context
from pathlib import Path
from ddlib.ptms import training
from ddlib.study import run as study
from ddlib.study.parameters import check, declared
from workflow.inputs import cells

folder, count = Path(sys.argv[1]), int(sys.argv[2])
plain = training.train_network

def note(name, line):
    with (folder / name).open("a") as file:
        file.write(line + "\\n")

def noted(*arguments, **settings):
    note("trained.txt", str(os.getpid()))
    plain(*arguments, **settings)

training.train_network = noted
changes = dict(iterations=2, eval_epochs=1, num_eval=1, ptm_epochs=1, num_ptms=3, architectures="ConvNet-3", num_sets=1)

def run(number, start):
    p = check(declared(cells("02_ensemble")[0]) | changes | {"seed": number // 2})  # two processes for each seed
    start.wait()
    data = study.open_dataset(p)
    pool = study.open_ptms(p, data)
    study.run_arm(p, data, pool, "02_ensemble")
    note("pools.txt", " ".join(ptm.hash for ptm in pool))

fork = get_context("fork")  # what was imported is there; no thread has begun
start = fork.Barrier(count)
started = [fork.Process(target=run, args=(number, start)) for number in range(count)]
for process in started:
    process.start()
for process in started:
    process.join()
sys.exit(any(process.exitcode for process in started))
"""


@pytest.mark.parametrize("count", [2, 8])
def test_processes_share_cache_and_records(tmp_path, count):
    settings = {"DDLIB_RUNS": str(tmp_path / "runs"), "DDLIB_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PROCESSES, str(tmp_path), str(count)]
    done = subprocess.run(command, env=os.environ | settings, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    pools = (tmp_path / "pools.txt").read_text().splitlines()
    assert len(pools) == count
    assert len(set(pools)) == 1
    assert len((tmp_path / "trained.txt").read_text().splitlines()) == 3  # three PTMs, each once
    assert len(list((tmp_path / "cache").glob("*.safetensors"))) == 3
    records = sorted((tmp_path / "runs").glob("*.json"))
    assert [read_record(path)["seed"] for path in records] == list(range(count // 2))
    assert sorted(load_records(tmp_path / "runs")["seed"].unique()) == list(range(count // 2))
    assert len(list((tmp_path / "runs").glob("*.safetensors"))) == count // 2
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".tmp", ".checkpoint")]
