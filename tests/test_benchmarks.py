"""The benchmarks compare like with like: both ways compute the same, and the meters measure."""

import dataclasses
import functools
import json
import os
import time

import pandas as pd
import pytest
import torch

from benchmarks import curves, measure, plain, processes, rounding, rows, sweeps
from ddlib.augmentation import DSA_STRATEGY
from ddlib.base_methods import Matching, Task
from ddlib.compute import Compute
from ddlib.guidance import Guidance
from ddlib.rng import generator
from ddlib.study import benchmark, benchmark_figures

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def small():
    """Data, images, labels, task and PTMs of width 8."""
    data = rows.stand_in(CPU, num_classes=3, size=16, per_class=12)
    images, labels = rows.synthetic_images(data, ipc=2)
    return (
        data,
        images,
        labels,
        Task(data, labels, Matching(width=8, batch_real=7, outer_loops=1, inner_loops=1)),
        rows.random_ptms(data, 2, width=8),
    )


@pytest.mark.parametrize(
    ("method", "theirs"),
    [
        ("dm", plain.dm_step),
        ("dc", lambda task, images, t: plain.matching_step(task, images, t, "none")),
        ("dsa", lambda task, images, t: plain.matching_step(task, images, t, DSA_STRATEGY)),
    ],
)
def test_one_update_is_that_of_the_plain_way(small, method, theirs):
    _, images, _, task, _ = small
    assert measure.difference(rows.base_step(method, task, images), theirs(task, images, 0)) < 1e-4


@pytest.mark.parametrize("kind", ["clom", "cclom"])
def test_guidance_is_that_of_the_plain_way(small, kind):
    data, images, labels, _, ptms = small
    ours = rows.guided("single", images, Guidance(kind, ptms[:1]).signals(data, labels))
    network = plain.PlainNetwork(ptms[0].network)
    train = (data.train.images, data.train.labels)
    other = {
        "clom": lambda: plain.clom(network, images, labels),
        "cclom": lambda: plain.cclom(network, images, labels, *train, data.num_classes),
    }
    assert measure.difference(ours, other[kind]()) < 1e-5


def shortened(row):
    """The results of both ways of a row."""
    return row.ours(), row.against[0][1]()


def test_evaluation_is_that_of_the_plain_way(small):
    data = rows.stand_in(CPU, num_classes=2, size=16, per_class=12)
    ours, theirs = shortened(rows.evaluation(data, epochs=9, networks=2))
    assert ours[0].tolist() == pytest.approx(theirs[0].tolist(), abs=1 / len(data.test) + 1e-6)
    assert (ours[0] > 0.6).all()  # above chance: there is something to compare


def test_ptm_training_is_that_of_the_plain_way(small):
    ours, theirs = shortened(rows.ptm_pool(small[0], count=20, networks=1))
    assert len(ours) == len(theirs) > 0
    assert measure.difference(ours, theirs) < 1e-3


def test_the_stand_in_can_be_learned(small):
    data = small[0]
    means = torch.stack([data.train.images[data.train.labels == label].mean((0, 2, 3)) for label in range(3)])
    nearest = torch.cdist(data.test.images.mean((2, 3)), means).argmin(1)
    assert (nearest == data.test.labels).float().mean() > 0.9


def test_operations_of_known_work():
    a, b = torch.randn(3, 5), torch.randn(5, 7)
    with measure.Operations() as counted:
        _ = a @ b
        _ = torch.nn.functional.conv2d(torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3), padding=1)
    assert counted.total == 2 * 3 * 5 * 7 + 2 * 2 * 4 * 3 * 9 * 8 * 8


def test_seconds_in_convolutions_are_a_part_of_the_whole():
    images, weight = torch.randn(4, 8, 32, 32), torch.randn(8, 8, 3, 3)

    def work():
        time.sleep(0.1)
        return torch.nn.functional.conv2d(images, weight) @ torch.ones(30, 1)

    found = measure.convolution_seconds(work, CPU)
    assert 0 < found < 0.1  # without the nap
    assert measure.convolution_seconds(lambda: images @ images, CPU) == 0
    assert measure.convolution_seconds(work, torch.device("cuda")) is None


def test_a_row_is_measured_in_a_process_of_its_own():
    assert processes.alone(os.getpid) != os.getpid()
    with pytest.raises(ValueError, match="invalid literal"):
        processes.alone(int, "a")


def test_the_floor_is_the_larger_of_both_bounds():
    machine = measure.Machine(flops={"float32": 100.0, "bf16": 250.0}, bandwidth=10.0)
    a = torch.ones(5, 5)
    flops, seconds = machine.floor(lambda: a @ a, bytes_read=10.0)
    assert (flops, seconds) == (250, 2.5)
    assert machine.floor(lambda: a @ a, bytes_read=100.0)[1] == 10.0
    assert machine.floor(lambda: a @ a, 0.0, "bf16") == (250, 1.0)


def test_difference_is_that_of_norms():
    a, b = [torch.tensor([3.0, 3.0]), 2.0], [torch.tensor([3.0, 4.0]), 2.0]
    assert measure.difference(a, b) == pytest.approx(0.2)
    with pytest.raises(ValueError, match="shorter"):
        measure.difference(a, b[:1])
    with pytest.raises(ValueError, match="shapes"):
        measure.difference([torch.ones(3, 1)], [torch.ones(1, 3)])
    for wrong in (float("nan"), float("inf")):
        assert measure.difference([1.0, wrong], [1.0, 1.0]) == float("inf")


def noting_row(**settings):
    """Work that notes its calls, and takes no time to speak of."""
    calls = []

    def work(name, value):
        def call():
            calls.append(name)
            return [torch.full((2, 2), value) @ torch.ones(2, 2)]

        return call

    against = [measure.Against(1.0, work("own", 1.0), plain=False), measure.Against(2.0, work("plain", 1.0))]
    return calls, measure.Row("toy", work("ours", 1.0), against, {"cpu": 0.5}, repeats=4, **settings)


def test_measure_takes_both_in_turns(monkeypatch):
    calls, row = noting_row()
    monkeypatch.setattr(measure, "seconds", lambda work, device: (work(), 2.0)[1])
    monkeypatch.setattr(measure, "memory_as_usual", lambda: calls.append("as usual"))
    monkeypatch.setattr(measure, "keep_freed_memory", lambda: calls.append("kept"))
    found = measure.measure(row, measure.Machine({"float32": 1e9}, 1e9), CPU)
    rounds = ["kept", "ours", "kept", "own", "as usual", "plain"] * 5
    assert calls == [*rounds, "kept", "own", "ours"]  # the last two: floor and convolutions
    assert found["ratio"] == found["ratio_min"] == found["ratio_max"] == 3.0
    assert (found["target"], found["difference"], found["seconds"], found["seconds_against"]) == (0.5, 0.0, 2.0, 6.0)
    assert found["gflop"] == pytest.approx(16e-9)


def test_a_difference_beyond_the_tolerance_is_an_error():
    _, row = noting_row()
    wrong = measure.Row("wrong", lambda: [torch.zeros(2, 2)], row.against, {}, repeats=1)
    with pytest.raises(RuntimeError, match="wrong"):
        measure.measure(wrong, measure.Machine({"float32": 1e9}, 1e9), CPU)


def test_growth_covers_every_axis(monkeypatch):
    monkeypatch.setattr(curves, "AXES", {"ipc": (1, 2), "image_size": (16,)})
    monkeypatch.setattr(curves, "USUAL", {"ipc": 1, "num_classes": 2, "image_size": 16})
    monkeypatch.setattr(curves, "sizes", lambda device: {"width": 4, "batch_real": 2})
    table = pd.DataFrame(curves.growth(CPU))
    assert len(table) == 3 * len(curves.WORKS)
    assert (table[["seconds", "graph_mb"]] > 0).all().all()
    figure = benchmark_figures.growth(table)
    assert len(figure.axes) == 4


# The committed record and its readers


@pytest.fixture(scope="module")
def record():
    (found,) = [r for r in benchmark.load_benchmarks(rows.RESULTS) if r["device"] == "cpu"]
    return found


def test_the_record_is_whole(record, monkeypatch):
    monkeypatch.setattr(rows, "stand_in", functools.partial(rows.stand_in, per_class=10))
    assert [row["work"] for row in record["rows"]] == [row.name for row in rows.all_rows(CPU)]
    table = benchmark.rows_of(record)
    assert (table[["seconds", "seconds_against", "floor_seconds", "convolution_seconds", "ratio"]] > 0).all().all()
    assert all(row["skipped"] for row in record["rows"] if "ratio" not in row)
    assert {row["axis"] for row in record["growth"]} == set(curves.AXES)
    assert {row["num_ptms"] for row in record["ensembles"]} == set(curves.NUM_PTMS)


def test_what_a_machine_lacks_is_said_and_not_measured(monkeypatch):
    _, row = noting_row()
    monkeypatch.setattr(measure, "has_bf16", lambda device: False)
    monkeypatch.setattr(measure, "missing_compiler", lambda kind: "a compiler")
    for compute, why in (
        (Compute("bf16"), "this machine has no bf16 of its own"),
        (Compute(compile="always"), "compiling needs a compiler"),
    ):
        found = measure.measure(dataclasses.replace(row, compute=compute), measure.Machine({}, 1.0), CPU)
        assert found == {"work": "toy", "target": 0.5, "note": "", "skipped": why}
    assert row.why_not(CPU) == ""


def test_rows_below_their_target_and_rows_not_measured_have_tables():
    measured = {"ratio": 1.2, "seconds": 4.0, "seconds_against": 4.8, "convolution_seconds": 3.0, "floor_seconds": 2.5}
    record = {
        "rows": [
            {"work": "slow", "target": 1.5, **measured},
            {"work": "fast", "target": 1.1, **measured},
            {"work": "free", "target": None, **measured},
            {"work": "bf16", "target": 2, "skipped": "no bf16"},
        ]
    }
    assert benchmark.missed(record).loc["slow"].tolist() == ["1.20", "1.5", "3.2", "3", "2.5"]
    assert benchmark.missed(record).index.tolist() == ["slow"]
    assert benchmark.not_measured(record).to_dict("index") == {
        "bf16": {"target": "2", "not measured, because": "no bf16"}
    }


def test_memory_of_the_strategies(record):
    """grad_avg flat in K, loss_avg linear."""
    table = pd.DataFrame(record["ensembles"]).pivot(index="num_ptms", columns="strategy", values="graph_mb")
    assert table["grad_avg"].max() == pytest.approx(table["grad_avg"].min(), rel=0.05)
    assert table.loc[16, "loss_avg"] == pytest.approx(16 * table.loc[1, "loss_avg"], rel=0.05)


def test_tables_and_figures_of_the_record(record):
    table = benchmark.speed_table(record)
    html = benchmark.shown(table, "cpu", "This machine").to_html()
    assert all(text in html for text in ('id="T_cpu"', "dataframe", "This machine", *table[benchmark.RATIO]))
    assert list(table.index) == [row["work"] for row in record["rows"] if "ratio" in row]
    first = record["rows"][0]
    assert table.iloc[0][benchmark.RATIO].startswith(f"{first['ratio']:.2f} (")
    assert benchmark.machine_table([record])["torch"].tolist() == [record["environment"]["torch"]]
    ax = benchmark_figures.speed_ratios(benchmark.rows_of(record))
    assert [label.get_text() for label in ax.get_yticklabels()] == list(table.index)
    notes = [row["note"] for row in record["rows"] if row["note"]]
    assert benchmark.notes_of(record)["how it was measured"].tolist() == notes
    measured = record["cifar10_memory"].get("resident_mb"), record["notebook_start"].get("seconds")
    assert tuple(benchmark.once([record]).iloc[0].iloc[[1, 4]]) == measured


def test_missing_and_damaged_records(tmp_path):
    with pytest.raises(FileNotFoundError, match="make bench"):
        benchmark.load_benchmarks(tmp_path)
    path = tmp_path / "cpu.json"
    for text, what in (("{", "not JSON"), ("{}", "rows"), ("[]", "rows"), (json.dumps({"rows": []}), "growth")):
        path.write_text(text)
        with pytest.raises(ValueError, match=what) as error:
            benchmark.load_benchmarks(tmp_path)
        assert str(path) in str(error.value)


def test_the_order_of_a_plain_epoch_is_ours():
    draw = generator(0, "order")
    assert list(plain.Shuffled(5, draw)) == torch.randperm(5, generator=generator(0, "order")).tolist()


# Sweeps


def slow_simulation(runs, slots, seconds, in_flight, poll):
    """Second by second, from the definition; whole numbers only."""
    left, queued, ends, now = runs, 0, [], 0
    while True:
        if now % poll == 0:
            while left and queued + len(ends) < in_flight:
                left, queued = left - 1, queued + 1
        while queued and len(ends) < slots:
            queued -= 1
            ends.append(now + seconds)
        if not (left or queued or ends):
            return now
        now += 1
        ends = [end for end in ends if end > now]


@pytest.mark.parametrize(
    "case", [(1, 1, 7, 1, 5), (10, 3, 7, 3, 5), (10, 3, 7, 9, 5), (25, 4, 3, 6, 10), (12, 5, 60, 5, 60)]
)
def test_the_simulated_sweep_is_that_of_its_definition(case):
    assert sweeps.simulate(*case) == slow_simulation(*case)


def test_more_in_flight_is_never_slower_and_nothing_beats_the_ideal():
    rows = pd.DataFrame(sweeps.growth(per_job=12.0))
    assert rows["used"].between(0.01, 1).all()
    one = rows[rows["per_gpu"] == 1].pivot(index="minutes", columns="in_flight", values="hours")
    assert (one[300] <= one[100]).all()
    assert (rows["hours"] > rows["ideal_hours"]).all()


def test_the_committed_growth_has_its_tables(tmp_path):
    record = benchmark.load_sweep_growth(rows.RESULTS)
    assert list(benchmark.sweep_overhead_table(record).index) == ["100 jobs", "1,000 jobs", "10,000 jobs"]
    assert f"{record['job']['seconds']:.1f} s beyond its run" in benchmark.sweep_job(record)
    table = benchmark.sweep_growth_table(record)
    assert len(table) == len(sweeps.CASES)
    assert record["growth"] == sweeps.growth(record["job"]["seconds"])
    with pytest.raises(FileNotFoundError, match=r"benchmarks\.sweeps"):
        benchmark.load_sweep_growth(tmp_path)
    (tmp_path / "sweeps").mkdir()
    for text in ("{", "{}", "[]", '{"engine": [], "job": 3, "growth": []}'):
        (tmp_path / "sweeps" / "growth.json").write_text(text)
        with pytest.raises(ValueError, match=r"growth\.json: .*; run `python -m benchmarks\.sweeps` again"):
            benchmark.load_sweep_growth(tmp_path)


# What bf16 changes


def test_rounding_is_told_of_both_precisions():
    table = pd.DataFrame(
        {
            "arm": ["PTM"] * 12,
            "precision": ["float32"] * 6 + ["bf16"] * 6,
            "seed": [*range(6), *range(6)],
            "architecture": "ConvNet-3",
            "accuracy": [0.5, 0.6, 0.7, 0.5, 0.6, 0.7, 0.51, 0.6, 0.7, 0.5, 0.6, 0.73],
        }
    )
    (found,) = rounding.compared(table)
    assert (found["arm"], found["n"]) == ("PTM", 6)
    assert found["difference"] == pytest.approx(0.04 / 6)
    shown = benchmark.rounding_pairs({"pairs": [found]})
    assert shown.loc["PTMs", "difference (points)"] == "+0.67"
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_committed_rounding_has_its_tables(tmp_path):
    (record,) = benchmark.load_rounding(rows.RESULTS)
    table = benchmark.rounding_table(record)
    assert list(table.index) == ["update of DM", "update of DC", "update of DSA", "class sums of a PTM"]
    assert record["pairs"] == pytest.approx(rounding.compared(pd.DataFrame(record["accuracies"])))
    with pytest.raises(FileNotFoundError, match=r"benchmarks\.rounding"):
        benchmark.load_rounding(tmp_path)
    (tmp_path / "rounding").mkdir()
    (tmp_path / "rounding" / "cpu.json").write_text("{}")
    with pytest.raises(ValueError, match=r"cpu\.json: environment, differences, pairs missing"):
        benchmark.load_rounding(tmp_path)
