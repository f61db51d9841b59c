"""What a distillation is: a base method, the guidance of PTMs and an optimisation, composed, or named one by one."""

import dataclasses
import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field

from ddlib.base_methods import BASE_METHODS, Matching, require_at_least_one
from ddlib.compute import Compute
from ddlib.guidance import Guidance
from ddlib.selection import require_one_number
from ddlib.synthetic import SyntheticSet

SHORT = {"method": "base_method", "network": "base_network", "kind": "guidance"}  # names where the part is not said


@dataclass(frozen=True)
class Optimisation:
    """Momentum SGD on the pixels; None: as the authors of the base method do."""

    iterations: int = 1000
    lr_img: float | None = None  # learning rate of the pixels
    start: str | SyntheticSet | None = None  # real (random real images), noise, or a set to continue from

    def __post_init__(self):
        require_at_least_one("iterations", self.iterations)


@dataclass(frozen=True, eq=False)
class Recipe:
    """All that shapes a synthetic set, beside the data.

    Raises ValueError if nothing would be learned: neither a base method nor guidance.
    """

    ipc: int = 10  # images per class
    base: Matching = field(default_factory=Matching)
    guidance: Guidance = field(default_factory=Guidance)
    optimisation: Optimisation = field(default_factory=Optimisation)
    compute: Compute = field(default_factory=Compute)
    seed: int = 0  # start, real batches, networks, augmentation and selection each derive a generator from it
    log_every: int = 10  # the PTMs' gradients are compared at each of these iterations

    def __post_init__(self):
        require_one_number(self.ipc)
        require_at_least_one("log_every", self.log_every)
        if self.base.method == "none" and self.guidance.kind == "none":
            raise ValueError("without a base method and without guidance nothing would be learned: choose one.")
        if self.compute.compile == "always" and not self.base.row.compiles:
            able = ", ".join(name for name, row in BASE_METHODS.items() if row.compiles)
            raise ValueError(f"compile is for base method {able} only; found {self.base.method}. Leave it out.")

    @classmethod
    def of(cls, **settings: object) -> "Recipe":
        """A recipe from the names of its settings, whatever part they belong to.

        ``base_method`` and ``base_network`` are the ``method`` and ``network`` of :class:`ddlib.base_methods.Matching`,
        ``guidance`` is the ``kind`` of :class:`ddlib.guidance.Guidance`; all others keep their names. Raises TypeError
        for a name that no part has.

        >>> recipe = Recipe.of(ipc=1, base_method="dsa", width=32)
        >>> recipe.base.method, recipe.base.width, recipe.optimisation.iterations
        ('dsa', 32, 1000)
        """
        places = dict(_places())
        for name in settings:
            if name not in places:
                near = difflib.get_close_matches(name, places, 1)
                hint = f" (did you mean {near[0]!r}?)" if near else ""
                raise TypeError(f"a distillation has no setting {name!r}{hint}; it has {', '.join(places)}.")
        parts: dict[str, dict[str, object]] = {"": {}, **{part: {} for part in PARTS}}
        for name, value in settings.items():
            part, own = places[name]
            parts[part][own] = value
        return cls(**parts.pop(""), **{part: kind(**parts[part]) for part, kind in PARTS.items()})

    def complete(self) -> "Recipe":
        """With the settings of the method's authors where none are given."""
        row, optimisation = self.base.row, self.optimisation
        lr_img = row.lr_img if optimisation.lr_img is None else optimisation.lr_img
        start = row.start if optimisation.start is None else optimisation.start
        return dataclasses.replace(
            self,
            base=self.base.for_ipc(self.ipc),
            optimisation=dataclasses.replace(optimisation, lr_img=lr_img, start=start),
        )

    def settings(self) -> dict[str, object]:
        """All of it by name, without the PTMs: what :meth:`of` takes, and what records and checkpoints keep.

        Of a set to start from, its hash.
        """
        return {
            name: _plain(getattr(getattr(self, part) if part else self, own))
            for name, (part, own) in _places()
            if own != "ptms"
        }


def _plain(setting: object) -> object:
    return f"set {setting.hash}" if isinstance(setting, SyntheticSet) else setting


PARTS = {"base": Matching, "guidance": Guidance, "optimisation": Optimisation, "compute": Compute}


def _places() -> Iterator[tuple[str, tuple[str, str]]]:
    """(name, (part, its own name there)) of every setting; the part of the recipe's own settings is empty."""
    for own in dataclasses.fields(Recipe):
        if own.name in PARTS:
            for inner in dataclasses.fields(PARTS[own.name]):
                yield SHORT.get(inner.name, inner.name), (own.name, inner.name)
        else:
            yield own.name, ("", own.name)
