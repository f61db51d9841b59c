"""What a strategy costs in one step: seconds, and the memory of the graphs it keeps for its backward passes."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from ddlib.combine import STRATEGIES
from ddlib.devices import synchronise
from ddlib.families import Step
from ddlib.networks import REFERENCE_WIDTH
from ddlib.objective import Signal
from ddlib.threads import threads_for


class GraphMemory:
    """Counts the bytes that autograd keeps for backward passes inside a ``with`` block: on any device, exactly.

    Each piece of memory counts once, however often it is saved; parameters of networks do not count, for they are
    there anyhow. ``peak`` holds the largest sum so far, in bytes.
    """

    def __init__(self):
        self.now = self.peak = 0
        self.users: dict[int, int] = {}
        self._hooks = torch.autograd.graph.saved_tensors_hooks(_Kept.bound_to(self), lambda kept: kept.tensor)

    def __enter__(self) -> "GraphMemory":
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)

    def keep(self, tensor: Tensor) -> None:
        """One more user of this tensor's memory."""
        storage = tensor.untyped_storage()
        if not self.users.get(storage.data_ptr()):
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
        self.users[storage.data_ptr()] = self.users.get(storage.data_ptr(), 0) + 1

    def release(self, tensor: Tensor) -> None:
        """One user less."""
        storage = tensor.untyped_storage()
        self.users[storage.data_ptr()] -= 1
        if not self.users[storage.data_ptr()]:
            self.now -= storage.nbytes()


class _Kept:
    """A tensor that a graph holds; tells the count when the graph lets it go."""

    def __init__(self, tensor: Tensor, memory: GraphMemory):
        is_parameter = isinstance(tensor, nn.Parameter) or isinstance(tensor._base, nn.Parameter)
        # Detached: a node that held its own output would be a circle, and never freed without a backward pass.
        self.tensor, self.memory = tensor.detach(), None if is_parameter else memory
        if self.memory:
            self.memory.keep(tensor)

    def __del__(self):
        if self.memory:
            self.memory.release(self.tensor)

    @classmethod
    def bound_to(cls, memory: GraphMemory) -> Callable[[Tensor], "_Kept"]:
        return lambda tensor: cls(tensor, memory)


def step_costs(
    images: Tensor,
    signals: Sequence[Signal],
    strategies: Sequence[str] = ("loss_avg", "grad_avg"),
    num_ptms: Sequence[int] = (),
    repeats: int = 5,
) -> pd.DataFrame:
    """One step of some strategies with the first K of ``signals``, for each K in ``num_ptms`` (default: all of them).

    Returns a row for each K and strategy: ``num_ptms``, ``strategy``, ``seconds`` (median of ``repeats``, taken in
    turns), ``graph_mb`` (10^6 bytes), ``difference`` (largest difference of the gradient from that of the first
    strategy, relative to the largest entry of that one).
    """
    images = images.detach().clone().requires_grad_(True)
    rows = []
    with threads_for(images[:, 0].numel() * REFERENCE_WIDTH):
        for k in num_ptms or (len(signals),):
            rows += _of_pool(images, signals[:k], strategies, repeats)
    return pd.DataFrame(rows, columns=["num_ptms", "strategy", "seconds", "graph_mb", "difference"])


def _of_pool(
    images: Tensor, signals: Sequence[Signal], strategies: Sequence[str], repeats: int
) -> list[tuple[int, str, float, float, float]]:
    """The rows of one K."""
    seconds = {name: [] for name in strategies}
    found = {}
    for _ in range(repeats):
        for name in strategies:
            with GraphMemory() as memory:
                start = time.perf_counter()
                combined = STRATEGIES[name](images, signals, Step(0, 0))
                synchronise(images.device)
                seconds[name].append(time.perf_counter() - start)
            found[name] = (memory.peak / 1e6, combined.gradient)
    first = found[strategies[0]][1]
    return [
        (len(signals), name, float(np.median(seconds[name])), megabytes, _apart(gradient, first))
        for name, (megabytes, gradient) in found.items()
    ]


def _apart(gradient: Tensor, first: Tensor) -> float:
    return float((gradient - first).abs().max() / first.abs().max())
