"""The five networks of the study, layer for layer those of the field's reference code.

The layers stand in tables, written for width 128, the width of the reference: a convolution is (channels,
kernel), a pooling its name, a residual block (channels, stride). Source of the tables: networks.py of
github.com/VICO-UoE/DatasetCondensation (Zhao, Mopuri & Bilen, ICLR 2021).

Small images reach maps of 1x1 before the last layer. There a further pooling is skipped, because it would
leave nothing, and instance norm takes all channels as one group (layer norm), because one value minus its
own mean is 0 and the image would be erased. The reference cannot run at such sizes at all. One difference is
deliberate: it pads every grey image by two pixels (its grey data sets have 28x28, which become 32x32); here
only those of 28x28 are padded, since for other sizes nothing is won by it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from numbers import Integral

import torch
from torch import Tensor, nn

from ddlib.compute import compiled_call, in_precision

CONVNET_BLOCK = ((128, 3), "avg")
VGG_11 = (
    *((64, 3), "max"),
    *((128, 3), "max"),
    *((256, 3), (256, 3), "max"),
    *((512, 3), (512, 3), "max"),
    *((512, 3), (512, 3), "max"),
)
ALEXNET = ((128, 5), "max", (192, 5), "max", (256, 3), (192, 3), (192, 3), "max")
RESNET_18 = ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1))

REFERENCE_WIDTH = 128
SMALLEST = {
    "image_size": 8,  # below, most layers of every network would see one pixel
    "width": 2,  # one channel in the narrowest layers of VGG-11 and ResNet-18, which have 64 at width 128
}

Body = tuple[list[nn.Module], int]  # the layers, and the number of features d they end in

CHUNK_BYTES = 16 * 2**20  # bytes of the first maps of a chunk: by measurement, and below the 32 MiB of ddlib.memory


# norm -> what to put after a convolution, given its channels and its map size: one layer or none
NORMS: dict[str, Callable[[int, int], list[nn.Module]]] = {
    "instance": lambda channels, size: [nn.GroupNorm(channels if size > 1 else 1, channels)],
    "batch": lambda channels, size: [nn.BatchNorm2d(channels)],
    "none": lambda channels, size: [],
}


class AveragePool(nn.AvgPool2d):
    """Means of 2x2 windows: on the CPU by a matrix product, several times faster than PyTorch's own loop.

    Bit by bit PyTorch's result: the quarters are exact, and the four values of a window are added in the same order.
    """

    def __init__(self):
        super().__init__(2)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps [N, channels, H, W] -> [N, channels, H // 2, W // 2]."""
        n, channels, height, width = maps.shape
        if maps.device.type != "cpu" or height % 2 or width % 2 or torch.compiler.is_compiling():
            return super().forward(maps)
        # Two rows lie in memory one after the other: 2 * W values, of which the matrix makes one row of W / 2.
        return maps.reshape(n, channels, height // 2, 2 * width) @ quarters(width, maps.dtype)


@cache
@torch.inference_mode(False)  # else a matrix first made for inference would be of no use in training
def quarters(width: int, dtype: torch.dtype) -> Tensor:
    """The matrix [2 * width, width // 2] that averages two rows, one after the other, over windows of 2x2."""
    return torch.eye(width // 2, dtype=dtype, device="cpu").repeat_interleave(2, 0).repeat(2, 1) / 4


POOLINGS = {"avg": AveragePool, "max": partial(nn.MaxPool2d, 2)}


class Network(nn.Module):
    """A body that turns images [N, C, H, W] into maps, and a linear classifier on the flattened maps.

    :class:`ddlib.compute.Compute` says how the body computes; features and logits are float32 whatever that is.
    """

    precision = "float32"
    compiled = False
    gains_by_compiling = True  # by measurement

    def __init__(self, body: list[nn.Module], num_features: int, num_classes: int):
        super().__init__()
        self.body = nn.Sequential(*body)
        self.classifier = nn.Linear(num_features, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Images [N, C, H, W] -> features [N, d], d = ``classifier.in_features``."""
        run = compiled_call() if self.compiled else nn.Module.__call__
        with in_precision(self.precision, images.device):
            features = [run(self.body, chunk).flatten(1).to(images.dtype) for chunk in self.chunks(images)]
        return torch.cat(features) if len(features) > 1 else features[0]

    def chunks(self, images: Tensor) -> Sequence[Tensor]:
        """The batch in parts, on the CPU so small that their maps are kept in memory and not mapped anew."""
        if images.device.type != "cpu":
            return [images]
        if self.training and any(isinstance(layer, nn.BatchNorm2d) for layer in self.modules()):
            return [images]
        largest = self.body[0].out_channels * images[:, 0].numel() * images.element_size()  # all first maps
        return images.chunk(max(1, -(-largest // CHUNK_BYTES)))

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, C, H, W] -> logits [N, num_classes]."""
        return self.classifier(self.features(images))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2016, the basic block)."""

    def __init__(self, channels_in: int, channels: int, stride: int, size: int, norm: str):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False),
            *NORMS[norm](channels, size),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            *NORMS[norm](channels, size),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels:
            projection = nn.Conv2d(channels_in, channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, *NORMS[norm](channels, size))

    def forward(self, maps: Tensor) -> Tensor:
        """Maps [N, channels_in, size_in, size_in] -> [N, channels, size, size]."""
        return torch.relu(self.main(maps) + self.shortcut(maps))


def scaled(channels: int, width: int) -> int:
    """Channels of a layer that has ``channels`` at the reference's width."""
    return channels * width // REFERENCE_WIDTH


def chain(table: tuple, channels: int, image_size: int, width: int, norm: str) -> Body:
    """A network without branches."""
    border = 2 if (channels, image_size) == (1, 28) else 0
    size, body = image_size + 2 * border, []
    for layer in table:
        if layer in POOLINGS:
            if size > 1:
                body.append(POOLINGS[layer]())
                size //= 2
            continue
        channels_out, kernel = scaled(layer[0], width), layer[1]
        convolution = nn.Conv2d(channels, channels_out, kernel, padding=kernel // 2 + border)
        body += [convolution, *NORMS[norm](channels_out, size), nn.ReLU(inplace=True)]
        channels, border = channels_out, 0
    return body, channels * size**2


def residual(table: tuple, channels: int, image_size: int, width: int, norm: str) -> Body:
    """A residual network with the CIFAR stem, one 3x3 convolution."""
    size, stem = image_size, scaled(table[0][0], width)
    convolution = nn.Conv2d(channels, stem, 3, padding=1, bias=False)
    body = [convolution, *NORMS[norm](stem, size), nn.ReLU(inplace=True)]
    channels = stem
    for block_channels, stride in table:
        channels_in, channels = channels, scaled(block_channels, width)
        size = -(-size // stride)  # rounded up
        body.append(ResidualBlock(channels_in, channels, stride, size, norm))
    window = min(4, size)  # the reference's 4, where the map is that large
    body.append(nn.AvgPool2d(window))
    return body, channels * (size // window) ** 2


@dataclass(frozen=True)
class Architecture:
    """One row: ``body(channels, image_size, width, norm)`` makes the layers, ``norm`` is the reference's."""

    body: Callable[[int, int, int, str], Body]
    norm: str = "instance"
    gains_by_compiling: bool = True


NETWORKS: dict[str, Architecture] = {
    "ConvNet-3": Architecture(partial(chain, CONVNET_BLOCK * 3)),
    "ConvNet-4": Architecture(partial(chain, CONVNET_BLOCK * 4)),
    "VGG-11": Architecture(partial(chain, VGG_11)),
    "ResNet-18": Architecture(partial(residual, RESNET_18)),
    "AlexNet": Architecture(partial(chain, ALEXNET), norm="none", gains_by_compiling=False),
}
"""Every architecture by its name. A new one is one row here."""


def build_network(
    name: str,
    channels: int,
    num_classes: int,
    image_size: int,
    width: int = REFERENCE_WIDTH,
    norm: str | None = None,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Network:
    """A freshly initialised network for square images of side ``image_size`` (8 or more).

    ``width`` (2 or more) is the number of channels of the ConvNets; the other networks scale by width/128,
    rounded down. ``norm`` is "instance", "batch" or "none"; by default "instance", for AlexNet "none".
    The weights follow PyTorch's default law and are drawn on the CPU from ``generator`` (a CPU generator;
    None: PyTorch's global one), so that one seed gives the same network on every device.

    Raises ValueError for an unknown name or norm and for sizes no network can have.

    >>> network = build_network("ConvNet-3", channels=3, num_classes=10, image_size=32, width=16)
    >>> network(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    norm = NETWORKS[name].norm if norm is None and name in NETWORKS else norm
    check_request(name, norm, channels=channels, num_classes=num_classes, image_size=image_size, width=width)
    with torch.device("meta"):  # no memory yet: else PyTorch would initialise it from its global generator
        body, num_features = NETWORKS[name].body(channels, image_size, width, norm)
        network = Network(body, num_features, num_classes)
    network.gains_by_compiling = NETWORKS[name].gains_by_compiling
    network.to_empty(device="cpu")
    initialise(network, generator)
    return network.to(device)


def check_request(name: str, norm: str | None, **sizes: int) -> None:
    """Raise ValueError, saying what was found and what is allowed, for a network that cannot be built."""
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}; known: {', '.join(NETWORKS)}")
    if norm not in NORMS:
        raise ValueError(f"unknown norm {norm!r}; known: {', '.join(NORMS)}")
    for key, value in sizes.items():
        least = SMALLEST.get(key, 1)
        if not isinstance(value, Integral) or value < least:
            raise ValueError(f"{key} is {value!r}; {name} needs a whole number of {least} or more")


@torch.no_grad()
def initialise(network: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draw all weights anew, in place, by PyTorch's default law.

    That law, kaiming_uniform with a = sqrt(5) for weights and 1/sqrt(fan_in) for biases, is one and the same
    uniform distribution on +-1/sqrt(fan_in). Norm layers start as the identity.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            bound = layer.weight[0].numel() ** -0.5
            for parameter in layer.parameters():
                parameter.uniform_(-bound, bound, generator=generator)
        elif isinstance(layer, nn.GroupNorm | nn.BatchNorm2d):
            layer.reset_parameters()
