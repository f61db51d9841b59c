"""The cache of PTMs and its limit: the least recently used give way, and what cannot fit is said before training."""

import os
import time

import pytest
import torch

import ddlib.ptms.pool
import ddlib.ptms.training
from ddlib.disk.files import locked
from ddlib.ptms.cache import cache_limit, make_room
from ddlib.ptms.pool import train_ptms

KEYS = [f"{number:016x}" for number in range(1, 6)]


def file_of(folder, key, epoch=1):
    return folder / f"{key}-epoch{epoch:04d}.safetensors"


@pytest.fixture
def cache(tmp_path):
    """Five files of 1 MB, the first the least recently used, and three that are none of PTMs."""
    for age, key in zip((5, 4, 3, 2, 1), KEYS, strict=True):
        path = file_of(tmp_path, key)
        path.write_bytes(bytes(10**6))
        os.utime(path, (time.time() - 3600 * age,) * 2)
    for name in ("notes.txt", "mine.safetensors", f"{KEYS[0]}-epoch1.safetensors"):
        (tmp_path / name).write_bytes(bytes(10**6))
        os.utime(tmp_path / name, (0, 0))
    return tmp_path


def left(folder):
    return [key for key in KEYS if file_of(folder, key).exists()]


@pytest.mark.parametrize(
    ("gigabytes", "kept"),
    [("", KEYS), ("1", KEYS), ("0.0061", KEYS), ("0.006", KEYS), ("0.005", KEYS[1:]), ("0.0021", KEYS[4:])],
)
def test_the_least_recently_used_give_way(cache, monkeypatch, gigabytes, kept):
    monkeypatch.setenv("DDLIB_CACHE_LIMIT", gigabytes)
    make_room({file_of(cache, "f" * 16): 10**6})
    assert left(cache) == kept
    assert (cache / "notes.txt").exists()
    assert (cache / "mine.safetensors").exists()
    assert (cache / f"{KEYS[0]}-epoch1.safetensors").exists()


def test_what_is_wanted_or_in_work_stays(cache, monkeypatch):
    monkeypatch.setenv("DDLIB_CACHE_LIMIT", "0.004")
    with locked(cache / KEYS[1]):
        make_room({file_of(cache, KEYS[0]): 10**6, file_of(cache, "f" * 16): 10**6})
    assert left(cache) == [KEYS[0], KEYS[1], KEYS[4]]


def test_what_is_there_needs_no_room(cache, monkeypatch):
    monkeypatch.setenv("DDLIB_CACHE_LIMIT", "0.000001")
    make_room({file_of(cache, key): 10**6 for key in KEYS})
    make_room({})
    assert left(cache) == KEYS


def test_too_little_even_so(cache, monkeypatch):
    monkeypatch.setenv("DDLIB_CACHE_LIMIT", "0.002")
    with pytest.raises(ValueError, match=r"need 3\.0 MB in .*DDLIB_CACHE_LIMIT, is 0\.002 GB. Raise it, or") as error:
        make_room({file_of(cache, "f" * 16): 3 * 10**6})
    assert str(cache) in str(error.value)


def test_more_than_the_disk_has(tmp_path):
    with pytest.raises(ValueError, match=r"MB are free\. Free some, or let DDLIB_CACHE name another folder"):
        make_room({tmp_path / "absent" / "file": 10**18})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["2GB", "0", "-1", "nan", "much", "1,5"])
def test_a_limit_that_is_none(monkeypatch, text):
    monkeypatch.setenv("DDLIB_CACHE_LIMIT", text)
    with pytest.raises(ValueError, match=f"DDLIB_CACHE_LIMIT is '{text}'; expected gigabytes, such as 20"):
        cache_limit()


def test_the_limit_in_bytes(monkeypatch):
    monkeypatch.setenv("DDLIB_CACHE_LIMIT", "2.5")
    assert cache_limit() == 2.5e9
    monkeypatch.setenv("DDLIB_CACHE_LIMIT", "")
    assert cache_limit() == float("inf")


def test_pools_in_a_small_cache(tiny, tmp_path, monkeypatch):
    """Room for two PTMs: the third makes the one go that was not used for the longest time; none of it is lost."""

    def ptm(seed):
        return train_ptms(tiny, epochs=1, width=2, batch_size=36, seed=seed, cache=tmp_path)[0]

    monkeypatch.setenv("DDLIB_CACHE_LIMIT", "0.00008")  # 80 kB; a new one counts 64 kB and more, one on disk some 2 kB
    first = ptm(0)
    for number in range(1, 12):
        ptm(number)
        ptm(0)
    held = list(tmp_path.glob("*.safetensors"))
    assert 2 <= len(held) < 12
    assert sum(path.stat().st_size for path in held) < 80_000
    assert first.hash.split("-")[0] in {path.name[:16] for path in held}  # used again and again
    monkeypatch.setattr(ddlib.ptms.training, "train_network", lambda *args, **options: pytest.fail("this trains"))
    again = ptm(0)
    weights = again.network.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in first.network.state_dict().items())
    with pytest.raises(ValueError, match=r"DDLIB_CACHE_LIMIT, is 8e-05 GB"):
        train_ptms(tiny, num_ptms=2, epochs=1, width=2, seed=99, cache=tmp_path)
