"""Arms of the study: what tells runs of one ablation apart, and the one place that knows the grammar of their names.

A name is that of a selection of real images (``herding``; ``random_real``, as ``random`` is a strategy too),
``full_data``, ``none``, or a guidance and what distinguishes it further: ``clom loss_avg``, ``clom alone``,
``cclom random equal_passes``, ``clom loss_avg every_5``.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from types import SimpleNamespace

from ddlib.combine import STRATEGIES
from ddlib.guidance import GUIDANCE
from ddlib.networks import NETWORKS
from ddlib.selection import SELECTIONS
from ddlib.study.allowed import names

FULL, FULL_NAME = "full", "full_data"  # all real images: as base_method, and as an arm
FILE = "file"  # as base_method in records: a set that was not made here
LABELS = {  # as the text spells them
    "none": "no guidance",
    "clom": "CLoM",
    "ce_ratio": "CE ratio",
    "cos_mean": "mean cosine",
    "cclom": "CCLoM",
    "both": "CLoM + CCLoM",
}
STRATEGY_LABELS = {
    "single": "one fixed PTM",
    "random": "one at random",
    "sequential": "one in turn",
    "shuffled": "one in shuffled turn",
    "per_image": "one for each image",
    "loss_avg": "average of losses",
    "grad_avg": "average of gradients",
    "grad_norm_avg": "average of unit gradients",
    "logit_avg": "average of logits",
    "prob_avg": "average of probabilities",
    "accuracy_weighted": "weighted by accuracy",
    "confidence_weighted": "weighted by confidence",
    "pcgrad": "PCGrad",
    "mgda": "MGDA",
}
# Filled, so that one size suits all; as many as arms of one guidance. The last of matplotlib's are stars by their tips.
MARKERS = (*"osD^vPX<>p*dh", (3, 1, 0), (4, 1, 0), (4, 1, 45), (8, 1, 0))
GOLDEN = (5**0.5 - 1) / 2  # steps of this share of the circle keep any number of hues apart


@dataclass(frozen=True)
class Arm:
    """One arm; the empty ``Arm()`` is the base method without guidance.

    ``guidance`` is a key of ``GUIDANCE``; ``strategy`` one of ``STRATEGIES``, empty for a single PTM; ``alone`` says
    that there is no base loss, ``equal_passes`` that a strategy of one PTM a step runs longer, ``guide_every`` which
    updates are guided. ``selection`` is a key of ``SELECTIONS`` or ``full``: real images instead of all this. ``other``
    is a name that this version cannot read, or that of a set from a file.
    """

    guidance: str = "none"
    strategy: str = ""
    alone: bool = False
    equal_passes: bool = False
    guide_every: int = 1
    selection: str = ""
    other: str = ""

    @classmethod
    def of(cls, p: SimpleNamespace, num_ptms: int) -> "Arm":
        """The arm that checked parameters describe, for a pool of ``num_ptms`` in all."""
        if is_selection(p.base_method):
            return cls(selection=p.base_method)
        if p.guidance == "none":
            return cls()
        strategy = p.strategy if num_ptms > 1 else ""
        return cls(p.guidance, strategy, p.base_method == "none", p.equal_passes, p.guide_every)

    @classmethod
    def planned(cls, p: SimpleNamespace) -> "Arm":
        """The arm that checked parameters will give: the pool has ``num_ptms`` of each architecture."""
        return cls.of(p, p.num_ptms * len(names(p.ptm_architectures)))

    @classmethod
    def parse(cls, name: str) -> "Arm":
        """The arm of a name; the inverse of ``name``. Raises ValueError, saying what is known, for any other text."""
        selections = [cls(selection=key) for key in (*SELECTIONS, FULL)]
        guidance, *words = name.split(" ")
        strategy = next((word for word in words if word in STRATEGIES), "")
        every = next((int(word[6:]) for word in words if re.fullmatch(r"every_[1-9]\d{0,8}", word)), 1)
        flags = "alone" in words, "equal_passes" in words
        guided = [cls(guidance, strategy, *flags, every)] if guidance in GUIDANCE else []
        for arm in (*selections, *guided):
            if arm.name == name:
                return arm
        raise ValueError(
            f"{name!r} is not an arm; known: none, {', '.join(arm.name for arm in selections)}; and "
            f"{', '.join(guidances())}, followed by nothing or by one of {', '.join(STRATEGIES)}, then by nothing or "
            "some of alone, equal_passes and every_<number from 2 on>, in this order"
        )

    @classmethod
    def named(cls, name: object) -> "Arm":
        """The arm of a name, for tables and figures: they show a name that cannot be read as it stands, and last."""
        try:
            return cls.parse(str(name))
        except ValueError:
            return cls(other=str(name) or "(no name)")

    @property
    def name(self) -> str:
        """As records hold it."""
        if self.other or self.selection:
            return self.other or _selection_name(self.selection)
        return " ".join(filter(None, (self.guidance, self._detail()))) if self.guided else "none"

    @property
    def label(self) -> str:
        """As the text spells it."""
        if self.other or not self.guided:
            return self.other or _label_of_unguided(self.selection)
        detail = self._detail(as_text=True)
        return LABELS.get(self.guidance, self.guidance) + (", " if self.strategy else " ") * bool(detail) + detail

    def minus(self, other: "Arm") -> str:
        """A difference in words; a guidance that both share stands in front: "CLoM: average of losses − PCGrad"."""
        details = [arm._detail(as_text=True) for arm in (self, other)]
        if self.guided and self.guidance == other.guidance and all(details):
            return f"{Arm(self.guidance).label}: {' − '.join(details)}"
        return f"{self.label} − {other.label}"

    @property
    def guided(self) -> bool:
        """Whether PTMs guide a distillation."""
        return self.guidance != "none"

    @property
    def needs_ptms(self) -> bool:
        """Whether it asks for PTMs: to guide, or to choose real images by their features."""
        return self.guided or (self.selection in SELECTIONS and SELECTIONS[self.selection].uses_features)

    @property
    def replicated(self) -> bool:
        """Whether another seed gives another set. If not, n is 1, however many seeds are run."""
        return self.selection != FULL and (self.selection not in SELECTIONS or SELECTIONS[self.selection].seeded)

    @property
    def order(self) -> tuple:
        """A key to sort by: real images, no guidance, guidances with their strategies, full data, unknown names."""
        group = 4 if self.other else 3 if self.selection == FULL else 0 if self.selection else 2 if self.guided else 1
        place = (position(self.selection, SELECTIONS), position(self.guidance, GUIDANCE), self._strategy)
        return (group, *place, self.alone, self.equal_passes, self.guide_every, self.other)

    @property
    def colour(self) -> tuple[float, float, float]:
        """Red, green, blue in 0..1, made from the places of its words in their tables: no other arm's colour changes
        with a row that is added. On white the contrast is 3 : 1 or more.

        The constants were found by a search: strategies of one guidance stay far apart, and so do the colours of any
        two arms that share a marker.
        """
        from seaborn import husl_palette  # not above: the engine, too, reads names of arms, and draws nothing

        if self.other:
            place = int(hashlib.sha256(self.other.encode()).hexdigest()[:8], 16) / 16**8
            hue, saturation, lightness = place, 0.3, 0.3 + 0.3 * (997 * place % 1)
        elif not self.guided:
            greys = {"": (0, 0, 0.55), FULL: (0, 0, 0.15)}
            chosen = (0.18 + GOLDEN * position(self.selection, SELECTIONS), 0.5, 0.6)
            hue, saturation, lightness = greys.get(self.selection, chosen)
        else:
            guidance = position(self.guidance, guidances())
            every, saturation = self.guide_every > 1, 0.55 if self.alone else 0.95
            hue = 0.796 + 0.596 * self._strategy + 0.774 * guidance + 0.632 * every + 0.017 * self.equal_passes
            lightness = 0.304 + 0.303 * ((0.536 * self._strategy + 0.312 * guidance) % 1) - 0.093 * self.equal_passes
        return husl_palette(1, h=hue % 1, s=saturation, l=lightness)[0]

    @property
    def marker(self) -> str | tuple[int, int, int]:
        """Of matplotlib: for those who do not see the colours."""
        if self.selection == FULL or self.other:
            return MARKERS[-1]
        if self.selection:
            return MARKERS[-2 - position(self.selection, SELECTIONS) % (len(MARKERS) - 1)]
        shift = 4 * self.equal_passes + 3 * self.alone + 2 * (self.guide_every > 1)
        return MARKERS[(position(self.guidance, GUIDANCE) + self._strategy + shift) % len(MARKERS)]

    @property
    def _strategy(self) -> int:
        """0 without a strategy, then the place in their table, from 1."""
        return 1 + position(self.strategy, STRATEGIES) if self.strategy else 0

    def _detail(self, as_text: bool = False) -> str:
        """What follows the guidance in a name, or in a text."""
        equal = "(equal passes)" if as_text else "equal_passes"
        every = f"(every {ordinal(self.guide_every)} update)" if as_text else f"every_{self.guide_every}"
        strategy = STRATEGY_LABELS.get(self.strategy, self.strategy) if as_text else self.strategy
        words = (strategy, "alone" * self.alone, equal * self.equal_passes, every * (self.guide_every > 1))
        return " ".join(filter(None, words))


def ordinal(number: int) -> str:
    """As a text counts: 2nd, 3rd, 5th, 11th, 21st."""
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number % 100 // 10 != 1 else "th"
    return f"{number}{ending}"


def is_selection(base_method: str) -> bool:
    """Whether a base method chooses real images, some or all, instead of distilling."""
    return base_method == FULL or base_method in SELECTIONS


def guidances() -> list[str]:
    """The kinds of guidance that add a loss."""
    return [name for name, losses in GUIDANCE.items() if losses]


def position(name: str, table: Iterable[str]) -> int:
    """The place of a row in its table; that behind the last for a name without a row."""
    names = list(table)
    return names.index(name) if name in names else len(names)


def ordered(names: Iterable[object]) -> list[object]:
    """Names of arms in the order of tables and figures."""
    return sorted(names, key=lambda name: Arm.named(name).order)


def ordered_networks(names: Iterable[str]) -> list[str]:
    """Names of networks in the order of their table, unknown ones last."""
    return sorted(names, key=lambda name: (position(name, NETWORKS), name))


def _selection_name(key: str) -> str:
    if key == FULL:
        return FULL_NAME
    return f"{key}_real" if key in STRATEGIES or key in GUIDANCE else key  # a word of other arms


def _label_of_unguided(selection: str) -> str:
    if selection in ("", FULL):
        return "full data" if selection else LABELS["none"]
    return SELECTIONS[selection].label if selection in SELECTIONS else selection
