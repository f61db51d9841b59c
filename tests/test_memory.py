"""Freed memory stays in the process on glibc, and a user's own setting wins."""

import platform
import subprocess
import sys

import pytest

GLIBC = platform.libc_ver()[0] == "glibc"
# Page faults of making and freeing a tensor of 16 MiB a hundred times, after ten times to warm up.
FAULTS = """
import resource, torch
{importing}
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10): torch.zeros(2**22)
before = faults()
for _ in range(100): torch.zeros(2**22)
print(faults() - before)
"""


def run(code, **environment):
    import os

    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run([sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(not GLIBC, reason="needs glibc")
def test_freed_memory_is_used_again():
    assert int(run(FAULTS.format(importing="import ddlib"))) < 100


@pytest.mark.skipif(not GLIBC, reason="needs glibc")
def test_the_environment_wins():
    answer = run(FAULTS.format(importing="import ddlib"), MALLOC_MMAP_THRESHOLD_="131072", MALLOC_TRIM_THRESHOLD_="0")
    assert int(answer) > 10_000  # each of 100 x 4096 pages may be mapped anew; with huge pages fewer


def test_nothing_happens_on_other_systems(monkeypatch):
    from ddlib import memory

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert memory.keep_freed_memory() is False


@pytest.mark.skipif(not GLIBC, reason="needs glibc")
def test_it_says_that_it_did():
    from ddlib import memory

    assert memory.keep_freed_memory() is True
