"""The chapters with results: the sweep that each waits for, and what it makes of its records."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import pandas as pd

from ddlib.study import cases, contrasts, runs
from ddlib.study.ablations import Contrast
from workflow.grid import read_profile

from . import plans

if TYPE_CHECKING:
    from .findings import Findings

Rows = pd.DataFrame
Families = Mapping[str, int]  # how many exploratory contrasts share a correction


@cache
def usual() -> dict[str, object]:
    """The parameters around which the study varies others."""
    return read_profile("desk") | {"num_ptms": 1, "base_method": "dm"}


@dataclass(frozen=True)
class Chapter:
    """One that shows its arms and compares none of them."""

    key: str  # as pages name it
    title: str
    grid: str  # in params/sweeps, and of its folder below book/results/sweeps
    page: str
    notebook: str = ""  # a key of ABLATIONS; empty: whatever the sweep holds
    beside: str = ""  # the chapter whose arms take part too

    def named(self, records: Rows) -> Rows:
        """Its records with its arms, where their names do not tell them apart."""
        return records

    def compared(self, found: "Findings", untested: Families) -> Rows:
        """Its contrasts. ``untested`` are those, by family, that are planned and have no row: Holm counts them."""
        return Rows()

    def families(self) -> Families:
        """How many exploratory contrasts its grid plans, by what shares a correction."""
        return {}


class AblationChapter(Chapter):
    """The contrasts that an ablation plans."""

    def compared(self, found: "Findings", untested: Families) -> Rows:
        """One family."""
        return contrasts.planned_contrasts(found.reference, self.notebook, untested=untested.get("", 0))

    def families(self) -> Families:
        """One family."""
        return {"": exploratory(plans.planned_for(self.notebook, self.grid))}


class OwnAlphas(Chapter):
    """The contrasts of the second ablation in which arms with an alpha of their own take part, beside its others."""

    def compared(self, found: "Findings", untested: Families) -> Rows:
        """One family: all are exploratory."""
        ablation = found.other(self.beside)
        if not ablation.lasting:
            return Rows()
        own = found.plain["arm"].unique()
        rows = runs.stacked(found.plain, ablation.plain[~ablation.plain["arm"].isin(own)])
        planned = with_own_alphas(set(own), set(rows["arm"]))
        return contrasts.compare(runs.reference(rows), [], planned, untested=untested.get("", 0))

    def families(self) -> Families:
        """One family."""
        own = plans.arms_of(self.grid)
        return {"": len(with_own_alphas(own, {*own, *plans.arms_of(CHAPTERS[self.beside].grid)}))}


class Options(Chapter):
    """Each option against the usual PTM."""

    def named(self, records: Rows) -> Rows:
        """Arms by what their PTMs have of their own."""
        return cases.options(records, usual())

    def compared(self, found: "Findings", untested: Families) -> Rows:
        """A family for each option."""
        return cases.options_against_usual(found.records, untested)

    def families(self) -> Families:
        """A family for each option."""
        families = cases.families_of_options(self.named(plans.sets_of(self.grid)))
        return {option: len(planned) for option, planned in families.items()}


class Settings(Chapter):
    """The contrasts of the ablations in each setting, those of the ablations themselves among them."""

    def named(self, records: Rows) -> Rows:
        """Arms by their setting."""
        return cases.named_by_case(records, usual())

    def compared(self, found: "Findings", untested: Families) -> Rows:
        """A family for each setting and ablation."""
        here = [found.other(key).contrasts for key in ("guidance", "ensemble") if found.other(key).lasting]
        arms = set(found.plain["arm"])
        there = [table[table["a"].isin(arms) & table["b"].isin(arms)] for table in here if len(table)]
        return cases.elsewhere(found.plain, usual(), there, untested)

    def families(self) -> Families:
        """A family for each setting and ablation."""
        planned = cases.with_cases(plans.sets_of(self.grid), usual(), cases.SETTINGS)
        return {
            f"{case} {notebook}": exploratory(plans.contrasts_among(notebook, sets.groupby("arm")["seed"].nunique()))
            for (case, notebook), sets in planned.groupby(["case", "notebook"], sort=False)
        }


def with_own_alphas(own: Collection[str], there: Iterable[str]) -> list[Contrast]:
    """The contrasts among some arms of the second ablation in which one with an alpha of its own takes part."""
    planned = plans.contrasts_among("02_ensemble", dict.fromkeys(there, 0))
    return [contrast for contrast, _, _ in planned if set(contrast.arms) & set(own)]


def exploratory(planned: Iterable[tuple[object, str, int]]) -> int:
    """How many of some planned contrasts are."""
    return sum(kind == "exploratory" for _, kind, _ in planned)


CHAPTERS: dict[str, Chapter] = {
    chapter.key: chapter
    for chapter in (
        AblationChapter("guidance", "which guidance", "desk-guidance", "ablation_1", "01_guidance"),
        AblationChapter("ensemble", "how to combine several PTMs", "desk-ensemble", "ablation_2", "02_ensemble"),
        OwnAlphas("own", "strategies at alphas of their own", "desk-ensemble-own", "ablation_2", beside="ensemble"),
        Chapter("alpha", "how alpha was chosen", "desk-alpha", "alpha"),
        Chapter("alphas", "alphas of strategies", "desk-ensemble-alpha", "alpha"),
        Chapter("alphas_elsewhere", "alphas of other settings", "desk-elsewhere-alpha", "alpha"),
        Options("options", "the paper's options", "desk-options", "options"),
        Settings("elsewhere", "does it hold elsewhere", "desk-elsewhere", "elsewhere"),
    )
}
