"""A pre-trained model (PTM): a frozen network that judges synthetic images, and where it comes from.

A PTM of another data set sees images through an adapter of channels, size and normalisation.
"""

import copy
import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddlib.compute import Compute, in_precision
from ddlib.data.dataset import Dataset, ImageFormat
from ddlib.disk.tensors import tensor_hash
from ddlib.losses import ClassSums, class_sums
from ddlib.ptms.parts import Part, Parts, check_network, check_weights, last_linear, only_copies_run
from ddlib.threads import threads_for
from ddlib.training import largest_map

LUMA = (0.299, 0.587, 0.114)  # grey from RGB (ITU-R BT.601), as Pillow does it
CHUNK = 512  # real images in one forward pass


@dataclass(frozen=True, eq=False)
class PTM:
    """One frozen network in eval mode, and where it comes from. No gradient reaches its weights.

    A network that is not frozen yet is copied, and the copy frozen. Raises ValueError, saying what to do, if two images
    of the format that it ``expects`` do not give features ``[N, d]`` and one logit for each of ``class_names``.
    """

    network: nn.Module  # gives features(x) [N, d]; its last layer is .classifier
    architecture: str
    source_dataset: str
    class_names: tuple[str, ...]
    expects: ImageFormat
    hash: str  # of everything that shaped it
    index: int = 0  # which initialisation
    epoch: int | None = None
    accuracy: float | None = None  # on the source's test split, to report; a fraction
    train_accuracy: float | None = None  # on its train split, to weight by: the test set stays unread
    seconds: float | None = None  # of training, up to this epoch
    seed: int | None = None  # of its training
    recipe: Mapping[str, object] | None = None  # of its training
    device: str | None = None  # that it was trained on
    given: ImageFormat | None = None  # of the images it is adapted to; None: what it expects
    adapt: Callable[[Tensor], Tensor] = field(default=nn.Identity(), repr=False)
    precision: str = "float32"  # that it computes features in
    _sums: dict[tuple[str, torch.device, str], ClassSums] = field(default_factory=dict, repr=False)

    def __post_init__(self):
        if isinstance(self.class_names, str) or not all(isinstance(name, str) for name in self.class_names):
            raise ValueError(f"class_names is {self.class_names!r:.100}; expected a list of names, one for each class.")
        object.__setattr__(self, "class_names", tuple(self.class_names))
        parts = [getattr(self.network, name, None) for name in ("features", "classifier")]
        if not isinstance(self.network, nn.Module) or not all(map(callable, parts)):
            raise ValueError(
                f"The network of a PTM is a module with features and classifier; that of {self.name} is a "
                f"{type(self.network).__name__} without. PTM.from_module makes a PTM of any module."
            )
        if not _is_frozen(self.network):
            object.__setattr__(self, "network", copy.deepcopy(self.network).eval().requires_grad_(False))
        if self.given is None:  # else it has been checked before it was adapted
            check_network(self.network, self.architecture, len(self.class_names), self.expects)

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        features: Part | None = None,
        classifier: Part | None = None,
        *,
        class_names: Sequence[str],
        mean: Sequence[float],
        std: Sequence[float],
        image_size: int,
        channels: int = 3,
        architecture: str | None = None,
        source_dataset: str = "own data",
        **about: object,
    ) -> "PTM":
        """A PTM from any classifier: a frozen copy of ``module``, which itself stays as it is.

        ``classifier`` is what turns features into logits: the dotted name of a submodule or method, or a function of
        features ``[N, D]``; by default the last linear layer. ``features`` is such a name too, or a function of images
        ``[N, channels, image_size, image_size]``; by default what the classifier receives when the module runs. So
        ``PTM.from_module(resnet18, ...)`` needs neither. ``class_names`` in the order of the logits; ``mean``, ``std``
        (one number a channel, of pixels in [0, 1]) normalise the images as the module expects them. ``about`` are other
        fields: ``index``, ``accuracy``, ``train_accuracy`` (fractions), ``seed``, ``recipe``, ... The hash is that of
        the weights, and of what else is known of how they are used.

        Raises ValueError, saying what to do, for parts that are not there, and as :class:`PTM` does. If ``module`` as a
        whole gives logits (or probabilities, or an object with ``logits``), the two parts must say the same.
        """
        if not isinstance(module, nn.Module):
            raise ValueError(f"module is a {type(module).__name__}; expected a torch.nn.Module.")
        if type(image_size) is not int or image_size < 1:
            raise ValueError(f"image_size is {image_size!r}; expected the side of the images in pixels.")
        architecture = architecture or type(module).__name__
        network = Parts(module, features, last_linear(module, architecture) if classifier is None else classifier)
        expects = ImageFormat(channels, image_size, mean, std)
        check_weights(network, architecture)
        shaped_by = (tensor_hash(network.state_dict()), architecture, expects, *map(_name, (features, classifier)))
        about["hash"] = hashlib.sha256(repr(shaped_by).encode()).hexdigest()[:16]
        with only_copies_run(module):
            return cls(network, architecture, source_dataset, class_names, expects, **about)

    @property
    def name(self) -> str:
        """Short and unique in a pool, for tables and figures."""
        return f"{self.architecture} #{self.index}" + ("" if self.epoch is None else f" @{self.epoch}")

    @property
    def size_bytes(self) -> int:
        """Storage of its weights."""
        return sum(t.numel() * t.element_size() for t in self.network.state_dict().values())

    @property
    def card(self) -> dict[str, object]:
        """What is known of it, in types that JSON knows."""
        names = ("name", "architecture", "source_dataset", "hash", "seed", "epoch", "recipe")
        names += ("accuracy", "train_accuracy", "seconds", "size_bytes", "device")
        return {name: getattr(self, name) for name in names}

    def features(self, images: Tensor) -> Tensor:
        """Normalised images of the data set it is adapted to, ``[N, C, H, W]`` -> features ``[N, d]``."""
        images = self.adapt(images)
        with in_precision(self.precision, images.device):
            return self.network.features(images).to(images.dtype)

    def classify(self, features: Tensor) -> Tensor:
        """Features ``[N, d]`` -> logits ``[N, num_classes]`` over its own ``class_names``."""
        return self.network.classifier(features)

    def logits(self, images: Tensor) -> Tensor:
        """Normalised images ``[N, C, H, W]`` -> logits ``[N, num_classes]``."""
        return self.classify(self.features(images))

    def adapted_to(self, dataset: Dataset) -> "PTM":
        """The same PTM for the images of ``dataset``: channels, size and normalisation are converted first.

        It is where they are: a copy if the PTM is on another device.
        """
        given, here = dataset.format, next(self.network.parameters()).device
        if given == (self.given or self.expects) and here == dataset.device:
            return self
        network = self.network if here == dataset.device else copy.deepcopy(self.network).to(dataset.device)
        adapt = nn.Identity() if given == self.expects else Adapter(given, self.expects)
        return dataclasses.replace(self, network=network, given=given, adapt=adapt, _sums={})

    def computing(self, compute: Compute, images: Tensor, passes: float) -> "PTM":
        """The same PTM, computing as told for so many ``passes`` of one of ``images [N, C, H, W]``."""
        if compute == Compute():
            return self
        compute = compute.settled(self.network, self.adapt(images[:1]), passes)
        network = compute.applied_to(copy.copy(self.network))  # of the same weights
        return dataclasses.replace(self, network=network, precision=compute.precision)

    def class_sums(self, dataset: Dataset) -> ClassSums:
        """:func:`ddlib.losses.class_sums` of this PTM's features over the train split; computed once."""
        key = dataset.hash, dataset.device, self.precision
        if key not in self._sums:
            features = self.features_of(dataset.train.images)
            self._sums[key] = class_sums(features, dataset.train.labels, dataset.num_classes)
        return self._sums[key]

    @torch.no_grad()
    def features_of(self, images: Tensor) -> Tensor:
        """Features ``[N, d]`` of many images, in chunks and without gradients."""
        with threads_for(largest_map(self.network, images[:CHUNK])):
            return torch.cat([self.features(chunk) for chunk in images.split(CHUNK)])


class Adapter(nn.Module):
    """Images as one format normalises them -> images as another network expects them."""

    def __init__(self, given: ImageFormat, expected: ImageFormat):
        super().__init__()
        self.given, self.expected = given, expected

    def forward(self, images: Tensor) -> Tensor:
        """``[N, C, H, W]`` -> ``[N, channels, size, size]``; grey repeats into RGB, RGB becomes its luma."""
        pixels, size = self.given.denormalise(images), self.expected.image_size
        if pixels.shape[1] == 3 and self.expected.channels == 1:
            pixels = (pixels * pixels.new_tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)
        pixels = pixels.expand(-1, self.expected.channels, -1, -1)
        if pixels.shape[-1] != size:
            pixels = F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
        return self.expected.normalise(pixels)


def _is_frozen(network: nn.Module) -> bool:
    return not any(layer.training for layer in network.modules()) and not any(
        weight.requires_grad for weight in network.parameters()
    )


def _name(part: Part | None) -> str:
    """What can be known of a part: the name of it, or of a function."""
    return part if isinstance(part, str) else getattr(part, "__qualname__", type(part).__name__)
