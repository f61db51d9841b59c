"""What a step costs: the memory of graphs counted exactly, and the two faces of averaging."""

import pytest
import torch
from torch import nn

from ddlib.combine import STRATEGIES
from ddlib.guidance import Guidance
from ddlib.study.step_costs import GraphMemory, step_costs


def test_graph_memory_counts_what_autograd_keeps():
    x = torch.randn(100, requires_grad=True)
    with GraphMemory() as memory:
        y = x.exp()  # keeps its result: 400 bytes
        z = (y * y).sum()  # keeps y twice: the same memory
        assert memory.now == memory.peak == 400
        z.backward()
    assert memory.now == 0
    assert memory.peak == 400


def test_graph_memory_leaves_out_parameters():
    layer = nn.Linear(10, 10)
    x = torch.randn(5, 10, requires_grad=True)
    with GraphMemory() as memory:
        result = layer(x).sum()
        assert memory.now == 5 * 10 * 4  # the input, not the weights
        del result
    assert memory.now == 0


def test_graph_memory_sees_a_graph_that_is_dropped_without_a_backward_pass():
    with GraphMemory() as memory:
        for _ in range(3):
            torch.randn(100, requires_grad=True).exp().sum()
    assert memory.peak == 400


@pytest.fixture(scope="module")
def costs(tiny, tiny_ptms):
    images, labels = tiny.train.images[:6], tiny.train.labels[:6]
    signals = Guidance("clom", tiny_ptms).signals(tiny, labels)
    return step_costs(images, signals, num_ptms=[1, 2, 3], repeats=2).set_index(["num_ptms", "strategy"])


def test_loss_avg_keeps_k_graphs_and_grad_avg_one(costs):
    one = costs.loc[(1, "loss_avg"), "graph_mb"]
    assert one > 0
    for k in (1, 2, 3):
        assert costs.loc[(k, "grad_avg"), "graph_mb"] == pytest.approx(one, rel=0.01)
    growth = costs.xs("loss_avg", level="strategy")["graph_mb"].diff().dropna()
    assert growth.to_list() == pytest.approx([growth.iloc[0]] * 2, rel=0.01)  # linear: the images alone are shared
    assert growth.iloc[0] > 0.8 * one


def test_both_averages_are_one_method(costs):
    assert (costs["difference"] < 1e-5).all()
    assert (costs["seconds"] > 0).all()


def test_memory_is_counted_on_the_gpu_too(gpu):
    x = torch.randn(100, requires_grad=True, device="cuda")
    with GraphMemory() as memory:
        x.exp().sum().backward()
    assert memory.peak == 400


def test_the_images_given_are_left_alone(tiny, tiny_ptms):
    images, labels = tiny.train.images[:6].clone(), tiny.train.labels[:6]
    before = images.clone()
    signals = Guidance("both", tiny_ptms).signals(tiny, labels)
    table = step_costs(images, signals, ["single", "mgda"], repeats=1)
    assert torch.equal(images, before)
    assert not images.requires_grad
    assert list(table["strategy"]) == ["single", "mgda"]
    assert set(table["num_ptms"]) == {len(tiny_ptms)}
    assert set(table["strategy"]) <= set(STRATEGIES)
