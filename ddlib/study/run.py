"""Arms of the study: from checked parameters to synthetic sets, accuracies and records. What notebooks call."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import torch

from ddlib.data.dataset import Dataset
from ddlib.data.readers import DATASETS, content_hash, dataset_name, load_dataset
from ddlib.devices import synchronise
from ddlib.distill import Distilled, distill
from ddlib.evaluate import evaluate
from ddlib.foreign import load_synthetic
from ddlib.memory import out_of_memory_explained
from ddlib.objective import Alphas
from ddlib.ptms.ptm import PTM
from ddlib.selection import full_data, select_real
from ddlib.study.allowed import counted
from ddlib.study.arms import FILE, Arm, is_selection
from ddlib.study.contradictions import IMAGENET
from ddlib.study.devices import pick_device
from ddlib.study.places import runs_folder, shown
from ddlib.study.pools import computing, for_set, gradients_of, iterations_of, log_every, open_ptms, said_of
from ddlib.study.provenance import peak_memory_bytes
from ddlib.study.record import record_path, synthetic_path, write_failure, write_record
from ddlib.synthetic import SyntheticSet

# They shape no result, or the record has them by themselves: a set from a file by its hash, and its name as the arm.
NOT_RECORDED = ("device", "runs_folder", "num_sets", "seed", "synthetic", "labels", "name")


@dataclass(frozen=True, eq=False)
class Run:
    """One arm with one seed: one synthetic set and what was measured on it."""

    seed: int
    synthetic: SyntheticSet
    accuracies: pd.DataFrame
    distilled: Distilled | None  # None for baselines
    record: Path


def open_dataset(p: SimpleNamespace) -> Dataset:
    """The data set of ``p``; to choose hyper-parameters on with ``evaluate_on = "holdout"``."""
    data = load_dataset(p.dataset, image_size=p.image_size, device=pick_device(p.device))
    return data.holdout() if p.evaluate_on == "holdout" else data


def open_synthetic(p: SimpleNamespace, data: Dataset) -> SyntheticSet:
    """The set that ``p`` names, in the form of ``data``; without a name random real images, one for each class."""
    if p.synthetic is None:
        return select_real(data, 1, seed=p.seed)
    return load_synthetic(p.synthetic, data, p.labels, p.pixels)


def run_arm(
    p: SimpleNamespace, data: Dataset, ptms: Sequence[PTM], notebook: str, snapshots: Iterable[int] = (0,)
) -> list[Run]:
    """Distil, evaluate and record ``num_sets`` synthetic sets, seeds ``seed``, ``seed + 1``, ...

    ``ptms`` are those of :func:`ddlib.study.pools.open_ptms`; where each set has a pool of its own, the others are
    opened when their turn comes. Each set is on disk, with its record, before the next begins. An interrupted
    distillation leaves a checkpoint beside the records and goes on from there when the same arm runs again. A run that
    fails leaves a record that says why, and its error ends the arm; one that diverges (FloatingPointError) does so
    after the other seeds have run. ``snapshots`` are those of :func:`ddlib.distill.distill`.
    """
    parameters = recorded(p, data.name.removesuffix("-holdout"))
    if p.dataset not in DATASETS:
        parameters.setdefault("dataset_files", data.hash)  # of data made by hand
    runs, diverged = [], None
    for seed in range(p.seed, p.seed + p.num_sets):
        try:
            pool = open_ptms(p, data, seed) if p.ptm_seed is None and seed != p.seed else ptms
            runs.append(_run(p, data, pool, notebook, seed, parameters, snapshots))
        except FloatingPointError as error:
            diverged = diverged or error
    if diverged:
        raise diverged
    return runs


def kept(runs: Sequence[Run]) -> str:
    """In words, where the synthetic sets of some runs lie."""
    paths = [synthetic_path(run.record) for run in runs]
    return "\n".join(f"Kept as {shown(path)}" for path in paths if path.is_file())


def run_file(p: SimpleNamespace, data: Dataset, synthetic: SyntheticSet, notebook: str) -> Run:
    """Evaluate and record a set that was not made here, as an arm by its own name: ``p.name``, else that of the file.

    The record holds, beside the parameters, the images per class, whether labels are soft, and the hash of the set.
    Raises ValueError if that is the name of an arm of the study.
    """
    name = p.name or (Path(p.synthetic).stem if p.synthetic else "example")
    if Arm.named(name) != Arm(other=name):
        raise ValueError(f"{name!r} is the name of an arm of this study: give the set another (-p name ...).")
    each, rest = divmod(len(synthetic), data.num_classes)
    kind = {"base_method": FILE, "ipc": len(synthetic) / data.num_classes if rest else each}
    p = SimpleNamespace(**vars(p) | kind)
    parameters = recorded(p, data.name.removesuffix("-holdout"))
    parameters |= {"label_kind": "soft" if synthetic.soft else "hard", "synthetic_hash": synthetic.hash}
    about = _about(data, [], notebook, p.seed, name, parameters)
    with _failure_recorded(p, about):
        return _evaluate_and_record(p, data, synthetic, None, {}, about)


def recorded(
    p: SimpleNamespace, dataset: str, hash_of: Callable[[str], str | None] = content_hash
) -> dict[str, object]:
    """The parameters that a record keeps: all that shape a result.

    An image folder counts by its name, not its path, and by a hash of its files as ``dataset_files`` (of that of the
    PTMs: ``source_files``): two folders of one name, or one before and after a picture was added, are two settings.
    """
    kept = {name: value for name, value in vars(p).items() if name not in NOT_RECORDED} | {"dataset": dataset}
    if files := hash_of(p.dataset):
        kept["dataset_files"] = files
    source = kept.get("source_dataset")
    if source not in (None, IMAGENET) and (files := hash_of(source)):
        kept |= {"source_dataset": dataset_name(source), "source_files": files}
    return kept


def _run(
    p: SimpleNamespace,
    data: Dataset,
    ptms: Sequence[PTM],
    notebook: str,
    seed: int,
    parameters: dict[str, object],
    snapshots: Iterable[int],
) -> Run:
    about = _about(data, ptms, notebook, seed, Arm.of(p, len(ptms)).name, parameters)
    with _failure_recorded(p, about):
        return _measure(p, data, ptms, seed, about, snapshots)


def _about(
    data: Dataset, ptms: Sequence[PTM], notebook: str, seed: int, arm: str, parameters: dict[str, object]
) -> dict[str, object]:
    """What a record holds of a run beforehand."""
    return {
        "notebook": notebook,
        "parameters": parameters,
        "seed": seed,
        "arm": arm,
        "dataset_hash": data.hash,
        "class_names": data.class_names,
        "ptm_hashes": [ptm.hash for ptm in ptms],
        "ptms": [ptm.card for ptm in ptms],
        "device": data.device,
    }


@contextlib.contextmanager
def _failure_recorded(p: SimpleNamespace, about: dict[str, object]) -> Iterator[None]:
    """An error that ends the block also leaves a record that says why."""
    try:
        with out_of_memory_explained():
            yield
    except Exception as error:
        _record_failure(p, error, about)
        raise


def _record_failure(p: SimpleNamespace, error: Exception, about: dict[str, object]) -> None:
    """Whatever goes wrong here too (a full disk, say), the error that ended the run is the one to be seen."""
    try:
        write_failure(runs_folder(p.runs_folder), error, **about, peak_memory_bytes=peak_memory_bytes(about["device"]))
    except Exception as second:
        error.add_note(f"The failure could not be recorded: {type(second).__name__}: {second}")


def _measure(
    p: SimpleNamespace,
    data: Dataset,
    ptms: Sequence[PTM],
    seed: int,
    about: dict[str, object],
    snapshots: Iterable[int],
) -> Run:
    """Distil or select, then evaluate; ``about`` is what the record holds of the run beforehand."""
    record = record_path(runs_folder(p.runs_folder), about["notebook"], about["parameters"], seed)
    checkpoint = record.with_name(f".{record.stem}.checkpoint")
    if data.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(data.device)
    seconds = {"ptms": sum(ptm.seconds or 0 for ptm in ptms)}
    start = time.perf_counter()
    distilled = None if is_selection(p.base_method) else _distil(p, data, ptms, seed, checkpoint, snapshots)
    synthetic = distilled.synthetic if distilled else _select(p, data, ptms, seed)
    synchronise(data.device)
    seconds["distill"] = float(distilled.history["seconds"].iloc[-1]) if distilled else time.perf_counter() - start
    run = _evaluate_and_record(p, data, synthetic, distilled, seconds, about, ptms)
    checkpoint.unlink(missing_ok=True)
    return run


def _evaluate_and_record(
    p: SimpleNamespace,
    data: Dataset,
    synthetic: SyntheticSet,
    distilled: Distilled | None,
    seconds: dict[str, float],
    about: dict[str, object],
    ptms: Sequence[PTM] | None = None,
) -> Run:
    """Evaluate a set, and save it with its record; ``seconds`` are those that it took to make.

    PTMs and judges are asked too, but for a set from a file, which knows of none (``ptms`` None).
    """
    seed, peak = about["seed"], peak_memory_bytes(data.device)
    record = record_path(runs_folder(p.runs_folder), about["notebook"], about["parameters"], seed)
    history = distilled.history if distilled else pd.DataFrame({"iteration": [0]})
    said = [] if ptms is None else said_of(for_set(p, seed), data, ptms, synthetic)
    start = time.perf_counter()
    accuracies = _evaluate(p, data, synthetic, seed)
    seconds["evaluate"] = time.perf_counter() - start
    if p.base_method != "full":
        synthetic.save(synthetic_path(record))
    write_record(
        record.parent,
        **about,
        accuracies=accuracies,
        history=history,
        seconds=seconds,
        peak_memory_bytes=peak,
        ptm_passes=int(history["ptm_passes"].iloc[-1]) if distilled else 0,
        synthetic_hash=synthetic.hash,
        ptm_accuracies=said,
        ptm_gradients=gradients_of(distilled),
    )
    return Run(seed, synthetic, accuracies, distilled, record)


def _distil(
    p: SimpleNamespace, data: Dataset, ptms: Sequence[PTM], seed: int, checkpoint: Path, snapshots: Iterable[int]
) -> Distilled:
    iterations = iterations_of(p, len(ptms))
    return distill(
        data,
        **{name: getattr(p, name) for name in ("ipc", "base_method", "guidance", "strategy", "base_network", "width")},
        **{name: getattr(p, name) for name in ("lr_img", "start", "outer_loops", "inner_loops")},
        **{name: getattr(p, name) for name in ("batch_real", "lr_net", "guide_every")},
        **{alpha: getattr(p, alpha) for alpha in (f"alpha_{loss}" for loss in Alphas._fields)},
        **computing(p),
        ptms=ptms,
        iterations=iterations,
        log_every=log_every(iterations),
        seed=seed,
        snapshots=snapshots,
        checkpoint=checkpoint,
        checkpoint_every=max(1, p.iterations // 20),
    )


def _select(p: SimpleNamespace, data: Dataset, ptms: Sequence[PTM], seed: int) -> SyntheticSet:
    if p.base_method == "full":
        return full_data(data)
    features = ptms[0].features_of(data.train.images) if ptms else None
    return select_real(data, p.ipc, p.base_method, seed=seed, features=features)


def _evaluate(p: SimpleNamespace, data: Dataset, synthetic: SyntheticSet, seed: int) -> pd.DataFrame:
    """With augmentation, and without it too if ``eval_epochs_plain`` says how long."""
    full = p.base_method == "full"
    parts = [(p.full_epochs if full else p.eval_epochs, True)]
    if p.eval_epochs_plain:
        parts.append((p.full_epochs if full else p.eval_epochs_plain, False))
    judge = partial(evaluate, synthetic, data, seed=seed, width=p.width, **computing(p))
    tables = [
        judge([name], times * p.num_eval, epochs, augment)
        for epochs, augment in parts
        for name, times in counted(p.architectures).items()
    ]
    return pd.concat(tables, ignore_index=True)
