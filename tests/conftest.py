"""What several test modules share: data sets, PTMs trained on one of them, folders, figures that close, and a GPU."""

import contextlib
import sys

import matplotlib as mpl
import pytest
import torch
from pretend_cuda import let_autograd_run, pretend_cuda

import ddlib.ptms.training
from ddlib.data.dataset import Dataset, ImageFormat, Split
from ddlib.data.readers import load_dataset
from ddlib.ptms.pool import train_ptms

mpl.use("Agg")

if not torch.cuda.is_available():
    with contextlib.suppress(AttributeError):  # tests that need it are skipped then
        let_autograd_run()


def separable_dataset(name="tiny", channels=1, size=8, class_names=("ant", "bee", "cat"), seed=0):
    """One coarse pattern a class under noise: 12 train and 6 test images of each class, the classes mixed."""
    draw = torch.Generator().manual_seed(seed)
    blocks = torch.randn(len(class_names), channels, 4, 4, generator=draw)
    patterns = blocks.repeat_interleave(size // 4, 2).repeat_interleave(size // 4, 3)

    def split(per_class):
        labels = torch.arange(per_class * len(class_names)) % len(class_names)
        noise = torch.randn(len(labels), channels, size, size, generator=draw)
        return Split((patterns[labels] + 0.5 * noise) / 1.25**0.5, labels)

    moments = torch.linspace(0.3, 0.5, channels), torch.linspace(0.2, 0.25, channels)
    train, test = split(12), split(6)
    return Dataset(name, train, test, tuple(class_names), ImageFormat.of(train.images, *moments))


@pytest.fixture(scope="session")
def tiny():
    """Grey 8 x 8 images of three classes: 36 to train on, 18 to test on. Do not write into it."""
    return separable_dataset()


@pytest.fixture(scope="session")
def tiny_rgb():
    """RGB 16 x 16 images of three other classes."""
    return separable_dataset("tiny_rgb", 3, 16, ("red", "green", "blue"), seed=1)


@pytest.fixture(scope="session")
def tiny_ptms(tiny, tmp_path_factory):
    """Three initialisations of a ConvNet-3 of width 4, trained on ``tiny`` until they know it."""
    cache = tmp_path_factory.mktemp("ptms")
    return train_ptms(tiny, num_ptms=3, epochs=24, width=4, lr=0.1, batch_size=4, cache=cache)


@pytest.fixture(scope="session")
def digits():
    """The data set of scikit-learn: 1438 grey 8 x 8 images to train on. Do not write into it."""
    return load_dataset("digits")


@pytest.fixture
def no_training(monkeypatch):
    """A function after whose call nothing can be trained any more."""

    def fail(*args, **options):
        pytest.fail("this trains")

    return lambda: monkeypatch.setattr(ddlib.ptms.training, "train_network", fail)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """For one test, records go into the folder ``runs`` and PTMs into ``ptms`` of its own place."""
    monkeypatch.setenv("DDLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("DDLIB_CACHE", str(tmp_path / "ptms"))


@pytest.fixture(autouse=True)
def closed_figures():
    """No figure of one test is there in the next."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


@contextlib.contextmanager
def some_gpu():
    """A real GPU where there is one, else a pretended one, which counts waits; skips if this torch cannot pretend."""
    if torch.cuda.is_available():
        yield None
        return
    with contextlib.ExitStack() as stack:
        try:
            pretended = stack.enter_context(pretend_cuda())
        except AttributeError as error:
            pytest.skip(f"no GPU here, and this torch has no private API to pretend one: {error}")
        yield pretended


@pytest.fixture
def gpu():
    """For one test, "cuda" is there."""
    with some_gpu() as gpu:
        yield gpu
