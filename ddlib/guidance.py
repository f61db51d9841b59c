"""Guidance: what a frozen PTM has to say about a synthetic set, as losses with their alphas.

``guidance`` is one of ``none``, ``clom`` (:func:`ddlib.losses.clom_loss`), ``cclom``
(:func:`ddlib.losses.cclom_loss_from_sums`, over the whole real set) and ``both``. Images are not augmented.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ddlib.combine import Outputs
from ddlib.data.dataset import Dataset
from ddlib.losses import ClassSums, cclom_parts_from_sums, clom_loss
from ddlib.ptms.ptm import PTM

GUIDANCE: dict[str, tuple[str, ...]] = {
    "none": (),
    "clom": ("clom",),
    "cclom": ("cclom",),
    "both": ("clom", "cclom"),
}
"""Each kind of guidance and the losses it adds."""

Alpha = float | Mapping[str, float]
"""The weight of a guidance loss: one number, or one for each PTM architecture."""


@dataclass(frozen=True, eq=False)
class PTMSignal:
    """One PTM's guidance of a synthetic set with ``labels [N]``: the :class:`ddlib.combine.Signal` of ddlib."""

    ptm: PTM
    labels: Tensor
    alpha_clom: float | None  # None: CLoM is not asked for
    alpha_cclom: float | None
    sums: ClassSums | None = None

    @property
    def accuracy(self) -> float | None:
        """Of the PTM on its *train* split, for strategies that weight by it; the test set is not for that."""
        return self.ptm.train_accuracy

    def outputs(self, images: Tensor) -> Outputs:
        """What the losses are made of, from one forward pass over images ``[N, C, H, W]``."""
        features = self.ptm.features(images)
        return Outputs(
            None if self.alpha_clom is None else self.ptm.classify(features),
            None if self.alpha_cclom is None else cclom_parts_from_sums(features, self.labels, self.sums),
        )

    def loss(self, images: Tensor) -> Tensor:
        """``alpha_clom * CLoM + alpha_cclom * CCLoM``, whichever of them the guidance asks for; a scalar."""
        logits, distances = self.outputs(images)
        loss = images.new_zeros(())
        if logits is not None:
            loss = loss + self.alpha_clom * clom_loss(logits, self.labels)
        if distances is not None:
            loss = loss + self.alpha_cclom * distances[0] / distances[1]
        return loss


def make_signals(
    ptms: Sequence[PTM],
    dataset: Dataset,
    labels: Tensor,
    guidance: str,
    alpha_clom: Alpha,
    alpha_cclom: Alpha,
) -> list[PTMSignal]:
    """One signal for each PTM, or none at all without guidance.

    Raises ValueError if the guidance is unknown, there is no PTM to give it, an alpha lacks an architecture,
    or CLoM is asked of a PTM whose classes are not those of ``dataset``.
    """
    if guidance not in GUIDANCE:
        raise ValueError(f"unknown guidance {guidance!r}; known: {', '.join(GUIDANCE)}.")
    wanted = GUIDANCE[guidance]
    if not wanted:
        return []
    if not ptms:
        raise ValueError(f"guidance {guidance!r} needs at least one PTM; train some with ddlib.train_ptms.")
    if "clom" in wanted:
        for ptm in ptms:
            _require_same_classes(ptm, dataset)
    return [
        PTMSignal(
            ptm,
            labels,
            _alpha_of(ptm, alpha_clom) if "clom" in wanted else None,
            _alpha_of(ptm, alpha_cclom) if "cclom" in wanted else None,
            ptm.class_sums(dataset) if "cclom" in wanted else None,
        )
        for ptm in (ptm.adapted_to(dataset) for ptm in ptms)
    ]


def _alpha_of(ptm: PTM, alpha: Alpha) -> float:
    if not isinstance(alpha, Mapping):
        return alpha
    if ptm.architecture not in alpha:
        raise ValueError(f"alpha names {', '.join(alpha)}, but one of the PTMs is a {ptm.architecture}; add it.")
    return alpha[ptm.architecture]


def _require_same_classes(ptm: PTM, dataset: Dataset) -> None:
    if ptm.class_names != dataset.class_names:
        raise ValueError(
            f"CLoM asks a PTM for the class of each image, but {ptm.name} knows the classes of "
            f"{ptm.source_dataset} ({', '.join(ptm.class_names[:3])}, ...), not those of {dataset.name} "
            f"({', '.join(dataset.class_names[:3])}, ...). Use guidance 'cclom', which compares features only, "
            "or a PTM trained on the same classes."
        )
