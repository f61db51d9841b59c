"""Guidance: what a frozen PTM has to say about a synthetic set, as losses with their alphas.

Two distances, cross-entropy of the logits and cosine of the features, times two forms, the mean over pairs of one class
and its share of all pairs, make four losses of :mod:`ddlib.losses`: ``clom``, ``ce_ratio``, ``cos_mean`` and ``cclom``,
all exact over the whole real set. ``both`` is CLoM and CCLoM. Images are not augmented.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ddlib.combine import accuracy_weights, get_strategy
from ddlib.data.dataset import Dataset
from ddlib.losses import ClassSums, cclom_parts_from_sums, cosine_distances
from ddlib.objective import Alphas, Outputs
from ddlib.ptms.ptm import PTM

GUIDANCE: dict[str, tuple[str, ...]] = {
    "none": (),
    "clom": ("clom",),
    "ce_ratio": ("ce_ratio",),
    "cos_mean": ("cos_mean",),
    "cclom": ("cclom",),
    "both": ("clom", "cclom"),
}
"""Each kind of guidance and the losses it adds."""

OF_LOGITS = {"clom", "ce_ratio"}  # losses that ask a PTM for the class; the others compare features

CHUNK = 1024 * 32**2  # pixels of the synthetic images in one graph of a PTM, as it sees them: 5 GB for ResNet-18

Alpha = float | Mapping[str, float]
"""The weight of a guidance loss: one number, or one for each PTM architecture."""


@dataclass(frozen=True, eq=False)
class PTMSignal:
    """One PTM's guidance of a synthetic set with ``labels [N]``: the :class:`ddlib.objective.Signal` of ddlib."""

    ptm: PTM
    labels: Tensor
    alphas: Alphas
    sums: ClassSums | None = None  # for the losses on features
    counts: Tensor | None = None  # [num_classes], real images of each class, for the CE ratio

    @property
    def accuracy(self) -> float | None:
        """Of the PTM on its *train* split, for strategies that weight by it; the test set is not for that."""
        return self.ptm.train_accuracy

    def outputs(self, images: Tensor) -> Outputs:
        """What the losses are made of, from one forward pass over images ``[N, C, H, W]``.

        Of many images each chunk keeps its features alone, and the backward pass goes through it anew: the gradient is
        the same, for one more forward pass, and the memory that of one chunk.
        """
        chunk = max(1, CHUNK // self.ptm.expects.image_size**2)
        if len(images) <= chunk:
            features = self.ptm.features(images)
        else:
            again = partial(checkpoint, self.ptm.features, use_reentrant=False, preserve_rng_state=False)
            features = torch.cat([again(part) for part in images.split(chunk)])
        no_logits, alphas = self.alphas.clom is self.alphas.ce_ratio is None, self.alphas
        return Outputs(
            None if no_logits else self.ptm.classify(features),
            None if alphas.cclom is None else cclom_parts_from_sums(features, self.labels, self.sums),
            None if alphas.cos_mean is None else cosine_distances(features, self.labels, self.sums),
        )

    def part(self, index: Tensor) -> "PTMSignal":
        """The same for the images ``index [n]`` of the set alone."""
        return dataclasses.replace(self, labels=self.labels[index])


@dataclass(frozen=True, eq=False)
class Guidance:
    """What PTMs add to the base loss: which losses, with which weights, and how several PTMs are combined.

    ``kind`` is a key of :data:`GUIDANCE`, ``strategy`` one of :data:`ddlib.combine.STRATEGIES`; the order of ``ptms``
    counts. Every ``guide_every``-th update of the images is guided, the first among them, with ``guide_every`` times
    the weight: as many updates, the same weight in total, and fewer passes of the PTMs. Raises ValueError if there is
    no PTM to give it, or for names and strategies that do not fit.
    """

    kind: str = "none"
    ptms: Sequence[PTM] = ()
    strategy: str = "single"
    alpha_clom: Alpha = 1.0
    alpha_ce_ratio: Alpha = 1.0
    alpha_cos_mean: Alpha = 1.0
    alpha_cclom: Alpha = 1.0
    guide_every: int = 1

    def __post_init__(self):
        if self.ptms is None:
            object.__setattr__(self, "ptms", ())
        if self.kind not in GUIDANCE:
            raise ValueError(f"unknown guidance {self.kind!r}; known: {', '.join(GUIDANCE)}.")
        if self.guide_every < 1:
            raise ValueError(f"guide_every must be at least 1; found {self.guide_every}.")
        row = get_strategy(self.strategy, self.kind)
        if not GUIDANCE[self.kind]:
            return
        if not self.ptms:
            raise ValueError(f"guidance {self.kind!r} needs at least one PTM; train some with ddlib.train_ptms.")
        for ptm in self.ptms:
            if not isinstance(ptm, PTM):
                raise ValueError(
                    f"a PTM is expected; found a {type(ptm).__name__}: ddlib.PTM.from_module makes one of it."
                )
        if row.needs_accuracy:
            accuracy_weights([ptm.train_accuracy for ptm in self.ptms])  # one without fails here, before any work

    def signals(
        self, dataset: Dataset, labels: Tensor, computing: Callable[[PTM], PTM] = lambda ptm: ptm
    ) -> list[PTMSignal]:
        """One signal for each PTM for a synthetic set with ``labels [N]``, or none at all without guidance.

        ``computing`` makes of a PTM for the images of ``dataset`` the one that is asked.

        Raises ValueError if an alpha lacks an architecture, or CLoM or the CE ratio is asked of a PTM whose classes are
        not those of ``dataset``.
        """
        wanted, train = GUIDANCE[self.kind], dataset.train
        if OF_LOGITS & set(wanted):
            for ptm in self.ptms:
                _require_same_classes(ptm, dataset)
        counts = train.labels.bincount(minlength=dataset.num_classes).to(train.images.dtype)
        return [
            PTMSignal(
                ptm,
                labels,
                Alphas(**{loss: _alpha_of(ptm, getattr(self, f"alpha_{loss}")) for loss in wanted}),
                ptm.class_sums(dataset) if set(wanted) - OF_LOGITS else None,
                counts if "ce_ratio" in wanted else None,
            )
            for ptm in (computing(ptm.adapted_to(dataset)) for ptm in self.ptms if wanted)
        ]


def _alpha_of(ptm: PTM, alpha: Alpha) -> float:
    if not isinstance(alpha, Mapping):
        return alpha
    if ptm.architecture not in alpha:
        raise ValueError(f"alpha names {', '.join(alpha)}, but one of the PTMs is a {ptm.architecture}; add it.")
    return alpha[ptm.architecture]


def _require_same_classes(ptm: PTM, dataset: Dataset) -> None:
    if ptm.class_names != tuple(dataset.class_names):  # a list beside a tuple is no difference
        raise ValueError(
            f"CLoM and the CE ratio ask a PTM for the class of each image, but {ptm.name} knows the classes of "
            f"{ptm.source_dataset} ({', '.join(ptm.class_names[:3])}, ...), not those of {dataset.name} "
            f"({', '.join(dataset.class_names[:3])}, ...). Use guidance 'cclom' or 'cos_mean', which compare features, "
            "or a PTM trained on the same classes."
        )
