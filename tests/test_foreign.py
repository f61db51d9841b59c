"""Synthetic sets of other projects: every layout, every scale of pixels, soft labels, and what is refused."""

import dataclasses
import io
import pickle
import warnings
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from made import LAYOUTS, SCALES, a_set, dataset_like

import ddlib
from ddlib.data.readers import DATASETS
from ddlib.selection import select_real
from ddlib.synthetic import SyntheticSet

load = partial(ddlib.load_synthetic, pixels="normalised")


@pytest.fixture(scope="module")
def real(digits):
    """Real images, which any synthetic set resembles."""
    return select_real(digits, 3)


# Layouts


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read(digits, real, tmp_path, layout):
    path = LAYOUTS[layout](tmp_path, real.images, real.labels)
    with pytest.warns(UserWarning, match="its pixels are taken for normalised"):
        back = ddlib.load_synthetic(path, digits)
    torch.testing.assert_close(back.images, real.images, rtol=1e-3, atol=1e-3)
    assert torch.equal(back.labels, real.labels)
    assert (back.format, back.class_names) == (digits.format, digits.class_names)
    assert back.provenance["source"] == path.name


def test_images_and_labels_in_two_files_or_labels_in_hand(digits, real, tmp_path):
    np.save(tmp_path / "x.npy", real.pixels.permute(0, 2, 3, 1).numpy())
    np.save(tmp_path / "y.npy", real.labels.numpy())
    for labels in (tmp_path / "y.npy", str(tmp_path / "y.npy"), real.labels, real.labels.tolist(), real.labels.numpy()):
        back = ddlib.load_synthetic(tmp_path / "x.npy", digits, labels, pixels="unit")
        assert torch.equal(back.labels, real.labels)
        torch.testing.assert_close(back.images, real.images, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"x\.npy: holds images without labels: hand them in as labels="):
        ddlib.load_synthetic(tmp_path / "x.npy", digits)


def test_a_path_that_stands_in_a_file_is_not_followed(digits, real, tmp_path):
    np.save(tmp_path / "y.npy", real.labels.numpy())
    torch.save({"images": real.images, "labels": str(tmp_path / "y.npy")}, tmp_path / "set.pt")
    with pytest.raises(ValueError, match="must be arrays of numbers"):
        ddlib.load_synthetic(tmp_path / "set.pt", digits)


@pytest.mark.parametrize("where", ["file", "folder"])
def test_what_ddlib_wrote_is_read_as_well_without_a_word(digits, real, tmp_path, where):
    path = tmp_path / "mine"
    real.save(path) if where == "file" else real.export(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        back = ddlib.load_synthetic(path, digits)
    assert torch.equal(back.labels, real.labels)
    torch.testing.assert_close(back.pixels, real.pixels, rtol=0, atol=0.5 / 255 + 1e-5)


def test_colour_images_may_be_channel_last(tiny_rgb, tmp_path):
    images, labels = tiny_rgb.train.images[:6], tiny_rgb.train.labels[:6]
    torch.save([images.permute(0, 2, 3, 1).contiguous(), labels], tmp_path / "set.pt")
    assert torch.equal(load(tmp_path / "set.pt", tiny_rgb).images, images)


# Pixels


@pytest.mark.parametrize("scale", SCALES)
def test_auto_judges_the_scale_and_says_so(digits, real, tmp_path, scale):
    torch.save([SCALES[scale](real.pixels, digits.format), real.labels], tmp_path / "set.pt")
    name = scale.split()[0]
    with pytest.warns(UserWarning, match=f"set.pt: its pixels are taken for {name} "):
        back = ddlib.load_synthetic(tmp_path / "set.pt", digits)
    torch.testing.assert_close(back.pixels, real.pixels, rtol=0, atol=0.5 / 255 + 1e-5)
    assert back.provenance["pixels"] == name
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ddlib.load_synthetic(tmp_path / "set.pt", digits, pixels=name).hash == back.hash


def test_a_distilled_set_that_leaves_black_and_white_is_still_judged(digits, tmp_path):
    made = ddlib.distill(digits, ipc=1, iterations=5, width=4, batch_real=8).synthetic
    made.save_reference(tmp_path / "set.pt")
    with pytest.warns(UserWarning, match="normalised"):
        torch.testing.assert_close(ddlib.load_synthetic(tmp_path / "set.pt", digits).images, made.images)


def whitened(images, eps):
    """ZCA: decorrelated, and turned back into images."""
    flat = images.flatten(1).double()
    flat = flat - flat.mean(0)
    values, vectors = torch.linalg.eigh(flat.T @ flat / len(flat))
    return (flat @ vectors / (values + eps).sqrt() @ vectors.T).view_as(images).float()


UNKNOWN = {
    "ZCA": lambda data: whitened(data.train.images, 1e-5)[:30],
    "ZCA with much regularisation": lambda data: whitened(data.train.images, 0.1)[:30],
    "-1 to 1": lambda data: 2 * data.denormalise(data.train.images[:30]) - 1,
    "constant": lambda data: torch.ones(30, 1, 8, 8),
    "0 to 65535": lambda data: 65535 * data.denormalise(data.train.images[:30]),
    "noise": lambda data: torch.randn(30, 1, 8, 8, generator=torch.Generator().manual_seed(0)),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_auto_refuses_what_it_cannot_know(digits, tmp_path, what):
    torch.save([UNKNOWN[what](digits), torch.arange(30) % 10], tmp_path / "set.pt")
    with pytest.raises(ValueError, match=r"cannot be told, so say pixels='uint8' .*std 0\.3758") as error:
        ddlib.load_synthetic(tmp_path / "set.pt", digits)
    assert ("whitening (ZCA)" in str(error.value)) == (what not in ("-1 to 1", "0 to 65535"))


def test_a_scale_that_is_said_must_be_possible(digits, real, tmp_path):
    torch.save([real.images, real.labels], tmp_path / "set.pt")
    for name, range_ in (("unit", "0 to 1"), ("uint8", "0 to 255")):
        with pytest.raises(ValueError, match=f"those of '{name}' are numbers from {range_}"):
            ddlib.load_synthetic(tmp_path / "set.pt", digits, pixels=name)
    with pytest.raises(ValueError, match="unknown pixels 'zca'; known: auto, uint8, unit, normalised"):
        ddlib.load_synthetic(tmp_path / "set.pt", digits, pixels="zca")


# Labels


def test_soft_labels_are_read_and_one_hot_ones_are_hard(digits, real, tmp_path):
    soft = torch.randn(30, 10, generator=torch.Generator().manual_seed(0)).softmax(1)
    for labels, wanted in ((soft, soft), (soft.half(), soft), (torch.eye(10)[real.labels], real.labels)):
        torch.save([real.images, labels], tmp_path / "set.pt")
        back = load(tmp_path / "set.pt", digits)
        assert back.soft == wanted.is_floating_point()
        torch.testing.assert_close(back.labels, wanted, rtol=1e-2, atol=1e-4)
        assert back.labels.dtype == wanted.dtype


def test_logits_are_refused_with_what_to_do(digits, real, tmp_path):
    torch.save([real.images, torch.randn(30, 10)], tmp_path / "set.pt")
    with pytest.raises(ValueError, match=r"set\.pt: soft labels are probabilities.*Logits become .*temperature"):
        load(tmp_path / "set.pt", digits)


@pytest.mark.parametrize("labels", [torch.full((30,), 0.5), torch.zeros(30, 7), torch.zeros(30, 10, 2), ["ant"] * 30])
def test_other_labels_are_refused(digits, real, tmp_path, labels):
    torch.save([real.images, labels], tmp_path / "set.pt")
    with pytest.raises(ValueError, match=r"set\.pt: labels are|set\.pt: images and labels must be arrays of numbers"):
        load(tmp_path / "set.pt", digits)


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
    back = load(tmp_path / "set.pt", data)
    torch.testing.assert_close(back.images, made.images, rtol=1e-4, atol=1e-5)
    assert torch.equal(back.labels, made.labels)
    assert back.format == data.format
    assert back.class_names == data.class_names
    assert back.provenance == {"dataset": name, "dataset_hash": data.hash, "source": "set.pt", "pixels": "normalised"}


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
    back = load(tmp_path / "set.pt", data)
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
    back = load(tmp_path / "set.pt", held_out)
    torch.testing.assert_close(back.images, made.images, rtol=1e-4, atol=1e-5)
    SyntheticSet.of(held_out, data.train.images, data.train.labels).save_reference(tmp_path / "other.pt")
    a, b = (torch.load(tmp_path / name)["data"][0][0] for name in ("set.pt", "other.pt"))
    assert torch.equal(a, b)


def test_other_data_sets_keep_their_own_normalisation(tiny, tmp_path):
    made = SyntheticSet.of(tiny, a_set(channels=1).images, a_set().labels)
    made.save_reference(tmp_path / "own.pt")
    torch.testing.assert_close(torch.load(tmp_path / "own.pt")["data"][0][0], made.images)
    torch.testing.assert_close(load(tmp_path / "own.pt", tiny).images, made.images)
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
    assert (load(path, tiny).images == 2).all()


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
    assert (load(tmp_path / "sets.pt", tiny, index=index).images == level).all()


def test_images_that_were_saved_with_a_gradient_or_in_other_types(tiny, tmp_path):
    images = tiny.train.images.double().requires_grad_()
    torch.save({"data": [[images, tiny.train.labels.int()]]}, tmp_path / "set.pt")
    back = load(tmp_path / "set.pt", tiny)
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
            ValueError, match=r"evil.pt: cannot be read as tensors alone, and nothing else in it was run: "
        ):
            load(path, tiny)
        assert not trace.exists()
    path.write_bytes(pickle.dumps(Malicious(trace), protocol=2))
    with pytest.raises(ValueError, match="cannot be read as tensors alone"):
        load(path, tiny)
    assert not trace.exists()


def test_reading_leaves_the_loader_as_strict_as_it_was(tiny, tmp_path):
    torch.save(published(three_sets(tiny)), tmp_path / "sets.pt")
    load(tmp_path / "sets.pt", tiny)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "sets.pt", weights_only=True)


@pytest.mark.parametrize(
    "content",
    [
        {"sets": []},
        {"data": []},
        {"data": [[torch.zeros(1, 1, 8, 8)]]},
        {"ConvNet": {"weight": torch.zeros(1, 1, 8, 8)}},
        {"data": [["images", "labels"]]},
        {"data": 5},
        [1, 2],
    ],
)
def test_another_layout_is_refused(tiny, tmp_path, content):
    torch.save(content, tmp_path / "set.pt")
    with pytest.raises(ValueError, match=r"set\.pt: does not hold a synthetic set in a known layout; known: "):
        load(tmp_path / "set.pt", tiny)


def test_a_wrong_index_a_missing_and_a_broken_file_are_refused(tiny, tmp_path):
    path = tmp_path / "set.pt"
    with pytest.raises(FileNotFoundError, match=r"There is no file .*set\.pt"):
        load(path, tiny)
    torch.save(published(three_sets(tiny)), path)
    for index in (3, -4, "first"):
        with pytest.raises(ValueError, match=f"set.pt: holds 3 sets, and index is {index!r}: choose one from 0 to 2"):
            load(path, tiny, index=index)
    whole = path.read_bytes()
    for broken in (b"", b"text", whole[: len(whole) // 2]):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"set\.pt: cannot be read as tensors alone"):
            load(path, tiny)


def test_a_set_of_other_images_is_refused(tiny, tmp_path):
    for images, labels, message in (
        (
            torch.zeros(1, 3, 8, 8),
            [0],
            "its images are 3x8x8, those of tiny here 1x8x8: is dataset or image_size another",
        ),
        (torch.zeros(1, 1, 16, 16), [0], "its images are 1x16x16, those of tiny here 1x8x8"),
        (torch.zeros(1, 1, 8, 8), [3], "labels from 0 to 2"),
        (torch.zeros(1, 1, 8, 8), [0, 1], r"labels \[2\]"),
        (torch.full((1, 1, 8, 8), float("nan")), [0], "finite float32 images with pixels"),
    ):
        torch.save({"data": [[images, torch.tensor(labels)]]}, tmp_path / "set.pt")
        with pytest.raises(ValueError, match=message):
            load(tmp_path / "set.pt", tiny)


def test_a_set_on_a_gpu_writes_the_same_files(tiny, tmp_path, gpu):
    made = SyntheticSet.of(tiny, a_set(channels=1).images, a_set().labels)
    moved = made.to("cuda")
    assert moved.hash == made.hash
    moved.save(tmp_path / "set")
    assert SyntheticSet.load(tmp_path / "set").hash == made.hash
    moved.save_reference(tmp_path / "set.pt")
    assert ddlib.load_synthetic(tmp_path / "set.pt", tiny.to("cuda"), pixels="normalised").images.is_cuda
    moved.save_grid(tmp_path / "grid.png")
    assert len(list(moved.export(tmp_path / "pngs").glob("*/*.png"))) == 6
