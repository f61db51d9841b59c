"""The ablations of the study, a row each: what the grid, the contrasts and the comparison know of a notebook."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ddlib.study.arms import Arm, guidances


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of arms, computed within each seed. The weights sum to zero.

    ``words`` say what it is, ``above`` and ``below`` what a positive and a negative one mean, ``equal`` what one means
    that is not farther from zero than the margin.
    """

    arms: tuple[str, ...]  # by their names
    weights: tuple[float, ...]
    words: str
    above: str
    below: str
    equal: str = "equal"

    def __post_init__(self):
        if len(self.arms) != len(self.weights) or abs(sum(self.weights)) > 1e-12:
            raise ValueError(f"a contrast has a weight for each arm, and they sum to zero; found {self.weights}")
        if len(set(self.arms)) < len(self.arms):
            raise ValueError(f"an arm cannot be compared with itself; found {', '.join(self.arms)}")

    @classmethod
    def of(cls, a: Arm | str, b: Arm | str) -> "Contrast":
        """The first arm minus the second."""
        a, b = (arm if isinstance(arm, Arm) else Arm.named(arm) for arm in (a, b))
        return cls((a.name, b.name), (1.0, -1.0), a.minus(b), f"{a.label} better", f"{b.label} better")

    @property
    def a(self) -> str:
        """The arms that count for it."""
        return " + ".join(arm for arm, weight in zip(self.arms, self.weights, strict=True) if weight > 0)

    @property
    def b(self) -> str:
        """The arms that count against it."""
        return " + ".join(arm for arm, weight in zip(self.arms, self.weights, strict=True) if weight < 0)


Pair = tuple[Arm, Arm]  # the first minus the second
Contrasts = Callable[[Collection[Arm]], list[Contrast]]  # from the arms that have been run to what is planned


def none_planned(arms: Collection[Arm]) -> list[Contrast]:
    """No contrasts."""
    return []


def fixed(*planned: Contrast | Pair) -> Contrasts:
    """The same contrasts, whatever has been run."""
    contrasts = [item if isinstance(item, Contrast) else Contrast.of(*item) for item in planned]
    return lambda arms: list(contrasts)


def first_named(architectures: Sequence[str]) -> str:
    """The architecture that the parameter ``architectures`` names first: the one distilled with."""
    return architectures[0]


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """One row. Contrasts whose arms have not all been run are left out of tables and figures by themselves."""

    title: str
    question: str
    primary: Contrasts  # fixed before the study, and not corrected for their number
    exploratory: Contrasts = none_planned  # these share a Holm correction
    one_method: Mapping[str, str] = field(default_factory=dict)  # of two strategies the one left out where both are
    reference: Callable[[Sequence[str]], str] = first_named  # of the architectures, the one that contrasts are about


LOSSES = ("clom", "ce_ratio", "cos_mean", "cclom")


def effect(words: str, signs: Sequence[int], above: str, below: str, equal: str = "equal") -> Contrast:
    """An effect in the 2 x 2 of the four losses; halves, so that all three effects are on the scale of one loss."""
    return Contrast(LOSSES, tuple(sign / 2 for sign in signs), words, above, below, equal)


TWO_BY_TWO = (
    effect("distance: cross-entropy − cosine", (1, 1, -1, -1), "cross-entropy better", "cosine better"),
    effect("form: mean − ratio", (1, -1, 1, -1), "mean better", "ratio better"),
    effect(
        "interaction: mean − ratio, cross-entropy − cosine",
        (1, -1, -1, 1),
        "the mean suits cross-entropy more",
        "the mean suits cosine more",
        "no interaction",
    ),
)
"""What the distance does, the mean over both forms; what the form does, the mean over both distances; and half of the
difference between what the form does with the one distance and with the other."""


def averaging_or_one(guidance: str, arms: Collection[Arm]) -> list[Contrast]:
    """Averaging minus random selection of one guidance: at equal updates, and at equal PTM passes and equal updates.

    At equal passes averaging guides every K-th update, with K times the weight.
    """
    random = Arm(guidance, "random")
    rare = sorted((arm for arm in arms if _is_rare_average(arm, guidance)), key=lambda arm: arm.order)
    return [Contrast.of(average, random) for average in (Arm(guidance, "loss_avg"), *rare)]


def _is_rare_average(arm: Arm, guidance: str) -> bool:
    return arm.guide_every > 1 and arm == Arm(guidance, "loss_avg", guide_every=arm.guide_every)


def of_the_primary_guidance(arms: Collection[Arm]) -> list[Contrast]:
    """With CLoM."""
    return averaging_or_one("clom", arms)


def other_strategies(arms: Collection[Arm]) -> list[Contrast]:
    """Every other strategy minus averaging of the same guidance, and one fixed PTM minus random selection.

    For other guidances than CLoM also what is primary there; for all of them the run that takes longer instead.
    """
    found = []
    for guidance in guidances():
        average, random = Arm(guidance, "loss_avg"), Arm(guidance, "random")
        plain = (arm for arm in arms if arm.strategy and arm == Arm(guidance, arm.strategy))
        others = [arm for arm in plain if arm.strategy not in ("loss_avg", "random", "single")]
        found += averaging_or_one(guidance, arms) if guidance != "clom" else []
        found += [Contrast.of(arm, average) for arm in sorted(others, key=lambda arm: arm.order)]
        found.append(Contrast.of(Arm(guidance, "single"), random))
        found.append(Contrast.of(average, Arm(guidance, "random", equal_passes=True)))
    return found


NONE, CLOM, CCLOM, BOTH = Arm(), Arm("clom"), Arm("cclom"), Arm("both")

ABLATIONS: dict[str, Ablation] = {
    "01_guidance": Ablation(
        title="Ablation 1: which guidance?",
        question="Which guidance by the same PTM is better, CLoM or CCLoM, and are both together better than one?",
        primary=fixed((CLOM, CCLOM)),
        exploratory=fixed(
            *TWO_BY_TWO,
            *((BOTH, one) for one in (CLOM, CCLOM)),
            *((Arm(name), NONE) for name in guidances()),
            (NONE, Arm(selection="random")),
            *((Arm(name, alone=True), Arm(name)) for name in guidances()),
        ),
    ),
    "02_ensemble": Ablation(
        title="Ablation 2: how to combine several PTMs?",
        question="Is it better to ask one PTM in each step, or to ask all and average?",
        primary=of_the_primary_guidance,
        exploratory=other_strategies,
        one_method={"grad_avg": "loss_avg"},
    ),
    # its arms are one arm in several settings, which ddlib.study.cases compares
    "06_ptm_options": Ablation(
        title="The paper's options: which PTMs?",
        question="Does a better PTM guide better: more of them, longer trained, of other architectures or data?",
        primary=none_planned,
    ),
}
"""Every ablation by the name of its notebook. A new one is one row here."""
