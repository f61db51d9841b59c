"""Synthetic sets: what is refused, files that give back every bit, pictures, and the reference's .pt layout."""

import dataclasses
import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddlib.data.dataset import Dataset, ImageFormat, Split
from ddlib.data.readers import DATASETS, load_dataset
from ddlib.disk.tensors import write_tensors
from ddlib.synthetic import SyntheticSet, labels_of

MEAN, STD = (0.5, 0.25, 0.125), (0.5, 0.25, 0.5)


def make(n=6, channels=3, size=8, names=("ant", "bee", "cat"), seed=0, **changes):
    images = torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(seed))
    form = ImageFormat(channels, size, MEAN[:channels], STD[:channels])
    given = {"images": images, "labels": torch.arange(n) % len(names), "format": form}
    return SyntheticSet(**(given | {"class_names": names, "provenance": {"seed": 1, "alpha": [0.1, None]}} | changes))


def dataset_like(name, channels, size, num_classes=10, seed=0):
    """Two images a class that are in the form of a known data set, with moments of their own."""
    draw = torch.Generator().manual_seed(seed)
    labels = labels_of(num_classes, 2)
    split = Split(torch.randn(len(labels), channels, size, size, generator=draw), labels)
    moments = (torch.rand(2, channels, generator=draw) / 4 + 0.2).unbind()
    form = ImageFormat.of(split.images, *moments)
    return Dataset(name, split, split, tuple(f"class {i}" for i in range(num_classes)), form)


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
        make(**changes)


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
    made = make(1, 1, size=2, images=images, labels=torch.tensor([0]))
    assert made.pixels.flatten().tolist() == [0.0, 0.75, 1.0, 1.0]
    assert make().pixels.shape == (6, 3, 8, 8)
    low, high = make(images=torch.full((6, 3, 8, 8), -0.25)).pixels, make(images=torch.full((6, 3, 8, 8), 0.5)).pixels
    assert low[0, :, 0, 0].tolist() == [0.375, 0.1875, 0.0]
    assert high[0, :, 0, 0].tolist() == [0.75, 0.375, 0.375]


def test_the_hash_is_that_of_images_and_labels():
    made = make()
    assert len(made.hash) == 16
    assert set(made.hash) <= set("0123456789abcdef")
    assert (
        made.hash
        == make().hash
        == make(provenance={}, class_names=("x", "y", "z"), format=ImageFormat(3, 8, STD, STD)).hash
    )
    nudged = made.images.clone()
    nudged[0, 0, 0, 0] = torch.nextafter(nudged[0, 0, 0, 0], torch.tensor(9.0))
    reshaped = {"images": made.images.view(6, 12, 4, 4), "format": ImageFormat(12, 4, MEAN * 4, STD * 4)}
    others = [{"images": nudged}, {"labels": made.labels.flip(0)}, reshaped]
    assert len({made.hash, *(make(**other).hash for other in others)}) == 4


def test_to_moves_every_tensor():
    made = make().to("cpu")
    assert made.hash == make().hash
    assert made.provenance == make().provenance


def test_labels_of_a_balanced_set():
    assert labels_of(3, 2).tolist() == [0, 0, 1, 1, 2, 2]
    assert labels_of(3, 2).dtype == torch.int64


# Another normalisation


def test_normalised_for_keeps_the_pixels(tiny):
    made = make(channels=1)
    other = made.normalised_for(tiny)
    torch.testing.assert_close(other.images * 0.2 + 0.3, made.images * 0.5 + 0.5)  # moments of tiny and of made
    assert other.format == tiny.format
    assert torch.equal(other.labels, made.labels)
    assert other.provenance == made.provenance
    assert (made.images * 0.5 + 0.5).min() < 0  # pixels outside [0, 1] are kept as well


def test_normalised_for_its_own_data_set_changes_no_bit(tiny):
    made = SyntheticSet.of(tiny, make(channels=1).images, make().labels)
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
        make(**other).normalised_for(tiny)


# Its own files


def test_save_and_load_give_back_every_bit(tmp_path):
    made = make(images=make().images.transpose(2, 3))  # not contiguous
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
    make().save(path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-100] ^= 1
    for damaged in (whole[:-1], whole[:30], b"", b"PNG" * 100, bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"set is damaged"):
            SyntheticSet.load(path)


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
    made = make(5, 1, images=images, labels=labels, format=ImageFormat(1, 3, (0.0,), (1.0,)))
    made.save_grid(tmp_path / "new" / "grid.png", gap=2)
    white = 255
    expected = np.full((3 * 3 + 2 * 2, 3 * 3 + 2 * 2), white, dtype=np.uint8)
    for level, row, column in ((51, 0, 0), (153, 0, 1), (0, 1, 0), (102, 1, 1), (204, 1, 2)):
        expected[row * 5 : row * 5 + 3, column * 5 : column * 5 + 3] = level
    np.testing.assert_array_equal(png(tmp_path / "new" / "grid.png"), expected)


def test_the_grid_has_colours_and_a_gap_of_one(tmp_path):
    made = make()
    made.save_grid(tmp_path / "grid.png")
    picture = png(tmp_path / "grid.png")
    assert picture.shape == (3 * 8 + 2, 2 * 8 + 1, 3)
    assert (picture[8] == 255).all()
    assert (picture[:, 8] == 255).all()
    fourth = (made.pixels[4] * 255).round().byte().permute(1, 2, 0).numpy()  # second image of class 1
    np.testing.assert_array_equal(picture[9:17, 9:], fourth)


def test_other_numbers_of_channels_become_grey(tmp_path):
    images = torch.tensor([0.2, 0.6]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    made = make(images=images, labels=torch.tensor([0]), format=ImageFormat(2, 4, (0.0, 0.0), (1.0, 1.0)))
    (path,) = made.save_pngs(tmp_path)
    np.testing.assert_array_equal(png(path), np.full((4, 4), 102))


@pytest.mark.parametrize("channels", [1, 3])
def test_single_pngs_are_an_image_folder(tmp_path, channels):
    made = make(channels=channels)
    for part in ("train", "test"):
        paths = made.save_pngs(tmp_path / part)
    assert [str(path.relative_to(tmp_path / "test")) for path in paths] == [
        f"{name}/{number:04d}.png" for number in (0, 1) for name in ("ant", "bee", "cat")
    ]
    back = load_dataset(tmp_path, image_size=8)
    assert back.class_names == made.class_names
    order = made.labels.argsort(stable=True)
    pixels = back.denormalise(back.train.images) * 255
    torch.testing.assert_close(pixels, (made.pixels[order] * 255).round(), rtol=0, atol=1e-3)
    assert torch.equal(back.train.labels, made.labels[order])


@pytest.mark.parametrize(
    "names",
    [
        ("T-shirt/top", "été", "Ankle boot"),
        ("a/b", "a_b", "a:b"),  # one and the same, once made safe
        ("..", ".", "up"),
        ("", " ", "."),
        ("../../evil", "/etc/evil", ".hidden"),
        ("Cat", "cat", "CAT"),  # the same folder on macOS and Windows
    ],
)
def test_every_class_gets_a_folder_of_its_own(tmp_path, names):
    made = make(names=names)
    for part in ("train", "test"):
        paths = made.save_pngs(tmp_path / "folder" / part)
    assert len({str(path).casefold() for path in paths}) == 6
    assert all(path.parent.parent == tmp_path / "folder" / "test" and path.is_file() for path in paths)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    back = load_dataset(tmp_path / "folder", image_size=8)
    assert (back.num_classes, len(back.train)) == (3, 6)
    folders = {label: path.parent.name for label, path in zip(made.labels.tolist(), paths, strict=True)}
    assert sorted(folders.values()) == list(back.class_names)
    assert all(path.parent.name == folders[label] for label, path in zip(made.labels.tolist(), paths, strict=True))


def test_safe_names_are_kept(tmp_path):
    made = make(names=("T-shirt/top", "Ankle boot", "0"))
    assert [path.parent.name for path in made.save_pngs(tmp_path)[:3]] == ["T-shirt_top", "Ankle boot", "0"]


# The reference's layout

KNOWN = [("mnist", 1, 28, 10), ("fashion_mnist", 1, 28, 10), ("svhn", 3, 32, 10)]
KNOWN += [("cifar10", 3, 32, 10), ("cifar100", 3, 32, 100)]


def test_every_normalisation_of_the_reference_is_tested():
    assert [name for name, *_ in KNOWN] == [name for name, source in DATASETS.items() if source.reference_mean]


@pytest.mark.parametrize(("name", "channels", "size", "classes"), KNOWN)
def test_the_reference_layout_and_back(tmp_path, name, channels, size, classes):
    data = dataset_like(name, channels, size, classes)
    made = SyntheticSet.of(data, data.train.images, data.train.labels)
    made.save_reference(tmp_path / "set.pt")
    held = torch.load(tmp_path / "set.pt", weights_only=True)
    assert list(held) == ["data", "accs_all_exps"]
    ((images, labels),) = held["data"]
    theirs = DATASETS[name].reference_mean, DATASETS[name].reference_std
    mean, std = (torch.tensor(moment).view(-1, 1, 1) for moment in theirs)
    torch.testing.assert_close(images * std + mean, data.denormalise(data.train.images), rtol=1e-5, atol=1e-5)
    assert torch.equal(labels, made.labels)
    back = SyntheticSet.load_reference(tmp_path / "set.pt", data)
    torch.testing.assert_close(back.images, made.images, rtol=1e-4, atol=1e-5)
    assert torch.equal(back.labels, made.labels)
    assert back.format == data.format
    assert back.class_names == data.class_names
    assert back.provenance == {"dataset": name, "dataset_hash": data.hash, "source": "set.pt"}


@pytest.mark.parametrize(
    ("name", "size", "black", "white"),
    [
        ("mnist", 28, [-0.4242], [2.8215]),  # -0.1307 / 0.3081 and (1 - 0.1307) / 0.3081
        ("fashion_mnist", 28, [-0.8105], [2.0224]),
        ("svhn", 32, [-2.2106, -2.2080, -2.4000], [2.8399, 2.7672, 2.6761]),
        ("cifar10", 32, [-2.4291, -2.4183, -2.2214], [2.5141, 2.5968, 2.7537]),
        ("cifar100", 32, [-1.8971, -1.8978, -1.5963], [1.8440, 2.0023, 2.0243]),
    ],
)
def test_black_and_white_by_hand(tmp_path, name, size, black, white):
    data = dataset_like(name, len(white), size)
    images = torch.tensor([black, white])[:, :, None, None].expand(-1, -1, size, size)
    torch.save({"data": [[images, torch.tensor([4, 2])]], "accs_all_exps": {}}, tmp_path / "set.pt")
    back = SyntheticSet.load_reference(tmp_path / "set.pt", data)
    pixels = data.denormalise(back.images)
    torch.testing.assert_close(pixels, torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand_as(pixels), rtol=0, atol=1e-4)
    back.save_reference(tmp_path / "again.pt")
    torch.testing.assert_close(torch.load(tmp_path / "again.pt")["data"][0][0], images, rtol=0, atol=1e-3)


def test_a_holdout_is_normalised_as_its_data_set(tmp_path):
    data = dataset_like("cifar10", 3, 32)
    held_out = data.holdout(0.5)
    assert held_out.name == "cifar10-holdout"
    made = SyntheticSet.of(data, data.train.images, data.train.labels)
    made.save_reference(tmp_path / "set.pt")
    back = SyntheticSet.load_reference(tmp_path / "set.pt", held_out)
    torch.testing.assert_close(back.images, made.images, rtol=1e-4, atol=1e-5)
    SyntheticSet.of(held_out, data.train.images, data.train.labels).save_reference(tmp_path / "other.pt")
    a, b = (torch.load(tmp_path / name)["data"][0][0] for name in ("set.pt", "other.pt"))
    assert torch.equal(a, b)


def test_other_data_sets_keep_their_own_normalisation(tiny, tmp_path):
    made = SyntheticSet.of(tiny, make(channels=1).images, make().labels)
    made.save_reference(tmp_path / "own.pt")
    torch.testing.assert_close(torch.load(tmp_path / "own.pt")["data"][0][0], made.images)
    torch.testing.assert_close(SyntheticSet.load_reference(tmp_path / "own.pt", tiny).images, made.images)
    made.save_reference(tmp_path / "mnist.pt", dataset="mnist")
    expected = (tiny.denormalise(made.images) - 0.1307) / 0.3081
    torch.testing.assert_close(torch.load(tmp_path / "mnist.pt")["data"][0][0], expected, rtol=1e-4, atol=1e-5)
    dataclasses.replace(made, provenance={}).save_reference(tmp_path / "unknown.pt")
    assert (tmp_path / "unknown.pt").read_bytes()


def published(sets, accuracies=np.float64):
    """As the published files are: several sets, and accuracies as numpy scalars."""
    return {"data": sets, "accs_all_exps": {"ConvNet": [accuracies(0.25), accuracies(0.5)]}}


def three_sets(data):
    return [[torch.full_like(data.train.images, i), data.train.labels] for i in range(3)]


@pytest.mark.parametrize("accuracies", [np.float64, np.float32])
@pytest.mark.parametrize("numpy_1", [False, True])
@pytest.mark.parametrize("zipped", [True, False])
def test_published_files_hold_numpy_scalars(tiny, tmp_path, accuracies, numpy_1, zipped):
    """Those of before 2024 name the module as numpy 1 did; those of before PyTorch 1.6 are no zip archives."""
    path = tmp_path / "res_DC_tiny.pt"
    torch.save(published(three_sets(tiny), accuracies), path, _use_new_zipfile_serialization=zipped)
    if numpy_1:
        old_names(path, zipped)
    else:
        assert np.float64(torch.load(path, weights_only=False)["accs_all_exps"]["ConvNet"][1]) == 0.5
    assert (SyntheticSet.load_reference(path, tiny).images == 2).all()


def old_names(path, zipped):
    """Rewrite a pickle of numpy 2 as numpy 1 would have written it."""
    new, old = b"numpy._core.multiarray", b"numpy.core.multiarray"
    whole = path.read_bytes()
    if not zipped:
        assert new in whole
        path.write_bytes(whole.replace(new, old))
        return
    source = zipfile.ZipFile(io.BytesIO(whole))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target:
        for name in source.namelist():
            content = source.read(name)
            assert not name.endswith("data.pkl") or new in content
            target.writestr(name, content.replace(new, old) if name.endswith("data.pkl") else content)


@pytest.mark.parametrize(("index", "level"), [(0, 0), (1, 1), (2, 2), (-1, 2), (-3, 0)])
def test_one_of_several_sets(tiny, tmp_path, index, level):
    torch.save(published(three_sets(tiny)), tmp_path / "sets.pt")
    assert (SyntheticSet.load_reference(tmp_path / "sets.pt", tiny, index).images == level).all()


def test_images_that_were_saved_with_a_gradient_or_in_other_types(tiny, tmp_path):
    images = tiny.train.images.double().requires_grad_()
    torch.save({"data": [[images, tiny.train.labels.int()]]}, tmp_path / "set.pt")
    back = SyntheticSet.load_reference(tmp_path / "set.pt", tiny)
    assert torch.equal(back.images, tiny.train.images)
    assert torch.equal(back.labels, tiny.train.labels)
    assert (back.images.dtype, back.images.requires_grad) == (torch.float32, False)


class Malicious:
    """Whoever unpickles this makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_in_a_file_can_run(tiny, tmp_path):
    trace, path = tmp_path / "it ran", tmp_path / "evil.pt"
    for content in (
        {"data": three_sets(tiny), "accs_all_exps": Malicious(trace)},
        {"data": [[Malicious(trace), tiny.train.labels]]},
        Malicious(trace),
    ):
        torch.save(content, path)
        torch.load(path, weights_only=False)
        assert trace.exists()  # it would have run
        trace.unlink()
        with pytest.raises(
            ValueError, match=r'evil.pt does not hold \{"data": \[\[images, labels\], ...\]\}, set -1: '
        ):
            SyntheticSet.load_reference(path, tiny)
        assert not trace.exists()
    path.write_bytes(pickle.dumps(Malicious(trace), protocol=2))
    with pytest.raises(ValueError, match="does not hold"):
        SyntheticSet.load_reference(path, tiny)
    assert not trace.exists()


def test_reading_leaves_the_loader_as_strict_as_it_was(tiny, tmp_path):
    torch.save(published(three_sets(tiny)), tmp_path / "sets.pt")
    SyntheticSet.load_reference(tmp_path / "sets.pt", tiny)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "sets.pt", weights_only=True)


@pytest.mark.parametrize(
    "content",
    [
        {"sets": []},
        {"data": []},
        {"data": [[torch.zeros(1, 1, 8, 8)]]},
        {"data": [["images", "labels"]]},
        {"data": 5},
        [1, 2],
    ],
)
def test_another_layout_is_refused(tiny, tmp_path, content):
    torch.save(content, tmp_path / "set.pt")
    with pytest.raises(ValueError, match=r"set\.pt does not hold"):
        SyntheticSet.load_reference(tmp_path / "set.pt", tiny)


def test_a_wrong_index_a_missing_and_a_broken_file_are_refused(tiny, tmp_path):
    path = tmp_path / "set.pt"
    with pytest.raises(FileNotFoundError, match=r"There is no file .*set\.pt"):
        SyntheticSet.load_reference(path, tiny)
    torch.save(published(three_sets(tiny)), path)
    for index in (3, -4, "first"):
        with pytest.raises(ValueError, match=f"set.pt does not hold .*, set {index}: "):
            SyntheticSet.load_reference(path, tiny, index)
    whole = path.read_bytes()
    for broken in (b"", b"text", whole[: len(whole) // 2]):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"set\.pt does not hold"):
            SyntheticSet.load_reference(path, tiny)


def test_a_set_of_other_images_is_refused(tiny, tmp_path):
    for images, labels, message in (
        (torch.zeros(1, 3, 8, 8), [0], r"images \[3, 8, 8\] are not of their format, \[1, 8, 8\]"),
        (torch.zeros(1, 1, 16, 16), [0], r"images \[1, 16, 16\] are not of their format, \[1, 8, 8\]"),
        (torch.zeros(1, 1, 8, 8), [3], "labels from 0 to 2"),
        (torch.zeros(1, 1, 8, 8), [0, 1], r"labels \[2\]"),
        (torch.full((1, 1, 8, 8), float("nan")), [0], "finite float32 images with pixels"),
    ):
        torch.save({"data": [[images, torch.tensor(labels)]]}, tmp_path / "set.pt")
        with pytest.raises(ValueError, match=message):
            SyntheticSet.load_reference(tmp_path / "set.pt", tiny)


def test_a_set_on_a_gpu_writes_the_same_files(tiny, tmp_path, gpu):
    made = SyntheticSet.of(tiny, make(channels=1).images, make().labels)
    moved = made.to("cuda")
    assert moved.hash == made.hash
    moved.save(tmp_path / "set")
    assert SyntheticSet.load(tmp_path / "set").hash == made.hash
    moved.save_reference(tmp_path / "set.pt")
    assert SyntheticSet.load_reference(tmp_path / "set.pt", tiny.to("cuda")).images.is_cuda
    moved.save_grid(tmp_path / "grid.png")
    assert len(moved.save_pngs(tmp_path)) == 6
