"""Evaluation in several sittings: what each architecture reached is kept, so that an interrupted run goes on from it.

Distillation goes on from its checkpoint by itself. Training five architectures on a full data set takes hours too.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pandas as pd

from ddlib.data.dataset import Dataset
from ddlib.disk.files import replacing
from ddlib.fingerprint import code_hash
from ddlib.study import run
from ddlib.synthetic import SyntheticSet


@contextlib.contextmanager
def sittings(folder: Path) -> Iterator[None]:
    """Runs within the block keep the tables of :func:`ddlib.evaluate.evaluate` in ``folder``, and take them from there.

    They are those of the same set, data, settings and code. A run's seconds hold those of the tables that it took, so
    its record is that of a run in one sitting.
    """
    evaluate, earlier = run.evaluate, 0.0

    def evaluated(synthetic: SyntheticSet, dataset: Dataset, *given: object, **settings: object) -> pd.DataFrame:
        nonlocal earlier
        key = repr([synthetic.hash, dataset.hash, str(dataset.train.images.device), code_hash(), given, settings])
        path = folder / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
        if (table := kept(path)) is not None:
            earlier += table["seconds"].sum()
            return table
        table = evaluate(synthetic, dataset, *given, **settings)
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(table.to_dict("list")), encoding="utf-8")
        return table

    clock = SimpleNamespace(perf_counter=lambda: time.perf_counter() + earlier)
    with mock.patch.multiple(run, evaluate=evaluated, time=clock):
        yield


def kept(path: Path) -> pd.DataFrame | None:
    """The table of an earlier sitting; None where there is none, or none that can be read."""
    try:
        return pd.DataFrame(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return None
