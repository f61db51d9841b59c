"""Threads that suit the work, and that sleep while they wait for each other. Imported before torch.

Small layers on many threads are slower than on one, and much slower beside another busy process: at the end of every
layer all threads wait for one that has no core. So work asks for as many threads as it can feed (:func:`threads_for`).

By default the waiting threads spin: they keep a core busy that the one they wait for may need. OpenMP reads its
settings once, while torch is being imported, so they are set for that moment only, and only if nobody else has set
them. Where torch was imported before ddlib, that is as it was.
"""

import contextlib
import os
import sys
from collections.abc import Iterator

OF_OPENMP = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
NUMBERS_A_THREAD = 2**20  # in the largest map of a step: with fewer, two threads measured no faster than one


@contextlib.contextmanager
def _sleeping_threads() -> Iterator[None]:
    if "torch" in sys.modules or any(name in os.environ for name in OF_OPENMP):
        yield
        return
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    try:
        yield
    finally:
        del os.environ["OMP_WAIT_POLICY"]


with _sleeping_threads():
    import torch


@contextlib.contextmanager
def threads_for(numbers: int) -> Iterator[int]:
    """As many threads of torch as ``numbers``, those in the largest map of a step, keep busy; afterwards as before.

    Never more than there were. Yields how many; it depends on nothing but the two, so that a run repeats bit by bit.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(before, numbers // NUMBERS_A_THREAD)))
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
