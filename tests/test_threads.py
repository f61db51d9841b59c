"""An import changes nothing in a process; threads sleep while they wait, and are as many as the work can feed."""

import json
import os
import subprocess
import sys

import pytest
import torch

import ddlib
from ddlib import threads
from ddlib.networks import Network
from ddlib.ptms.pool import train_ptms
from ddlib.threads import NUMBERS_A_THREAD, OF_OPENMP, threads_for
from ddlib.training import train_network

module = sys.modules["ddlib.distill"]  # the attribute ddlib.distill is the function


def python(code, **environment):
    """Standard output and error of a process of its own, whose environment says nothing of OpenMP."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    done = subprocess.run([sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


# What an import leaves alone

OTHERS = "import torch, numpy, PIL.Image, safetensors.torch, filelock, tqdm, platformdirs"  # what ddlib imports, too
STATE = """
import json, os, signal, socket, subprocess, sys, warnings
before = dict(os.environ)
{importing}
import torch
untouched = torch.Generator().manual_seed(torch.initial_seed())  # some versions seed every process anew
child = subprocess.run([sys.executable, "-c", "import os; print(sorted(os.environ))"], capture_output=True, text=True)
print(json.dumps({{
    "environment": dict(os.environ) == before,
    "of a child": child.stdout,
    "threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
    "nothing drawn": torch.equal(torch.get_rng_state(), untouched.get_state()),
    "torch": [str(torch.get_default_dtype()),
              torch.is_grad_enabled(), torch.get_deterministic_debug_mode()],
    "filters": [repr(one) for one in warnings.filters],
    "handlers": {{int(number): repr(signal.getsignal(number)) for number in signal.valid_signals()}},
    "timeout": socket.getdefaulttimeout(),
    "hooks": [sys.excepthook is sys.__excepthook__, sys.displayhook is sys.__displayhook__],
}}))
"""


def test_an_import_changes_nothing_in_the_process():
    """Against a process that imports the same libraries without ddlib. (The allocator: ``test_memory.py``.)"""
    plain, ours = (json.loads(python(STATE.format(importing=code))[0]) for code in (OTHERS, f"import ddlib\n{OTHERS}"))
    assert ours == plain
    assert ours["environment"] is True
    assert ours["nothing drawn"] is True
    assert "OMP_WAIT_POLICY" not in ours["of a child"]


HEAVY = ["pandas", "seaborn", "IPython", "torchvision", "matplotlib", "pydantic", "sklearn", "scipy", "statsmodels"]


def test_an_import_loads_nothing_heavy():
    found = python(f"import sys, ddlib; print([name for name in {HEAVY} if name in sys.modules])")[0]
    assert found == "[]\n"


# How threads wait


def wait_policy(code, **environment):
    """What libgomp says that it read; skips where torch has another OpenMP."""
    said = python(code, OMP_DISPLAY_ENV="VERBOSE", **environment)[1]
    policies = [line.split("'")[1] for line in said.splitlines() if "OMP_WAIT_POLICY" in line]
    if not policies or "GOMP_SPINCOUNT" not in said:
        pytest.skip("torch does not come with libgomp here")
    return policies[0]


@pytest.mark.parametrize(
    ("code", "environment", "policy"),
    [
        ("import ddlib", {}, "PASSIVE"),
        ("import ddlib.losses", {}, "PASSIVE"),  # whatever is imported first
        ("import ddlib.study.statistics", {}, "PASSIVE"),
        ("import ddlib", {"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"),
        ("import ddlib", {"OMP_WAIT_POLICY": "PASSIVE"}, "PASSIVE"),
    ],
)
def test_threads_sleep_unless_somebody_says_otherwise(code, environment, policy):
    assert wait_policy(code, **environment) == policy


def test_a_setting_of_another_kind_is_left_alone_too():
    count = {"GOMP_SPINCOUNT": "1000"}
    assert wait_policy("import ddlib", **count) == wait_policy("import torch", **count)


@pytest.mark.parametrize("given", [{}, *({name: "5"} for name in OF_OPENMP)])
def test_the_setting_lasts_as_long_as_the_import(monkeypatch, given):
    for name in OF_OPENMP:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with threads._sleeping_threads():  # torch is there already
        assert dict(os.environ) == before
    monkeypatch.delitem(sys.modules, "torch")
    with threads._sleeping_threads():
        assert dict(os.environ) == before | ({} if given else {"OMP_WAIT_POLICY": "PASSIVE"})
    assert dict(os.environ) == before
    with pytest.raises(KeyboardInterrupt), threads._sleeping_threads():
        raise KeyboardInterrupt  # in the middle of the import of torch
    assert dict(os.environ) == before


# How many there are


@pytest.fixture
def four():
    """Four threads, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("numbers", "count"),
    [
        *[(0, 1), (1, 1), (NUMBERS_A_THREAD - 1, 1), (NUMBERS_A_THREAD, 1), (2 * NUMBERS_A_THREAD - 1, 1)],
        *[(2 * NUMBERS_A_THREAD, 2), (3 * NUMBERS_A_THREAD, 3), (4 * NUMBERS_A_THREAD, 4), (10**15, 4)],
    ],
)
def test_as_many_threads_as_the_work_feeds_and_never_more_than_there_were(four, numbers, count):
    with threads_for(numbers) as found:
        assert found == torch.get_num_threads() == count
    assert torch.get_num_threads() == 4


def test_the_number_comes_back_after_an_error(four):
    with pytest.raises(KeyboardInterrupt), threads_for(0):
        raise KeyboardInterrupt
    assert torch.get_num_threads() == 4


def test_work_inside_of_work_gets_no_more_than_the_outer_one(four):
    with threads_for(2 * NUMBERS_A_THREAD):
        with threads_for(10**15):
            assert torch.get_num_threads() == 2
        with threads_for(0):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 4


@pytest.fixture
def counts(four, monkeypatch):
    """The number of threads in each step of a distillation, and in each pass through a network in training."""
    seen = []

    def watch(owner, name):
        original = getattr(owner, name)

        def spy(*args, **kwargs):
            seen.append((name, torch.get_num_threads()))
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, spy)

    watch(module, "_update")
    watch(Network, "forward")
    return seen


SMALL = {
    "dm": lambda data, cache: ddlib.distill(data, ipc=1, iterations=2, width=4, batch_real=6),
    "dsa": lambda data, cache: ddlib.distill(data, base_method="dsa", ipc=2, iterations=1, width=4, batch_real=6),
    "evaluate": lambda data, cache: ddlib.evaluate(
        ddlib.select_real(data, 1), data, num_eval=2, eval_epochs=2, width=4
    ),
    "train_ptms": lambda data, cache: train_ptms(data, num_ptms=1, epochs=2, width=4, cache=cache),
}


@pytest.mark.parametrize("work", SMALL)
def test_small_work_has_one_thread_and_leaves_the_number_as_it_was(tiny, tmp_path, counts, work):
    SMALL[work](tiny, tmp_path)
    assert {count for _, count in counts} == {1}
    expected = {"dm": {"_update"}, "dsa": {"_update", "forward"}}.get(work, {"forward"})
    assert {name for name, _ in counts} == expected
    assert torch.get_num_threads() == 4


def test_larger_work_has_more(tiny, tmp_path, counts, monkeypatch):
    """The largest map: 36 images of 8 x 8 and 4 channels in training, 18 in the test; of DM six real ones a class."""
    monkeypatch.setattr(threads, "NUMBERS_A_THREAD", 6 * 4 * 64)
    ddlib.distill(tiny, ipc=1, iterations=1, width=4, batch_real=6)
    ddlib.distill(tiny, ipc=1, iterations=1, width=8, batch_real=6)
    ddlib.distill(tiny, ipc=6, iterations=1, width=4, batch_real=6)
    assert counts == [("_update", 1), ("_update", 2), ("_update", 3)]
    counts.clear()
    ddlib.evaluate(ddlib.full_data(tiny), tiny, num_eval=1, eval_epochs=1, width=4)
    assert counts == [("forward", 4), ("forward", 3)]  # 36 images would keep 6 busy


def test_what_follows_an_epoch_has_all_threads(tiny, four):
    seen = []
    network = ddlib.build_network("ConvNet-3", 1, 3, 8, width=4)
    settings = {"epochs": 2, "generator": torch.Generator().manual_seed(0)}
    images, labels = tiny.train.images, tiny.train.labels
    train_network(network, images, labels, **settings, after_epoch=lambda epoch: seen.append(torch.get_num_threads()))
    assert seen == [4, 4]


def test_a_distillation_that_fails_leaves_the_number_as_it_was(tiny, four):
    with pytest.raises(FloatingPointError):
        ddlib.distill(tiny, ipc=1, iterations=3, width=4, lr_img=float("nan"))
    assert torch.get_num_threads() == 4
