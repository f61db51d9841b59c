"""How networks compute: what stays float32, when compiling pays, and what a device is not asked for."""

import contextlib
import copy
import warnings

import pytest
import torch
from torch import nn

import ddlib.compute as module
from ddlib import distill, evaluate, select_real, train_ptms
from ddlib.compute import PAYS, Compute, operations, tf32
from ddlib.devices import missing_compiler
from ddlib.losses import class_sums
from ddlib.networks import NETWORKS, build_network

CPU = torch.device("cpu")
EMULATED = "ignore:this processor has no bf16"
BF16 = 2**-8  # the relative distance of two numbers of bf16
compiler = pytest.mark.skipif(bool(missing_compiler("cpu")), reason="needs a C++ compiler")


def network_of(name="ConvNet-3", **settings):
    network = build_network(name, 3, 10, 16, width=8, generator=torch.Generator().manual_seed(0))
    return Compute(**settings).applied_to(network)


def some_images(n=6):
    return torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(1))


# Precision


@pytest.mark.parametrize("name", NETWORKS)
def test_bf16_is_near_float32_and_what_comes_out_is_float32(name):
    exact, rounded = (
        network_of(name, precision=precision).features(some_images()) for precision in ("float32", "bf16")
    )
    assert exact.dtype == rounded.dtype == torch.float32
    assert 0 < (exact - rounded).norm() / exact.norm() < 16 * BF16


def test_bodies_compute_in_bf16_and_classifiers_do_not():
    network, seen = network_of(precision="bf16"), {}
    network.body[0].register_forward_hook(lambda layer, given, maps: seen.update(body=maps.dtype))
    network.classifier.register_forward_hook(lambda layer, given, logits: seen.update(logits=logits.dtype))
    network(some_images()).sum().backward()
    assert seen == {"body": torch.bfloat16, "logits": torch.float32}
    assert {weight.grad.dtype for weight in network.parameters()} == {torch.float32}
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.filterwarnings(EMULATED)
def test_bf16_reaches_distillation_ptms_and_evaluation(tiny, tmp_path):
    settings = {"width": 4, "precision": "bf16"}
    (ptm,), (exact,) = (
        train_ptms(tiny, epochs=2, cache=tmp_path, width=4, precision=name) for name in ("bf16", "float32")
    )
    weights = [p.network.body[0].weight for p in (ptm, exact)]
    assert 0 < (weights[0] - weights[1]).norm() / weights[1].norm() < 0.1
    distilled = [
        distill(tiny, ipc=2, iterations=2, batch_real=6, width=4, precision=name, guidance="both", ptms=[exact])
        for name in ("bf16", "float32")
    ]
    images = [d.synthetic.images for d in distilled]
    assert images[0].dtype == torch.float32
    start = select_real(tiny, 2).images
    assert 0 < (images[0] - images[1]).norm() / (images[1] - start).norm() < 0.1
    first, again = (evaluate(select_real(tiny, 2), tiny, num_eval=2, eval_epochs=3, **settings) for _ in range(2))
    assert first["accuracy"].tolist() == again["accuracy"].tolist()


def test_a_ptm_that_computes_otherwise_has_sums_of_its_own(tiny, tiny_ptms):
    ptm = tiny_ptms[0]
    other = ptm.computing(Compute("bf16"), tiny.train.images, 1)
    assert (ptm.network.precision, other.network.precision) == ("float32", "bf16")
    assert other.network.classifier is ptm.network.classifier
    expected = class_sums(other.features(tiny.train.images), tiny.train.labels, 3).sums
    torch.testing.assert_close(other.class_sums(tiny).sums, expected, rtol=1e-3, atol=1e-3)
    assert not torch.equal(ptm.class_sums(tiny).sums, other.class_sums(tiny).sums)
    assert ptm.computing(Compute(), tiny.train.images, 1) is ptm


def test_a_machine_without_bf16_is_warned_of_and_one_with_it_is_not(monkeypatch):
    monkeypatch.setattr(module, "has_bf16", lambda device: False)
    with pytest.warns(UserWarning, match="this processor has no bf16 of its own and emulates it"):
        Compute("bf16").check(CPU)
    monkeypatch.setattr(module, "has_bf16", lambda device: True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Compute("bf16").check(CPU)


def test_tf32_is_refused_on_a_cpu_before_any_work(tiny, tmp_path):
    for work in (
        lambda: distill(tiny, precision="tf32"),
        lambda: evaluate(select_real(tiny, 1), tiny, precision="tf32"),
        lambda: train_ptms(tiny, cache=tmp_path, precision="tf32"),
    ):
        with pytest.raises(ValueError, match="tf32 is a precision of NVIDIA's GPUs; found cpu"):
            work()


def test_tf32_is_for_a_while():
    places = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = [place.fp32_precision for place in places]
    for allowed, said in ((True, "tf32"), (False, "ieee")):
        with contextlib.suppress(ZeroDivisionError), tf32(allowed):
            assert [place.fp32_precision for place in places] == [said, said]
            raise ZeroDivisionError
        assert [place.fp32_precision for place in places] == before


# Compiling


def test_operations_are_those_of_convolutions_and_products():
    """ConvNet-3 of width 8 at 16x16: convolutions at 16, 8 and 4 pixels, poolings as products, and the classifier."""
    convolutions = 2 * 9 * (3 * 8 * 16**2 + 8 * 8 * 8**2 + 8 * 8 * 4**2)
    poolings = sum(2 * (8 * size // 2) * (2 * size) * (size // 2) for size in (16, 8, 4))
    by_hand = convolutions + poolings + 2 * 8 * 2**2 * 10
    assert operations(network_of(), some_images(1)) == by_hand


@pytest.mark.parametrize(
    ("name", "share", "there", "settled"),
    [
        ("ConvNet-3", 1.01, True, "always"),
        ("ConvNet-3", 0.99, True, "never"),
        ("ConvNet-3", 1.01, False, "never"),
        ("AlexNet", 1e9, True, "never"),
    ],
)
def test_auto_compiles_where_it_pays(monkeypatch, name, share, there, settled):
    monkeypatch.setattr(module, "missing_compiler", lambda kind: None if there else "a compiler")
    network = network_of(name)
    passes = share * PAYS / operations(network, some_images(1))
    assert Compute(compile="auto").settled(network, some_images(), passes).compile == settled
    assert Compute("bf16", "auto").settled(nn.Linear(2, 2), some_images(), passes) == Compute("bf16", "never")
    assert Compute(compile="always").settled(network, some_images(), 0).compile == "always"


@compiler
def test_compiled_networks_change_only_the_rounding(tiny):
    settings = {"ipc": 2, "iterations": 4, "width": 4, "batch_real": 6}
    plain, compiled = (distill(tiny, **settings, compile=compile) for compile in ("never", "always"))
    assert compiled.history["base_loss"].tolist() == pytest.approx(plain.history["base_loss"].tolist(), rel=1e-5)
    assert torch.allclose(compiled.synthetic.images, plain.synthetic.images, atol=1e-4)


@pytest.fixture
def eagerly(monkeypatch):
    """PyTorch's tracing without a compiler behind it: all networks that were compiled, by batch and form."""
    monkeypatch.setattr(module, "missing_compiler", lambda kind: None)
    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda call, **given: compile(call, **given, backend="eager"))
    module.compiled_call.cache_clear()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield torch._dynamo.utils.counters["stats"]
    module.compiled_call.cache_clear()


def test_later_networks_find_the_compiled_code(tiny, eagerly):
    settings = {"ipc": 2, "width": 4, "batch_real": 6, "compile": "always"}
    distill(tiny, **settings, iterations=1)
    found = eagerly["unique_graphs"]
    distill(tiny, **settings, iterations=4, seed=1)
    assert eagerly["unique_graphs"] == found == 2  # real images without gradient, own with it


def test_networks_of_many_forms_are_all_compiled(eagerly):
    """PyTorch gives up after eight forms of one function."""
    networks = [network_of(name, compile="always") for name in NETWORKS]
    for network in networks:
        plain = copy.deepcopy(network)
        plain.compiled = False
        for n in (2, 3):
            torch.testing.assert_close(network(some_images(n)), plain(some_images(n)))
    assert eagerly["unique_graphs"] == 2 * len(NETWORKS)


def test_evaluation_compiles_if_asked(tiny, eagerly):
    tables = [
        evaluate(select_real(tiny, 2), tiny, num_eval=2, eval_epochs=2, width=4, compile=compile)
        for compile in ("never", "always")
    ]
    assert eagerly["unique_graphs"] == 2  # training, and testing without gradient
    assert tables[0]["accuracy"].tolist() == tables[1]["accuracy"].tolist()


def test_compile_always_needs_a_compiler(monkeypatch):
    monkeypatch.setattr(module, "missing_compiler", lambda kind: "a C compiler (gcc or clang)")
    with pytest.raises(ValueError, match=r"compile needs a C compiler .* Install it, or leave compile out"):
        Compute(compile="always").check(CPU)
    Compute(compile="auto").check(CPU)
