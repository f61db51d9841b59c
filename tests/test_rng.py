"""One generator per purpose: stable, distinct, and apart from torch's global one."""

import hashlib

import torch
from made import global_seed, nothing_drawn

from ddlib.rng import derive_seed, generator


def test_seeds_never_change():
    """Records name seeds only: another value here would make every published run irreproducible."""
    assert derive_seed(0, "real batches", 3) == 4496533707891805141
    assert derive_seed(0, "x") == 6337171427373630499


def test_against_a_plain_version():
    digest = hashlib.sha256(b"7/network training/12/3").hexdigest()
    assert derive_seed(7, "network training", 12, 3) == int(digest[:16], 16) // 2


def test_every_part_counts():
    asked = [(seed, purpose, *index) for seed in range(20) for purpose in "ab" for index in ((), (0,), (1,), (0, 0))]
    asked += [(0, "a", 1, 12), (0, "a", 12, 1), (0, "a", 11, 2), (0, "a", 112), (0, "", 1), (-1, "a")]
    seeds = [derive_seed(*parts) for parts in asked]
    assert len(set(seeds)) == len(asked)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62  # all 63 bits are in use


def test_draws_are_repeated():
    first, second = (torch.randn(50, generator=generator(3, "noise", 1)) for _ in range(2))
    assert torch.equal(first, second)
    for other in (generator(4, "noise", 1), generator(3, "start", 1), generator(3, "noise", 2), generator(3, "noise")):
        assert not torch.equal(first, torch.randn(50, generator=other))


def test_generators_are_fresh_and_on_the_cpu():
    """Drawing from one does not move another of the same name."""
    one, other = generator(0, "noise"), generator(0, "noise")
    torch.randn(5, generator=one)
    assert one is not other
    assert one.device.type == "cpu"
    assert torch.equal(torch.randn(5, generator=other), torch.randn(5, generator=generator(0, "noise")))


def test_the_global_generator_is_left_alone():
    with nothing_drawn():
        first = torch.rand(5, generator=generator(0, "noise"))
    with global_seed(123):
        assert torch.equal(torch.rand(5, generator=generator(0, "noise")), first)
