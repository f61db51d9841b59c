"""The smoke runs give the same bits as when ``smoke_bits.json`` was written, wherever the same arithmetic is at work.

Another version of torch or another kind of CPU rounds differently. Whether this is such a machine is asked of a probe:
some layers of PyTorch alone, none of ddlib's code. The runs that are compared, in ``test_book.py``, are those of
``make book``.

``PYTHONPATH=. python tests/same_bits.py RUNS`` writes the file anew from the records in a folder: after a change
that is meant to change results, and says so. So far: ``prob_avg``, now the cross-entropy of the log of the mean
probability, is the same up to rounding, which VGG-11, having learned little at this scale, turns into points; so are
``cclom`` and ``both``, since alpha multiplies CCLoM's quotient and no longer its numerator; ``mgda`` has other results,
since it has the mean norm of the gradients.
"""

import json
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ddlib.disk.tensors import tensor_hash

FILE = Path(__file__).with_name("smoke_bits.json")


def probe() -> str:
    """Convolution, norm, pooling, matrix product and cross-entropy of the smoke runs' sizes, forward and backward."""
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(64, 1, 16, 16, generator=draw).requires_grad_()
    maps = images
    for channels in (1, 16, 16):
        weight = torch.randn(16, channels, 3, 3, generator=draw) / 4
        maps = F.avg_pool2d(F.relu(F.group_norm(F.conv2d(maps, weight, padding=1), 16)), 2)
    logits = maps.flatten(1) @ torch.randn(64, 10, generator=draw)
    loss = F.cross_entropy(logits, torch.arange(64) % 10)
    loss.backward()
    return tensor_hash({"loss": loss.detach(), "gradient": images.grad, "logits": logits.detach()})


def bits_of(record: dict) -> dict[str, object]:
    """What must stay."""
    return {"synthetic": record["synthetic_hash"], "accuracies": record["accuracies"]["accuracy"]}


def records_in(folder: Path) -> dict[str, dict[str, object]]:
    """The bits of the records of a folder by notebook, arm and seed."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("0*.json"))]
    return {f"{r['notebook']} {r['arm']} seed {r['seed']}": bits_of(r) for r in records if r["status"] == "ok"}


def reference() -> dict[str, dict[str, object]]:
    """The bits in the file; skips where this machine rounds differently."""
    written = json.loads(FILE.read_text(encoding="utf-8"))
    if written["torch"] != torch.__version__ or written["probe"] != probe():
        pytest.skip("this torch or this kind of CPU rounds differently from the one that wrote smoke_bits.json")
    return written["runs"]


if __name__ == "__main__":
    runs = records_in(Path(sys.argv[1]))
    text = json.dumps({"torch": torch.__version__, "probe": probe(), "runs": runs}, indent=0)
    FILE.write_text(text + "\n", encoding="utf-8")
