"""Sweeps for real: killed at random moments, two at a time, with a run that diverges, and on Slurm.

What they leave must equal what an undisturbed sweep leaves, times aside. One of the two arms diverges, which must show
and must stop nothing. DDLIB_KILLS says how often the first test kills (default 3; the book tells of 30).
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from made import ROOT

from ddlib.disk.tensors import read_tensors

KILLS = int(os.environ.get("DDLIB_KILLS", "3"))
QUICK = {"base": "smoke", "iterations": 20, "eval_epochs": 2, "num_eval": 1, "ptm_epochs": 3}
QUICK |= {"architectures": "ConvNet-3", "width": 8}
ARMS = [{"notebook": "01_guidance", "guidance": "clom"}]
ARMS += [{"notebook": "01_guidance", "guidance": "none", "lr_img": 1e38}]  # diverges
ENDED = 1  # the exit status of a sweep in which a run diverged
TIMES = ("created", "seconds", "environment", "git_commit", "peak_memory_bytes", "sha256")
LIMIT = 600  # seconds after which a sweep counts as stuck

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="sweeps need a POSIX system"),
    pytest.mark.xdist_group("sweeps"),  # one after the other: they use all cores by themselves
]


class Place:
    """A folder for runs and PTMs, and the sweeps in it."""

    def __init__(self, folder: Path, cache: Path | None = None):
        self.runs, self.cache = folder / "runs", cache or folder / "cache"
        folder.mkdir(parents=True, exist_ok=True)
        settings = {"DDLIB_RUNS": str(self.runs), "DDLIB_CACHE": str(self.cache), "PYTHONPATH": str(ROOT)}
        self.env, self.folder = os.environ | settings, folder

    def grid(self, name: str = "quick", **changes) -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"profile": QUICK, "seeds": [0], "arms": ARMS, **changes}, sort_keys=False))
        return path

    def start(self, grid: Path, *options: str) -> subprocess.Popen:
        command = [sys.executable, ROOT / "workflow" / "sweep.py", grid, *options]
        log = (self.folder / f"{grid.stem}.log").open("a")
        return subprocess.Popen(command, env=self.env, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)

    def finish(self, grid: Path, *options: str) -> int:
        return self.start(grid, *options).wait(LIMIT)

    def said(self, grid: Path) -> str:
        return (self.folder / f"{grid.stem}.log").read_text()

    def results(self, grid: Path) -> dict[str, object]:
        """All that a sweep leaves to be read later, times aside."""
        found = {}
        for path in sorted((self.runs / "sweeps" / grid.stem).glob("0*-seed*.*")):
            found[path.name] = without_times(path) if path.suffix == ".json" else path.read_bytes()
        return found

    def ptms(self) -> dict[str, object]:
        return {path.name: content(path) for path in sorted(self.cache.glob("*.safetensors"))}

    def litter(self) -> list[Path]:
        return [path for top in (self.runs, self.cache) for path in top.rglob("*.tmp")]


def without_times(path: Path) -> dict[str, object]:
    record = json.loads(path.read_text())
    for part in (record.get("accuracies") or {}, record.get("history") or {}, *record["ptms"]):
        part.pop("seconds", None)
    return {name: value for name, value in record.items() if name not in TIMES}


def content(path: Path) -> tuple:
    """Of a PTM: weights and what was measured, without the time that it took."""
    tensors, about = read_tensors(path)
    about.pop("seconds")
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}, about


def kill(process: psutil.Process) -> bool:
    """As the out-of-memory killer does."""
    try:
        process.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return False
    return True


def kill_all(sweep: subprocess.Popen) -> None:
    """The sweep and whatever it started."""
    try:
        family = [psutil.Process(sweep.pid), *psutil.Process(sweep.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    for process in family:
        kill(process)
    sweep.wait(LIMIT)


def kill_driver(sweep: subprocess.Popen) -> None:
    """The command and the engine; the jobs go on as orphans."""
    for process in (psutil.Process(sweep.pid), *psutil.Process(sweep.pid).children()):
        kill(process)
    sweep.wait(LIMIT)


def kill_one_job(sweep: subprocess.Popen, draw: random.Random) -> None:
    """One process of a job, then, a little later, all."""
    jobs = [p for p in psutil.Process(sweep.pid).children(recursive=True) if "run_job" in " ".join(p.cmdline())]
    kernels = [child for job in jobs for child in job.children(recursive=True)]
    if victims := jobs + kernels:
        kill(draw.choice(victims))
    time.sleep(draw.uniform(0, 5))
    kill_all(sweep)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What the quick grid leaves when nothing happens."""
    place = Place(tmp_path_factory.mktemp("un disturbed"))  # a space in all paths
    grid = place.grid()
    assert place.finish(grid) == ENDED, place.said(grid)
    results = place.results(grid)
    assert len(results) == 3  # two records, one synthetic set
    assert (place.runs / "sweeps" / "quick" / "comparison.html").stat().st_size > 1e5
    assert (place.runs / "sweeps" / "quick" / "report.html").stat().st_size > 1e5
    return place, results


def test_a_run_that_diverges_fails_alone_and_stays_visible(undisturbed):
    place, results = undisturbed
    records = [result for result in results.values() if isinstance(result, dict)]
    assert sorted(record["status"] for record in records) == ["failed", "ok"]
    said = place.said(place.folder / "quick.yaml")
    assert "failed: 01_guidance-none-lr_img1e_38-seed0: seed 0: FloatingPointError" in said
    assert "FloatingPointError" in (place.runs / "sweeps" / "quick" / "comparison.html").read_text()


def test_a_sweep_survives_kill_9(undisturbed, tmp_path):
    """At random moments: all of it, the driver alone, or one job and then all. Then it is started again."""
    reference, wanted = undisturbed
    draw, whole, kills = random.Random(0), 0, 0
    place = Place(tmp_path / "0")
    while kills < KILLS:
        grid = place.grid()
        sweep = place.start(grid)
        try:
            sweep.wait(draw.uniform(4, 25))
        except subprocess.TimeoutExpired:
            kinds = (kill_all, kill_driver, lambda sweep: kill_one_job(sweep, draw))
            kinds[kills % len(kinds)](sweep)
            kills += 1
        else:
            assert sweep.returncode == ENDED, place.said(grid)
            assert place.results(grid) == wanted
            whole += 1
            place = Place(tmp_path / str(whole))
    grid = place.grid()
    assert place.finish(grid) == ENDED, place.said(grid)
    assert place.results(grid) == wanted
    assert place.ptms() == reference.ptms()
    assert place.litter() == []
    print(f"{kills} kills, {whole + 1} whole sweeps")


def test_nothing_is_done_twice(undisturbed):
    """A second call runs no job; a lost record brings back its own job alone, with the same numbers."""
    place, wanted = undisturbed
    grid = place.folder / "quick.yaml"
    folder = place.runs / "sweeps" / "quick"
    before = {path: path.stat().st_mtime_ns for path in folder.glob("jobs/*.json")}
    page, engine = (folder / "comparison.html").stat().st_mtime_ns, place.said(grid).count("Job stats")
    assert place.finish(grid) == ENDED
    assert {path: path.stat().st_mtime_ns for path in folder.glob("jobs/*.json")} == before
    assert (folder / "comparison.html").stat().st_mtime_ns == page
    assert place.said(grid).count("Job stats") == engine > 0  # Snakemake was not even started
    lost = next(path for path in folder.glob("01_*.json") if '"accuracy": [0.' in path.read_text())
    text = lost.read_text()
    lost.write_text(text.replace('"accuracy": [0.', '"accuracy": [0.9', 1))  # altered, still JSON
    assert lost.read_text() != text
    assert place.finish(grid) == ENDED
    assert f"because {lost.name} is damaged or was changed" in place.said(grid)
    after = {path: path.stat().st_mtime_ns for path in folder.glob("jobs/*.json")}
    assert sum(after[path] != before[path] for path in before) == 1
    assert (folder / "comparison.html").stat().st_mtime_ns > page
    assert place.results(grid) == wanted


def test_two_sweeps_share_ptms_and_one_is_killed(undisturbed, tmp_path):
    reference, wanted = undisturbed
    first, second = Place(tmp_path / "a", tmp_path / "ptms"), Place(tmp_path / "b", tmp_path / "ptms")
    grids = first.grid(), second.grid()
    killed, other = first.start(grids[0], "--jobs", "1"), second.start(grids[1], "--jobs", "1")
    time.sleep(15)
    assert killed.poll() is None
    kill_all(killed)
    assert other.wait(LIMIT) == ENDED, second.said(grids[1])
    trained = {path: path.stat().st_ino for path in first.cache.glob("*.safetensors")}
    assert first.finish(grids[0]) == ENDED, first.said(grids[0])
    assert first.results(grids[0]) == second.results(grids[1]) == wanted
    assert {path: path.stat().st_ino for path in first.cache.glob("*.safetensors")} == trained  # once
    assert first.ptms() == reference.ptms()


# Slurm

SLURM_CONF = """
ClusterName=here
SlurmctldHost={host}
AuthType=auth/munge
SlurmUser=root
SlurmdUser=root
SwitchType=switch/none
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort=16817
SlurmdPort=16818
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=4000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=60 State=UP
"""
CONF = Path("/etc/slurm/slurm.conf")


@pytest.fixture
def slurm(tmp_path):
    """A cluster of one node, this one."""
    if missing := [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if not shutil.which(name)]:
        pytest.skip(f"{', '.join(missing)} not found: install slurm-wlm and munge to test the way over Slurm")
    if os.geteuid() or (CONF.exists() and "ClusterName=here" not in CONF.read_text()):
        pytest.skip(f"needs root, and the place of {CONF}, to start a cluster")
    host = subprocess.run(["hostname", "-s"], capture_output=True, text=True, check=True).stdout.strip()
    CONF.parent.mkdir(exist_ok=True)
    for name in ("state", "spool"):
        (tmp_path / name).mkdir()
    CONF.write_text(SLURM_CONF.format(host=host, folder=tmp_path, cpus=os.cpu_count()))
    socket = tmp_path / "munge"
    Path("/run/munge").mkdir(exist_ok=True)
    daemons = []
    try:
        if not Path("/run/munge/munge.socket.2").exists():
            munge = ["munged", "--foreground", "--force", f"--log-file={socket}.log", f"--seed-file={socket}.seed"]
            daemons.append(subprocess.Popen([*munge, f"--pid-file={socket}.pid"]))
            time.sleep(1)
        for name in ("slurmctld", "slurmd"):
            with (tmp_path / f"{name}.out").open("w") as log:
                daemons.append(subprocess.Popen([name, "-D"], stdout=log, stderr=log))
        for _ in range(60):
            state = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True).stdout.strip()
            if state == "idle":
                break
            time.sleep(1)
        else:
            pytest.fail(f"the node is {state!r}: " + (tmp_path / "slurmd.log").read_text()[-2000:])
        yield tmp_path
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(30)
        CONF.unlink()


def test_slurm_gives_the_same_records(slurm, undisturbed):
    _, wanted = undisturbed
    place = Place(slurm / "place")
    grid = place.grid()
    profile = slurm / "profile"
    profile.mkdir()
    settings = yaml.safe_load((ROOT / "workflow" / "profiles" / "slurm" / "config.yaml").read_text())
    settings |= {"slurm-status-command": "squeue", "default-resources": {"runtime": 30, "mem_mb": 1000}}
    settings |= {"slurm-init-seconds-before-status-checks": 5, "latency-wait": 10}
    (profile / "config.yaml").write_text(yaml.safe_dump(settings))
    assert place.finish(grid, "--workflow-profile", str(profile)) == ENDED, place.said(grid)
    assert "slurm" in place.said(grid).lower()
    assert place.results(grid) == wanted
