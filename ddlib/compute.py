"""How networks compute: in which precision, and compiled or not.

Only the bodies of networks, from images to maps, compute in the precision asked for. Images, classifiers, losses,
norms, class sums, and the state of optimisers stay in float32.
"""

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from ddlib.devices import missing_compiler

PRECISIONS = ("float32", "tf32", "bf16")  # tf32: matrix products of a GPU round their factors to 10 bits
COMPILE = ("never", "auto", "always")
PAYS = 5e12  # floating-point operations from which compiling pays: it takes 5 to 30 s, and saves 10 to 40 %


@dataclass(frozen=True)
class Compute:
    """``precision`` is one of :data:`PRECISIONS`, ``compile`` one of :data:`COMPILE`.

    ``auto`` compiles where there is a compiler, the network gains by it, and the work takes ``PAYS`` operations or
    more: a rule of numbers, not of clocks, so that a run repeats bit by bit. Raises ValueError for other names.
    """

    precision: str = "float32"
    compile: str = "never"

    def __post_init__(self):
        for name, known in {"precision": PRECISIONS, "compile": COMPILE}.items():
            if getattr(self, name) not in known:
                raise ValueError(f"unknown {name} {getattr(self, name)!r}; known: {', '.join(known)}.")

    def check(self, device: torch.device) -> None:
        """Raise ValueError, before any work, for what a device cannot do; warn where bf16 is emulated."""
        if self.precision == "tf32" and device.type != "cuda":
            raise ValueError(f"tf32 is a precision of NVIDIA's GPUs; found {device}. Use float32, or bf16.")
        if self.precision == "bf16" and not has_bf16(device):
            warnings.warn(
                f"this {'GPU' if device.type == 'cuda' else 'processor'} has no bf16 of its own and emulates it, many "
                "times slower than float32. Use float32 here.",
                stacklevel=3,
            )
        if self.compile == "always" and (wanted := missing_compiler(device.type)):
            raise ValueError(f"compile needs {wanted}, which is not here. Install it, or leave compile out.")

    def settled(self, network: nn.Module, images: Tensor, passes: float) -> "Compute":
        """``auto`` made ``always`` or ``never``, for ``passes`` of one of ``images [N, C, H, W]`` through ``network``.

        A backward pass counts as two, one that stops at the images as one. What is not of ddlib is not compiled.
        """
        if self.compile == "auto":
            able = getattr(network, "gains_by_compiling", False) and not missing_compiler(images.device.type)
            worth = able and passes * operations(network, images[:1]) >= PAYS
            return dataclasses.replace(self, compile="always" if worth else "never")
        return self

    def applied_to(self, network: nn.Module) -> nn.Module:
        """``network``, told to compute like this if it is one of ddlib."""
        if hasattr(network, "compiled"):
            network.precision, network.compiled = self.precision, self.compile == "always"
        return network


def has_bf16(device: torch.device) -> bool:
    """Whether bf16 is a type of this device and no emulation; of a CPU, whether it is known to be."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Let a GPU compute convolutions and matrix products in TF32 for a while, or not; PyTorch does for convolutions."""
    places = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = "tf32" if allowed else "ieee"
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value


def in_precision(precision: str, device: torch.device) -> contextlib.AbstractContextManager:
    """The operations of a forward pass, and so of its backward pass, in bf16 if that is the precision."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


@torch.no_grad()
def operations(network: nn.Module, image: Tensor) -> int:
    """Floating-point operations of one forward pass of ``image [1, C, H, W]``."""
    from torch.utils.flop_counter import FlopCounterMode  # here, so that `import ddlib` is light

    with FlopCounterMode(display=False) as counter:
        network(image)
    return counter.get_total_flops()


@cache  # one for the process: networks of one form share what is compiled
def compiled_call() -> Callable[[nn.Module, Tensor], Tensor]:
    """``call(body, images)`` by ``torch.compile``; channels last, in which compiled code measured no slower."""
    import torch._dynamo

    # of one function, and here all networks are one: each form and each batch size counts
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    return torch.compile(_call, dynamic=False)


def _call(body: nn.Module, images: Tensor) -> Tensor:
    return body(images.contiguous(memory_format=torch.channels_last))
