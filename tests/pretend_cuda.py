"""A pretend GPU: tensors that say ``cuda:0`` and live on the CPU, so that mixing devices raises as on a real one.

Within ``with pretend_cuda() as gpu:`` every tensor that is made on ``cuda``, or moved there, is a wrapper around a CPU
tensor with the same numbers. All operations below autograd, vmap and ``torch.func`` pass through :func:`run`:
arguments on two devices raise RuntimeError where CUDA does, ``.numpy()`` raises TypeError, and a generator of the CPU
cannot draw on the GPU. ``gpu.waits`` counts the points at which the host waits for the device: a number or a shape
that is asked for, and a copy from or to memory that is not pinned.

It needs no GPU and no driver, but private API of torch. It cannot show memory, speed, the order of atomic additions,
fused optimisers, cuDNN's choices, TF32, streams (so no copy that is read too early), or ``torch.compile``.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator
from unittest import mock

import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
BELOW = "pretend:0"  # what PyTorch's C++ takes the device for: a backend for which autograd has streams and threads

COPIES = {aten._to_copy, aten.copy_, aten.copy, aten._foreach_copy_, aten.set_}  # between any devices
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_, aten._unsafe_index}
# Pointwise operations take a scalar of the CPU beside tensors of the GPU; these do not.
NO_SCALARS = {
    *(aten.mm, aten.bmm, aten.addmm, aten.baddbmm, aten.mv, aten.dot, aten.cat, aten.stack, aten.gather, aten.scatter),
    *(aten.scatter_add, aten.index_select, aten.index_add, aten.index_add_, aten.convolution, aten.native_group_norm),
    *(aten.embedding, aten.equal, aten.grid_sampler_2d, aten.take, aten.nll_loss_forward, aten.bincount),
}
WAITS = {aten._local_scalar_dense, aten.nonzero, aten.equal, aten.unique_dim, aten._unique2, aten.bincount}


class OnGPU(torch.Tensor):
    """A tensor that says it is on the GPU; ``held`` has its numbers."""

    @staticmethod
    def __new__(cls, held: torch.Tensor):
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=BELOW,
        )
        made.held = held.detach()
        return made

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    __torch_function__ = torch._C._disabled_torch_function_impl

    def tolist(self):
        return self.detach().cpu().tolist()

    def numpy(self, *args, **kwargs):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    __array__ = __dlpack__ = numpy

    def untyped_storage(self):
        return self.held.untyped_storage()

    def __repr__(self, **kwargs):
        return f"OnGPU({self.held!r})"

    def __deepcopy__(self, memo):
        made = OnGPU(self.held.clone()).requires_grad_(self.requires_grad)
        memo[id(self)] = torch.nn.Parameter(made, self.requires_grad) if isinstance(self, torch.nn.Parameter) else made
        return memo[id(self)]

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {}, Counter())


class PretendGPU(TorchDispatchMode):
    """Sees what has no tensor among its arguments too, and counts the waits."""

    def __init__(self):
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {}, self.waits)


def run(func, args, kwargs, waits: Counter):
    """Carry out one operation on the tensors that are held, if a GPU could; what it gives is on the device it says."""
    if func.overloadpacket is aten._pin_memory:
        return _pinned(args[0])
    device = _device_of(func, args, kwargs)
    waits.update(_waits_for(func.overloadpacket, args, kwargs, device))
    given = {id(x.held): x for x in tree_leaves((args, kwargs)) if isinstance(x, OnGPU)}
    kwargs = {name: value for name, value in kwargs.items() if name != "pin_memory"}
    if device == CUDA and "device" in kwargs:
        kwargs["device"] = CPU
    if func.overloadpacket is aten._to_copy and isinstance(args[0], OnGPU) and device == CPU:
        kwargs["device"] = CPU
    held_args, held_kwargs = tree_map(lambda x: x.held if isinstance(x, OnGPU) else x, (args, kwargs))
    results = func(*held_args, **held_kwargs)

    def wrapped(result):
        if not isinstance(result, torch.Tensor) or device != CUDA:
            return result
        return given.get(id(result)) if id(result) in given else OnGPU(result)  # in place: what was given

    return tree_map(wrapped, results)


def _device_of(func, args, kwargs) -> torch.device | None:
    """Where ``func`` puts its result; None: nowhere, or on another device. Raises where CUDA would."""
    among = _common_device(func, args, kwargs)
    wanted = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
    device = among if wanted is None else CUDA if wanted.type in ("cuda", "pretend") else wanted
    draw = kwargs.get("generator")
    if device == CUDA and draw is not None and draw.device.type != "cuda":
        raise RuntimeError(f"Expected a 'cuda' device type for generator but found '{draw.device.type}' ({func})")
    return device


def _common_device(func, args, kwargs) -> torch.device | None:
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    devices = {x.device for x in tensors}
    if len(devices) < 2:
        return devices.pop() if devices else None
    packet, first = func.overloadpacket, args[0]
    if packet in COPIES:
        return first.device
    if packet in INDEXING and isinstance(first, OnGPU):  # indices may be on the CPU, values not
        values = args[2:3] if len(args) > 2 and isinstance(args[2], torch.Tensor) and args[2].ndim else ()
        wrong = [x for x in values if not isinstance(x, OnGPU)]
    elif packet in INDEXING:
        wrong = tensors
    else:
        wrong = [x for x in tensors if not isinstance(x, OnGPU) and (x.ndim or packet in NO_SCALARS)]
    if wrong:
        found = [f"{x.device} {list(x.shape)}" for x in tensors]
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {', '.join(found)} ({func})")
    return CUDA


def _waits_for(packet, args, kwargs, device) -> Iterator[str]:
    """The waits of one operation."""
    first = args[0] if args else None
    if not isinstance(first, OnGPU) and device != CUDA:
        return
    if packet is aten._to_copy and isinstance(first, OnGPU) != (device == CUDA):
        if not (kwargs.get("non_blocking") and getattr(first, "pinned", False)):
            yield "a copy to the GPU" if device == CUDA else "a copy to the CPU"
    elif packet is aten.copy_ and isinstance(first, OnGPU) != isinstance(args[1], OnGPU):
        yield "a copy in place"
    elif packet in WAITS:
        yield packet.__name__
    elif packet in INDEXING:
        indices = [index for index in args[1] if index is not None]
        yield from ["a mask" for index in indices if index.dtype == torch.bool]
        yield from ["an index on the CPU" for index in indices if isinstance(first, OnGPU) > isinstance(index, OnGPU)]


def _pinned(tensor: torch.Tensor) -> torch.Tensor:
    copy = tensor.clone()
    copy.pinned = True
    return copy


def let_autograd_run() -> None:
    """Give autograd a backend to ask for streams, for CUDA without a driver answers with an error.

    Once a process, and before its first backward pass: then autograd starts a thread for each device that there is.
    """
    torch._C._ensureCUDADeviceGuardSet()  # so that "cuda" can be completed to "cuda:0"
    if torch._C._get_privateuse1_backend_name() != "pretend":
        backend_registration._setup_privateuseone_for_python_backend("pretend")
        torch.pretend.get_amp_supported_dtype = (
            lambda: []
        )  # for torch.utils.checkpoint, which asks the backend there is


FAKES = {
    "init": lambda: None,
    "_lazy_init": lambda: None,
    "is_available": lambda: True,
    "is_initialized": lambda: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "synchronize": lambda device=None: None,
    "empty_cache": lambda: None,
    "get_device_name": lambda device=None: "Pretend GPU",
    "reset_peak_memory_stats": lambda device=None: None,
    "max_memory_allocated": lambda device=None: 12345,
    "get_rng_state": lambda device="cuda": torch.zeros(16, dtype=torch.uint8),
}


@contextlib.contextmanager
def pretend_cuda() -> Iterator[PretendGPU]:
    """Within: one GPU. ``let_autograd_run`` comes first. Raises AttributeError if this torch lacks the private API."""
    with contextlib.ExitStack() as stack:
        for name, fake in FAKES.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, fake))
        # so that nn.Module.to puts new parameters in place: writing into the old ones would lose the wrapper
        stack.callback(
            torch.__future__.set_overwrite_module_params_on_conversion,
            torch.__future__.get_overwrite_module_params_on_conversion(),
        )
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        # so that torch.tensor([1], device="cuda") and x[[0, 1]] are copies that pass by here
        stack.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
        torch._C._set_only_lift_cpu_tensors(True)
        yield stack.enter_context(PretendGPU())
