"""torchvision's classifiers as PTMs: split in two they say what they said whole."""

from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision import models

from ddlib.data.dataset import ImageFormat
from ddlib.disk.paths import data_folder
from ddlib.ptms.imagenet import IMAGENET_WEIGHTS, load_imagenet_ptm
from ddlib.ptms.parts import Parts, last_linear

CHECKPOINTS = data_folder() / "hub" / "checkpoints"
REAL_WEIGHTS = sorted(CHECKPOINTS.glob("mobilenet_v2-*.pth"))


def images_of(size, n=2):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def invented(monkeypatch):
    """``invented(name)``: a network of torchvision with random weights, and a download that gives these."""
    calls = []

    def install(name, **options):
        # larger weights than torchvision's own: with those a deep network says the same of every image
        model = models.get_model(name, **options).eval()
        draw = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=(2 / parameter[0].numel()) ** 0.5, generator=draw)

        def download(url, folder, **options):
            calls.append((url, folder, options))
            return {key: value.clone() for key, value in model.state_dict().items()}

        monkeypatch.setattr("torch.hub.load_state_dict_from_url", download)
        return model

    install.calls = calls
    return install


# The real weights


@pytest.mark.skipif(not REAL_WEIGHTS, reason=f"needs mobilenet_v2-*.pth in {CHECKPOINTS}")
def test_real_weights(tiny):
    ptm = load_imagenet_ptm("mobilenet_v2", image_size=64)
    reference = models.mobilenet_v2().eval()
    reference.load_state_dict(torch.load(REAL_WEIGHTS[0], weights_only=True))
    images = images_of(64)
    features, logits = ptm.features(images), ptm.logits(images)
    assert features.shape == (2, 1280)
    assert logits.shape == (2, 1000)
    torch.testing.assert_close(features, reference.features(images).mean((2, 3)))
    torch.testing.assert_close(ptm.classify(features), reference(images))
    torch.testing.assert_close(logits, reference(images))
    assert not ptm.network.training
    adapted = ptm.adapted_to(tiny)
    grey = tiny.test.images[:2].clone().requires_grad_()
    adapted.features(grey).square().sum().backward()
    assert grey.grad.abs().amax((1, 2, 3)).min() > 0
    assert all(parameter.grad is None for parameter in ptm.network.parameters())


# Invented weights


def test_a_ptm_knows_where_it_comes_from(invented, tmp_path):
    invented("mobilenet_v2")
    ptm = load_imagenet_ptm("mobilenet_v2", root=tmp_path)
    weights = models.MobileNet_V2_Weights.IMAGENET1K_V1
    ((url, folder, options),) = invented.calls
    assert (url, folder) == (weights.url, tmp_path / "hub" / "checkpoints")
    assert options["weights_only"]
    assert (ptm.architecture, ptm.source_dataset, ptm.epoch) == ("mobilenet_v2", "imagenet", None)
    assert (len(ptm.class_names), ptm.class_names[0], ptm.class_names[-1]) == (1000, "tench", "toilet tissue")
    assert ptm.expects == ImageFormat(3, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert ptm.accuracy == pytest.approx(0.71878)
    assert ptm.train_accuracy is None


def test_the_size_is_part_of_the_format_and_of_the_hash(invented, tiny):
    invented("mobilenet_v2")
    large, small = (load_imagenet_ptm("mobilenet_v2", size) for size in (None, 32))
    assert large.hash != small.hash
    assert small.expects.image_size == 32
    assert small.adapted_to(tiny).adapt(tiny.test.images[:2]).shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    ("name", "options", "size", "width"),
    [
        ("mobilenet_v2", {}, 32, 1280),
        ("resnet18", {}, 32, 512),
        ("googlenet", {"transform_input": True, "init_weights": False}, 32, 1024),
    ],
)
@pytest.mark.filterwarnings("ignore:The default weight initialization of GoogleNet:FutureWarning")
def test_split_it_says_what_torchvision_s_own_says(invented, name, options, size, width):
    """GoogLeNet too, whose weights go with a change of the input that torchvision switches on with them."""
    reference = invented(name, **options)
    ptm, images = load_imagenet_ptm(name, size), images_of(size)
    features = ptm.features(images)
    assert features.shape == (2, width)
    expected = reference(images)
    assert (expected[0] - expected[1]).abs().max() > 1e-2  # so that another input would show
    torch.testing.assert_close(ptm.classify(features), expected, rtol=1e-4, atol=1e-4)


def test_the_last_linear_layer_is_the_classifier():
    body = [nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Dropout()]
    model = nn.Sequential(nn.Sequential(*body), nn.ModuleDict({"last": nn.Linear(5, 4)})["last"]).eval()
    images = torch.randn(3, 3, 2, 2)
    expected, hidden = model(images), model[0](images)
    split = Parts(model, None, last_linear(model, "toy"))
    assert torch.equal(split.features(images), hidden)
    assert torch.equal(split.classifier(hidden), expected)
    assert len(list(split.parameters())) == 4  # the classifier is not counted twice


def test_without_a_linear_layer_there_are_no_features():
    with torch.device("meta"):
        model = models.squeezenet1_1()
    with pytest.raises(ValueError, match=r"squeezenet1_1 does not end in a linear layer.*take another"):
        last_linear(model, "squeezenet1_1")


# Errors


@pytest.mark.parametrize("name", ["ConvNet-3", "vit_h_14", "fcn_resnet50"])
def test_an_unknown_name_lists_the_known_ones(name):
    """Among them a network for another task, and one of the two whose first weights are of another kind."""
    with pytest.raises(ValueError, match=f"unknown ImageNet model '{name}'; torchvision has .*mobilenet_v2"):
        load_imagenet_ptm(name)


def test_every_name_that_is_listed_has_what_is_read_of_its_weights():
    with pytest.raises(ValueError, match="torchvision has") as error:
        load_imagenet_ptm("")
    known = str(error.value).split("torchvision has ")[1].rstrip(".").split(", ")
    assert len(known) > 70
    for name in known:
        weights = models.get_model_weights(name)[IMAGENET_WEIGHTS]
        assert len(weights.transforms().crop_size) == 1
        assert 0.4 < weights.meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100 < 1
        assert len(weights.meta["categories"]) == 1000


def test_one_without_features_is_refused_before_the_download(invented, tmp_path):
    invented("squeezenet1_1")
    with pytest.raises(ValueError, match=r"squeezenet1_1 does not end in a linear layer.*take another"):
        load_imagenet_ptm("squeezenet1_1", root=tmp_path)
    assert not invented.calls


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04" * 9])
def test_a_damaged_download_is_named(tmp_path, content):
    path = tmp_path / "hub" / "checkpoints" / "mobilenet_v2-b0353104.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"mobilenet_v2-b0353104\.pth is damaged \(.*delete it"):
        load_imagenet_ptm("mobilenet_v2", root=tmp_path)


def test_without_network_the_message_says_what_to_put_where(monkeypatch, tmp_path):
    def fail(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", fail)
    with pytest.raises(FileNotFoundError, match=r"mobilenet_v2-b0353104\.pth is not in .*no route to host") as error:
        load_imagenet_ptm("mobilenet_v2", root=tmp_path)
    assert str(tmp_path / "hub" / "checkpoints") in str(error.value)
