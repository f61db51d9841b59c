"""What several test modules share: data sets, PTMs trained on one of them, folders, figures that close, and a GPU."""

import contextlib
import sys

import matplotlib as mpl
import pandas as pd
import pytest
import torch
import yaml
from made import ARMS, LEVELS, QUICK, records_of
from pretend_cuda import let_autograd_run, pretend_cuda

import ddlib.ptms.training
from ddlib.data.dataset import Dataset, ImageFormat, Split
from ddlib.data.readers import load_dataset
from ddlib.ptms.pool import train_ptms
from ddlib.study.arms import Arm
from ddlib.study.record import write_failure, write_record
from workflow import reproduce, study, sweep
from workflow.grid import read_grid

mpl.use("Agg")

if not torch.cuda.is_available():
    with contextlib.suppress(AttributeError):  # tests that need it are skipped then
        let_autograd_run()


def separable_dataset(name="tiny", channels=1, size=8, class_names=("ant", "bee", "cat"), seed=0):
    """One coarse pattern a class under noise: 12 train and 6 test images of each class, the classes mixed."""
    draw = torch.Generator().manual_seed(seed)
    blocks = torch.randn(len(class_names), channels, 4, 4, generator=draw)
    patterns = blocks.repeat_interleave(size // 4, 2).repeat_interleave(size // 4, 3)

    def split(per_class):
        labels = torch.arange(per_class * len(class_names)) % len(class_names)
        noise = torch.randn(len(labels), channels, size, size, generator=draw)
        return Split((patterns[labels] + 0.5 * noise) / 1.25**0.5, labels)

    moments = torch.linspace(0.3, 0.5, channels), torch.linspace(0.2, 0.25, channels)
    train, test = split(12), split(6)
    return Dataset(name, train, test, tuple(class_names), ImageFormat.of(train.images, *moments))


@pytest.fixture(scope="session")
def tiny():
    """Grey 8 x 8 images of three classes: 36 to train on, 18 to test on. Do not write into it."""
    return separable_dataset()


@pytest.fixture(scope="session")
def tiny_rgb():
    """RGB 16 x 16 images of three other classes."""
    return separable_dataset("tiny_rgb", 3, 16, ("red", "green", "blue"), seed=1)


@pytest.fixture(scope="session")
def tiny_ptms(tiny, tmp_path_factory):
    """Three initialisations of a ConvNet-3 of width 4, trained on ``tiny`` until they know it."""
    cache = tmp_path_factory.mktemp("ptms")
    return train_ptms(tiny, num_ptms=3, epochs=24, width=4, lr=0.1, batch_size=4, cache=cache)


@pytest.fixture(scope="session")
def digits():
    """The data set of scikit-learn: 1438 grey 8 x 8 images to train on. Do not write into it."""
    return load_dataset("digits")


@pytest.fixture
def no_training(monkeypatch):
    """A function after whose call nothing can be trained any more."""

    def fail(*args, **options):
        pytest.fail("this trains")

    return lambda: monkeypatch.setattr(ddlib.ptms.training, "train_network", fail)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """For one test, records go into the folder ``runs`` and PTMs into ``ptms`` of its own place."""
    monkeypatch.setenv("DDLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("DDLIB_CACHE", str(tmp_path / "ptms"))


@pytest.fixture
def write_grid(tmp_path, folders):
    """Write the content of a grid file; what its jobs make lies in the test's folders."""

    def write(content):
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    return write


@pytest.fixture
def quick_grid(write_grid):
    """Write a grid of short runs, with changes: two arms beside published numbers, and one with a PTM; two seeds."""
    return lambda **changes: write_grid({"profile": QUICK, "seeds": [0, 1], "arms": ARMS, **changes})


@pytest.fixture
def quick_sweep(quick_grid):
    """That sweep, run in this process: the file of its grid, and the grid."""
    path = quick_grid()
    assert sweep.main([str(path), "--in-process"]) == 0
    return path, read_grid(path)


@pytest.fixture
def study_grid(tmp_path, monkeypatch, write_grid):
    """The file of a grid of two arms with three seeds, each a job, and a place of its own for what the book keeps."""
    monkeypatch.setattr(study, "RESULTS", tmp_path / "results")
    monkeypatch.setitem(study.PICTURED, "tiny", 2)
    monkeypatch.setattr(reproduce, "RESULTS", tmp_path / "results")
    monkeypatch.setenv("DDLIB_CACHE", str(tmp_path / "results" / "ptms"))
    profile = {"base": "smoke", "iterations": 1, "eval_epochs": 1, "num_eval": 1, "architectures": "ConvNet-3"}
    profile |= {"width": 4, "ptm_epochs": 1, "ptm_seed": None, "judges": 0}
    arms = [{"notebook": "01_guidance", "guidance": ["none", "clom"]}]
    return write_grid({"profile": profile, "seeds": [3, 4, 5], "arms": arms})


@pytest.fixture
def guidance_runs():
    """Records of the first ablation: three seeds of each arm."""
    return pd.DataFrame([row for arm, level in LEVELS.items() for row in records_of("01_guidance", arm, level)])


@pytest.fixture
def ensemble_runs():
    """Records of the second: the same for some strategies."""
    levels = {"random": 0.5, "random equal_passes": 0.55, "loss_avg": 0.52, "grad_avg": 0.521, "mgda": 0.4}
    levels |= {"loss_avg every_4": 0.51}
    return pd.DataFrame([row for name, x in levels.items() for row in records_of("02_ensemble", f"clom {name}", x)])


@pytest.fixture
def failed_runs(tmp_path):
    """Three seeds of CLoM and a failed fourth; all of CCLoM failed, and runs of another alpha, of DSA, of grad_avg."""

    def write(seed, error=None, notebook="01_guidance", **changes):
        parameters = {"dataset": "digits", "base_method": "dm", "guidance": "clom", "strategy": "single", "num_ptms": 1}
        parameters |= {"ipc": 1, "alpha_clom": 10.0, "architectures": "ConvNet-3", **changes}
        about = {"notebook": notebook, "parameters": parameters, "seed": seed, "dataset_hash": "d", "ptm_hashes": []}
        about["arm"] = Arm(parameters["guidance"], parameters["strategy"] if parameters["num_ptms"] > 1 else "").name
        about |= {"peak_memory_bytes": None, "device": "cpu"}
        if error:
            return write_failure(tmp_path, error, **about)
        columns = {
            "architecture": ["ConvNet-3"],
            "network": [0],
            "augment": [True],
            "accuracy": [0.5],
            "seconds": [1.0],
        }
        empty = {"history": pd.DataFrame({"iteration": [0]}), "seconds": {}, "ptm_passes": 0, "synthetic_hash": None}
        return write_record(tmp_path, **about, **empty, accuracies=pd.DataFrame(columns))

    for seed in range(3):
        write(seed)
        write(seed, FloatingPointError("iteration 7: the base loss is nan"), guidance="cclom")
    write(3, MemoryError("x" * 100))
    for seed in range(12):  # more than all runs of the other setting, which comes first all the same
        write(seed, FloatingPointError("no"), alpha_clom=1e9)
    write(0, FloatingPointError("no"), base_method="dsa")
    write(0, FloatingPointError("no"), notebook="02_ensemble", strategy="grad_avg", num_ptms=2)
    return tmp_path, write


@pytest.fixture(autouse=True)
def closed_figures():
    """No figure of one test is there in the next."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


@contextlib.contextmanager
def some_gpu():
    """A real GPU where there is one, else a pretended one, which counts waits; skips if this torch cannot pretend."""
    if torch.cuda.is_available():
        yield None
        return
    with contextlib.ExitStack() as stack:
        try:
            pretended = stack.enter_context(pretend_cuda())
        except AttributeError as error:
            pytest.skip(f"no GPU here, and this torch has no private API to pretend one: {error}")
        yield pretended


@pytest.fixture
def gpu():
    """For one test, "cuda" is there."""
    with some_gpu() as gpu:
        yield gpu
