"""The records of benchmarks: what was measured, and by what."""

import datetime
import json
from pathlib import Path

import torch

from ddlib.disk.files import replacing
from ddlib.study.provenance import environment, git_commit


def write(path: Path, device: torch.device | str, **measured: object) -> None:
    """Write a record whole or not at all."""
    record = {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "git_commit": git_commit(),
        "device": torch.device(device).type,
        "environment": environment(device),
        **measured,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n")
