"""Synthetic sets as folders of PNGs with a card: what torchvision's ImageFolder makes of them, and the way back."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from made import a_set, files_of_at_most
from PIL import Image
from torchvision.datasets import ImageFolder

from ddlib.data.dataset import ImageFormat
from ddlib.disk.pictures import folder_names
from ddlib.foreign import load_synthetic
from ddlib.selection import select_real
from ddlib.synthetic import SyntheticSet

FASHION = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
NAMES = [
    ("T-shirt/top", "été", "Ankle boot"),
    ("a/b", "a_b", "a:b"),  # one and the same, once made safe
    ("..", ".", "up"),
    ("", " ", "."),
    ("../../evil", "/etc/evil", ".hidden"),
    ("Cat", "cat", "CAT"),  # the same folder on macOS and Windows
    ("caf\u00e9", "cafe\u0301", "x"),  # the same folder on macOS
    ("aux", "b", "nul.txt"),  # no folders on Windows
    ("猫" * 100, "犬" * 100, "猫" * 100 + "!"),
    ("b", "B", "a"),
    ("10", "9", "1"),
    tuple(FASHION),
    tuple(map(str, range(12))),
]


def bytes_of(made):
    return (made.pixels * 255).round()


@pytest.mark.parametrize("names", NAMES, ids=lambda names: ascii(names[0])[:20])
def test_image_folder_reads_the_same_labels(tmp_path, names):
    made = a_set(n=2 * len(names), names=names)
    folder = made.export(tmp_path / "set")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    read = ImageFolder(folder)
    assert len(read.classes) == len(names)
    for path, label in read.samples:
        place = int(path.rsplit("/", 1)[1].removesuffix(".png"))
        assert label == made.labels[place]
        picture = torch.from_numpy(np.asarray(Image.open(path)).copy()).permute(2, 0, 1)
        assert torch.equal(picture.float(), bytes_of(made)[place])
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    assert card["class_names"] == list(names)
    assert card["folders"] == read.classes


def test_a_class_without_images_does_not_shift_the_others(tmp_path):
    made = a_set(labels=torch.tensor([0, 0, 0, 2, 2, 2]))
    folder = made.export(tmp_path / "set")
    assert [label for _, label in ImageFolder(folder, allow_empty=True).samples] == [0, 0, 0, 2, 2, 2]
    assert torch.equal(SyntheticSet.from_folder(folder).labels, made.labels)


def test_names_in_order_are_kept_and_others_numbered():
    assert folder_names(["ant", "bee"]) == ["ant", "bee"]
    assert folder_names(FASHION)[::9] == ["0_T-shirt_top", "9_Ankle boot"]
    many = folder_names([f"class {n}" for n in range(101)])
    assert many == sorted(many)
    assert (many[2], many[100]) == ("002_class 2", "100_class 100")


@pytest.mark.parametrize("channels", [1, 3])
def test_the_way_back_is_exact_but_for_eight_bits(tmp_path, channels):
    made = a_set(n=7, channels=channels, names=("c", "b", "a"), labels=torch.tensor([2, 0, 1, 1, 0, 2, 2]))
    back = SyntheticSet.from_folder(made.export(tmp_path / "set"))
    torch.testing.assert_close(back.pixels * 255, bytes_of(made), rtol=0, atol=1e-3)
    assert torch.equal(back.labels, made.labels)
    assert (back.format, back.class_names) == (made.format, made.class_names)
    assert back.provenance == {**made.provenance, "pixels": "8 bits", "exported": made.hash}


def test_soft_labels_come_back_exactly(tmp_path):
    labels = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).softmax(1)
    made = a_set(labels=labels)
    folder = made.export(tmp_path / "set")
    assert torch.equal(SyntheticSet.from_folder(folder).labels, labels)
    assert [label for _, label in ImageFolder(folder, allow_empty=True).samples] == sorted(labels.argmax(1).tolist())


def test_the_card_says_all_that_is_needed(tmp_path):
    made = a_set()
    folder = made.export(tmp_path / "set", licence="CC BY 4.0")
    card = json.loads((folder / "card.json").read_text())
    assert (card["images"], card["channels"], card["image_size"]) == (6, 3, 8)
    assert (tuple(card["mean"]), tuple(card["std"])) == (made.format.mean, made.format.std)
    assert (card["hash"], card["licence"], card["provenance"]) == (made.hash, "CC BY 4.0", made.provenance)
    assert set(card["made_by"]) == {"ddlib", "code"}
    outside = made.format.denormalise(made.images)
    assert card["clamped"] == pytest.approx(float(((outside < 0) | (outside > 1)).float().mean()))
    words = (folder / "README.md").read_text()
    assert "| 1 | bee | `bee` |" in words
    assert "CC BY 4.0" in words
    assert json.loads((a_set().export(tmp_path / "other") / "card.json").read_text())["licence"] == "not stated"


def test_a_used_folder_is_refused_and_stays_as_it_was(tmp_path):
    folder = a_set(n=9).export(tmp_path / "set")
    before = sorted(folder.rglob("*"))
    with pytest.raises(FileExistsError, match="not empty: choose another folder"):
        a_set(n=3).export(folder)
    assert sorted(folder.rglob("*")) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "holiday.png").touch()
    with pytest.raises(FileExistsError, match="mine is there already"):
        a_set().export(tmp_path / "mine")
    (tmp_path / "empty").mkdir()
    assert len(list(a_set().export(tmp_path / "empty").rglob("*.png"))) == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "mine", "set"]


def test_an_interrupted_export_leaves_nothing(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", broken)
    with pytest.raises(KeyboardInterrupt):
        a_set().export(tmp_path / "set")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_is_full_is_one_sentence_and_nothing_stays(tmp_path):
    said = r"set cannot be written \(File too large\).*free some space there"
    with files_of_at_most(100), pytest.raises(OSError, match=said):
        a_set().export(tmp_path / "set")
    assert not list(tmp_path.iterdir())


def test_other_channels_are_refused(tmp_path):
    made = a_set(channels=2, format=ImageFormat(2, 8, (0.0, 0.0), (1.0, 1.0)))
    with pytest.raises(ValueError, match=r"1 or 3 channels, these images 2: use save\(\)"):
        made.export(tmp_path / "set")
    assert not list(tmp_path.iterdir())


def test_a_folder_without_a_card_or_with_other_pictures_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no card\.json in .*ddlib\.load_dataset"):
        SyntheticSet.from_folder(tmp_path)
    folder = a_set().export(tmp_path / "set")
    first = next(folder.glob("*/*.png"))
    content = first.read_bytes()
    Image.new("RGB", (9, 8)).save(first)
    with pytest.raises(ValueError, match="has 9 x 8 pixels, its card says 8"):
        SyntheticSet.from_folder(folder)
    first.unlink()
    with pytest.raises(ValueError, match="holds 5 pictures, not 6"):
        SyntheticSet.from_folder(folder)
    first.write_bytes(content)
    (first.parent / "holiday.png").write_bytes(content)
    with pytest.raises(ValueError, match="holds 7 pictures, not 6"):
        SyntheticSet.from_folder(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda card: [],
        lambda card: {},
        lambda card: card | {"class_names": ["a"]},
        lambda card: card | {"images": "six"},
        lambda card: card | {"std": [1.0]},
        lambda card: card | {"soft_labels": [[0.5, 0.2, 0.2]] * 6},
        lambda card: card | {"provenance": 5},
    ],
)
def test_a_card_that_is_not_whole_is_refused(tmp_path, change):
    folder = a_set().export(tmp_path / "set")
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(change(card)))
    with pytest.raises(ValueError, match=r"no card that SyntheticSet\.export wrote|card that is not whole"):
        SyntheticSet.from_folder(folder)


def test_the_old_name_says_the_new_one():
    with pytest.raises(AttributeError, match=r"save_pngs is now SyntheticSet\.export"):
        a_set().save_pngs("folder")
    with pytest.raises(AttributeError, match="no attribute 'savepngs'"):
        a_set().savepngs("folder")


def test_a_set_of_real_images_round_trips(tiny, tmp_path):
    made = select_real(tiny, 2)
    back = SyntheticSet.from_folder(made.export(tmp_path / "set")).normalised_for(tiny)
    assert (back.pixels - made.pixels).abs().max() <= 0.5 / 255 + 1e-6
    assert dataclasses.replace(back, images=made.images).hash == made.hash


def test_a_copied_picture_does_not_change_a_label(tiny, tmp_path):
    """Its number is there already, in the folder of another class."""
    made = SyntheticSet.of(tiny, tiny.train.images[:3], tiny.train.labels[:3])
    folder = made.export(tmp_path / "set")
    first, second, *_ = sorted(path for path in folder.iterdir() if path.is_dir())
    picture = next(first.glob("*.png"))
    shutil.copy(picture, second / picture.name)
    with pytest.raises(ValueError, match=r"holds 4 pictures, not 3 numbered from 0, as its card says"):
        load_synthetic(folder, tiny)
