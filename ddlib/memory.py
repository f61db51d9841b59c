"""Memory that is freed stays at hand: without this, training on a Linux CPU spends much of its time on page faults.

A layer's output takes megabytes, lives for milliseconds, and then glibc returns it to the kernel; the next one must be
mapped and zeroed anew, page by page, which takes longer than most layers compute. So glibc is told to keep it.
"""

import ctypes
import os
import platform

# Of glibc's mallopt(3). The kernel gets memory back only for single blocks above 32 MiB (the most that can be set), or
# when 2 GiB lie free at the heap's end.
SETTINGS = {"MALLOC_MMAP_THRESHOLD_": (-3, 32 * 2**20), "MALLOC_TRIM_THRESHOLD_": (-1, 2**31 - 1)}


def keep_freed_memory() -> bool:
    """Ask the C library to keep freed blocks for the next tensors; True if it does.

    Called once, by ``import ddlib``. A threshold that the environment sets (glibc's own variables
    ``MALLOC_MMAP_THRESHOLD_`` and ``MALLOC_TRIM_THRESHOLD_``, in bytes) wins. Elsewhere than on glibc nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    done = [name in os.environ or libc.mallopt(*setting) for name, setting in SETTINGS.items()]
    return all(done)
