"""Memory: what is freed stays at hand, and an error says what to change when there is not enough.

Without the first, training on a Linux CPU spends much of its time on page faults. A layer's output takes megabytes,
lives for milliseconds, and then glibc returns it to the kernel; the next one must be mapped and zeroed anew, page by
page, which takes longer than most layers compute. So long work tells glibc to keep it; an import changes nothing.
"""

import contextlib
import ctypes
import os
import platform
from collections.abc import Callable, Iterator

import torch

# Of glibc's mallopt(3). The kernel gets memory back only for single blocks above 32 MiB (the most that can be set), or
# when 2 GiB lie free at the heap's end.
SETTINGS = {"MALLOC_MMAP_THRESHOLD_": (-3, 32 * 2**20), "MALLOC_TRIM_THRESHOLD_": (-1, 2**31 - 1)}

ADVICE = (
    "Out of memory. In the distillation, lower batch_real, ipc or width, or with several PTMs take the strategy "
    "grad_avg instead of loss_avg (the same method, one graph at a time). In the evaluation, lower num_eval or width, "
    "or take smaller architectures; for PTMs, lower num_ptms or width."
)
# PyTorch has a type of its own for the CUDA allocator alone; its CPU allocator, CUDA and cuBLAS raise RuntimeErrors.
WORDS = ("can't allocate memory", "out of memory", "_status_alloc_failed")


def keep_freed_memory() -> bool:
    """Ask the C library to keep freed blocks for the next tensors; True if it does.

    Called by long work: distillation, evaluation, training of PTMs. A threshold that the environment sets (glibc's own
    ``MALLOC_MMAP_THRESHOLD_`` and ``MALLOC_TRIM_THRESHOLD_``, in bytes) wins. Elsewhere than on glibc nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    done = [name in os.environ or libc.mallopt(*setting) for name, setting in SETTINGS.items()]
    return all(done)


@contextlib.contextmanager
def out_of_memory_explained() -> Iterator[None]:
    """When memory runs out in the block, on the CPU or on a GPU, the error ends with ``ADVICE``; its type stays.

    The advice is a note of the error: the last line of a traceback, in Jupyter and papermill too.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            error.add_note(ADVICE)
        raise


def fits_in_memory(work: Callable[[], object], last_try: bool) -> bool:
    """Do ``work``; False if memory ran out, then what it took is free again. On the ``last_try`` the error passes."""
    try:
        work()
    except (MemoryError, RuntimeError) as error:
        if last_try or not is_out_of_memory(error):
            raise
    else:
        return True
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # pieces of the large group would be in the way of smaller ones
    return False


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python, numpy or PyTorch says that there is not enough memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in WORDS)
