"""Data sets: what `load_dataset` promises, the hold-out split, the hash, and every error path."""

import dataclasses
import pickle
import socket
import struct
import sys
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from scipy.io import savemat
from sklearn.datasets import load_digits

from ddlib.data.dataset import Dataset, ImageFormat, Split, channel_moments
from ddlib.data.readers import (
    DATASETS,
    TIMEOUT,
    Source,
    dataset_name,
    load_dataset,
    reference_format,
    to_pixels,
)
from ddlib.disk.paths import data_folder


def small_dataset(counts=(5, 3), name="small"):
    """Random 8 x 8 RGB images, `counts` of each class in train and one of each in test."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    train = Split(torch.randn(len(labels), 3, 8, 8, generator=draw), labels)
    test = Split(torch.randn(len(counts), 3, 8, 8, generator=draw), torch.arange(len(counts)))
    names = tuple("abcdef"[: len(counts)])
    return Dataset(name, train, test, names, ImageFormat(3, 8, (0.4, 0.5, 0.6), (0.2, 0.1, 0.3)))


# Digits


def test_digits_shapes_and_names(digits):
    assert (digits.name, digits.channels, digits.image_size, digits.num_classes) == ("digits", 1, 8, 10)
    assert digits.class_names == tuple("0123456789")
    assert digits.device == torch.device("cpu")
    assert (len(digits.train), len(digits.test)) == (1438, 359)
    assert digits.train.images.dtype == torch.float32
    assert digits.train.labels.dtype == torch.int64


def test_digits_split_is_stratified_and_loses_no_image(digits):
    source = load_digits()
    for label in range(10):
        total = (source.target == label).sum()
        assert abs((digits.test.labels == label).sum() - total / 5) <= 0.5
    pixels = digits.denormalise(torch.cat([digits.train.images, digits.test.images]))[:, 0]
    ours = (pixels * 16).round().flatten(1).numpy()
    theirs = source.images.reshape(len(ours), -1)
    assert sorted(map(tuple, ours)) == sorted(map(tuple, theirs))


def test_train_split_is_normalised_by_its_own_moments(digits):
    images = digits.train.images.double()
    assert abs(images.mean()) < 1e-6
    assert abs(images.std(correction=0) - 1) < 1e-6
    pixels = digits.denormalise(digits.train.images).double()
    assert abs(pixels.mean() - digits.format.mean[0]) < 1e-6
    assert pixels.amin() > -1e-6
    assert pixels.amax() < 1 + 1e-6


def test_loading_twice_gives_the_same_bits(digits):
    again = load_dataset("digits")
    assert torch.equal(again.train.images, digits.train.images)
    assert torch.equal(again.test.images, digits.test.images)
    assert torch.equal(again.test.labels, digits.test.labels)
    assert again.hash == digits.hash


@pytest.mark.parametrize("size", [8, 16, 31])
def test_image_size(digits, size):
    resized = load_dataset("digits", image_size=size)
    assert resized.train.images.shape == (1438, 1, size, size)
    assert torch.equal(resized.test.labels, digits.test.labels)
    assert (resized.hash == digits.hash) == (size == 8)
    assert abs(resized.train.images.double().mean()) < 1e-6


@pytest.mark.parametrize("size", [0, 7, 257, -8, 16.0, "16", True, (16, 16)])
def test_impossible_image_size(size, tmp_path):
    with pytest.raises(ValueError, match="from 8 to 256"):
        load_dataset("cifar10", root=tmp_path, image_size=size)  # early: before it misses the files


def test_unknown_name_lists_the_known_ones_and_the_layout():
    with pytest.raises(ValueError, match=r"'cifar-10' is neither") as error:
        load_dataset("cifar-10")
    assert all(name in str(error.value) for name in DATASETS)
    assert "train/<class>/" in str(error.value)


def test_the_name_of_a_data_set_is_known_before_it_is_read(tmp_path):
    """No path of this machine in it; a folder that is called like a known set is told from that."""
    assert dataset_name("cifar10") == "cifar10"
    assert dataset_name(tmp_path / "birds") == "birds"
    assert dataset_name(tmp_path / "cifar10") == "cifar10-folder"


def test_wrong_device_fails_before_reading(tmp_path):
    with pytest.raises(RuntimeError, match="device"):
        load_dataset("cifar10", root=tmp_path, device="nonsense")


def test_constant_channel_is_not_divided_by_zero(monkeypatch):
    pixels = torch.rand(6, 2, 8, 8)
    pixels[:, 1] = 0.3
    raw = ((pixels, torch.arange(6) % 2), (pixels.clone(), torch.arange(6) % 2), ("a", "b"))
    monkeypatch.setitem(DATASETS, "flat", Source(lambda root, image_size: raw))
    with pytest.warns(UserWarning, match="channel 1 of flat is constant"):
        dataset = load_dataset("flat")
    assert dataset.format.std[1] == 1
    assert dataset.train.images[:, 1].abs().max() < 1e-6
    assert dataset.train.images.isfinite().all()


# The parts


def test_channel_moments_equal_numpy():
    pixels = torch.rand(600, 3, 5, 5, generator=torch.Generator().manual_seed(0))  # more than two chunks
    mean, std = channel_moments(pixels)
    np.testing.assert_allclose(mean, pixels.double().numpy().mean((0, 2, 3)), rtol=1e-7)
    np.testing.assert_allclose(std, pixels.double().numpy().std((0, 2, 3)), rtol=1e-7)


def test_to_pixels_is_integer_over_white():
    raw = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(300, 2, 16, 16)
    pixels = to_pixels(raw, 255, None)
    assert torch.equal(pixels, raw / 255)
    halved = to_pixels(raw, 255, 8)
    expected = torch.nn.functional.interpolate(raw / 255, size=8, mode="bilinear", antialias=True)
    assert torch.equal(halved, expected)


def test_normalise_and_denormalise_are_inverse():
    dataset = small_dataset()
    pixels = torch.rand(4, 3, 8, 8)
    torch.testing.assert_close(dataset.denormalise(dataset.normalise(pixels)), pixels)
    by_hand = (pixels[0, 2] - 0.6) / 0.3
    torch.testing.assert_close(dataset.normalise(pixels[0])[2], by_hand)  # one image too
    assert dataset.normalise(pixels.double()).dtype == torch.float64  # the dtype of what came in


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": (0.5,)}, "one number for each of 3 channels"),
        ({"std": (0.2, 0.2)}, "one number for each of 3 channels"),
        ({"channels": 1}, "one number for each of 1 channels"),
        ({"std": (0.2, 0.0, 0.2)}, "std > 0"),
        ({"std": (0.2, -0.1, 0.2)}, "std > 0"),
        ({"std": (0.2, float("nan"), 0.2)}, "std > 0"),
        ({"std": (0.2, 1e-60, 0.2)}, "std > 0"),  # 0 in float32
        ({"mean": (0.5, float("nan"), 0.5)}, "finite numbers; found NaN or infinity"),
        ({"std": (0.2, float("inf"), 0.2)}, "finite numbers; found NaN or infinity"),
    ],
)
def test_an_image_format_checks_itself(changes, message):
    with pytest.raises(ValueError, match=message):
        ImageFormat(**({"channels": 3, "image_size": 8, "mean": (0.5,) * 3, "std": (0.2,) * 3} | changes))


def test_an_image_format_is_that_of_its_float32():
    """A tensor in a file has 0.1 as float32; that must not be another format than the one with 0.1."""
    written = ImageFormat(1, 8, (0.1,), (0.3,))
    read = ImageFormat.of(torch.zeros(2, 1, 8, 8), torch.tensor([0.1]), torch.tensor([0.3]))
    assert written == read
    assert hash(written) == hash(read)
    assert written.mean == (float(np.float32(0.1)),)
    assert written != ImageFormat(1, 8, (0.1,), (0.31,))
    assert written.shape == (1, 8, 8)


def test_a_look_in_inference_mode_leaves_training_as_it_was():
    """The moments are kept from one call to the next: those of an inference would break a later backward pass."""
    form = ImageFormat(1, 8, (0.123,), (0.456,))
    with torch.inference_mode():
        form.denormalise(torch.zeros(1, 1, 8, 8))
    images = torch.ones(1, 1, 8, 8, requires_grad=True)
    form.denormalise(images).sum().backward()
    torch.testing.assert_close(images.grad, torch.full_like(images, 0.456))


@pytest.mark.parametrize("part", ["train", "test"])
@pytest.mark.parametrize("shape", [(8, 1, 8, 8), (8, 3, 16, 16), (8, 3, 8, 6)])
def test_images_that_are_not_of_the_format_are_refused(part, shape):
    split = Split(torch.zeros(shape), torch.zeros(8, dtype=torch.int64))
    message = rf"the {part} images of small are \[{', '.join(map(str, shape[1:]))}\]; its format says \[3, 8, 8\]"
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(small_dataset(), **{part: split})


def test_split_select_and_length():
    split = small_dataset().train
    assert len(split) == 8
    assert split.select(torch.tensor([7, 0])).labels.tolist() == [1, 0]
    assert torch.equal(split.select(split.labels == 1).images, split.images[5:])


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (torch.zeros(2, 8, 8), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 1, 8, 8), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(2, 1, 8, 8), torch.zeros(2)),
    ],
)
def test_split_refuses_what_does_not_fit(images, labels):
    with pytest.raises(ValueError, match=r"a split needs images \[N, C, H, W\]"):
        Split(images, labels)


def test_to_moves_everything(digits):
    moved = digits.to("meta")
    assert moved.device.type == "meta"
    tensors = (moved.train.images, moved.train.labels, moved.test.images, moved.test.labels)
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert moved.denormalise(moved.train.images).device.type == "meta"  # mean and std follow the images
    assert load_dataset("digits", device="meta").device.type == "meta"


# The hash


def test_hash_depends_on_everything_but_the_name():
    dataset = small_dataset()
    assert len(dataset.hash) == 16
    assert int(dataset.hash, 16) >= 0
    assert small_dataset(name="other").hash == dataset.hash
    hashes = {dataset.hash}
    for part in ("train", "test"):
        for what in ("images", "labels"):
            other = small_dataset()
            getattr(getattr(other, part), what).view(-1)[-1] += 1
            hashes.add(other.hash)
    for moment in ("mean", "std"):
        values = getattr(dataset.format, moment)
        changed = dataclasses.replace(dataset.format, **{moment: (*values[:-1], values[-1] + 1)})
        hashes.add(dataclasses.replace(dataset, format=changed).hash)
    hashes.add(dataclasses.replace(dataset, class_names=("a", "z")).hash)
    assert len(hashes) == 8


def test_hash_is_computed_once_on_a_frozen_dataset(monkeypatch):
    dataset = small_dataset()
    first = dataset.hash
    monkeypatch.setattr("ddlib.data.dataset.hashlib.sha256", None)
    assert dataset.hash == first
    with pytest.raises(AttributeError):
        dataset.name = "other"


# The hold-out split


def test_holdout_is_balanced_and_disjoint(digits):
    held = digits.holdout()
    assert held.name == "digits-holdout"
    assert held.hash != digits.hash
    assert torch.bincount(held.test.labels).tolist() == [14] * 10  # a tenth of the smallest class
    assert len(held.train) + len(held.test) == len(digits.train)
    assert held.format == digits.format
    rows = [set(map(tuple, split.images.flatten(1).tolist())) for split in (held.train, held.test, digits.train)]
    assert rows[0] | rows[1] == rows[2]
    assert not rows[0] & rows[1]


def test_holdout_is_deterministic(digits):
    assert digits.holdout(seed=3).hash == digits.holdout(seed=3).hash
    assert digits.holdout(seed=3).hash != digits.holdout(seed=4).hash
    assert digits.holdout(fraction=0.2).hash != digits.holdout(fraction=0.1).hash


def test_holdout_of_unequal_classes_takes_equally_many():
    held = small_dataset((20, 4)).holdout(0.5)
    assert torch.bincount(held.test.labels).tolist() == [2, 2]
    assert torch.bincount(held.train.labels).tolist() == [18, 2]
    assert torch.bincount(small_dataset((20, 4)).holdout(0.01).test.labels).tolist() == [1, 1]


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, 0.9, float("nan")])
def test_holdout_leaves_an_image_on_both_sides(fraction):
    with pytest.raises(ValueError, match="smallest class, 'b', has 3"):
        small_dataset((5, 3)).holdout(fraction)


def test_holdout_of_a_class_with_one_image():
    with pytest.raises(ValueError, match="'b', has 1"):
        small_dataset((5, 1)).holdout(0.5)


# torchvision's data sets, on small files of their formats


def write_idx(path, array):
    """MNIST's own format: magic number, sizes, bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(struct.pack(">HBB", 0, 8, array.ndim) + sizes + array.tobytes())


def write_mnist(root, kind):
    draw = np.random.default_rng(0)
    for part, count in (("train", 20), ("t10k", 10)):
        images = draw.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write_idx(root / kind / "raw" / f"{part}-images-idx3-ubyte", images)
        write_idx(root / kind / "raw" / f"{part}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 10)


def write_cifar(root, kind, monkeypatch):
    """Tiny batches in CIFAR's format, with torchvision's checksums switched off. Returns the train bytes."""
    cifar = getattr(torchvision.datasets, kind)
    folder = root / cifar.base_folder
    folder.mkdir(parents=True)
    labels, names = ("labels", "label_names") if kind == "CIFAR10" else ("fine_labels", "fine_label_names")
    draw = np.random.default_rng(0)
    data = {"train": draw.integers(0, 256, (6, 3072), dtype=np.uint8)}
    data["test"] = draw.integers(0, 256, (4, 3072), dtype=np.uint8)
    for part, rows in data.items():
        (folder / part).write_bytes(pickle.dumps({"data": rows, labels: [i % 2 for i in range(len(rows))]}))
        monkeypatch.setattr(cifar, f"{part}_list", [[part, None]])
    (folder / "meta").write_bytes(pickle.dumps({names: ["apple", "bear"]}))
    monkeypatch.setattr(cifar, "meta", {"filename": "meta", "key": names, "md5": None})
    return data["train"]


def write_svhn(root, monkeypatch):
    """Tiny files in SVHN's format (MATLAB, images last, the digit 0 as label 10). Returns the train images."""
    draw, kept = np.random.default_rng(0), {}
    for part, count in (("train", 12), ("test", 10)):
        images, labels = draw.integers(0, 256, (32, 32, 3, count), dtype=np.uint8), np.arange(count) % 10
        root.mkdir(parents=True, exist_ok=True)
        savemat(root / f"{part}_32x32.mat", {"X": images, "y": np.where(labels == 0, 10, labels)[:, None]})
        monkeypatch.setitem(torchvision.datasets.SVHN.split_list, part, ["", f"{part}_32x32.mat", None])
        kept[part] = images.transpose(3, 2, 0, 1)
    return kept["train"]


@pytest.fixture
def no_network(monkeypatch):
    """Every download attempt ends in a URLError; the list tells how they were made."""
    attempts = []

    def fail(self):
        attempts.append({"root": self.root, "timeout": socket.getdefaulttimeout()})
        print("a progress bar", file=sys.stderr)
        raise URLError("no route to host")

    for kind in ("MNIST", "CIFAR10", "SVHN"):  # the other two inherit
        monkeypatch.setattr(getattr(torchvision.datasets, kind), "download", fail)
    return attempts


@pytest.mark.parametrize(("name", "kind"), [("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST")])
def test_mnist_files_are_read(tmp_path, monkeypatch, no_network, name, kind):
    write_mnist(tmp_path, kind)
    monkeypatch.setenv("DDLIB_DATA", str(tmp_path))
    dataset = load_dataset(name)
    assert dataset.train.images.shape == (20, 1, 28, 28)
    assert dataset.test.labels.tolist() == list(range(10))
    assert dataset.class_names[9] == {"mnist": "9", "fashion_mnist": "Ankle boot"}[name]
    assert not no_network


@pytest.mark.parametrize(("name", "kind"), [("cifar10", "CIFAR10"), ("cifar100", "CIFAR100")])
def test_cifar_files_are_read(tmp_path, monkeypatch, no_network, name, kind):
    rows = write_cifar(tmp_path, kind, monkeypatch)
    dataset = load_dataset(name, root=tmp_path)
    assert dataset.train.images.shape == (6, 3, 32, 32)
    assert dataset.class_names == ("apple", "bear")
    assert dataset.test.labels.tolist() == [0, 1, 0, 1]
    pixels = dataset.denormalise(dataset.train.images)  # channels first, as the bytes lie in the file
    assert np.array_equal((pixels * 255).round().flatten(1).numpy(), rows)
    assert load_dataset(name, root=tmp_path, image_size=16).image_size == 16
    assert not no_network


def test_svhn_files_are_read(tmp_path, monkeypatch, no_network):
    images = write_svhn(tmp_path, monkeypatch)
    dataset = load_dataset("svhn", root=tmp_path)
    assert (dataset.name, dataset.format.shape, dataset.class_names) == ("svhn", (3, 32, 32), tuple("0123456789"))
    assert dataset.train.labels.tolist() == [*range(10), 0, 1]  # the digit itself, not 10 for a zero
    assert dataset.test.labels.tolist() == list(range(10))
    assert dataset.train.labels.dtype == torch.int64
    pixels = dataset.denormalise(dataset.train.images)
    assert np.array_equal((pixels * 255).round().numpy(), images)
    torch.testing.assert_close(dataset.train.images.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    assert load_dataset("svhn", root=tmp_path, image_size=16).train.images.shape == (12, 3, 16, 16)
    assert not no_network


def test_a_new_row_is_a_data_set(monkeypatch):
    """One row, and it loads by its name, with a normalisation of the reference if the row says one."""
    pixels, labels = torch.rand(9, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(9) % 3
    asked = []

    def read(root, image_size):
        asked.append((root, image_size))
        return (pixels.clone(), labels), (pixels[:3].clone(), labels[:3]), ("a", "b", "c")

    monkeypatch.setitem(DATASETS, "dummy", Source(read, (0.25,), (0.5,)))
    dataset = load_dataset("dummy", root="somewhere", image_size=8)
    assert asked == [("somewhere", 8)]
    assert (dataset.name, dataset.class_names, dataset.format.shape) == ("dummy", ("a", "b", "c"), (1, 8, 8))
    torch.testing.assert_close(dataset.denormalise(dataset.train.images), pixels)
    assert abs(dataset.train.images.mean()) < 1e-6
    for name in ("dummy", "dummy-holdout"):
        assert reference_format(name, dataset.format) == ImageFormat(1, 8, (0.25,), (0.5,))
    for name in ("digits", "nowhere"):  # of which the reference says nothing
        assert reference_format(name, dataset.format) == dataset.format


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("mnist", "MNIST/raw/"),
        ("fashion_mnist", "FashionMNIST/raw/"),
        ("svhn", "train_32x32.mat and test_32x32.mat"),
        ("cifar10", "cifar-10-batches-py/"),
        ("cifar100", "cifar-100-python/"),
    ],
)
def test_failed_download_says_where_and_what(tmp_path, no_network, capsys, name, wanted):
    root = tmp_path / "not yet there"
    with pytest.raises(FileNotFoundError) as error:
        load_dataset(name, root=root)
    assert all(text in str(error.value) for text in (str(root), wanted, "DDLIB_DATA", "no route to host"))
    assert [attempt["root"] for attempt in no_network] == [root]
    assert capsys.readouterr().err == ""  # no terminal, no progress bar


def test_a_silent_server_is_given_up(tmp_path, no_network):
    before = socket.getdefaulttimeout()
    with pytest.raises(FileNotFoundError):
        load_dataset("mnist", root=tmp_path)
    assert [attempt["timeout"] for attempt in no_network] == [TIMEOUT]
    assert socket.getdefaulttimeout() == before


def test_progress_bar_reaches_a_terminal(tmp_path, no_network, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with pytest.raises(FileNotFoundError):
        load_dataset("mnist", root=tmp_path)
    assert "a progress bar" in capsys.readouterr().err


def test_missing_files_are_downloaded_once(tmp_path, monkeypatch):
    calls = []

    def download(self):
        calls.append(self.root)
        write_mnist(tmp_path, "MNIST")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", download)
    assert len(load_dataset("mnist", root=tmp_path).train) == 20
    assert len(load_dataset("mnist", root=tmp_path).train) == 20
    assert len(calls) == 1


def test_damaged_files_are_told_from_missing_ones(tmp_path, no_network):
    write_mnist(tmp_path, "MNIST")
    images = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:1000])
    with pytest.raises(FileNotFoundError, match="after removing damaged files"):
        load_dataset("mnist", root=tmp_path)


def test_an_unwritable_root_is_named(tmp_path, no_network):
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match="file/below"):
        load_dataset("mnist", root=tmp_path / "file" / "below")
    assert not no_network


# The real files, where they are


@pytest.mark.parametrize(
    ("name", "where", "shape", "tested", "mean", "evenness"),
    [
        ("mnist", "MNIST/raw", (60000, 1, 28, 28), 10000, [0.1307], 0.8),
        ("fashion_mnist", "FashionMNIST/raw", (60000, 1, 28, 28), 10000, [0.2860], 0.8),
        ("svhn", "train_32x32.mat", (73257, 3, 32, 32), 26032, [0.4377, 0.4438, 0.4728], 0.3),  # 1 is frequent, 9 rare
        ("cifar10", "cifar-10-batches-py", (50000, 3, 32, 32), 10000, [0.4914, 0.4822, 0.4465], 0.8),
        ("cifar100", "cifar-100-python", (50000, 3, 32, 32), 10000, [0.5071, 0.4865, 0.4409], 0.8),
    ],
)
def test_real_files(name, where, shape, tested, mean, evenness):
    if not (data_folder() / where).exists():
        pytest.skip(f"{where} is not in {data_folder()} (the environment variable DDLIB_DATA names the folder)")
    dataset = load_dataset(name)
    assert dataset.train.images.shape == shape
    assert len(dataset.test) == tested
    assert list(dataset.format.mean) == pytest.approx(mean, abs=1e-4)  # the well-known values
    counts = torch.bincount(dataset.train.labels)
    assert len(counts) == dataset.num_classes == len(dataset.class_names)
    assert counts.min() > evenness * counts.max()
    assert dataset.train.images[0].std() > 0.1
