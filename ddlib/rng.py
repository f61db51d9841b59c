"""Randomness without hidden state: one generator per purpose, derived from one seed.

A generator depends on ``(seed, purpose, index)`` alone. So two arms of an ablation that differ only in
guidance see the same starting images, real batches and networks (common random numbers), and a run that
resumes at iteration t draws what an undisturbed run draws there, without saving any generator.
"""

import hashlib

import torch


def derive_seed(seed: int, purpose: str, *index: int) -> int:
    """A 63-bit seed from one seed, a purpose such as ``"real_batches"`` and any number of indices."""
    text = "/".join(map(str, (seed, purpose, *index)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, purpose: str, *index: int) -> torch.Generator:
    """A fresh generator on the CPU for one purpose. Draw there and move: the numbers are the same on every device.

    >>> a, b = (torch.rand(1, generator=generator(0, "start images")) for _ in range(2))
    >>> bool(a == b)
    True
    """
    return torch.Generator().manual_seed(derive_seed(seed, purpose, *index))
