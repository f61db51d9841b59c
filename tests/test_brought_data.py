"""Data that people bring: told apart in records and tables, and checked before any work, from whatever source."""

import dataclasses
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from made import BOOK, SHORT, executed, write_image
from PIL import Image
from torch.utils.data import Subset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import Normalize, ToTensor

import ddlib
from ddlib import Dataset, ImageFormat, Split, load_dataset
from ddlib.data.readers import content_hash
from ddlib.study import pools, runs, tables
from ddlib.study import run as study
from ddlib.study.parameters import check
from ddlib.study.record import read_record
from workflow import grid as grids

ONE_RUN = {"guidance": "none", "num_ptms": 1, "strategy": "single", "iterations": 1, "ipc": 1, "batch_real": 2}


@pytest.fixture
def photos(tmp_path):
    """Two folders of one name with other pictures of the same classes."""
    draw = np.random.default_rng(0)
    for owner in ("anna", "ben"):
        for part in ("train", "test"):
            for name in ("cat", "dog"):
                for number in range(2):
                    image = Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8))
                    write_image(tmp_path / owner / "photos" / part / name / f"{number}.png", image)
    return {owner: tmp_path / owner / "photos" for owner in ("anna", "ben")}


@pytest.fixture
def run(tmp_path, folders):
    """Run one arm on a folder; the path of its record."""

    def run(folder, **changes):
        p = SimpleNamespace(
            **{**SHORT, **ONE_RUN, "runs_folder": str(tmp_path / "runs"), "dataset": str(folder), **changes}
        )
        data = study.open_dataset(p)
        return study.run_arm(p, data, study.open_ptms(p, data), "01_guidance")[0].record

    return run


# Folders of one name


def test_folders_of_one_name_and_a_folder_that_grew_have_records_of_their_own(photos, run, tmp_path):
    written = [run(photos["anna"]), run(photos["ben"]), run(photos["anna"])]
    assert written[0] == written[2] != written[1]
    shutil.copy(photos["ben"] / "train" / "cat" / "0.png", photos["anna"] / "train" / "cat" / "new.png")
    written.append(run(photos["anna"]))
    assert len(set(written)) == 3
    assert len(list((tmp_path / "runs").glob("*.json"))) == len(list((tmp_path / "runs").glob("*.safetensors"))) == 3
    parameters = read_record(written[1])["parameters"]
    assert (parameters["dataset"], parameters["dataset_files"]) == ("photos", content_hash(photos["ben"]))
    assert str(tmp_path) not in written[1].read_text()


def test_the_comparison_tells_folders_of_one_name_apart(photos, run, tmp_path):
    hashes = [read_record(run(folder))["dataset_hash"] for folder in photos.values()]
    records, _ = runs.load_runs(tmp_path / "runs")
    table = tables.settings_table(records)
    assert set(table["dataset"]) == {f"photos ({found[:8]})" for found in hashes}
    alone = tables.settings_table(records[records["dataset_hash"] == hashes[0]])
    assert alone["dataset"].tolist() == ["photos"]  # nothing to tell apart
    assert "dataset_files" not in table


def test_an_interrupted_run_of_one_folder_does_not_block_the_other(photos, run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(study, "evaluate", lambda *a, **k: 1 / 0)
        for folder in photos.values():
            with pytest.raises(ZeroDivisionError):
                run(folder)
    assert len(list((tmp_path / "runs").glob(".*.checkpoint"))) == 2
    run(photos["ben"])
    assert len(list((tmp_path / "runs").glob(".*.checkpoint"))) == 1


def test_only_pictures_count_and_not_where_they_lie(photos, tmp_path):
    shutil.copytree(photos["anna"], tmp_path / "copy" / "photos")
    before = content_hash(photos["anna"])
    (photos["anna"] / "runs").mkdir()
    (photos["anna"] / "runs" / "record.json").touch()
    (photos["anna"] / "train" / "cat" / "Thumbs.db").touch()
    assert content_hash(photos["anna"]) == before == content_hash(tmp_path / "copy" / "photos")
    (photos["anna"] / "train" / "cat" / "0.png").rename(photos["anna"] / "train" / "dog" / "9.png")
    assert content_hash(photos["anna"]) != before
    assert content_hash("digits") is None


def test_the_folder_of_the_ptms_counts_by_its_files_too(photos, tmp_path):
    p = SimpleNamespace(**{**SHORT, "source_dataset": str(photos["ben"])})
    kept = study.recorded(p, "digits")
    assert (kept["source_dataset"], kept["source_files"]) == ("photos", content_hash(photos["ben"]))
    assert "dataset_files" not in kept
    assert str(tmp_path) not in str(kept)


def test_settings_of_two_source_folders_are_two():
    shared = {
        "dataset": "digits",
        "dataset_hash": "d",
        "ipc": 1,
        "source_dataset": "photos",
        "accuracy": 0.5,
        "arm": "none",
        "base_method": "dm",
        "guidance": "none",
        "num_ptms": 1,
        "notebook": "01_guidance",
    }
    records = pd.DataFrame([shared | {"run": name, "source_files": name} for name in "ab"])
    table = tables.settings_table(runs.with_settings(records))
    assert table["source_files"].tolist() == ["a", "b"]


def test_a_sweep_knows_the_names_of_records_before_it_reads_a_picture(photos, run):
    asked = {**SHORT, **ONE_RUN, "dataset": str(photos["ben"])}
    assert grids.records("01_guidance", asked) == [run(photos["ben"]).name]


def test_data_made_by_hand_count_by_their_hash(tiny, tmp_path):
    p = SimpleNamespace(**{**SHORT, **ONE_RUN, "runs_folder": str(tmp_path), "dataset": "tiny"})
    other = dataclasses.replace(tiny, train=tiny.train.select(torch.arange(30)))
    written = {study.run_arm(p, data, [], "01_guidance")[0].record for data in (tiny, other)}
    assert len(written) == 2


# Before any work


def test_too_large_an_ipc_is_found_before_a_ptm_is_trained(photos, run, monkeypatch):
    monkeypatch.setattr(pools, "train_ptms", lambda *a, **k: pytest.fail("PTMs were trained"))
    with pytest.raises(ValueError, match=r"ipc must be from 1 to 2, .* of class 'cat' of photos; found 3"):
        run(photos["anna"], ipc=3, guidance="clom")


def test_the_tour_finds_too_large_an_ipc_before_its_ptm(monkeypatch):
    monkeypatch.setattr(ddlib, "train_ptms", lambda *a, **k: pytest.fail("a PTM was trained"))
    with pytest.raises(ValueError, match=r"ipc must be from 1 to 139, .* found 500"):
        executed("00_tour", ipc=500)


def test_a_folder_given_without_a_size_is_read_in_its_own(photos):
    defaults = {"dataset": "digits", "image_size": 16}
    folder = str(photos["anna"])
    assert check({**defaults, "dataset": folder}, ["dataset"]).image_size is None
    assert check({**defaults, "dataset": folder}, ["dataset", "image_size"]).image_size == 16
    assert check({**defaults, "dataset": "cifar10"}, ["dataset"]).image_size is None, "16 is a size for digits"
    assert check(defaults).image_size == 16


# A data set by hand


def by_hand(**changes):
    """A sound one of 8 x 8 RGB images, four of each of two classes, with some changes."""
    split = Split(torch.randn(8, 3, 8, 8), torch.arange(8) % 2)
    parts = {
        "train": split,
        "test": split,
        "class_names": ["a", "b"],
        "format": ImageFormat(3, 8, (0.5,) * 3, (0.2,) * 3),
    }
    return Dataset("mine", **{**parts, **changes})


def with_labels(*labels):
    return Split(torch.randn(len(labels), 3, 8, 8), torch.tensor(labels))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"train": with_labels(0, 1, 2)},
            "the train images of mine have the label 2; with 2 class names, labels are 0 to 1",
        ),
        ({"test": with_labels(0, -1)}, "the test images of mine have the label -1"),
        ({"train": with_labels(1, 1)}, r"1 classes without training images \('a'\)"),
        ({"class_names": "abcd"}, r"2 classes without training images \('c', 'd'\)"),
        ({"class_names": "aab"}, "stand twice: 'a'"),
        (
            {"test": Split(torch.zeros(0, 3, 8, 8), torch.zeros(0, dtype=torch.int64))},
            "the test images of mine are none",
        ),
        ({"train": Split(torch.randn(2, 3, 8, 6), torch.arange(2))}, "oblong images are not supported, because"),
        ({"train": Split(torch.randn(2, 1, 8, 8), torch.arange(2))}, r"are \[1, 8, 8\]; its format says \[3, 8, 8\]"),
        ({"train": Split(torch.zeros(2, 3, 8, 8).byte(), torch.arange(2))}, "are torch.uint8; expected float32"),
        ({"train": Split(torch.randn(2, 3, 8, 8).double(), torch.arange(2))}, "are torch.float64; expected float32"),
    ],
)
def test_a_data_set_checks_itself(changes, message):
    with pytest.raises(ValueError, match=message):
        by_hand(**changes)


def test_a_list_of_class_names_becomes_a_tuple():
    assert by_hand().class_names == ("a", "b")


# Tensors


@pytest.fixture
def pixels():
    """Eight train and four test images of two classes, RGB, as pixels in [0, 1] that integers hold exactly."""
    draw = torch.Generator().manual_seed(0)
    train, test = (torch.randint(0, 256, (n, 3, 8, 8), generator=draw).float() / 255 for n in (8, 4))
    return (train, torch.arange(8) % 2), (test, torch.arange(4) % 2)


def test_from_tensors_normalises_by_the_moments_of_train(pixels):
    before = pixels[0][0].clone()
    data = Dataset.from_tensors("mine", *pixels, ["cat", "dog"])
    assert (data.name, data.class_names, data.format.shape) == ("mine", ("cat", "dog"), (3, 8, 8))
    torch.testing.assert_close(data.train.images.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(data.train.images.std((0, 2, 3), correction=0), torch.ones(3))
    torch.testing.assert_close(data.denormalise(data.test.images), pixels[1][0])
    assert torch.equal(pixels[0][0], before)
    assert ddlib.select_real(data, 1).images.shape == (2, 3, 8, 8)


def test_from_tensors_takes_bytes_arrays_and_grey(pixels):
    as_bytes = [((images * 255).round().byte(), labels) for images, labels in pixels]
    arrays = [(images.numpy(), labels.tolist()) for images, labels in as_bytes]
    expected = Dataset.from_tensors("mine", *pixels, "ab")
    assert Dataset.from_tensors("mine", *as_bytes, "ab").hash == expected.hash
    assert Dataset.from_tensors("mine", *arrays, "ab").hash == expected.hash
    grey = Dataset.from_tensors("mine", *((images[:, 0], labels) for images, labels in pixels), "ab")
    assert grey.format.shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x * 4 - 2, y), "expected pixels, floats from 0 to 1 or integers from 0 to 255"),
        (lambda x, y: (x * 255, y), "torch.float32 from 0 to 255"),
        (lambda x, y: (x / 0, y), "from nan to nan|from nan|inf"),
        (lambda x, y: ((x * 300).int(), y), "torch.int32 from"),
        (lambda x, y: (x.permute(0, 2, 3, 1), y), r"channels last; bring them forward: permute\(0, 3, 1, 2\)"),
        (
            lambda x, y: (x[..., :6], y),
            "8 x 6 pixels; not supported, because networks and augmentation here take squares",
        ),
        (lambda x, y: (x[0, 0], y), r"are \[8, 8\]; expected \[N, C, H, W\]"),
        (lambda x, y: (x, torch.eye(2)[y]), r"expected whole numbers \[N\]"),
        (lambda x, y: (x, y.float()), r"torch.float32 \[.\]; expected whole numbers"),
        (lambda x, y: (x, y + 1), "have the label 2"),
        (lambda x, y: (x[1:], y), "a split needs images"),
    ],
)
@pytest.mark.parametrize("part", [0, 1])
def test_from_tensors_refuses_what_it_cannot_know(pixels, change, message, part):
    pairs = [change(*pair) if index == part else pair for index, pair in enumerate(pixels)]
    with pytest.raises(ValueError, match=message):
        Dataset.from_tensors("mine", *pairs, "ab")


def test_from_tensors_warns_of_uneven_classes_and_of_pictures_in_both(pixels):
    (images, _), test = pixels
    labels = torch.arange(21).clamp(max=1)
    uneven = (torch.rand(21, 3, 8, 8), labels)
    with pytest.warns(UserWarning, match="very uneven: 20 training images of 'b', 1 of 'a'"):
        Dataset.from_tensors("mine", uneven, test, "ab")
    with pytest.warns(UserWarning, match=r"train and test of mine: 4 \(train image 4 = test image 0, "):
        Dataset.from_tensors("mine", pixels[0], (images[4:], torch.arange(4) % 2), "ab")


# Torch data sets


@pytest.fixture
def theirs(photos):
    """The photos as torchvision reads them; keywords are those of ImageFolder."""
    return lambda **options: [ImageFolder(photos["anna"] / part, **options) for part in ("train", "test")]


def test_a_torchvision_data_set_is_the_folder_it_was_read_from(photos, theirs):
    train, test = theirs()
    data = load_dataset(train, test=test)
    assert (data.name, data.class_names, data.image_size) == ("ImageFolder", ("cat", "dog"), 8)
    assert data.hash == load_dataset(photos["anna"]).hash
    train_tensors, test_tensors = theirs(transform=ToTensor())
    assert load_dataset(train_tensors, test=test_tensors).hash == data.hash
    for pair in ((train, test), (train_tensors, test_tensors)):
        assert load_dataset(pair[0], test=pair[1], image_size=16).image_size == 16


def test_a_subset_keeps_the_class_names(theirs):
    train, test = theirs()
    assert load_dataset(Subset(train, [0, 2]), test=test).class_names == ("cat", "dog")


def test_a_data_set_without_names_has_numbers(pixels):
    train, test = (TensorDataset(*pair) for pair in pixels)
    data = load_dataset(train, test=test)
    assert data.class_names == ("0", "1")
    assert data.hash == Dataset.from_tensors("mine", *pixels, ["0", "1"]).hash


def test_torch_data_sets_that_do_not_fit_are_refused(theirs, photos, pixels):
    train, test = theirs()
    with pytest.raises(ValueError, match=r"one split: load_dataset\(train, test=...\) takes two; found no test"):
        load_dataset(train)
    with pytest.raises(ValueError, match="test goes with a torch data set"):
        load_dataset("digits", test=test)
    with pytest.raises(ValueError, match="a transform with Normalize must go"):
        load_dataset(theirs(transform=lambda image: Normalize(0.5, 0.5)(ToTensor()(image)))[0], test=test)
    with pytest.raises(ValueError, match=r"item 0 of the train data set is a tuple; expected \(picture, label\)"):
        load_dataset(TensorDataset(pixels[0][0]), test=test)
    (photos["anna"] / "test" / "dog").rename(photos["anna"] / "test" / "emu")
    with pytest.raises(ValueError, match="different classes: cat, dog and cat, emu"):
        load_dataset(train, test=theirs()[1])


# What is no source


@pytest.mark.parametrize("source", [42, None, ["digits"], torch.zeros(3)])
def test_what_is_no_source_is_a_clear_error(source):
    with pytest.raises(
        TypeError, match=rf"found {type(source).__name__}\. For tensors there is ddlib.Dataset.from_ten"
    ):
        load_dataset(source)


def test_what_is_not_supported_says_so_and_why():
    with pytest.raises(ValueError, match="zca is not supported: whitened images mix"):
        load_dataset("digits", zca=True)
    with pytest.raises(ValueError, match=r"found \(32, 24\); oblong images are not supported, because"):
        load_dataset("digits", image_size=(32, 24))
    with pytest.raises(ValueError, match="on_bad must be"):
        load_dataset("digits", on_bad="ignore")


# The page of the book


def test_the_code_on_the_page_runs(tmp_path, monkeypatch):
    page = (BOOK / "own_images.md").read_text(encoding="utf-8")
    blocks, draw, found = re.findall(r"```python\n(.*?)```", page, re.DOTALL), np.random.default_rng(0), {}
    for part in ("train", "test"):
        for name in ("beach", "city", "forest"):
            image = Image.fromarray(draw.integers(0, 256, (60, 80, 3), dtype=np.uint8))
            write_image(tmp_path / "holiday" / part / name / "1.jpg", image)
    monkeypatch.chdir(tmp_path)
    said = []
    for block in blocks:
        exec(compile(block, "own_images.md", "exec"), found)
        said.append((len(found["data"].train), found["data"].num_classes, found["data"].format.shape))
    assert said == [(3, 3, (3, 60, 60)), (3, 3, (3, 32, 32)), (1500, 10, (1, 8, 8)), (3, 3, (3, 60, 60))]
