"""Pools of PTMs: trained once by the stated recipe, then found in the cache, whoever asks."""

import dataclasses
import json
import multiprocessing
import time
from types import SimpleNamespace

import pytest
import slow
import torch
import torch.nn.functional as F
from conftest import separable_dataset
from made import global_seed, nothing_drawn

import ddlib.ptms.pool
import ddlib.ptms.training
from ddlib.augmentation import DSA_STRATEGY
from ddlib.data.dataset import Split
from ddlib.disk.tensors import read_tensors, write_tensors
from ddlib.networks import build_network
from ddlib.ptms.pool import train_ptms
from ddlib.rng import generator
from ddlib.training import accuracy, train_network

SMALL = {"epochs": 2, "width": 4, "batch_size": 16}


def small(dataset, cache, **options):
    return train_ptms(dataset, cache=cache, **(SMALL | options))


def weights(ptm):
    return ptm.network.state_dict()


def equal(first, second):
    """Whether two PTMs have the same weights, bit by bit."""
    return all(torch.equal(value, weights(second)[name]) for name, value in weights(first).items())


# Training


def test_the_pool_knows_its_data(tiny, tiny_ptms):
    for ptm in tiny_ptms:
        assert ptm.accuracy == accuracy(ptm.network, tiny.test.images, tiny.test.labels) > 0.9
        assert ptm.train_accuracy == accuracy(ptm.network, tiny.train.images, tiny.train.labels) > 0.9
        assert not ptm.network.training
        assert not any(parameter.requires_grad for parameter in ptm.network.parameters())


def test_training_improves_on_the_first_epoch(tiny, tmp_path):
    first, last = train_ptms(tiny, epochs=24, keep=[1, 24], width=4, lr=0.1, batch_size=4, cache=tmp_path)
    assert last.train_accuracy > first.train_accuracy + 0.2
    assert last.seconds > first.seconds > 0


def test_accuracy_is_that_of_the_test_split(tiny, tmp_path):
    """The two splits tell apart here: this test split calls every image by a wrong name."""
    wrong = dataclasses.replace(tiny, test=Split(tiny.test.images, (tiny.test.labels + 1) % 3))
    (ptm,) = train_ptms(wrong, epochs=24, width=4, lr=0.1, batch_size=4, cache=tmp_path)
    assert ptm.train_accuracy > 0.9
    assert ptm.accuracy < 0.1


def test_seconds_are_those_of_training_alone(tiny, tmp_path, monkeypatch):
    """By a clock on which an epoch takes 1 second and measuring an accuracy 100."""
    clock = SimpleNamespace(now=0.0, perf_counter=lambda: clock.now)

    def train(*args, epochs, after_epoch, **kwargs):
        for epoch in range(1, epochs + 1):
            clock.now += 1
            after_epoch(epoch)

    def measure(*args):
        clock.now += 100
        return 0.5

    for name, value in (("time", clock), ("accuracy", measure)):
        monkeypatch.setattr(ddlib.ptms.pool, name, value)
    monkeypatch.setattr(ddlib.ptms.training, "train_network", train)
    assert [ptm.seconds for ptm in small(tiny, tmp_path, epochs=5, keep=[1, 2, 5])] == [1, 2, 5]


def test_where_a_ptm_comes_from(tiny, tmp_path):
    ptm = small(tiny, tmp_path, architectures=["ConvNet-4"], num_ptms=2)[1]
    assert (ptm.architecture, ptm.index, ptm.epoch, ptm.source_dataset) == ("ConvNet-4", 1, 2, "tiny")
    assert ptm.class_names == tiny.class_names
    assert (ptm.expects.channels, ptm.expects.image_size, ptm.given) == (1, 8, None)
    _, about = read_tensors(*tmp_path.glob(f"{ptm.hash.split('-')[0]}*.safetensors"))
    assert about["recipe"]["weight_decay"] == 0.005
    assert about["recipe"]["lr"] == 0.01
    assert (about["epoch"], about["device"], about["architecture"]) == (2, "cpu", "ConvNet-4")


def plain_training(dataset, epochs, stop, index, lr, momentum, weight_decay, batch_size):
    """SGD by hand, the rate times 0.1 after one and after two thirds of the epochs; the state after ``stop``."""
    draw = generator(3, "ptm ConvNet-3", index)
    network = build_network("ConvNet-3", 1, 3, 8, width=4, generator=draw)
    parameters = list(network.parameters())
    velocities = [torch.zeros_like(parameter) for parameter in parameters]
    draw = generator(3, "ptm training ConvNet-3", index)
    for epoch in range(1, stop + 1):
        rate = lr * 0.1 ** ((epoch > epochs // 3) + (epoch > 2 * epochs // 3))
        order = torch.randperm(len(dataset.train), generator=draw)
        for batch in order.split(batch_size):
            loss = F.cross_entropy(network(dataset.train.images[batch]), dataset.train.labels[batch])
            gradients = torch.autograd.grad(loss, parameters)
            slow.sgd_step(parameters, gradients, velocities, rate, momentum, weight_decay)
    return network.state_dict()


def test_checkpoints_equal_plain_training_up_to_that_epoch(tiny, tmp_path):
    """Epochs on both sides of both milestones; a checkpoint disturbs nothing that follows it."""
    recipe = {"lr": 0.2, "momentum": 0.8, "weight_decay": 0.02, "batch_size": 10}
    keep = [0, 1, 2, 3, 4, 5, 6, 7]
    pool = train_ptms(tiny, num_ptms=2, epochs=7, keep=keep, width=4, seed=3, cache=tmp_path, **recipe)
    assert [ptm.epoch for ptm in pool] == keep * 2
    for ptm in pool:
        plain = plain_training(tiny, 7, ptm.epoch, ptm.index, **recipe)
        for name, value in weights(ptm).items():
            torch.testing.assert_close(value, plain[name], rtol=1e-3, atol=1e-5)  # rounding depends on the processor


def test_the_rate_decays_after_one_and_two_thirds_and_training_stops_at_the_last_wanted_epoch(
    tiny, tmp_path, monkeypatch
):
    asked = []

    def spy(*args, **kwargs):
        asked.append((kwargs["milestones"], kwargs["epochs"]))
        kwargs["epochs"] = 0
        args[0].zero_grad()
        kwargs["after_epoch"](20)  # as if it had been trained

    monkeypatch.setattr(ddlib.ptms.training, "train_network", spy)
    train_ptms(tiny, epochs=150, keep=[20], width=4, cache=tmp_path)
    assert asked == [([50, 100], 20)]


def test_epoch_0_is_a_network_that_nothing_trained(tiny, tmp_path, no_training):
    no_training()
    (ptm,) = small(tiny, tmp_path, keep=[0], seed=3)
    fresh = build_network("ConvNet-3", 1, 3, 8, width=4, generator=generator(3, "ptm ConvNet-3", 0))
    assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in weights(ptm).items())
    assert ptm.epoch == 0


def test_keep_alone_equals_keep_among_others(tiny, tmp_path):
    several = small(tiny, tmp_path / "a", epochs=4, keep=[3, 1, 1])
    assert [ptm.epoch for ptm in several] == [1, 3]
    for ptm in several:
        (alone,) = small(tiny, tmp_path / "b", epochs=4, keep=[ptm.epoch])
        assert equal(ptm, alone)
        assert ptm.hash == alone.hash
        assert (ptm.accuracy, ptm.train_accuracy) == (alone.accuracy, alone.train_accuracy)
    assert several[0].hash != several[1].hash


def test_the_last_epoch_is_the_default(tiny, tmp_path):
    assert [ptm.epoch for ptm in small(tiny, tmp_path)] == [2]


def test_augmentation_reaches_the_training(tiny, tmp_path):
    plain, augmented = (small(tiny, tmp_path, augment=augment)[0] for augment in (False, True))
    assert not equal(plain, augmented)


def test_batch_norm_keeps_its_statistics(tiny, tmp_path):
    trained = small(tiny, tmp_path, norm="batch")[0]
    assert weights(trained)["body.1.num_batches_tracked"] == 2 * 3
    assert trained.accuracy == accuracy(trained.network, tiny.test.images, tiny.test.labels)


# Pools


def test_the_order_is_by_initialisation_then_architecture_then_epoch(tiny, tmp_path):
    pool = small(tiny, tmp_path, architectures=["ConvNet-4", "ConvNet-3"], num_ptms=2, keep=[2, 1])
    assert [(ptm.index, ptm.architecture, ptm.epoch) for ptm in pool] == [
        *((0, "ConvNet-4", 1), (0, "ConvNet-4", 2), (0, "ConvNet-3", 1), (0, "ConvNet-3", 2)),
        *((1, "ConvNet-4", 1), (1, "ConvNet-4", 2), (1, "ConvNet-3", 1), (1, "ConvNet-3", 2)),
    ]
    assert len({ptm.name for ptm in pool}) == len({ptm.hash for ptm in pool}) == 8


def test_what_a_pool_leaves_out_has_the_next_numbers(tiny, tmp_path):
    whole = small(tiny, tmp_path, num_ptms=3)
    rest = small(tiny, tmp_path / "another", num_ptms=2, first=1)
    assert [(ptm.index, ptm.hash) for ptm in rest] == [(ptm.index, ptm.hash) for ptm in whole[1:]]
    assert len(list((tmp_path / "another").glob("*.safetensors"))) == 2


def test_a_larger_pool_begins_with_a_smaller_one(tiny, tmp_path):
    two = small(tiny, tmp_path / "two", num_ptms=2)
    three = small(tiny, tmp_path / "three", num_ptms=3)
    assert [ptm.hash for ptm in three[:2]] == [ptm.hash for ptm in two]
    assert all(equal(a, b) for a, b in zip(two, three, strict=False))
    assert not any(equal(three[a], three[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


def test_deterministic_whatever_the_global_generator_says(tiny, tmp_path):
    with global_seed(1):
        (first,) = small(tiny, tmp_path / "a")
    with global_seed(2), nothing_drawn():
        (second,) = small(tiny, tmp_path / "b")
    assert equal(first, second)
    assert first.hash == second.hash


def test_training_order_and_initialisation_are_the_index_s_own(tiny, tmp_path):
    """Without the rate's help: at rate 0 the weights are those of the initialisation."""
    still = small(tiny, tmp_path, num_ptms=2, lr=0.0)
    for ptm in still:
        fresh = build_network("ConvNet-3", 1, 3, 8, width=4, generator=generator(0, "ptm ConvNet-3", ptm.index))
        assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in weights(ptm).items())


# The cache


def test_a_hit_trains_nothing(tiny, tmp_path, no_training):
    before = small(tiny, tmp_path, num_ptms=2, keep=[1, 2])
    no_training()
    after = small(tiny, tmp_path, num_ptms=2, keep=[1, 2])
    for first, second in zip(before, after, strict=True):
        assert equal(first, second)
        for name in ("name", "hash", "accuracy", "train_accuracy", "seconds", "expects", "class_names"):
            assert getattr(first, name) == getattr(second, name)
    assert [ptm.epoch for ptm in small(tiny, tmp_path, keep=[1])] == [1]  # each epoch alone
    with pytest.raises(pytest.fail.Exception, match="this trains"):
        small(tiny, tmp_path, num_ptms=3)


def test_the_default_cache_is_that_of_the_user(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("DDLIB_CACHE", str(tmp_path / "own"))
    train_ptms(tiny, **SMALL)
    assert len(list((tmp_path / "own").glob("*.safetensors"))) == 1


def test_a_wanted_epoch_that_is_not_there_is_trained(tiny, tmp_path):
    (last,) = small(tiny, tmp_path)
    first, again = small(tiny, tmp_path, keep=[1, 2])
    assert equal(last, again)
    assert not equal(first, last)


KEY_CHANGES = {
    "architectures": ["ConvNet-4"],
    "epochs": 3,
    "width": 6,
    "norm": "batch",
    "lr": 0.02,
    "momentum": 0.8,
    "weight_decay": 0.0,
    "batch_size": 8,
    "augment": True,
    "precision": "bf16",
    "compile": "auto",
    "seed": 1,
}


@pytest.fixture
def instant(monkeypatch):
    """Training that trains nothing, for tests that look at names of files only."""
    monkeypatch.setattr(
        ddlib.ptms.training,
        "train_network",
        lambda *args, epochs, after_epoch, **kwargs: [after_epoch(epoch) for epoch in range(1, epochs + 1)],
    )


@pytest.mark.filterwarnings("ignore:this processor has no bf16")
def test_the_key_changes_with_all_that_shapes_a_ptm(tiny, tmp_path, instant, monkeypatch):
    def key(dataset=tiny, index=0, **options):
        return small(dataset, tmp_path, num_ptms=index + 1, **options)[index].hash.split("-")[0]

    keys = {"base": key(), "index": key(index=1)}
    keys |= {name: key(**{name: value}) for name, value in KEY_CHANGES.items()}
    keys["augment by name"] = key(augment="flip")
    keys["images"] = key(separable_dataset(seed=1))
    keys["class_names"] = key(dataclasses.replace(tiny, class_names=("ant", "bee", "dog")))
    keys["mean"] = key(dataclasses.replace(tiny, format=dataclasses.replace(tiny.format, mean=(0.4,))))
    keys["train"] = key(dataclasses.replace(tiny, train=Split(tiny.train.images, tiny.train.labels.flip(0))))
    same = {
        key(),
        key(keep=[1]),
        key(keep=[1, 2]),
        key(augment="none"),
        key(architectures=["ConvNet-3", "ConvNet-4"]),
        key(dataclasses.replace(tiny, name="renamed")),
    }
    monkeypatch.setattr(ddlib.ptms.pool, "code_hash", lambda modules: "another code")
    keys["code"] = key()
    assert len(set(keys.values())) == len(keys)
    assert same == {keys["base"]}
    assert all(len(key) == 16 for key in keys.values())


def test_a_gpu_has_other_keys_than_a_cpu(tmp_path):
    """It rounds differently, and PTMs of one hash are taken for equal. Which of several GPUs does not matter."""
    keys = [
        ddlib.ptms.pool._Job(SimpleNamespace(hash="h", device=torch.device(name)), "ConvNet-3", 0, 0, {}, tmp_path).key
        for name in ("cpu", "cuda:0", "cuda:1")
    ]
    assert keys[0] != keys[1] == keys[2]


def test_a_card_tells_all_that_is_known_also_when_it_comes_from_the_cache(tiny, tmp_path):
    (ptm,) = small(tiny, tmp_path, seed=7, width=4)
    (again,) = small(tiny, tmp_path, seed=7, width=4)
    assert ptm.card == again.card
    assert json.loads(json.dumps(ptm.card)) == ptm.card
    assert (ptm.card["seed"], ptm.card["device"], ptm.card["epoch"]) == (7, "cpu", 2)
    assert ptm.card["recipe"]["width"] == 4
    assert ptm.card["hash"] == ptm.hash
    assert ptm.card["size_bytes"] == ptm.size_bytes
    assert ptm.card["seconds"] > 0


def test_every_option_of_the_recipe_is_in_that_test():
    recipe = set(train_ptms.__kwdefaults__) - {"cache", "first"} | {"architectures", "epochs"}
    assert recipe == set(KEY_CHANGES)


def test_true_is_the_strategy_with_all_operations(tiny, tmp_path, instant):
    by_flag, by_name = (small(tiny, tmp_path, augment=augment)[0] for augment in (True, DSA_STRATEGY))
    assert by_flag.hash == by_name.hash


@pytest.mark.parametrize("damage", ["flipped", "cut", "foreign"])
def test_a_damaged_file_is_trained_again(tiny, tmp_path, damage):
    (first,) = small(tiny, tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-3] ^= 16
    path.write_bytes({"flipped": content, "cut": content[:-3], "foreign": b"no safetensors"}[damage])
    (again,) = small(tiny, tmp_path)
    assert equal(first, again)
    assert (first.accuracy, first.hash) == (again.accuracy, again.hash)
    assert read_tensors(path)[0].keys() == weights(first).keys()


def test_the_file_is_what_is_read(tiny, tmp_path):
    """Not the network that happens to be in memory: first and second use see the same."""
    small(tiny, tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    tensors, about = read_tensors(path)
    tensors["classifier.bias"] += 1
    write_tensors(path, tensors, about | {"accuracy": 0.125})
    (ptm,) = small(tiny, tmp_path)
    assert torch.equal(weights(ptm)["classifier.bias"], tensors["classifier.bias"])
    assert ptm.accuracy == 0.125


def test_an_interrupted_training_leaves_no_half_file(tiny, tmp_path, monkeypatch):
    def interrupted(*args, after_epoch, **kwargs):
        after_epoch(1)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ddlib.ptms.training, "train_network", interrupted)
        with pytest.raises(KeyboardInterrupt):
            small(tiny, tmp_path, keep=[1, 2])
    assert len(list(tmp_path.glob("*.safetensors"))) == 1  # the whole first epoch
    assert [ptm.epoch for ptm in small(tiny, tmp_path, keep=[2])] == [2]  # and the lock is free


def train_slowly(cache, log, barrier):
    """Train one PTM as soon as the other process is there too, and write down that this one did."""

    def slow(*args, **kwargs):
        with log.open("a") as file:
            file.write("trained\n")
        time.sleep(0.5)  # long enough for the other to find no file
        train_network(*args, **kwargs)

    dataset = separable_dataset()
    small(dataset, log.with_name(multiprocessing.current_process().name))  # warm up: the first use is a slow one
    ddlib.ptms.training.train_network = slow
    barrier.wait(300)  # where both cores are busy, the other one imports for minutes
    (ptm,) = small(dataset, cache)
    torch.save(weights(ptm) | {"seconds": ptm.seconds}, log.with_name(f"{multiprocessing.current_process().name}.pt"))


def test_of_two_processes_that_want_a_ptm_one_trains_it(tmp_path, monkeypatch):
    monkeypatch.setattr(ddlib.ptms.training, "train_network", train_network)  # restored: this process is one of the two
    log, spawn = tmp_path / "log", multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(2)
    other = spawn.Process(target=train_slowly, args=(tmp_path / "cache", log, barrier), name="other", daemon=True)
    other.start()
    train_slowly(tmp_path / "cache", log, barrier)
    other.join(300)
    assert other.exitcode == 0
    assert log.read_text() == "trained\n"
    first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("MainProcess", "other"))
    assert first.pop("seconds") == second.pop("seconds")
    assert all(torch.equal(value, second[name]) for name, value in first.items())


# Errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_ptms": 0}, r"num_ptms and epochs >= 1, .* found 0, \[2\]"),
        ({"epochs": 0}, r"from 0 to 0; found 1, \[0\]"),
        ({"keep": [-1]}, r"keep from 0 to 2; found 1, \[-1\]"),
        ({"keep": [1.5]}, r"whole numbers; found 1, 2 and \[1.5\]"),
        ({"keep": [1, "2"]}, "whole numbers"),
        ({"first": 0.5}, "whole numbers"),
        ({"first": -1}, "from 0 on; found -1"),
        ({"num_ptms": 2.0}, "whole numbers"),
        ({"keep": [1, 3]}, r"keep from 0 to 2; found 1, \[1, 3\]"),
        ({"architectures": ["ConvNet-3", "ConvNet-9"]}, "unknown network 'ConvNet-9'; known: ConvNet-3"),
        ({"width": 1}, "width is 1"),
        ({"norm": "layer"}, "unknown norm 'layer'; known: instance"),
    ],
)
def test_errors_come_before_anything_is_trained(tiny, tmp_path, no_training, options, message):
    no_training()
    with pytest.raises(ValueError, match=message):
        small(tiny, tmp_path / "cache", **options)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"augment": "flip_blur"}, "unknown operation 'blur'"), ({"lr": -1.0}, "learning rate")],
)
def test_other_impossible_recipes_fail_in_the_first_step(tiny, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        small(tiny, tmp_path, num_ptms=2, **options)
    assert not list(tmp_path.glob("*.safetensors"))
