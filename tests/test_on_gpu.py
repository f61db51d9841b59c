"""Every path of the library on a GPU, a pretended one where there is no other: same numbers as on the CPU, few waits.

What a pretended one shows and what not stands in ``pretend_cuda.py``.
"""

import contextlib
import copy
import itertools
import time

import pytest
import torch
from conftest import separable_dataset, some_gpu

import ddlib
from ddlib import training
from ddlib.combine import STRATEGIES
from ddlib.data.dataset import Dataset
from ddlib.devices import moved
from ddlib.guidance import Guidance
from ddlib.networks import NETWORKS
from ddlib.ptms.pool import train_ptms
from ddlib.ptms.ptm import PTM
from ddlib.rng import generator
from ddlib.selection import SELECTIONS, full_data, select_real
from ddlib.study import run, step_costs
from ddlib.study.parameters import PARAMETERS, check
from ddlib.study.record import read_record
from ddlib.training import train_networks

SHORT = {"ipc": 2, "width": 4, "batch_real": 4, "log_every": 1, "iterations": 2}
LOOPS = {"outer_loops": 2, "inner_loops": 1}


@pytest.fixture(scope="module")
def gpu():
    with some_gpu() as gpu:
        yield gpu


@pytest.fixture(scope="module")
def here() -> Dataset:
    return separable_dataset("both", channels=3)


@pytest.fixture(scope="module")
def there(gpu, here) -> Dataset:
    return here.to("cuda")


@pytest.fixture(scope="module")
def pool(here, tmp_path_factory):
    return train_ptms(here, ["ConvNet-3", "AlexNet"], 2, 2, width=4, cache=tmp_path_factory.mktemp("cpu"))


@pytest.fixture
def waits(gpu):
    """Count the waits of some work; skips on a real GPU, which does not tell."""
    if gpu is None:
        pytest.skip("a real GPU does not count waits")

    def count(work) -> int:
        gpu.waits.clear()
        work()
        return gpu.waits.total()

    return count


def close(on_gpu, on_cpu, **tolerance):
    assert on_gpu.is_cuda, "left the GPU"
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, **(tolerance or {"rtol": 1e-2, "atol": 1e-2}))


def distilled(data, **settings):
    return ddlib.distill(data, **SHORT | settings)


def parameters(**changes):
    small = {"iterations": 2, "width": 4, "ptm_epochs": 1, "num_sets": 1}
    small |= {"architectures": "ConvNet-3", "eval_epochs": 1}
    return check({name: field.default for name, field in PARAMETERS.items()} | small | changes)


@contextlib.contextmanager
def deterministic(**how):
    torch.use_deterministic_algorithms(True, **how)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


# The GPU itself


def test_a_gpu_refuses_what_is_elsewhere(gpu):
    a = torch.ones(2, 2, device="cuda")
    for wrong in (
        lambda: a + torch.ones(2, 2),
        lambda: a @ torch.ones(2, 2),
        lambda: torch.cat([a, torch.ones(2, 2)]),
        lambda: torch.ones(3)[torch.zeros(1, dtype=torch.int64, device="cuda")],
        lambda: torch.rand(2, device="cuda", generator=torch.Generator()),
        lambda: a.masked_fill(torch.ones(2, 2, dtype=torch.bool), 0),
        lambda: torch.nn.Linear(2, 2)(a),
        lambda: torch.equal(a, torch.ones(2, 2)),
    ):
        with pytest.raises(RuntimeError, match="device"):
            wrong()
    with pytest.raises(TypeError, match="numpy"):
        a.numpy()
    assert (a + torch.tensor(1.0)).is_cuda  # this CUDA allows, and the next
    assert a[torch.tensor([0])].is_cuda


def test_what_is_moved_arrives_without_a_wait(waits):
    index = torch.arange(4)
    assert waits(lambda: index.to("cuda")) == 1
    assert waits(lambda: moved(index, "cuda")) == 0
    close(moved(index, "cuda"), index, rtol=0, atol=0)
    assert moved(index, "cpu") is index


# Same numbers


def test_data_sets(here, there):
    held_out = there.holdout(0.25)
    assert (there.hash, held_out.hash) == (here.hash, here.holdout(0.25).hash)
    assert there.train.labels.is_cuda
    assert held_out.test.images.is_cuda
    close(there.denormalise(there.test.images), here.denormalise(here.test.images))
    assert ddlib.load_dataset("digits", device="cuda").train.images.is_cuda


def test_ptms_trained_there(there, pool, tmp_path):
    for a, b in zip(train_ptms(there, ["ConvNet-3", "AlexNet"], 2, 2, width=4, cache=tmp_path), pool, strict=True):
        for name, value in b.network.state_dict().items():
            close(a.network.state_dict()[name], value)
        assert a.accuracy == pytest.approx(b.accuracy, abs=0.1)


@pytest.mark.parametrize("method", SELECTIONS)
def test_selections(here, there, method):
    close(select_real(there, 2, method).images, select_real(here, 2, method).images, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("method", "guidance"),
    [("dm", "none"), ("dm", "both"), ("dc", "clom"), ("dsa", "none"), ("dsa", "cclom"), ("none", "both")],
)
def test_base_methods(here, there, pool, method, guidance):
    settings = {"base_method": method, "guidance": guidance, "ptms": pool[:1], "snapshots": [0, 1]}
    settings |= LOOPS | {"iterations": 1} if method in ("dc", "dsa") else {}
    ours, theirs = (distilled(data, **settings) for data in (there, here))
    close(ours.synthetic.images, theirs.synthetic.images)
    close(ours.snapshots[0], theirs.snapshots[0], rtol=0, atol=0)
    assert ours.synthetic.labels.is_cuda


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_strategies(here, there, pool, strategy):
    settings = {"strategy": strategy, "guidance": STRATEGIES[strategy].guidance[-1], "ptms": pool[:2]}
    ours, theirs = (distilled(data, **settings) for data in (there, here))
    close(ours.synthetic.images, theirs.synthetic.images)
    torch.testing.assert_close(ours.cosines, theirs.cosines, rtol=1e-2, atol=1e-2)  # on the CPU, to be drawn


@pytest.mark.parametrize("begun", ["cuda", "cpu"])
def test_a_checkpoint_goes_on_on_the_gpu(here, there, pool, tmp_path, begun):
    settings = {"guidance": "both", "strategy": "pcgrad", "ptms": pool[::2], "snapshots": [0, 1]}
    distilled(there if begun == "cuda" else here, checkpoint=tmp_path / "run", **settings)
    rest = distilled(there, checkpoint=tmp_path / "run", **settings | {"iterations": 3})
    whole = distilled(there, **settings | {"iterations": 3})
    close(rest.synthetic.images, whole.synthetic.images.cpu())
    assert all(kept.is_cuda for kept in rest.snapshots.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_evaluated_together(here, there, name):
    settings = {"architectures": [name], "num_eval": 2, "eval_epochs": 1, "width": 4, "lr": 0.05}
    tables = [ddlib.evaluate(select_real(data, 2), data, **settings) for data in (there, here)]
    assert (tables[0]["accuracy"] - tables[1]["accuracy"]).abs().max() <= 1 / 18 + 1e-9  # one image


def test_other_evaluations(here, there):
    for given, data, settings in (
        (select_real(there, 2), there, {"norm": "batch"}),
        (full_data(there), there, {"augment": False}),
        (select_real(here, 2), there, {}),
        (select_real(there, 2), here, {}),
    ):
        table = ddlib.evaluate(given, data, num_eval=2, eval_epochs=2, width=4, **settings)
        assert table["accuracy"].between(0, 1).all()


def test_step_costs(there, pool):
    images = select_real(there, 2)
    signals = Guidance("both", pool).signals(there, images.labels)
    assert (step_costs.step_costs(images.images, signals, num_ptms=[2], repeats=1)["difference"] < 1e-4).all()


@pytest.mark.parametrize("arm", [{"guidance": "both"}, {"base_method": "herding", "guidance": "none"}])
def test_a_run_of_the_study(gpu, tmp_path, folders, capsys, arm):
    p = parameters(runs_folder=str(tmp_path), **arm)
    data = run.open_dataset(p)
    record = read_record(run.run_arm(p, data, run.open_ptms(p, data), "01_guidance")[0].record)
    assert (record["status"], record["device"]) == ("ok", "cuda:0")
    name = record["environment"]["device_name"]
    assert f"device: cuda:0 ({name}), the first GPU" in capsys.readouterr().out


# PTMs follow the data set


@pytest.mark.parametrize("way", ["to the GPU", "to the CPU"])
def test_ptms_follow_the_data_set_to_its_device(here, there, pool, tmp_path, way):
    ptms = pool if way == "to the GPU" else train_ptms(there, epochs=1, width=4, cache=tmp_path)
    data = there if way == "to the GPU" else here
    made = distilled(data, guidance="both", strategy="loss_avg", ptms=ptms).synthetic
    assert made.images.device == data.device
    assert next(ptms[0].network.parameters()).device != data.device  # what was given is left where it was


def test_a_ptm_of_another_format_and_device(there, tiny_rgb, tmp_path):
    larger = train_ptms(tiny_rgb, epochs=1, width=4, cache=tmp_path)
    assert distilled(there, guidance="cclom", ptms=larger, iterations=1).synthetic.images.is_cuda


def test_class_sums_are_of_a_device(here, there, pool):
    ptm = copy.deepcopy(pool[0])
    ptm.class_sums(here)
    ptm.network.to("cuda")
    assert distilled(there, guidance="cclom", ptms=[ptm]).synthetic.images.is_cuda


# Draws do not follow the default device


def test_a_default_device_changes_nothing(gpu, here, pool, tmp_path):
    def everything() -> list[torch.Tensor]:
        made = distilled(here, guidance="both", strategy="pcgrad", ptms=pool[::2]).synthetic
        noise = distilled(here, guidance="clom", strategy="random", ptms=pool, start="noise").synthetic
        rows = ddlib.evaluate(made, here, num_eval=1, eval_epochs=2, width=4)
        weights = train_ptms(here, epochs=1, width=4, cache=tmp_path / str(next(folders)))[0].network.parameters()
        digits = ddlib.load_dataset("digits").holdout().test.images
        made.save(tmp_path / "set.safetensors")
        return [made.images, noise.images, torch.tensor(rows["accuracy"].tolist(), device="cpu"), *weights, digits]

    folders = itertools.count()
    before = everything()
    torch.set_default_device("cuda")
    try:
        after = everything()
    finally:
        torch.set_default_device(None)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


# The host seldom waits


def waits_of_a_step(waits, data, **settings) -> int:
    """Of the second iteration alone."""
    one, two = (waits(lambda n=n: distilled(data, **settings | {"iterations": n, "log_every": 9})) for n in (1, 2))
    return two - one


def test_waits_of_a_dm_step(waits, there):
    assert waits_of_a_step(waits, there) <= 25


def test_waits_of_a_dsa_update(waits, there):
    settings = {"base_method": "dsa", "inner_loops": 2}
    one, two = (waits_of_a_step(waits, there, outer_loops=n, **settings) for n in (1, 2))
    assert one <= 20
    assert two - one <= 20


@pytest.mark.parametrize("guidance", ["clom", "cclom"])
def test_mgda_waits_no_more_than_an_average(waits, there, pool, guidance):
    loss_avg, mgda = (
        waits_of_a_step(waits, there, guidance=guidance, strategy=strategy, ptms=pool)
        for strategy in ("loss_avg", "mgda")
    )
    assert mgda <= loss_avg


def test_waits_of_an_evaluation_step(waits, there):
    given = select_real(there, 4)
    recipe = {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.0, "batch_size": 6, "milestones": []}

    def train(epochs: int) -> None:
        networks = [ddlib.build_network("ConvNet-3", 3, 3, 8, width=4, device="cuda") for _ in range(5)]
        draws = [generator(0, "evaluation", k) for k in range(5)]
        augment = "color_crop_cutout_flip_scale_rotate"
        train_networks(networks, given.images, given.labels, generators=draws, epochs=epochs, augment=augment, **recipe)

    one, two = (waits(lambda n=n: train(n)) for n in (1, 2))
    assert (two - one) / 2 <= 3  # two steps an epoch


# Memory, clocks, and what a GPU cannot do


def test_a_group_that_is_too_large_is_halved(gpu, here, there, monkeypatch):
    tried = []

    def short_of_memory(networks, images, labels, generators, **recipe):
        tried.append(len(networks))
        if len(networks) > 2:
            train_networks(
                networks, images, labels, generators=generators, **recipe | {"epochs": 1}
            )  # as far as it came
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        train_networks(networks, images, labels, generators=generators, **recipe)

    monkeypatch.setattr(training, "train_networks", short_of_memory)
    settings = {"num_eval": 7, "eval_epochs": 3, "width": 4, "lr": 0.05}
    halved = ddlib.evaluate(select_real(there, 2), there, **settings)
    assert tried == [7, 3, 1, 2, 4, 2, 2]
    assert halved["network"].tolist() == list(range(7))
    alone = ddlib.evaluate(select_real(here, 2), here, **settings)
    assert (halved["accuracy"] - alone["accuracy"]).abs().max() <= 1 / 18 + 1e-9


def test_one_network_that_is_too_large_is_an_error(there, monkeypatch):
    def short_of_memory(*given, **recipe):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(training, "train_networks", short_of_memory)
    with pytest.raises(torch.OutOfMemoryError):
        ddlib.evaluate(select_real(there, 1), there, num_eval=2, eval_epochs=1, width=4)


def test_the_clock_of_ptms_waits_for_the_gpu(gpu, there, monkeypatch, tmp_path):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: waited.append(time.perf_counter()))
    before = time.perf_counter()
    (ptm,) = train_ptms(there, epochs=2, keep=[2], width=4, cache=tmp_path)
    assert len(waited) == 1  # when the clock stops, before the accuracies
    assert 0 < ptm.seconds <= time.perf_counter() - before


def test_the_clock_of_a_selection_waits_for_the_gpu(gpu, there, monkeypatch, tmp_path):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: waited.append(device))
    p = parameters(runs_folder=str(tmp_path), base_method="random", guidance="none")
    run.run_arm(p, there, [], "01_guidance")
    assert waited == [there.device]


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"base_method": "dm"}, "scale and rotate, two operations of DSA"),
        ({"base_method": "dsa"}, "scale and rotate, two operations of DSA"),
        ({"base_method": "dc", "guidance": "cclom"}, "the resizing of images of 8 pixels for its PTMs"),
    ],
)
def test_determinism_that_a_gpu_lacks_is_refused_before_any_work(
    there, tiny_rgb, settings, what, monkeypatch, tmp_path
):
    larger = train_ptms(tiny_rgb, epochs=1, width=4, cache=tmp_path)
    monkeypatch.setattr(PTM, "features", lambda *given: pytest.fail("this is work"))
    with deterministic(), pytest.raises(RuntimeError, match=f"no deterministic gradient of {what}.*warn_only=True"):
        distilled(there, ptms=larger, **settings)


def test_determinism_that_is_there_passes(here, there, pool):
    with deterministic():
        made = [distilled(here), distilled(there, base_method="dc", guidance="clom", ptms=pool[:1], **LOOPS)]
        table = ddlib.evaluate(select_real(there, 1), there, num_eval=1, eval_epochs=1, width=4)
    with deterministic(warn_only=True):
        made.append(distilled(there))
    assert [one.synthetic.images.is_cuda for one in made] == [False, True, True]
    assert len(table) == 1
