"""A person's own pictures: the conversions that are promised, and every way a folder can be wrong."""

import os
import struct
import sys
import unicodedata
import warnings
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from made import write_image
from PIL import Image

from ddlib.data import pictures
from ddlib.data.image_folder import find_files, read_folder
from ddlib.data.pictures import read_image
from ddlib.data.readers import load_dataset

pytestmark = [  # what most folders here are warned of; tests of warnings ask for them
    pytest.mark.filterwarnings("ignore:pictures in both train and test"),
    pytest.mark.filterwarnings("ignore:channel . of .* is constant"),
]
RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


@pytest.fixture
def photos(tmp_path):
    """Two classes, two train images and one test image each, 32 x 32."""
    root = tmp_path / "photos"
    for part, names in (("train", ("b.png", "a.png")), ("test", ("c.png",))):
        for number, name in enumerate(names):
            blue = 50 * (part == "test")
            write_image(root / part / "cat" / name, color=(10 + number, 0, blue))
            write_image(root / part / "dog" / name, color=(0, 200, 100 + number + blue))
    return root


def pixels_of(path, size=8):
    """The picture as `[C, H, W]` numbers in 0..255."""
    return read_image(path, size)[0]


# What a good folder gives


def test_shapes_labels_and_order(photos):
    (train, train_labels), (test, test_labels), names = read_folder(photos)
    assert names == ("cat", "dog")
    assert train.shape == (4, 3, 32, 32)
    assert test.shape == (2, 3, 32, 32)
    assert train.dtype == torch.float32
    assert train_labels.tolist() == [0, 0, 1, 1]
    assert test_labels.tolist() == [0, 1]
    # a.png before b.png although it was written later, and integers / 255 exactly
    assert train[:2, 0, 0, 0].tolist() == [torch.tensor(v / 255).item() for v in (11, 10)]


def test_load_dataset_takes_the_folder(photos):
    dataset, again = (load_dataset(str(photos), image_size=16) for _ in range(2))
    assert (dataset.name, dataset.image_size, dataset.channels) == ("photos", 16, 3)
    assert dataset.class_names == ("cat", "dog")
    assert torch.equal(dataset.train.images, again.train.images)
    assert dataset.hash == again.hash
    torch.testing.assert_close(dataset.train.images.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)


def test_a_folder_named_like_a_known_set_keeps_its_own_name(photos, monkeypatch):
    monkeypatch.chdir(photos.parent)
    photos.rename(photos.parent / "digits")
    assert load_dataset("./digits").name == "digits-folder"
    assert len(load_dataset("digits").train) == 1438  # the known set wins


@pytest.mark.parametrize(
    ("sizes", "chosen"),
    [
        ([(60, 20)], 32),  # beside six of 32 x 32
        ([(300, 200)] * 9, 64),  # photos
        ([(48, 50)] * 9, 48),
        ([(5, 5)] * 9, 8),
    ],
)
def test_the_default_size_suits_the_pictures_and_is_printed(photos, capsys, sizes, chosen):
    for number, size in enumerate(sizes):
        write_image(photos / "train" / "cat" / f"{number}.png", size=size, color=(number, 0, 9))
    assert load_dataset(photos).image_size == chosen
    said = capsys.readouterr().out
    assert f"{4 + len(sizes)} training and 2 test images of 2 classes, {chosen} x {chosen} pixels" in said
    assert "scaled and cut from" in said
    assert "labels 0 'cat', 1 'dog'" in said


def test_a_size_that_was_asked_for_is_printed_too(photos, capsys):
    assert load_dataset(photos, image_size=8).image_size == 8
    assert "8 x 8 pixels (scaled and cut from 32 x 32; image_size" in capsys.readouterr().out
    load_dataset(photos)
    assert "32 x 32 pixels, RGB;" in capsys.readouterr().out  # nothing was scaled


def test_of_many_classes_the_first_and_the_last_are_shown(tmp_path, capsys):
    for number in range(30):
        for part in ("train", "test"):
            write_image(tmp_path / part / f"{number:02d}" / "x.png", color=(number, number, part == "test"))
    load_dataset(tmp_path)
    assert "8 '08', 9 '09', ... 29 '29'" in capsys.readouterr().out


def test_no_warning_without_a_change_or_with_a_chosen_size(photos):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_dataset(photos).image_size == 32
        assert load_dataset(photos, image_size=8).image_size == 8


def test_hidden_files_are_ignored(photos):
    left_by_others = ".DS_Store", "Thumbs.db", "desktop.ini", "._a.png", "Icon\r", "Picasa.ini", "ZbThumbnail.info"
    for name in left_by_others:
        (photos / "train" / "cat" / name).write_bytes(b"not an image")
        (photos / "train" / name).write_bytes(b"not an image")
    for name in (".ipynb_checkpoints", "@eaDir", "__MACOSX"):
        (photos / "train" / name).mkdir()
        (photos / "test" / "dog" / name).mkdir()
    (photos / "test" / ".DS_Store").touch()
    (photos / "README.md").touch()  # beside train and test anything may lie
    assert len(read_folder(photos)[0][0]) == 4


@pytest.mark.parametrize("name", ["x.jpg", "x.JPEG", "x.bmp", "x.gif", "x.tiff", "x.webp", "x.ppm", "x"])
def test_formats_are_recognised_by_content(tmp_path, name):
    path = write_image(tmp_path / name, color=WHITE, format="PNG" if name == "x" else None)
    assert (pixels_of(path) >= 254).all()


# Geometry


@pytest.mark.parametrize("size", [(40, 20), (20, 40), (41, 17)])
def test_the_centre_square_is_kept(tmp_path, size):
    image = Image.new("RGB", size, RED)
    side = min(size)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    image.paste(GREEN, (left, top, left + side, top + side))
    green = pixels_of(write_image(tmp_path / "x.png", image))[1]
    assert (green[1:-1, 1:-1] == 255).all()
    assert green.min() > 215  # on the rim the filter sees a little of what was cut off, the same on both sides
    assert np.array_equal(green, green[::-1, ::-1])


def test_resizing_averages(tmp_path):
    board = np.indices((64, 64)).sum(0) % 2 * 255  # a chessboard: without antialiasing it stays black and white
    pixels = pixels_of(write_image(tmp_path / "x.png", Image.fromarray(board.astype(np.uint8))))
    assert abs(pixels.astype(float) - 127.5).max() < 4


@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff"])
def test_exif_orientation_is_honoured(tmp_path, suffix):
    image = Image.new("L", (16, 16), 0)
    image.paste(255, (0, 0, 16, 8))  # white above
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: white on the right
    pixels = pixels_of(write_image(tmp_path / f"x.{suffix}", image, exif=exif))[0]
    assert pixels[:, 5:].min() > 200
    assert pixels[:, :3].max() < 55


def test_a_large_jpeg_is_close_to_its_full_decoding(tmp_path):
    x, y = np.meshgrid(np.arange(640), np.arange(480))
    scene = np.stack([x * 255 / 640, y * 255 / 480, 127 + 120 * np.sin(x / 60)], 2).astype(np.uint8)
    path = write_image(tmp_path / "x.jpg", Image.fromarray(scene), quality=95)
    full = Image.open(path).crop((80, 0, 560, 480)).resize((32, 32), Image.Resampling.BILINEAR)
    difference = pixels_of(path, 32).transpose(1, 2, 0).astype(float) - np.asarray(full)
    assert abs(difference).mean() < 1.5


# Colour


def test_a_wholly_grey_folder_has_one_channel(tmp_path):
    for part in ("train", "test"):
        write_image(tmp_path / part / "a" / "8.png", Image.new("L", (32, 32), 51))
        write_image(tmp_path / part / "b" / "1.png", Image.new("1", (32, 32), 1))
        write_image(tmp_path / part / "b" / "16.png", Image.fromarray(np.full((32, 32), 13107, np.uint16)))
        write_image(tmp_path / part / "b" / "white.png", Image.fromarray(np.full((32, 32), 65535, np.uint16)))
    (train, _), (test, _), _ = read_folder(tmp_path)
    assert train.shape == (4, 1, 32, 32)
    assert train.amin((1, 2, 3)).tolist() == pytest.approx([0.2, 1, 0.2, 1])  # 51/255, white, 13107/65535, white
    assert torch.equal(train, test)


def test_one_colour_picture_makes_all_rgb(tmp_path):
    for part in ("train", "test"):
        write_image(tmp_path / part / "a" / "x.png", Image.new("L", (32, 32), 51))
        write_image(tmp_path / part / "b" / "x.png", Image.new("L", (32, 32), 51))
    write_image(tmp_path / "test" / "b" / "colour.png")
    (train, _), (test, _), _ = read_folder(tmp_path)
    assert train.shape == (2, 3, 32, 32)
    assert train.amin() == train.amax() == 51 / 255
    assert test[1].amax((1, 2)).tolist() == [1, 0, 0]  # colour.png


def test_sixteen_bits_are_not_cut_to_eight(tmp_path):
    values = np.full((8, 8), 1000, np.uint16)
    values[:, 4:] = 1100  # both 4 in eight bits
    pixels = pixels_of(write_image(tmp_path / "x.png", Image.fromarray(values)))
    np.testing.assert_allclose(pixels[0], values / 257, rtol=1e-5)


@pytest.mark.parametrize(
    ("mode", "color"), [("RGBA", (255, 0, 0, 0)), ("LA", (0, 0)), ("PA", None), ("P", None), ("L", 7)]
)
def test_transparency_becomes_white(tmp_path, mode, color):
    if mode in ("P", "PA"):
        image, options = Image.new("P", (8, 8), 0), {"transparency": 0}
    elif mode == "L":
        image, options = Image.new("L", (8, 8), color), {"transparency": color}
    else:
        image, options = Image.new(mode, (8, 8), color), {}
    pixels = pixels_of(write_image(tmp_path / "x.png", image, **options))
    assert pixels.shape == (1 if mode == "L" else 3, 8, 8)
    assert (pixels == 255).all()


def test_half_transparent_red_is_pink(tmp_path):
    pixels = pixels_of(write_image(tmp_path / "x.png", Image.new("RGBA", (8, 8), (255, 0, 0, 128))))
    assert pixels[:, 0, 0].tolist() == [255, 127, 127]


@pytest.mark.parametrize("mode", ["P", "CMYK"])
def test_palette_and_cmyk_become_rgb(tmp_path, mode):
    image = Image.new("RGB", (8, 8), RED).convert(mode)
    pixels = pixels_of(write_image(tmp_path / ("x.png" if mode == "P" else "x.tiff"), image))
    assert pixels[:, 0, 0].tolist() == list(RED)


@pytest.mark.parametrize("suffix", ["gif", "tiff", "png", "webp"])
def test_the_first_frame_counts_and_the_rest_is_told_of(photos, suffix):
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, GREEN, WHITE)]
    path = photos / "train" / "cat" / f"x.{suffix}"
    write_image(
        path, frames[0], save_all=True, append_images=frames[1:], **({"lossless": True} if suffix == "webp" else {})
    )
    assert pixels_of(path)[:, 0, 0].tolist() == list(RED)
    with pytest.warns(
        UserWarning, match=rf"files of photos that hold several pictures.*first is used: x\.{suffix} \(3\)"
    ):
        read_folder(photos)


@pytest.mark.parametrize(("largest", "white"), [(3000, 4095), (200, 255), (1023, 1023), (9000, 16383)])
def test_greys_of_few_bits_in_sixteen_are_brightened_all_alike(tmp_path, largest, white):
    for part, factor in (("train", 1), ("test", 2)):
        for name in "ab":
            values = np.full((8, 8), (largest + (name == "b")) // 2 // factor, np.uint16)
            values[0, 0] = largest if (part, name) == ("test", "a") else 0  # one file decides for all
            write_image(tmp_path / part / name / "x.png", Image.fromarray(values))
    with pytest.warns(UserWarning, match=rf"largest grey of the 4 16-bit .* is {largest}: .* {white} is white in all"):
        (train, _), (test, _), _ = read_folder(tmp_path, 8)
    assert train.shape == (2, 1, 8, 8)
    assert train[0].amax().item() == pytest.approx(largest // 2 / white, rel=1e-5)
    assert test[0].amax().item() == pytest.approx(largest / white, rel=1e-5)


def test_greys_of_sixteen_bits_keep_their_bits_without_a_word(tmp_path):
    for part in ("train", "test"):
        for name, top in (("a", 40000), ("b", 300 + 7 * (part == "test"))):
            write_image(tmp_path / part / name / "x.png", Image.fromarray(np.full((8, 8), top, np.uint16)))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "the largest grey")
        (train, _), _, _ = read_folder(tmp_path, 8)
    assert train[:, 0, 0, 0].tolist() == [(np.float32(v / 257) / np.float32(255)).item() for v in (40000, 300)]


# What is refused


@pytest.mark.parametrize("name", ["val", "validation", "TEST", "Val"])
def test_the_test_part_has_several_names(photos, name):
    before = read_folder(photos)[1][0]
    (photos / "test").rename(photos / name)
    (photos / "train").rename(photos / "Train")
    assert torch.equal(read_folder(photos)[1][0], before)


def test_of_two_test_parts_one_is_used_and_said(photos):
    write_image(photos / "val" / "cat" / "other.png")
    with pytest.warns(UserWarning, match="test images are those of 'test'; 'val' is not used"):
        assert len(read_folder(photos)[1][0]) == 2


@pytest.mark.parametrize(("gone", "missing"), [("test", "test/"), ("train", "train/")])
def test_missing_part_shows_the_layout(photos, gone, missing):
    (photos / gone).rename(photos / f".{gone}")
    with pytest.raises(
        ValueError, match=rf"no folder {missing}[\s\S]*path of that folder[\s\S]*train/<class>/"
    ) as error:
        read_folder(photos)
    assert str(photos) in str(error.value)


def flat_folder(root, counts):
    for label, (name, count) in enumerate(counts.items()):
        for number in range(count):
            write_image(root / name / f"{number:02d}.png", color=(number, label, 7))
    return root


def test_a_flat_folder_is_split_by_class_and_that_is_said(tmp_path):
    folder = flat_folder(tmp_path / "flat", {"cat": 10, "dog": 3})
    (folder / "README.md").touch()
    with pytest.warns(UserWarning, match=r"13 pictures 3 were set aside for testing, a fifth of each .*split_seed = 0"):
        first = load_dataset(folder)
    assert first.train.labels.bincount().tolist() == [8, 2]
    assert first.test.labels.bincount().tolist() == [2, 1]
    with pytest.warns(UserWarning, match="split_seed = 1"):
        other = load_dataset(folder, split_seed=1)
    with pytest.warns(UserWarning, match="split_seed = 0"):
        assert load_dataset(folder).hash == first.hash != other.hash


def test_a_flat_folder_needs_two_pictures_of_a_class_and_none_beside_them(tmp_path):
    folder = flat_folder(tmp_path / "flat", {"cat": 10, "dog": 1})
    with pytest.raises(ValueError, match=r"to be split.* fewer than two pictures: 'dog'"):
        read_folder(folder)
    write_image(folder / "lost.JPG")
    with pytest.raises(ValueError, match=r"not in its place: .*lost\.JPG"):
        read_folder(folder)


def test_labels_are_those_of_torchvision(tmp_path):
    """Capitals before small letters, "10" before "2", and an accent that macOS stores apart where its letter stands."""
    names = ("b", "A", "10", "2", "cafe\u0301", "caf\u00e9s", "zebra")
    for part in ("train", "test"):
        flat_folder(tmp_path / part, dict.fromkeys(names, 1))
    theirs = torchvision.datasets.ImageFolder(tmp_path / "train").classes
    assert load_dataset(tmp_path).class_names == tuple(unicodedata.normalize("NFC", name) for name in theirs)


def test_accents_may_be_stored_in_two_ways(photos):
    for part, name in (("train", "caf\u00e9"), ("test", "cafe\u0301")):
        write_image(photos / part / name / "x.png", color=(1, 2, part == "test"))
    assert read_folder(photos)[2] == ("caf\u00e9", "cat", "dog")
    (photos / "train" / "cafe\u0301").mkdir()
    with pytest.raises(ValueError, match=r"two folders for one class: .*'cafe\\u0301'.*'caf\\xe9'"):
        read_folder(photos)


def test_a_trailing_space_can_be_seen(photos):
    (photos / "test" / "cat").rename(photos / "test" / "cat ")
    with pytest.raises(ValueError, match=r"only in train: 'cat'; only in test: 'cat '\. Some differ only in spaces"):
        read_folder(photos)


def test_unequal_classes_name_the_difference(photos):
    write_image(photos / "train" / "bird" / "x.png")
    write_image(photos / "test" / "fish" / "x.png")
    with pytest.raises(ValueError, match=r"only in train: 'bird'; only in test: 'fish'$"):
        read_folder(photos)


def test_empty_class_is_named(photos):
    (photos / "train" / "emu").mkdir()
    write_image(photos / "test" / "emu" / "x.png")
    with pytest.raises(ValueError, match="without any image: train/emu;"):
        read_folder(photos)


def test_one_class_is_not_enough(tmp_path):
    for part in ("train", "test"):
        write_image(tmp_path / part / "cat" / "x.png")
    with pytest.raises(ValueError, match="only the class 'cat'; a classifier needs two"):
        read_folder(tmp_path)


def test_no_class_at_all(tmp_path):
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
    with pytest.raises(ValueError, match="no class; a classifier needs two"):
        read_folder(tmp_path)


def test_misplaced_files_and_folders_are_named(photos):
    write_image(photos / "train" / "lost.png")
    write_image(photos / "train" / "cat" / "deeper" / "x.png")
    with pytest.raises(ValueError, match=r"not in its place: .*lost\.png, .*deeper\."):
        find_files(photos, "train")
    for number in range(5):
        write_image(photos / "train" / f"z{number}.png")
    with pytest.raises(ValueError, match="and 2 more"):
        find_files(photos, "train")


def truncated(path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    write_image(path, Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[:2000])


def broken_png(path):
    """A sound header, then nonsense: Pillow raises SyntaxError here."""
    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + b"\x00\x00\x00\x05????nonsense")


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("bad.jpg", truncated, "truncated"),
        ("bad.png", truncated, ""),
        ("bad.png", broken_png, ""),
        ("empty.png", lambda path: path.touch(), "not an image"),
        ("notes.txt", lambda path: path.write_text("holiday"), "not an image"),
        ("gone.png", lambda path: path.symlink_to("nowhere"), "No such file"),
        ("depth.tiff", lambda path: write_image(path, Image.new("F", (8, 8))), "floating-point"),
        ("depth.tiff", lambda path: write_image(path, Image.new("I", (8, 8), -1)), "32-bit"),
    ],
)
def test_unreadable_file_is_named(photos, name, damage, reason):
    path = photos / "test" / "dog" / name
    damage(path)
    with pytest.raises(ValueError, match="cannot be read as images") as error:
        read_folder(photos)
    line = next(line for line in str(error.value).splitlines() if str(path) in line)
    assert reason in line
    assert line.split(": ", 1)[1]  # some reason at least


def test_bad_files_can_be_skipped_and_are_all_listed(photos):
    for number in range(7):
        (photos / "train" / "cat" / f"{number}.txt").write_text("x")
    with pytest.raises(ValueError, match='on_bad="skip"'):
        load_dataset(photos)
    with pytest.warns(UserWarning, match="7 files that cannot be read as images were skipped") as caught:
        data = load_dataset(photos, on_bad="skip")
    assert data.train.labels.tolist() == [0, 0, 1, 1]
    [told] = [str(warning.message) for warning in caught if "skipped" in str(warning.message)]
    assert all(str(photos / "train" / "cat" / f"{number}.txt") in told for number in range(7))
    for path in (photos / "test" / "dog").iterdir():
        path.write_text("x")
    with pytest.warns(UserWarning, match="8 files"), pytest.raises(ValueError, match="without any image: test/dog"):
        load_dataset(photos, on_bad="skip")


@pytest.mark.parametrize(("kind", "brand"), [("HEIC", b"heic"), ("HEIC", b"mif1"), ("AVIF", b"avis")])
def test_a_phone_s_format_says_what_to_install(photos, kind, brand):
    (photos / "train" / "cat" / "x.jpg").write_bytes(b"\0\0\0\x18ftyp" + brand + bytes(99))
    with pytest.raises(ValueError, match=rf"x\.jpg: {kind}, which .*pip install pillow-|x\.jpg: .*AVIF"):
        read_folder(photos)


def test_heif_is_read_if_its_package_is_there(tmp_path, monkeypatch):
    done = []
    monkeypatch.setitem(sys.modules, "pillow_heif", SimpleNamespace(register_heif_opener=lambda: done.append(1)))
    pictures._read_heif_too.cache_clear()
    for _ in range(2):
        read_image(write_image(tmp_path / "x.png"), 8)
    pictures._read_heif_too.cache_clear()
    assert done == [1]


def test_the_limit_of_pixels_can_be_set(photos):
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ValueError, match=r"decompression bomb \(the limit, max_pixels, is 1000\).*set max_pixels"):
        load_dataset(photos, max_pixels=1000)
    assert before == Image.MAX_IMAGE_PIXELS
    load_dataset(photos, max_pixels=1024)
    for wrong in (0, 1.5, True, "many"):
        with pytest.raises(ValueError, match=f"max_pixels must be .* found {wrong!r}"):
            load_dataset(photos, max_pixels=wrong)


def test_uneven_classes_and_pictures_in_both_parts_are_warned_of(tmp_path):
    for part, counts in (("train", {"cat": 20, "dog": 1}), ("test", {"cat": 1, "dog": 1})):
        flat_folder(tmp_path / part, counts)
    with pytest.warns(UserWarning, match="very uneven") as caught:
        read_folder(tmp_path)
    uneven, twins = (str(warning.message) for warning in caught)
    assert "20 training images of 'cat', 1 of 'dog'" in uneven
    assert "pictures in both train and test" in twins
    assert ": 2 (" in twins
    assert "train/cat/00.png = test/cat/00.png, train/dog/00.png = test/dog/00.png" in twins


def test_at_most_five_bad_files_in_one_message(photos):
    for part, number in [("train", n) for n in range(3)] + [("test", n) for n in range(4)]:
        (photos / part / "cat" / f"{number}.txt").write_text("x")
    with pytest.raises(ValueError, match="there may be more") as error:
        read_folder(photos)
    assert str(error.value).count(".txt: ") == 5
    assert "train" in str(error.value)
    assert "test/cat" in str(error.value)


@pytest.mark.parametrize("side", [40, 80])  # beyond Pillow's limit, and beyond twice the limit
def test_decompression_bomb_is_refused(photos, monkeypatch, side):
    path = write_image(photos / "test" / "dog" / "huge.png", size=(side, side))
    monkeypatch.setattr(pictures.Image, "MAX_IMAGE_PIXELS", 1200)
    with pytest.raises(ValueError, match="decompression bomb") as error:
        read_folder(photos)
    assert str(path) in str(error.value)
    assert "1200" in str(error.value)
    assert str(error.value).count("huge.png") == str(error.value).count(".png") == 1


@pytest.mark.parametrize("side", [10_000, 20_000])  # Pillow only warns of the first
def test_a_real_bomb_is_refused_unopened(photos, side):
    """White squares: 12 and 50 MB of bits in files of some kB, 0.4 and 1.6 GB as RGB of floats."""
    path = photos / "train" / "cat" / "bomb.png"
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))]
    chunks += [(b"IDAT", zlib.compress(bytes((side // 8 + 1) * side), 9)), (b"IEND", b"")]
    whole = [struct.pack(">I", len(d)) + name + d + struct.pack(">I", zlib.crc32(name + d)) for name, d in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(whole))
    assert path.stat().st_size < 100_000
    with pytest.raises(ValueError, match=r"bomb\.png: too many pixels, refused as a possible decompression bomb"):
        read_folder(photos)


def test_a_file_larger_than_any_picture_is_refused(photos):
    path = photos / "train" / "cat" / "a.png"
    with path.open("r+b") as file:
        file.truncate(2**28 + 1)  # a hole, which takes no room on the disk
    with pytest.raises(ValueError, match=r"a\.png: 268 MB, more than the limit of 268 MB"):
        read_folder(photos)


def test_a_pipe_is_no_picture(photos):
    os.mkfifo(photos / "train" / "cat" / "pipe.png")
    with pytest.raises(ValueError, match=r"pipe\.png: not a regular file"):
        read_folder(photos)


@pytest.mark.parametrize("name", ["train/cat/link.png", "test/dog/link.png"])
def test_a_link_that_leaves_the_folder_is_refused(photos, name):
    secret = write_image(photos.parent / "secret.png")
    (photos / name).symlink_to(secret)
    with pytest.raises(ValueError, match=r"links that lead out of .*photos: .*link\.png\. Put copies"):
        read_folder(photos)


@pytest.mark.parametrize("name", ["train", "train/cat"])
def test_a_linked_folder_that_leaves_the_folder_is_refused(photos, name):
    (photos / name).rename(photos.parent / "elsewhere")
    (photos / name).symlink_to("../elsewhere" if name == "train" else "../../elsewhere")
    with pytest.raises(ValueError, match=rf"links that lead out of .*photos: .*{name}\. Put copies"):
        read_folder(photos)


def test_many_links_out_are_counted(photos):
    secret = write_image(photos.parent / "secret.png")
    for number in range(7):
        (photos / "train" / "cat" / f"{number}.png").symlink_to(secret)
    with pytest.raises(ValueError, match=r"4\.png and 2 more\. Put copies"):
        read_folder(photos)


def test_links_inside_the_folder_are_followed(photos):
    (photos / "train" / "cat" / "again.png").symlink_to("a.png")
    (photos / "train" / "dog" / "round.png").symlink_to(photos / "train" / "cat" / "b.png")
    assert len(read_folder(photos)[0][0]) == 6
    (photos / "train" / "dog" / "circle.png").symlink_to("circle.png")
    with pytest.raises(ValueError, match=r"circle\.png: .*symbolic links"):
        read_folder(photos)


def test_the_folder_itself_may_be_a_link(photos):
    (photos.parent / "link").symlink_to(photos)
    assert len(read_folder(photos.parent / "link")[0][0]) == 4


def test_of_a_phones_picture_with_a_depth_map_the_first_counts_without_a_word(tmp_path):
    """MPO: a JPEG that carries further ones, which are no pages."""
    red, green = (Image.new("RGB", (32, 32), colour) for colour in (RED, GREEN))
    path = tmp_path / "phone.jpg"
    red.save(path, format="MPO", save_all=True, append_images=[green])
    with Image.open(path) as image:
        assert (image.format, image.n_frames) == ("MPO", 2)
    found = read_image(path, 8)
    assert found.frames == 1
    assert np.abs(found.pixels[0].astype(int) - 255).max() < 5
