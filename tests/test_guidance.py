"""Guidance: PTMs and alphas become losses, against the plain formulas over the whole real set."""

import dataclasses

import pytest
import slow
import torch

import ddlib.guidance
from ddlib.combine import STRATEGIES, Step
from ddlib.guidance import GUIDANCE, Guidance, PTMSignal
from ddlib.objective import Alphas, loss_of
from ddlib.ptms.ptm import PTM
from ddlib.study.step_costs import GraphMemory

LABELS = torch.tensor([0, 0, 1, 1, 2, 2])


def synthetic(dataset, seed=0):
    shape = (len(LABELS), *dataset.train.images.shape[1:])
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def log_probabilities(ptm, images):
    """Image by image."""
    return slow.log_probabilities([ptm.logits(image[None])[0] for image in images])


def distances(ptm, images, dataset):
    """Of the features of each pair of a synthetic and a real image."""
    syn, real = ([ptm.features(image[None])[0] for image in part] for part in (images, dataset.train.images))
    return slow.cosine_distances(syn, real)


PLAIN = {
    "clom": lambda ptm, images, data: slow.clom(log_probabilities(ptm, images), LABELS),
    "ce_ratio": lambda ptm, images, data: slow.ce_ratio(log_probabilities(ptm, images), LABELS, data.train.labels),
    "cos_mean": lambda ptm, images, data: slow.cos_mean(distances(ptm, images, data), LABELS, data.train.labels),
    "cclom": lambda ptm, images, data: slow.cclom(distances(ptm, images, data), LABELS, data.train.labels),
}
ALPHAS = {"clom": 3.0, "ce_ratio": 40.0, "cos_mean": 5.0, "cclom": 50.0}
KINDS = [kind for kind, losses in GUIDANCE.items() if losses]


@pytest.fixture(scope="module")
def uneven(tiny):
    """``tiny`` with fewer images of its second and third class: 12, 6 and 3."""
    kept = [i for label, count in enumerate((12, 6, 3)) for i in (tiny.train.labels == label).nonzero()[:count, 0]]
    return dataclasses.replace(tiny, train=tiny.train.select(torch.stack(kept)))


@pytest.mark.parametrize("real", ["tiny", "uneven"])
@pytest.mark.parametrize("guidance", KINDS)
def test_loss_and_gradient_equal_the_plain_formulas(request, tiny_ptms, guidance, real):
    tiny = request.getfixturevalue(real)
    images = synthetic(tiny).requires_grad_()
    alphas = {f"alpha_{loss}": alpha for loss, alpha in ALPHAS.items()}
    signals = Guidance(guidance, tiny_ptms, **alphas).signals(tiny, LABELS)
    assert [signal.ptm for signal in signals] == tiny_ptms
    for signal, ptm in zip(signals, tiny_ptms, strict=True):
        expected = sum(ALPHAS[loss] * PLAIN[loss](ptm, images, tiny) for loss in GUIDANCE[guidance])
        found = loss_of(signal, images)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        gradient, plain = (torch.autograd.grad(loss, images)[0] for loss in (found, expected))
        assert plain.abs().max() > 1e-3
        torch.testing.assert_close(gradient, plain, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["clom", "ce_ratio"])
def test_losses_of_logits_ask_for_no_pass_over_the_real_set(tiny, tiny_ptms, monkeypatch, kind):
    monkeypatch.setattr(PTM, "class_sums", lambda *_: pytest.fail("the features of all real images were asked for"))
    signals = Guidance(kind, tiny_ptms).signals(tiny, LABELS)
    assert [signal.sums for signal in signals] == [None] * len(tiny_ptms)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "cos_mean"])
@pytest.mark.parametrize("strategy", ["loss_avg", "grad_avg", "logit_avg", "mgda"])
def test_many_images_go_through_a_ptm_in_chunks(tiny, tiny_ptms, monkeypatch, kind, strategy):
    """The same loss and gradient with the memory of a chunk; what fits in one chunk is bit by bit what it was."""
    images = synthetic(tiny).requires_grad_()
    signals = Guidance(kind, tiny_ptms, strategy).signals(tiny, LABELS)

    def guided(images_in_a_chunk: int):
        monkeypatch.setattr(ddlib.guidance, "CHUNK", images_in_a_chunk * 8 * 8)
        with GraphMemory() as memory:
            return STRATEGIES[strategy](images, signals, Step(0, 0)), memory

    (whole, all_of_it), (one_chunk, same), (chunks, less) = map(guided, (10**9, 6, 2))
    assert torch.equal(one_chunk.gradient, whole.gradient)
    assert torch.equal(one_chunk.loss, whole.loss)
    assert same.peak == all_of_it.peak
    torch.testing.assert_close(chunks.loss, whole.loss, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(chunks.gradient, whole.gradient, rtol=1e-4, atol=1e-6)
    assert less.peak < 0.6 * all_of_it.peak


def test_a_chunk_of_larger_images_has_fewer(tiny, tiny_ptms, monkeypatch):
    seen = []
    expects = dataclasses.replace(tiny.format, image_size=512)
    larger = dataclasses.replace(tiny_ptms[0], expects=expects, given=tiny.format)
    monkeypatch.setattr(PTM, "features", lambda self, images: seen.append(len(images)) or images.flatten(1))
    PTMSignal(larger, LABELS, Alphas()).outputs(synthetic(tiny).requires_grad_())
    assert seen == [4, 2]


def test_a_ptm_of_another_domain_gives_cclom_through_its_adapter(tiny_rgb, tiny_ptms):
    """Three other classes, RGB, 16 x 16: the features are those of the converted images."""
    images = synthetic(tiny_rgb).requires_grad_()
    (signal,) = Guidance("cclom", tiny_ptms[:1], alpha_clom=1.0, alpha_cclom=7.0).signals(tiny_rgb, LABELS)
    adapted = tiny_ptms[0].adapted_to(tiny_rgb)
    expected = 7.0 * PLAIN["cclom"](adapted, images, tiny_rgb)
    torch.testing.assert_close(loss_of(signal, images), expected, rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(loss_of(signal, images), images)
    assert gradient.abs().amax((1, 2, 3)).min() > 0


def test_a_ptm_of_other_images_of_the_same_classes_may_give_clom(tiny, tiny_rgb, tiny_ptms):
    same_classes = dataclasses.replace(tiny_rgb, class_names=tiny.class_names)
    (signal,) = Guidance("clom", tiny_ptms[:1], alpha_clom=2.0, alpha_cclom=0.0).signals(same_classes, LABELS)
    images = synthetic(tiny_rgb)
    expected = 2.0 * PLAIN["clom"](tiny_ptms[0].adapted_to(tiny_rgb), images, tiny_rgb)
    torch.testing.assert_close(loss_of(signal, images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("guidance", KINDS)
def test_one_forward_pass_over_the_synthetic_set(tiny, tiny_ptms, guidance):
    signals = Guidance(guidance, tiny_ptms).signals(tiny, LABELS)
    passes = []
    hook = tiny_ptms[1].network.body.register_forward_hook(lambda *args: passes.append(len(args[2])))
    try:
        loss_of(signals[1], synthetic(tiny))
    finally:
        hook.remove()
    assert passes == [len(LABELS)]


def test_outputs_are_what_the_guidance_asks_for(tiny, tiny_ptms):
    images = synthetic(tiny)
    for guidance, losses in GUIDANCE.items():
        for signal in Guidance(guidance, tiny_ptms[:1]).signals(tiny, LABELS):
            said = signal.outputs(images)
            assert {loss for loss, alpha in signal.alphas._asdict().items() if alpha is not None} == set(losses)
            assert (said.logits is not None) == bool({"clom", "ce_ratio"} & set(losses))
            assert (said.distances is not None) == ("cclom" in losses)
            assert (said.cosines is not None) == ("cos_mean" in losses)
            assert said.weights is None
    (both,) = Guidance("both", tiny_ptms[:1]).signals(tiny, LABELS)
    logits, (same, total), *_ = both.outputs(images)
    torch.testing.assert_close(logits, tiny_ptms[0].logits(images))
    torch.testing.assert_close(same / total, PLAIN["cclom"](tiny_ptms[0], images, tiny), rtol=1e-4, atol=1e-5)
    assert 0 < same < total < 2 * 6 * 36


def test_an_alpha_of_zero_is_a_loss_of_zero(tiny, tiny_ptms):
    (signal,) = Guidance("both", tiny_ptms[:1], alpha_clom=0.0, alpha_cclom=0.0).signals(tiny, LABELS)
    images = synthetic(tiny).requires_grad_()
    loss = loss_of(signal, images)
    assert loss == 0
    assert torch.autograd.grad(loss, images)[0].abs().max() == 0


def test_alpha_of_each_architecture(tiny, tiny_ptms):
    pool = [tiny_ptms[0], dataclasses.replace(tiny_ptms[1], architecture="AlexNet")]
    alphas = {"ConvNet-3": 1000.0, "AlexNet": 100.0, "VGG-11": 10.0}
    for signals in (
        Guidance("both", pool, alpha_clom=alphas, alpha_cclom=5.0).signals(tiny, LABELS),
        Guidance("both", pool, alpha_clom=5.0, alpha_cclom=alphas).signals(tiny, LABELS),
    ):
        found = {(signal.alphas.clom, signal.alphas.cclom) for signal in signals}
        assert found in ({(1000.0, 5.0), (100.0, 5.0)}, {(5.0, 1000.0), (5.0, 100.0)})
    for guidance in ("clom", "both"):
        with pytest.raises(ValueError, match="alpha names ConvNet-3, but one of the PTMs is a AlexNet"):
            Guidance(guidance, pool, alpha_clom={"ConvNet-3": 1.0}, alpha_cclom=1.0).signals(tiny, LABELS)
    (first, second) = Guidance("cclom", pool, alpha_clom={"ConvNet-3": 1.0}, alpha_cclom=2.0).signals(
        tiny, LABELS
    )  # that alpha is not asked for
    assert (first.alphas.clom, second.alphas.cclom) == (None, 2.0)


def test_weighting_sees_the_train_accuracy(tiny, tiny_ptms):
    ptm = dataclasses.replace(tiny_ptms[0], accuracy=0.9, train_accuracy=0.625)
    (signal,) = Guidance("clom", [ptm]).signals(tiny, LABELS)
    assert signal.accuracy == 0.625


def test_no_guidance_needs_nothing(tiny, tiny_ptms, tiny_rgb):
    assert Guidance("none", []).signals(tiny, LABELS) == []
    assert Guidance("none", tiny_ptms, alpha_clom={}, alpha_cclom={}).signals(tiny_rgb, LABELS) == []


# Errors


def test_unknown_guidance_lists_the_known_ones(tiny, tiny_ptms):
    with pytest.raises(ValueError, match="unknown guidance 'CLoM'; known: none, clom, ce_ratio, cos_mean, cclom, both"):
        Guidance("CLoM", tiny_ptms).signals(tiny, LABELS)


def test_a_network_that_is_no_ptm_is_refused_and_none_are_none():
    with pytest.raises(ValueError, match=r"a PTM is expected; found a Linear: ddlib.PTM.from_module makes one"):
        Guidance("clom", [torch.nn.Linear(3, 3)])
    assert Guidance("none", None).ptms == ()


@pytest.mark.parametrize("guidance", KINDS)
def test_guidance_needs_a_ptm(tiny, guidance):
    with pytest.raises(ValueError, match=f"guidance '{guidance}' needs at least one PTM.*ddlib.train_ptms"):
        Guidance(guidance, []).signals(tiny, LABELS)


@pytest.mark.parametrize("guidance", ["clom", "ce_ratio", "both"])
@pytest.mark.parametrize("names", [("red", "green", "blue"), ("bee", "ant", "cat")])
def test_clom_of_other_classes_is_refused(tiny, tiny_ptms, guidance, names):
    """Other names, and the same in another order. The PTM in question need not be the first."""
    stranger = dataclasses.replace(tiny_ptms[2], class_names=names, source_dataset="elsewhere")
    with pytest.raises(ValueError, match="Use guidance 'cclom'") as error:
        Guidance(guidance, [*tiny_ptms[:2], stranger]).signals(tiny, LABELS)
    message = str(error.value)
    assert "ConvNet-3 #2 @24 knows the classes of elsewhere" in message
    assert ", ".join(names[:3]) in message
    assert "those of tiny (ant, bee, cat" in message
    for kind in ("cclom", "cos_mean"):
        assert len(Guidance(kind, [stranger]).signals(tiny, LABELS)) == 1
