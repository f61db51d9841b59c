"""What a distillation may start from and how many images it makes: another set goes on, the rest is a clear error."""

import dataclasses

import pytest
import torch
from made import a_set

from ddlib.data.dataset import ImageFormat
from ddlib.distill import distill
from ddlib.selection import select_real
from ddlib.synthetic import SyntheticSet

SHORT = {"width": 4, "batch_real": 4}


def test_it_goes_on_from_an_earlier_set(tiny):
    first = distill(tiny, ipc=2, iterations=2, **SHORT).synthetic
    again = distill(tiny, ipc=2, iterations=1, start=first, snapshots=[0], seed=1, **SHORT)
    assert torch.equal(again.snapshots[0], first.images)
    assert not torch.equal(again.synthetic.images, first.images)
    assert again.synthetic.provenance["start"] == f"set {first.hash}"
    before = first.hash
    distill(tiny, ipc=2, iterations=1, start=first, **SHORT)
    assert SyntheticSet(first.images, first.labels, first.format, first.class_names).hash == before, "it is left alone"


def test_a_start_in_another_order_and_normalisation_keeps_its_pixels(tiny):
    first = select_real(tiny, 2)
    order = torch.tensor([5, 0, 3, 1, 4, 2])
    form = ImageFormat(1, 8, (0.0,), (1.0,))
    pixels = tiny.denormalise(first.images)
    mixed = dataclasses.replace(first, images=pixels[order], labels=first.labels[order], format=form)
    started = distill(tiny, ipc=2, iterations=1, start=mixed, snapshots=[0], **SHORT).snapshots[0]
    for label in range(3):
        of_class = mixed.images[mixed.labels == label]
        torch.testing.assert_close(tiny.denormalise(started[2 * label : 2 * label + 2]), of_class)


def test_a_checkpoint_of_another_start_is_refused(tiny, tmp_path):
    one, two = select_real(tiny, 1, seed=1), select_real(tiny, 1, seed=2)
    settings = {"ipc": 1, "iterations": 1, "checkpoint": tmp_path / "run", **SHORT}
    distill(tiny, start=one, **settings)
    with pytest.raises(ValueError, match="another run"):
        distill(tiny, start=two, **settings)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (lambda data: select_real(data, 2), "2 to 2 images of a class, and ipc is 1: give the ipc of the start"),
        (lambda data: a_set(channels=1, n=3, labels=torch.tensor([0, 0, 1])), "0 to 2 images of a class"),
        (lambda data: a_set(channels=3, n=3), r"has images \[3, 8, 8\]"),
        (lambda data: a_set(channels=1, n=3, names=("bee", "ant", "cat")), "the classes bee, ant, cat"),
        (lambda data: a_set(channels=1, n=3, labels=torch.eye(3)), "soft labels is not supported: base methods match"),
        (lambda data: data.train.images[:3], "unknown start a Tensor; known: real, noise, or a SyntheticSet"),
        (lambda data: "warm", "unknown start 'warm'; known: real, noise, or a SyntheticSet"),
    ],
)
def test_another_start_is_one_sentence(tiny, start, message):
    with pytest.raises(ValueError, match=message) as error:
        distill(tiny, ipc=1, iterations=1, start=start(tiny), **SHORT)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("ipc", [{"ant": 1, "bee": 2, "cat": 1}, [1, 2, 1], "1", 1.0, None])
def test_a_number_for_each_class_is_not_supported_and_says_why(tiny, ipc):
    for call in (lambda: distill(tiny, ipc=ipc, iterations=1, **SHORT), lambda: select_real(tiny, ipc)):
        with pytest.raises(ValueError, match=r"one whole number for all classes.*not supported: .*all classes at once"):
            call()
