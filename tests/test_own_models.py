"""Anybody's network as a PTM: in two parts it says what it says whole, it is copied, and what cannot be is refused."""

import copy
import dataclasses
import re

import pytest
import torch
from conftest import separable_dataset
from made import BOOK, global_seed, nothing_drawn
from torch import nn

import ddlib
from ddlib import PTM
from ddlib.ptms.parts import BATCH, Parts

NAMES = ["ant", "bee", "cat"]
FORMAT = {"mean": (0.3,), "std": (0.2,), "image_size": 8, "channels": 1}


class Own(nn.Module):
    """A module with parts of every kind: submodules, a method, maps, dropout, batch norm."""

    def __init__(self, classes=3, end=None):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.head = nn.Sequential(nn.Dropout(), nn.Linear(16, classes))
        self.end = end or nn.Identity()

    def embed(self, images):
        return self.pool(self.body(images)).flatten(1)

    def forward(self, images):
        return self.end(self.head(self.embed(images)))


@pytest.fixture
def own():
    with global_seed(0):
        return Own()


def ptm_of(module, features=None, classifier=None, class_names=NAMES, **about):
    return PTM.from_module(module, features, classifier, class_names=class_names, **(FORMAT | about))


IMAGES = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
WAYS = {
    "nothing": lambda own: (None, None),
    "names of submodules": lambda own: ("pool", "head"),
    "a submodule of a submodule": lambda own: (None, "head.1"),
    "names of methods": lambda own: ("embed", "head"),
    "bound methods": lambda own: (own.embed, own.head),
    "functions": lambda own: (lambda images: own.pool(own.body(images)), lambda features: own.head(features)),
    "a chain of its children": lambda own: (nn.Sequential(own.body, own.pool, nn.Flatten()), own.head),
    "a default argument": lambda own: (lambda images, own=own: own.embed(images), own.head),
}


@pytest.mark.parametrize("way", WAYS)
def test_its_parts_say_what_it_says(own, way):
    expected = copy.deepcopy(own).eval()
    ptm = ptm_of(own, *WAYS[way](own))
    with torch.no_grad():
        torch.testing.assert_close(ptm.logits(IMAGES), expected(IMAGES))
        torch.testing.assert_close(ptm.features(IMAGES), expected.embed(IMAGES))
    assert ptm.class_names == tuple(NAMES)
    assert (ptm.name, ptm.source_dataset) == ("Own #0", "own data")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("training", [True, False])
def test_the_module_stays_as_it_was_and_the_ptm_as_it_is(own, way, training):
    own.train(training)
    own.body[0].weight.requires_grad_(False)
    state = copy.deepcopy(own.state_dict())
    about = [(p.requires_grad, p.grad) for p in own.parameters()], [m.training for m in own.modules()]
    ptm = ptm_of(own, *WAYS[way](own))
    images = IMAGES.clone().requires_grad_()
    before = ptm.logits(images)
    before.square().sum().backward()
    assert images.grad.abs().amax((1, 2, 3)).min() > 0
    assert ([(p.requires_grad, p.grad) for p in own.parameters()], [m.training for m in own.modules()]) == about
    assert all(torch.equal(value, state[name]) for name, value in own.state_dict().items())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in ptm.network.parameters())
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.add_(1)
    assert torch.equal(ptm.logits(IMAGES), before)
    again = copy.deepcopy(ptm.network)  # as for another device: it speaks of its own copy in turn
    for parameter in ptm.network.parameters():
        parameter.zero_()
    assert torch.equal(again.classifier(again.features(IMAGES)), before)


def test_a_module_without_forward_and_a_head_of_its_own():
    body, head = nn.Conv2d(1, 2, 3), nn.Linear(72, 3)
    ptm = ptm_of(nn.ModuleDict({"features": body, "classifier": head}), "features", "classifier")
    apart = ptm_of(nn.Sequential(body), "0", head)
    expected = head(body(IMAGES).flatten(1))
    for found in (ptm, apart):
        torch.testing.assert_close(found.logits(IMAGES), expected)
        assert found.size_bytes == 4 * (2 * 9 + 2 + 72 * 3 + 3)  # no weight is counted twice
    assert head.weight.requires_grad
    assert not any(parameter.requires_grad for parameter in apart.network.parameters())


def test_the_hash_is_that_of_the_weights(own):
    same, other = copy.deepcopy(own), copy.deepcopy(own)
    with torch.no_grad():
        other.head[1].bias[0] += 1e-3
    assert ptm_of(own).hash == ptm_of(same.eval()).hash
    assert len({ptm_of(own).hash, ptm_of(other).hash, ptm_of(own, mean=(0.4,)).hash, ptm_of(own, "pool").hash}) == 4


def test_what_is_known_of_it_goes_along(own):
    ptm = ptm_of(own, architecture="my net", source_dataset="my photos", index=3, train_accuracy=0.75)
    assert (ptm.name, ptm.source_dataset, ptm.train_accuracy) == ("my net #3", "my photos", 0.75)


@pytest.mark.parametrize("guidance", ["clom", "cclom", "both"])
def test_it_guides(own, guidance):
    data = separable_dataset()
    settings = {"ipc": 1, "iterations": 2, "width": 4, "batch_real": 4}
    plain = ddlib.distill(data, **settings).synthetic
    guided = ddlib.distill(data, **settings, guidance=guidance, ptms=[ptm_of(own)]).synthetic
    assert guided.images.isfinite().all()
    assert guided.hash != plain.hash


def test_a_list_of_names_beside_a_tuple_is_no_difference(own, tiny):
    assert ddlib.Guidance("clom", [ptm_of(own)]).signals(tiny, torch.arange(3))
    data = dataclasses.replace(tiny, class_names=list(tiny.class_names))
    assert ddlib.Guidance("clom", [ptm_of(own)]).signals(data, torch.arange(3))


# What is refused


class Silent(Own):
    """Looks at images without gradients."""

    @torch.no_grad()
    def embed(self, images):
        return super().embed(images)


class Output:
    """As of Hugging Face."""

    def __init__(self, logits):
        self.logits = logits


class Object(Own):
    """Gives an object, and its features as one."""

    def embed_object(self, images):
        return Output(self.embed(images))

    def forward(self, images):
        return Output(super().forward(images))


def test_an_object_with_logits():
    ptm = ptm_of(Object())
    assert ptm.logits(IMAGES).shape == (5, 3)


REFUSED = {
    "1000 classes, 5 names": (Own(1000), {"class_names": list("abcde")}, r"gives a tensor \[2, 1000\].*has 5 classes"),
    "3 classes, 5 names": (Own(3), {"class_names": list("abcde")}, r"gives a tensor \[2, 3\] .*has 5 classes.*head"),
    "softmax": (
        nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(64, 3), nn.Softmax(1))),
        {"features": "0", "classifier": "1"},
        "gives probabilities; expected logits: leave out its softmax",
    ),
    "softmax in a function": (
        Own(),
        {"features": "embed", "classifier": lambda x: torch.full((len(x), 3), 1 / 3)},
        "gives probabilities; expected logits: leave out its softmax",
    ),
    "names in one text": (Own(), {"class_names": "abc"}, "class_names is 'abc'; expected a list of names"),
    "no module": (object(), {}, "module is a object; expected a torch.nn.Module"),
    "no linear layer": (nn.Conv2d(1, 3, 3), {}, "Conv2d does not end in a linear layer"),
    "no such submodule": (Own(), {"features": "backbone"}, "features is 'backbone', which the module has not; its sub"),
    "no such classifier": (Own(), {"classifier": "fc"}, r"classifier is 'fc'.*body, body.0, .*head.1"),
    "a function alone": (Own(), {"classifier": lambda x: x}, "Without features, classifier must be"),
    "a part that does not run": (Own(), {"features": "end", "classifier": "head"}, r"The classifier of Own fails on"),
    "not all layers": (Own(), {"features": "body", "classifier": "head"}, r"fails on features \[2, 256\]"),
    "a layer left out": (
        nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 3)),
        {"features": "1", "classifier": "3"},
        "does not say what the whole module says.*Leave features out",
    ),
    "no tensor": (Object(), {"features": "embed_object", "classifier": "head"}, r"are a Output; expected a .*\[2, D\]"),
    "one image for all": (Own(), {"features": lambda x: x.mean((0, 2, 3)), "classifier": "head"}, r"a tensor \[1\]"),
    "no gradient": (Silent(), {}, "No gradient goes from the features of Silent to the images: leave out no_grad"),
    "another size": (nn.Sequential(nn.Flatten(), nn.Linear(49, 3)), {}, r"fails on images \[2, 1, 8, 8\].*image_size"),
    "other channels": (Own(), {"channels": 3, "mean": (0.5,) * 3, "std": (0.5,) * 3}, "check image_size and channels"),
    "moments": (Own(), {"channels": 3}, "mean and std need one number for each of 3 channels"),
    "a size of 0": (Own(), {"image_size": 0}, "image_size is 0; expected the side of the images in pixels"),
    "half precision": (Own().half(), {}, r"are torch.float16; expected float32: module.float\(\)"),
    "double precision": (Own().double(), {}, r"are torch.float64; expected float32: module.float\(\)"),
    "several devices": (
        nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 3, device="meta")),
        {},
        "lie on .*; expected one device",
    ),
    "not finite": (
        Own(),
        {"features": lambda x: x.flatten(1) / 0, "classifier": "head"},
        "features of Own are not ",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_a_ptm_is_refused_with_what_to_do(case):
    module, arguments, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        ptm_of(module, **arguments)


def test_a_softmax_behind_the_classifier_does_no_harm(own):
    """The parts give the logits, whatever the whole does with them."""
    own.end = nn.Softmax(1)
    assert ptm_of(own, "embed", "head").logits(IMAGES).min() < 0


def test_a_function_that_hides_the_module_is_refused(own):
    holder, state = {"model": own}, copy.deepcopy(own.state_dict())
    with pytest.raises(ValueError, match="runs the module itself, and not the PTM's own copy"):
        ptm_of(own, lambda images: holder["model"].embed(images), "head")
    assert all(torch.equal(value, state[name]) for name, value in own.state_dict().items())


def test_the_constructor_checks_and_copies_too(own, tiny):
    about = ("Own", "photos", NAMES, tiny.format, "hash")
    with pytest.raises(ValueError, match=r"that of Own #0 is a Own without. PTM.from_module makes a PTM of any module"):
        PTM(own, *about)
    with pytest.raises(ValueError, match="is a object without"):
        PTM(object(), *about)
    network = ddlib.build_network("ConvNet-3", 1, 5, 8, width=4)
    with pytest.raises(ValueError, match=r"gives a tensor \[2, 5\] for 2 images, but class_names has 3"):
        PTM(network, *about)
    network = ddlib.build_network("ConvNet-3", 1, 3, 8, width=4, norm="batch")
    state = copy.deepcopy(network.state_dict())
    ptm = PTM(network, *about)
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert dataclasses.replace(ptm, index=1).network is ptm.network  # frozen: no further copy


def test_a_ptm_is_tried_once_and_not_anew_when_it_is_adapted(own, tiny_rgb):
    ptm, seen = ptm_of(own), []
    ptm.network.module.body.register_forward_hook(lambda *about: seen.append(len(about[2])))
    ptm.adapted_to(tiny_rgb)
    assert not seen
    dataclasses.replace(ptm, index=1)
    assert set(seen) == {BATCH}


def test_no_global_randomness_is_read_or_changed(own):
    with nothing_drawn():
        ptm_of(own)


def test_a_part_that_never_runs_is_named():
    parts = Parts(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), None, nn.Linear(64, 3))
    with pytest.raises(ValueError, match="the submodule does not run when the module does"):
        parts.features(IMAGES)


# The page in the book

PAGE = (BOOK / "own_model.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"(?s)```python\n(.*?)```", PAGE)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_examples_of_the_page_run(number):
    for extra in ("timm", "transformers"):
        if f"import {extra}" in EXAMPLES[number] or f"from {extra}" in EXAMPLES[number]:
            pytest.importorskip(extra, reason=f"needs {extra}: pip install {extra}")
    names = {}
    exec(compile(EXAMPLES[number], f"example {number} of own_model.md", "exec"), names)
    if "ptm" in names:
        images = torch.randn(2, *names["ptm"].expects.shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            whole = names["model"].eval()(images)
            torch.testing.assert_close(names["ptm"].logits(images), getattr(whole, "logits", whole))
    else:
        assert names["table"]["architecture"].tolist() == ["ConvNet-3"] * 2 + ["my net"] * 2


def test_the_page_has_an_example_of_each_kind():
    kinds = ("data = ddlib.load_dataset", "from torchvision", "import timm", "from transformers", "ddlib.evaluate")
    assert all(any(kind in example for example in EXAMPLES) for kind in kinds)
