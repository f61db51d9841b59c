"""Names that users give, of classes, data sets and arms: no figure breaks, none is white, none shows boxes."""

import warnings

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from ddlib.study import figures, images, run_figures, style

ODD = ["US$_$", "$x$", "$\\frac{", "猫の写真", "x" * 100, "two\nlines", "é", "\\$5", " ", "🐈", "👩‍👩‍👧"]


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def drawn(figure):
    """Its pixels [H, W, 3], as a notebook shows it."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]


def coloured(picture):
    """The share of pixels that are neither white nor grey."""
    return float((np.ptp(picture.astype(int), axis=2) > 30).mean())


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_images_of_a_class_of_any_name_are_seen(name):
    pixels = torch.zeros(2, 3, 8, 8)
    pixels[:, 0] = 1  # red
    ax = images.image_grid(pixels, torch.tensor([0, 1]), ["ant", name])
    picture = drawn(ax.figure)
    assert coloured(picture) > 0.1
    edge = picture[:, 0]
    assert (edge == 255).all(), "no name is cut off"


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_figures_of_an_arm_of_any_name_are_drawn(name):
    columns = ["arm", "seed", "accuracy", "seconds_distill"]
    rows = [("none", 0, 0.4, 1.0), ("none", 1, 0.5, 1.0), (name, 0, 0.6, 2.0)]
    records = pd.DataFrame(rows, columns=columns).assign(architecture="ConvNet-3", network=0, dataset=name)
    for ax in (
        figures.accuracy_by_arm(records),
        figures.cross_architecture(records),
        figures.cost_accuracy(records, "seconds_distill"),
        run_figures.gradient_cosines(np.eye(2), ["PTM", name]),
    ):
        picture = drawn(ax.figure)
        assert (picture < 200).any(2).mean() > 0.005
        assert ax.get_window_extent().width > 0.15 * picture.shape[1], "there is room for what is drawn"


def test_a_name_is_short_and_literal_and_told_in_full(capsys):
    assert style.caption("US$_$") == r"US\$_\$"
    assert style.captions(["ant", "US$_$", "été"]) == ["ant", r"US\$_\$", "été"]
    assert capsys.readouterr().out == ""
    (long,) = style.captions(["a" * 50 + "b" * 50], 32)
    assert long == "a" * 20 + "…" + "b" * 11
    assert capsys.readouterr().out == f"In the figure {long}: {'a' * 50 + 'b' * 50!r}\n"


def test_a_dollar_is_drawn_as_one():
    _, ax = plt.subplots()
    text = ax.text(0, 0, style.caption("US$_$"))
    plain = ax.text(0, 0, "US$_$", parse_math=False)
    ax.figure.canvas.draw()
    assert text.get_window_extent().width == plain.get_window_extent().width


def test_characters_that_no_font_has_are_written_as_python_does(monkeypatch):
    monkeypatch.setattr(style, "_glyphs", lambda: frozenset(map(ord, "ant \\u0123456789abcdef")))
    assert style.caption("ant 猫") == "ant \\u732b"
    assert style.caption("two\nant") == "two\\nant"


def test_fonts_that_are_installed_are_used(monkeypatch):
    with style.style():
        assert mpl.rcParams["font.family"][:2] == ["sans-serif", "DejaVu Sans"]
    installed = [*style.fontManager.ttflist]
    copy = next(font for font in installed if font.name == "DejaVu Sans")
    other = type(copy)(**{**copy.__dict__, "name": style.OTHER_SCRIPTS[0]})
    monkeypatch.setattr(style.fontManager, "ttflist", [*installed, other])
    style._fonts.cache_clear()
    try:
        with style.style():
            assert style.OTHER_SCRIPTS[0] in mpl.rcParams["font.family"]
    finally:
        style._fonts.cache_clear()
