"""Somebody's network in the two parts that guidance asks of a PTM, and the checks that every PTM passes."""

import contextlib
import copy
import types
from collections.abc import Callable, Iterator
from functools import partial
from operator import attrgetter

import torch
from torch import Tensor, nn

from ddlib.data.dataset import ImageFormat
from ddlib.rng import generator

BATCH = 2  # images that a PTM is tried on
Part = str | Callable[[Tensor], Tensor]


class Parts(nn.Module):
    """A frozen copy of ``module`` with ``features(images) [N, D]`` and ``classifier(features) [N, num_classes]``.

    A part is the dotted name of a submodule or a method, or a function of the images or of the features. The features
    of a submodule are what it gives while the whole module runs, those of None what the classifier receives then. Maps
    and tokens are flattened. Raises ValueError for a part that is not there.
    """

    def __init__(self, module: nn.Module, features: Part | None, classifier: Part):
        super().__init__()
        copies = {}  # shared, so that a part of the module is a part of its copy
        self.module = copy.deepcopy(module, copies).eval().requires_grad_(False)
        parts = {"features": features, "classifier": classifier}
        self.parts = {name: _copied(part, copies, self.module, name) for name, part in parts.items()}
        given, head = self.parts["features"], self.parts["classifier"]
        if features is None:
            if not isinstance(head, nn.Module):
                raise ValueError("Without features, classifier must be (the name of) a submodule of the module.")
            self.parts["features"] = partial(self._seen, head.register_forward_pre_hook)
        elif isinstance(features, str) and isinstance(given, nn.Module) and _runs(self.module):
            self.parts["features"] = partial(self._seen, given.register_forward_hook)
        own = {*self.module.parameters()}
        self.others = nn.ModuleList(part for part in (given, head) if isinstance(part, nn.Module))
        self.others = nn.ModuleList(part for part in self.others if not {*part.parameters()} <= own)
        self.others.eval().requires_grad_(False)

    def features(self, images: Tensor) -> Tensor:
        """Images ``[N, C, H, W]`` -> features ``[N, D]``."""
        features = self.parts["features"](images)
        return features.flatten(1) if isinstance(features, Tensor) and features.ndim > 2 else features

    def classifier(self, features: Tensor) -> Tensor:
        """Features ``[N, D]`` -> logits ``[N, num_classes]``."""
        return self.parts["classifier"](features)

    def forward(self, images: Tensor) -> object:
        """What the module itself says of images ``[N, C, H, W]``: of an output object its logits."""
        output = self.module(images)
        return getattr(output, "logits", output)

    def _seen(self, register_hook: Callable, images: Tensor) -> Tensor:
        """What a hook of a submodule sees last while the module runs on ``images``: its output, or its first input."""
        seen = []
        handle = register_hook(lambda *about: seen.append(about[-1]))
        try:
            self.module(images)
        finally:
            handle.remove()
        if not seen:
            raise ValueError("the submodule does not run when the module does")
        return seen[-1][0] if isinstance(seen[-1], tuple) else seen[-1]


class Closure:
    """A function that is copied together with the modules it speaks of; Python's own copies leave it as it is."""

    def __init__(self, function: types.FunctionType):
        self.function = function

    def __call__(self, tensor: Tensor) -> Tensor:
        """What the function gives."""
        return self.function(tensor)

    def __deepcopy__(self, copies: dict[int, object]) -> "Closure":
        def copied(value: object) -> object:
            return copy.deepcopy(value, copies) if isinstance(value, nn.Module) else value

        old = self.function
        names = {name: copied(value) for name, value in old.__globals__.items() if name in old.__code__.co_names}
        cells = tuple(types.CellType(copied(cell.cell_contents)) for cell in old.__closure__ or ())
        defaults = tuple(map(copied, old.__defaults__ or ()))
        return Closure(types.FunctionType(old.__code__, old.__globals__ | names, old.__name__, defaults, cells))


def last_linear(module: nn.Module, name: str) -> str:
    """The name of the last linear layer; ValueError if there is none."""
    linear = [key for key, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise ValueError(f"{name} does not end in a linear layer, so it has no features to compare; take another.")
    return linear[-1]


def check_network(network: nn.Module, name: str, num_classes: int, expects: ImageFormat) -> None:
    """Try a frozen network on a few images of the format it expects; ValueError says what to do if it is no PTM."""
    device = check_weights(network, name)
    noise = torch.randn(BATCH, *expects.shape, generator=generator(0, "try a PTM"), device="cpu")
    with torch.inference_mode(False), torch.enable_grad():
        images = noise.to(device).requires_grad_()
        features = _tried(network.features, images, f"{name} fails on images", "check image_size and channels")
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != BATCH:
            raise ValueError(
                f"The features of {name} for {BATCH} images are {_shown(features)}; expected a tensor [{BATCH}, D]. "
                "Let features be a function that returns one, or leave it out: then it is what the classifier receives."
            )
        if not features.requires_grad:
            raise ValueError(f"No gradient goes from the features of {name} to the images: leave out no_grad, detach.")
        if not features.isfinite().all():
            raise ValueError(f"The features of {name} are not finite: look at its weights, mean and std.")
        advice = "leave features out, and let classifier name the last linear layer"
        logits = _tried(network.classifier, features, f"The classifier of {name} fails on features", advice)
    if not isinstance(logits, Tensor) or logits.shape != (BATCH, num_classes):
        raise ValueError(
            f"The classifier of {name} gives {_shown(logits)} for {BATCH} images, but class_names has {num_classes} "
            "classes. Name every class in the order of the logits, or give the model a head of as many classes."
        )
    if num_classes > 1 and (logits >= 0).all() and torch.allclose(logits.sum(1), logits.new_ones(BATCH), atol=1e-4):
        raise ValueError(f"{name} gives probabilities; expected logits: leave out its softmax.")
    _check_whole(network, images.detach(), logits, name)


class NotACopyError(ValueError):
    """A function speaks of the module that was given, in a way that hides it."""


@contextlib.contextmanager
def only_copies_run(module: nn.Module) -> Iterator[None]:
    """Raises NotACopyError as soon as ``module`` or a submodule begins to run in the block; a copy of it should."""
    originals = {*module.modules()}

    def look(layer: nn.Module, _: object) -> None:
        if layer in originals:
            raise NotACopyError(
                "features or classifier runs the module itself, and not the PTM's own copy of it. Name the parts, or "
                "write functions that speak of the module directly: features=lambda images: module.body(images)."
            )

    handle = nn.modules.module.register_module_forward_pre_hook(look)
    try:
        yield
    finally:
        handle.remove()


def check_weights(network: nn.Module, name: str) -> torch.device:
    """The one device of all weights. Raises ValueError if there are several, or weights that are not float32."""
    weights = [weight for weight in (*network.parameters(), *network.buffers()) if weight.is_floating_point()]
    devices, types_ = ({getattr(weight, what) for weight in weights} for what in ("device", "dtype"))
    if len(devices) > 1:
        raise ValueError(f"The weights of {name} lie on {', '.join(map(str, devices))}; expected one device.")
    if types_ - {torch.float32}:
        raise ValueError(f"The weights of {name} are {', '.join(map(str, types_))}; expected float32: module.float().")
    return next(iter(devices), torch.device("cpu"))


@torch.no_grad()
def _check_whole(network: nn.Module, images: Tensor, logits: Tensor, name: str) -> None:
    """A module that classifies must say what its two parts say, be it with or without a softmax at its end."""
    whole = network(images) if isinstance(network, Parts) and _runs(network.module) else None
    if not isinstance(whole, Tensor) or whole.shape != logits.shape:
        return
    said = (logits, logits.softmax(1), logits.log_softmax(1))
    if not any(torch.allclose(whole, same, rtol=1e-3, atol=1e-4) for same in said):
        raise ValueError(
            f"The classifier of {name}, given its features, does not say what the whole module says: something is left "
            "out between the two. Leave features out: then they are what the classifier receives."
        )


def _copied(part: Part | None, copies: dict[int, object], module: nn.Module, name: str) -> Callable | None:
    """A part of the copy ``module``, for one of the original."""
    if isinstance(part, str):
        try:
            return attrgetter(part)(module)
        except AttributeError as error:
            known = ", ".join(key for key, _ in module.named_modules() if key)
            raise ValueError(f"{name} is {part!r}, which the module has not; its submodules: {known}.") from error
    return copy.deepcopy(Closure(part) if isinstance(part, types.FunctionType) else part, copies)


def _tried(part: Callable, tensor: Tensor, what: str, advice: str) -> object:
    try:
        return part(tensor)
    except NotACopyError:
        raise
    except Exception as error:  # somebody's code raises what it likes
        raise ValueError(f"{what} {list(tensor.shape)}, {tensor.dtype}, with {error!r:.200}: {advice}.") from error


def _runs(module: nn.Module) -> bool:
    """Whether it says what it does with images as a whole."""
    return type(module).forward is not nn.Module.forward


def _shown(value: object) -> str:
    return f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
