"""Synthetic sets: what is refused, files that give back every bit, pictures, and the reference's .pt layout."""

import numpy as np
import pytest
import torch
from made import MEAN, STD, a_set
from PIL import Image

from ddlib.data.dataset import ImageFormat
from ddlib.disk.tensors import write_tensors
from ddlib.synthetic import SyntheticSet, labels_of


def png(path):
    return np.asarray(Image.open(path))


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(6, 8, 8)}, r"images \[N, C, H, W\] .* found \[6, 8, 8\]"),
        ({"labels": torch.zeros(5, dtype=torch.int64)}, r"found \[6, 3, 8, 8\] and torch.int64 labels \[5\]"),
        ({"labels": torch.zeros(6, 1, dtype=torch.int64)}, r"labels \[6, 1\]"),
        ({"labels": torch.zeros(6)}, r"torch.float32 labels \[6\]"),
        ({"labels": torch.zeros(6, 2)}, r"float32 labels \[N, 3\]; found"),
        ({"labels": torch.randn(6, 3)}, r"soft labels are probabilities.*Logits become such by .*softmax\(1\)"),
        ({"labels": torch.full((6, 3), 0.5)}, "with a sum of one"),
        ({"labels": torch.tensor([0, 1, 2, 0, 1, 3])}, "labels from 0 to 2"),
        ({"labels": torch.tensor([0, 1, 2, 0, 1, -1])}, "labels from 0 to 2"),
        ({"images": torch.zeros(0, 3, 8, 8), "labels": torch.zeros(0, dtype=torch.int64)}, "needs images"),
        ({"class_names": ()}, "labels from 0 to -1"),
        ({"images": torch.full((6, 3, 8, 8), float("nan"))}, "finite float32 images with pixels"),
        ({"images": torch.full((6, 3, 8, 8), float("inf"))}, "finite float32 images with pixels"),
        ({"images": torch.zeros(6, 3, 8, 8, dtype=torch.float64)}, "finite float32 images with pixels"),
        ({"images": torch.zeros(6, 3, 0, 0)}, "finite float32 images with pixels"),
        ({"images": torch.zeros(6, 1, 8, 8)}, r"images \[1, 8, 8\] are not of their format, \[3, 8, 8\]"),
        ({"images": torch.zeros(6, 3, 4, 16)}, r"images \[3, 4, 16\] are not of their format, \[3, 8, 8\]"),
        ({"format": ImageFormat(3, 16, MEAN, STD)}, r"images \[3, 8, 8\] are not of their format, \[3, 16, 16\]"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        a_set(**changes)


def test_of_takes_over_what_the_data_set_says(tiny):
    images = tiny.train.images[:3].clone().requires_grad_()
    made = SyntheticSet.of(tiny, images, tiny.train.labels[:3], seed=7)
    assert not made.images.requires_grad
    assert torch.equal(made.images, images)
    assert (made.format, made.class_names) == (tiny.format, tiny.class_names)
    assert made.provenance == {"dataset": "tiny", "dataset_hash": tiny.hash, "seed": 7}
    assert len(made) == 3


def test_pixels_are_denormalised_and_clamped():
    images = torch.tensor([-1.0, 0.5, 1.0, 3.0]).view(1, 1, 2, 2)
    made = a_set(1, 1, size=2, images=images, labels=torch.tensor([0]))
    assert made.pixels.flatten().tolist() == [0.0, 0.75, 1.0, 1.0]
    assert a_set().pixels.shape == (6, 3, 8, 8)
    low, high = a_set(images=torch.full((6, 3, 8, 8), -0.25)).pixels, a_set(images=torch.full((6, 3, 8, 8), 0.5)).pixels
    assert low[0, :, 0, 0].tolist() == [0.375, 0.1875, 0.0]
    assert high[0, :, 0, 0].tolist() == [0.75, 0.375, 0.375]


def test_the_hash_is_that_of_images_and_labels():
    made = a_set()
    assert len(made.hash) == 16
    assert set(made.hash) <= set("0123456789abcdef")
    assert (
        made.hash
        == a_set().hash
        == a_set(provenance={}, class_names=("x", "y", "z"), format=ImageFormat(3, 8, STD, STD)).hash
    )
    nudged = made.images.clone()
    nudged[0, 0, 0, 0] = torch.nextafter(nudged[0, 0, 0, 0], torch.tensor(9.0))
    reshaped = {"images": made.images.view(6, 12, 4, 4), "format": ImageFormat(12, 4, MEAN * 4, STD * 4)}
    others = [{"images": nudged}, {"labels": made.labels.flip(0)}, reshaped]
    assert len({made.hash, *(a_set(**other).hash for other in others)}) == 4


def test_to_moves_every_tensor():
    made = a_set().to("cpu")
    assert made.hash == a_set().hash
    assert made.provenance == a_set().provenance


def test_labels_of_a_balanced_set():
    assert labels_of(3, 2).tolist() == [0, 0, 1, 1, 2, 2]
    assert labels_of(3, 2).dtype == torch.int64


# Another normalisation


def test_normalised_for_keeps_the_pixels(tiny):
    made = a_set(channels=1)
    other = made.normalised_for(tiny)
    torch.testing.assert_close(other.images * 0.2 + 0.3, made.images * 0.5 + 0.5)  # moments of tiny and of made
    assert other.format == tiny.format
    assert torch.equal(other.labels, made.labels)
    assert other.provenance == made.provenance
    assert (made.images * 0.5 + 0.5).min() < 0  # pixels outside [0, 1] are kept as well


def test_normalised_for_its_own_data_set_changes_no_bit(tiny):
    made = SyntheticSet.of(tiny, a_set(channels=1).images, a_set().labels)
    assert made.normalised_for(tiny).hash == made.hash


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"channels": 3}, r"images \[3, 8, 8\] .* tiny has \[1, 8, 8\]"),
        ({"channels": 1, "size": 16}, r"images \[1, 16, 16\] .* tiny has \[1, 8, 8\]"),
        ({"channels": 1, "names": ("ant", "bee", "cow")}, r"the classes ant, bee, cow, .* of ant, bee, cat"),
        ({"channels": 1, "names": ("bee", "ant", "cat")}, "the classes bee, ant, cat"),
        ({"channels": 1, "names": ("ant", "bee", "cat", "dog")}, "load the data set that it was made from"),
    ],
)
def test_another_kind_of_images_is_refused(tiny, other, message):
    with pytest.raises(ValueError, match=message):
        a_set(**other).normalised_for(tiny)


# Its own files


def test_save_and_load_give_back_every_bit(tmp_path):
    made = a_set(images=a_set().images.transpose(2, 3))  # not contiguous
    made.save(tmp_path / "new" / "set.safetensors")
    back = SyntheticSet.load(str(tmp_path / "new" / "set.safetensors"))
    for name in ("images", "labels"):
        assert torch.equal(getattr(back, name), getattr(made, name))
        assert getattr(back, name).dtype == getattr(made, name).dtype
    assert back.format == made.format
    assert back.class_names == ("ant", "bee", "cat")
    assert back.provenance == {"seed": 1, "alpha": [0.1, None]}
    assert back.hash == made.hash
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["set.safetensors"]


def test_load_refuses_files_that_are_not_whole(tmp_path):
    path = tmp_path / "set"
    with pytest.raises(FileNotFoundError, match=r"There is no file .*set"):
        SyntheticSet.load(path)
    a_set().save(path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-100] ^= 1
    for damaged in (whole[:-1], whole[:40], bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"set is damaged.*delete it"):
            SyntheticSet.load(path)


def test_load_does_not_call_a_sound_file_of_somebody_else_damaged(tmp_path):
    path = tmp_path / "theirs.pt"
    torch.save({"images": a_set().images, "labels": a_set().labels}, path)
    theirs = path.read_bytes()
    for content in (theirs, b"", b"PNG" * 100):
        path.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"was not written by ddlib .*ddlib\.load_synthetic\(path, dataset\)"
        ) as error:
            SyntheticSet.load(path)
        assert "damaged" not in str(error.value)
        assert "delete" not in str(error.value)


def test_load_refuses_files_of_another_kind(tmp_path):
    path, tensors = tmp_path / "set", {"images": torch.zeros(1, 1, 2, 2), "labels": torch.zeros(1, dtype=torch.int64)}
    moments = {"mean": torch.zeros(1), "std": torch.ones(1)}
    about = {"class_names": ["a"]}
    for held, said in (
        (tensors, about),
        (tensors | moments, {}),
        (tensors | moments | {"momentum": torch.zeros(1)}, about),
        ({}, about),
    ):
        write_tensors(path, held, said)
        with pytest.raises(
            ValueError, match=r"set holds (images, labels|nothing).*: that is no synthetic set of ddlib"
        ):
            SyntheticSet.load(path)
    write_tensors(path, tensors | moments, about)
    assert SyntheticSet.load(path).provenance == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(1, 8, 8)}, r"images \[N, C, H, W\], and mean \[C\]"),
        ({"mean": torch.tensor(0.5)}, r"mean \[C\] and std \[C\] in float32"),
        ({"std": torch.ones(1, dtype=torch.float64)}, r"mean \[C\] and std \[C\] in float32"),
        ({"mean": torch.zeros(1, dtype=torch.int64)}, r"mean \[C\] and std \[C\] in float32"),
        ({"mean": torch.zeros(3)}, "one number for each of 1 channels"),
        ({"std": torch.ones(4)}, "one number for each of 1 channels"),
        ({"std": torch.zeros(1)}, "std > 0"),
        ({"mean": torch.tensor([float("inf")])}, "finite numbers"),
        ({"images": torch.zeros(1, 1, 8, 6)}, r"images \[1, 8, 6\] are not of their format, \[1, 6, 6\]"),
    ],
)
def test_load_refuses_tensors_that_are_none_of_a_set(tmp_path, changes, message):
    held = {"images": torch.zeros(1, 1, 8, 8), "labels": torch.zeros(1, dtype=torch.int64)}
    held |= {"mean": torch.zeros(1), "std": torch.ones(1), **changes}
    write_tensors(tmp_path / "set", held, {"class_names": ["a"]})
    with pytest.raises(ValueError, match=f"set is no synthetic set of ddlib: .*{message}"):
        SyntheticSet.load(tmp_path / "set")


# Pictures


def test_the_grid_has_a_row_for_each_class(tmp_path):
    """Grey levels by hand: label 0 has two images, label 1 three, label 2 none."""
    levels, labels = torch.tensor([0.0, 51, 102, 153, 204]), torch.tensor([1, 0, 1, 0, 1])
    images = (levels / 255).view(5, 1, 1, 1).expand(5, 1, 3, 3)
    made = a_set(5, 1, images=images, labels=labels, format=ImageFormat(1, 3, (0.0,), (1.0,)))
    made.save_grid(tmp_path / "new" / "grid.png", gap=2)
    white = 255
    expected = np.full((3 * 3 + 2 * 2, 3 * 3 + 2 * 2), white, dtype=np.uint8)
    for level, row, column in ((51, 0, 0), (153, 0, 1), (0, 1, 0), (102, 1, 1), (204, 1, 2)):
        expected[row * 5 : row * 5 + 3, column * 5 : column * 5 + 3] = level
    np.testing.assert_array_equal(png(tmp_path / "new" / "grid.png"), expected)


def test_the_grid_has_colours_and_a_gap_of_one(tmp_path):
    made = a_set()
    made.save_grid(tmp_path / "grid.png")
    picture = png(tmp_path / "grid.png")
    assert picture.shape == (3 * 8 + 2, 2 * 8 + 1, 3)
    assert (picture[8] == 255).all()
    assert (picture[:, 8] == 255).all()
    fourth = (made.pixels[4] * 255).round().byte().permute(1, 2, 0).numpy()  # second image of class 1
    np.testing.assert_array_equal(picture[9:17, 9:], fourth)


def test_other_numbers_of_channels_become_grey(tmp_path):
    images = torch.tensor([0.2, 0.6]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    made = a_set(
        images=images, labels=torch.tensor([0]), format=ImageFormat(2, 4, (0.0, 0.0), (1.0, 1.0)), names=("a",)
    )
    made.save_grid(tmp_path / "grid.png")
    np.testing.assert_array_equal(png(tmp_path / "grid.png"), np.full((4, 4), 102))


def test_what_is_printed_is_a_line(tiny):
    made = SyntheticSet.of(tiny, tiny.train.images[:3], torch.arange(3))
    assert repr(made) == "<SyntheticSet: 3 images [1, 8, 8], labels of 3 classes>"
    assert repr(tiny) == "<Dataset tiny: 36 training and 18 test images [1, 8, 8] of 3 classes on cpu>"
