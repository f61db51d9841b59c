"""What the book keeps of the study: little enough to clone, and the PTMs with which an ablation is repeated."""

import hashlib

import pytest
from made import BOOK

from ddlib.study.record import read_record

KEPT = BOOK / "results"
MOST = 40_000_000  # bytes


def test_it_takes_little_to_clone():
    """Git keeps equal files once: the sets of one seed start from the same images."""
    files = {hashlib.sha256(path.read_bytes()).digest(): path for path in KEPT.rglob("*.*") if path.is_file()}
    assert sum(path.stat().st_size for path in files.values()) <= MOST


@pytest.mark.parametrize(
    "grid", ["desk-alpha", "desk-ensemble-alpha", "desk-guidance", "desk-ensemble", "desk-ensemble-own"]
)
def test_no_ptm_of_an_ablation_has_to_be_trained_again(grid):
    records = [read_record(path) for path in (KEPT / "sweeps" / grid).glob("*.json")]
    if not records:
        pytest.skip(f"no run of {grid} is kept yet")
    named = {name for record in records for name in record["ptm_hashes"]}
    named |= {said["ptm"] for record in records for said in record["ptm_accuracies"]}
    files = {"{}-epoch{:0>4}.safetensors".format(*name.split("-")) for name in named}
    assert files <= {path.name for path in (KEPT / "ptms").iterdir()}
