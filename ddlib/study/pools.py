"""The PTMs of a run: the pool that guides it, and others held back to judge what came out."""

from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace

import torch
from torch import Tensor

from ddlib.combine import STRATEGIES
from ddlib.data.dataset import Dataset
from ddlib.data.readers import load_dataset
from ddlib.distill import Distilled
from ddlib.memory import out_of_memory_explained
from ddlib.ptms.imagenet import load_imagenet_ptm
from ddlib.ptms.pool import train_ptms
from ddlib.ptms.ptm import PTM
from ddlib.selection import require_enough_images
from ddlib.study.allowed import names
from ddlib.study.arms import FULL, Arm, is_selection
from ddlib.study.contradictions import IMAGENET
from ddlib.synthetic import SyntheticSet

AGREED = 10  # iterations at most whose gradients a record keeps: each costs a pass of every PTM


def computing(p: SimpleNamespace) -> dict[str, str]:
    """How networks compute."""
    return {name: getattr(p, name) for name in ("precision", "compile")}


def needs_ptms(p: SimpleNamespace) -> bool:
    """Whether the arm asks for PTMs: to guide, or to choose real images by their features."""
    return Arm.of(p, p.num_ptms).needs_ptms


def pool_seeds(p: SimpleNamespace) -> Iterable[int]:
    """Seeds of the pools that the sets of ``p`` ask for: one for all, or that of each set (``ptm_seed`` None)."""
    return range(p.seed, p.seed + p.num_sets) if p.ptm_seed is None else [p.ptm_seed]


def for_set(p: SimpleNamespace, seed: int) -> SimpleNamespace:
    """The parameters of the PTMs of one set: with the seed of their pool."""
    return SimpleNamespace(**vars(p) | {"ptm_seed": seed if p.ptm_seed is None else p.ptm_seed})


def open_ptms(p: SimpleNamespace, data: Dataset, seed: int | None = None) -> list[PTM]:
    """The pool of ``p``, adapted to ``data``; none if the arm asks for no PTM.

    Where each set has its own, that of the set ``seed``, by default of the first.

    Raises ValueError if a class of ``data`` has fewer images than ``ipc``: now, not after the training of PTMs.
    """
    if p.base_method != FULL:
        require_enough_images(data, p.ipc)
    return open_pool(for_set(p, p.seed if seed is None else seed), data) if needs_ptms(p) else []


@out_of_memory_explained()
def open_pool(p: SimpleNamespace, data: Dataset) -> list[PTM]:
    """The PTMs that ``p`` describes, trained or from the cache, adapted to ``data``; ``ptm_seed`` is a number here."""
    if p.source_dataset == IMAGENET:
        pool = [load_imagenet_ptm(name, p.ptm_image_size, device=data.device) for name in names(p.ptm_architectures)]
        return [ptm.adapted_to(data) for ptm in pool]
    source = data
    if p.source_dataset:
        source = load_dataset(p.source_dataset, image_size=p.ptm_image_size, device=data.device)
    pool = _trained(p, source, names(p.ptm_architectures), num_ptms=p.num_ptms)
    return [ptm.adapted_to(data) for ptm in pool]


@out_of_memory_explained()
def open_judges(p: SimpleNamespace, data: Dataset) -> list[PTM]:
    """PTMs of the same kind as the pool and its first architecture, which it does not hold: its next initialisations.

    They guide nothing, so that what they say of a set owes nothing to having been asked before.
    """
    if not p.judges:
        return []
    return _trained(p, data, names(p.ptm_architectures)[:1], num_ptms=p.judges, first=p.num_ptms)


def _trained(p: SimpleNamespace, source: Dataset, architectures: Sequence[str], **which: int) -> list[PTM]:
    keep = [p.ptm_epochs if p.ptm_epoch is None else p.ptm_epoch]
    settings = {"width": p.width, **computing(p), "seed": p.ptm_seed}
    return train_ptms(source, architectures, epochs=p.ptm_epochs, keep=keep, **which, **settings)


def said_of(p: SimpleNamespace, data: Dataset, ptms: Sequence[PTM], synthetic: SyntheticSet) -> list[dict[str, object]]:
    """The share of the images of a finished set that each PTM with its classes takes for what they are labelled.

    Of the PTMs that guided it, or by whose features it was chosen, and of the judges, which are opened now.
    """
    asked = ptms[:1] if is_selection(p.base_method) or p.strategy == "single" else ptms
    judges = open_judges(p, data)
    return [
        {"ptm": ptm.hash, "role": role, "accuracy": share_recognised(ptm, synthetic)}
        for role, those in (("guide", asked), ("judge", judges))
        for ptm in those
        if ptm.class_names == tuple(data.class_names)
    ]


@torch.no_grad()
def share_recognised(ptm: PTM, synthetic: SyntheticSet) -> float:
    """Of the images of a set with hard labels, those that a PTM puts into the class that the label says."""
    logits = ptm.classify(ptm.features_of(synthetic.images))
    return float((logits.argmax(1) == synthetic.labels).double().mean())


def gradients_of(distilled: Distilled | None) -> list[dict[str, object]]:
    """Norms and cosines of the PTMs' gradients at the logged iterations, of which :func:`log_every` leaves a few."""
    logged: Mapping = distilled.agreement if distilled else {}
    return [
        {"iteration": t, "norms": _short(said.norms), "cosines": [_short(row) for row in said.cosines]}
        for t, said in logged.items()
    ]


def _short(values: Tensor) -> list[float]:
    return [float(f"{value:.6g}") for value in values.tolist()]


def log_every(iterations: int) -> int:
    """Between two logged iterations, so that there are :data:`AGREED` at most."""
    return -(-iterations // AGREED)


def iterations_of(p: SimpleNamespace, num_ptms: int) -> int:
    """Of a distillation: a strategy of one PTM a step may run as many times longer as there are PTMs."""
    return p.iterations * (num_ptms if p.equal_passes and STRATEGIES[p.strategy].one_ptm else 1)
