"""The ablations of the study, a row each: what the grid, the contrasts and the comparison know of a notebook."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ddlib.study.arms import Arm, guidances

Pair = tuple[Arm, Arm]  # the first minus the second
Pairs = Callable[[Collection[Arm]], list[Pair]]  # from the arms that have been run to the contrasts that are planned


def none_planned(arms: Collection[Arm]) -> list[Pair]:
    """No contrasts."""
    return []


def fixed(*pairs: Pair) -> Pairs:
    """The same contrasts, whatever has been run."""
    return lambda arms: list(pairs)


def first_named(architectures: Sequence[str]) -> str:
    """The architecture that the parameter ``architectures`` names first: the one distilled with."""
    return architectures[0]


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """One row. Contrasts whose arms have not both been run are left out of tables and figures by themselves."""

    title: str
    question: str
    primary: Pairs  # fixed before the study, and not corrected for their number
    exploratory: Pairs = none_planned  # these share a Holm correction
    one_method: Mapping[str, str] = field(default_factory=dict)  # of two strategies the one left out where both are
    reference: Callable[[Sequence[str]], str] = first_named  # of the architectures, the one that contrasts are about


def averaging_or_one(arms: Collection[Arm]) -> list[Pair]:
    """Averaging minus random selection, at equal steps and at equal PTM passes, for each guidance."""
    others = [(name, Arm(name, "random", equal_passes=equal)) for name in guidances() for equal in (False, True)]
    return [(Arm(name, "loss_avg"), other) for name, other in others]


def others_or_averaging(arms: Collection[Arm]) -> list[Pair]:
    """Every other strategy minus averaging of the same guidance, at equal steps and with a base loss."""
    named = ("", "loss_avg", "random")
    rest = [arm for arm in arms if arm == Arm(arm.guidance, arm.strategy) and arm.strategy not in named]
    return [(arm, Arm(arm.guidance, "loss_avg")) for arm in sorted(rest, key=lambda arm: arm.order)]


NONE, CLOM, CCLOM = Arm(), Arm("clom"), Arm("cclom")

ABLATIONS: dict[str, Ablation] = {
    "01_guidance": Ablation(
        title="Ablation 1: which guidance?",
        question="Which guidance by the same PTM is better, CLoM or CCLoM, and are both together better than one?",
        primary=fixed((CLOM, CCLOM)),
        exploratory=fixed(
            *((Arm(name), NONE) for name in guidances()),
            (NONE, Arm(selection="random")),
            *((Arm(name, alone=True), Arm(name)) for name in ("clom", "cclom")),
        ),
    ),
    "02_ensemble": Ablation(
        title="Ablation 2: how to combine several PTMs?",
        question="Is it better to ask one PTM in each step, or to ask all and average?",
        primary=averaging_or_one,
        exploratory=others_or_averaging,
        one_method={"grad_avg": "loss_avg"},
    ),
}
"""Every ablation by the name of its notebook. A new one is one row here."""
