"""A person's own pictures: the conversions that are promised, and every way a folder can be wrong."""

import os
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from ddlib.data import image_folder as folder_module
from ddlib.data.image_folder import find_files, read_folder, read_image
from ddlib.data.readers import load_dataset

RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


def write(path, image=None, size=(32, 32), color=RED, **options):
    """Save `image`, or one of a single colour, and make its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or Image.new("RGB", size, color)).save(path, **options)
    return path


@pytest.fixture
def photos(tmp_path):
    """Two classes, two train images and one test image each, 32 x 32."""
    root = tmp_path / "photos"
    for part, names in (("train", ("b.png", "a.png")), ("test", ("c.png",))):
        for number, name in enumerate(names):
            write(root / part / "cat" / name, color=(10 + number, 0, 0))
            write(root / part / "dog" / name, color=(0, 200, 100 + number))
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


def test_other_sizes_become_32_with_a_warning(photos):
    write(photos / "train" / "cat" / "wide.png", size=(60, 20))
    with pytest.warns(UserWarning, match="32 x 32 pixels, the default; image_size"):
        dataset = load_dataset(photos)
    assert dataset.image_size == 32


def test_no_warning_without_a_change_or_with_a_chosen_size(photos):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_dataset(photos).image_size == 32
        assert load_dataset(photos, image_size=8).image_size == 8


def test_hidden_files_are_ignored(photos):
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._a.png"):
        (photos / "train" / "cat" / name).write_bytes(b"not an image")
    (photos / "train" / ".ipynb_checkpoints").mkdir()
    (photos / "test" / ".DS_Store").touch()
    (photos / "README.md").touch()  # beside train and test anything may lie
    assert len(read_folder(photos)[0][0]) == 4


@pytest.mark.parametrize("name", ["x.jpg", "x.JPEG", "x.bmp", "x.gif", "x.tiff", "x.webp", "x.ppm", "x"])
def test_formats_are_recognised_by_content(tmp_path, name):
    path = write(tmp_path / name, color=WHITE, format="PNG" if name == "x" else None)
    assert (pixels_of(path) >= 254).all()


# Geometry


@pytest.mark.parametrize("size", [(40, 20), (20, 40), (41, 17)])
def test_the_centre_square_is_kept(tmp_path, size):
    image = Image.new("RGB", size, RED)
    side = min(size)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    image.paste(GREEN, (left, top, left + side, top + side))
    green = pixels_of(write(tmp_path / "x.png", image))[1]
    assert (green[1:-1, 1:-1] == 255).all()
    assert green.min() > 215  # on the rim the filter sees a little of what was cut off, the same on both sides
    assert np.array_equal(green, green[::-1, ::-1])


def test_resizing_averages(tmp_path):
    board = np.indices((64, 64)).sum(0) % 2 * 255  # a chessboard: without antialiasing it stays black and white
    pixels = pixels_of(write(tmp_path / "x.png", Image.fromarray(board.astype(np.uint8))))
    assert abs(pixels.astype(float) - 127.5).max() < 4


@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff"])
def test_exif_orientation_is_honoured(tmp_path, suffix):
    image = Image.new("L", (16, 16), 0)
    image.paste(255, (0, 0, 16, 8))  # white above
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: white on the right
    pixels = pixels_of(write(tmp_path / f"x.{suffix}", image, exif=exif))[0]
    assert pixels[:, 5:].min() > 200
    assert pixels[:, :3].max() < 55


def test_a_large_jpeg_is_close_to_its_full_decoding(tmp_path):
    x, y = np.meshgrid(np.arange(640), np.arange(480))
    scene = np.stack([x * 255 / 640, y * 255 / 480, 127 + 120 * np.sin(x / 60)], 2).astype(np.uint8)
    path = write(tmp_path / "x.jpg", Image.fromarray(scene), quality=95)
    full = Image.open(path).crop((80, 0, 560, 480)).resize((32, 32), Image.Resampling.BILINEAR)
    difference = pixels_of(path, 32).transpose(1, 2, 0).astype(float) - np.asarray(full)
    assert abs(difference).mean() < 1.5


# Colour


def test_a_wholly_grey_folder_has_one_channel(tmp_path):
    for part in ("train", "test"):
        write(tmp_path / part / "a" / "8.png", Image.new("L", (32, 32), 51))
        write(tmp_path / part / "b" / "1.png", Image.new("1", (32, 32), 1))
        write(tmp_path / part / "b" / "16.png", Image.fromarray(np.full((32, 32), 13107, np.uint16)))
    (train, _), (test, _), _ = read_folder(tmp_path)
    assert train.shape == (3, 1, 32, 32)
    assert train.amin((1, 2, 3)).tolist() == pytest.approx([0.2, 1, 0.2])  # 51/255, white, 13107/65535
    assert torch.equal(train, test)


def test_one_colour_picture_makes_all_rgb(tmp_path):
    for part in ("train", "test"):
        write(tmp_path / part / "a" / "x.png", Image.new("L", (32, 32), 51))
        write(tmp_path / part / "b" / "x.png", Image.new("L", (32, 32), 51))
    write(tmp_path / "test" / "b" / "colour.png")
    (train, _), (test, _), _ = read_folder(tmp_path)
    assert train.shape == (2, 3, 32, 32)
    assert train.amin() == train.amax() == 51 / 255
    assert test[1].amax((1, 2)).tolist() == [1, 0, 0]  # colour.png


def test_sixteen_bits_are_not_cut_to_eight(tmp_path):
    values = np.full((8, 8), 1000, np.uint16)
    values[:, 4:] = 1100  # both 4 in eight bits
    pixels = pixels_of(write(tmp_path / "x.png", Image.fromarray(values)))
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
    pixels = pixels_of(write(tmp_path / "x.png", image, **options))
    assert pixels.shape == (1 if mode == "L" else 3, 8, 8)
    assert (pixels == 255).all()


def test_half_transparent_red_is_pink(tmp_path):
    pixels = pixels_of(write(tmp_path / "x.png", Image.new("RGBA", (8, 8), (255, 0, 0, 128))))
    assert pixels[:, 0, 0].tolist() == [255, 127, 127]


@pytest.mark.parametrize("mode", ["P", "CMYK"])
def test_palette_and_cmyk_become_rgb(tmp_path, mode):
    image = Image.new("RGB", (8, 8), RED).convert(mode)
    pixels = pixels_of(write(tmp_path / ("x.png" if mode == "P" else "x.tiff"), image))
    assert pixels[:, 0, 0].tolist() == list(RED)


def test_the_first_frame_counts(tmp_path):
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, GREEN)]
    path = write(tmp_path / "x.gif", frames[0], save_all=True, append_images=frames[1:])
    assert pixels_of(path)[:, 0, 0].tolist() == list(RED)


# What is refused


def test_missing_part_shows_the_layout(photos):
    (photos / "test").rename(photos / "val")
    with pytest.raises(ValueError, match=r"no folder test/[\s\S]*train/<class>/") as error:
        read_folder(photos)
    assert str(photos) in str(error.value)


def test_unequal_classes_name_the_difference(photos):
    write(photos / "train" / "bird" / "x.png")
    write(photos / "test" / "fish" / "x.png")
    with pytest.raises(ValueError, match="only in train: bird; only in test: fish"):
        read_folder(photos)


def test_empty_class_is_named(photos):
    (photos / "train" / "emu").mkdir()
    write(photos / "test" / "emu" / "x.png")
    with pytest.raises(ValueError, match="without any image: train/emu;"):
        read_folder(photos)


def test_one_class_is_not_enough(tmp_path):
    for part in ("train", "test"):
        write(tmp_path / part / "cat" / "x.png")
    with pytest.raises(ValueError, match="only the class 'cat'; a classifier needs two"):
        read_folder(tmp_path)


def test_no_class_at_all(tmp_path):
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
    with pytest.raises(ValueError, match="no class; a classifier needs two"):
        read_folder(tmp_path)


def test_misplaced_files_and_folders_are_named(photos):
    write(photos / "train" / "lost.png")
    write(photos / "train" / "cat" / "deeper" / "x.png")
    with pytest.raises(ValueError, match=r"not in its place: .*lost\.png, .*deeper\."):
        find_files(photos, "train")
    for number in range(5):
        write(photos / "train" / f"z{number}.png")
    with pytest.raises(ValueError, match="and 2 more"):
        find_files(photos, "train")


def truncated(path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    write(path, Image.fromarray(noise))
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
        ("depth.tiff", lambda path: write(path, Image.new("F", (8, 8))), "floating-point"),
        ("depth.tiff", lambda path: write(path, Image.new("I", (8, 8), -1)), "32-bit"),
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
    path = write(photos / "test" / "dog" / "huge.png", size=(side, side))
    monkeypatch.setattr(folder_module.Image, "MAX_IMAGE_PIXELS", 1200)
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
    secret = write(photos.parent / "secret.png")
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
    secret = write(photos.parent / "secret.png")
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
