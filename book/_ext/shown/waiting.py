"""No verdict before all planned runs of a contrast are there: a test at every look finds too much."""

from collections.abc import Collection, Mapping

import pandas as pd

from ddlib.study.arms import Arm
from ddlib.study.contrasts import NO_VERDICT

TESTS = ["p_value", "p_holm", "p_equivalence", "p_equivalence_holm"]


def without_early_verdicts(
    table: pd.DataFrame, unfinished: Mapping[str, int], absent: Collection[str] = ()
) -> pd.DataFrame:
    """Contrasts, where those of unfinished arms have an interval alone.

    Exploratory ones wait for all that share their correction (``family_of``); ``absent`` are families of which some
    have no row yet.
    """
    if table.empty or not (unfinished or absent):
        return table
    wanted = pd.Series([most_wanted(row, unfinished) for row in table.to_dict("records")], table.index)
    families, exploratory = family_of(table), ~table["primary"].astype(bool)
    waiting = exploratory & families.isin({*families[exploratory & (wanted > 0)], *absent})
    own = [f"{NO_VERDICT} yet (n = {n} of {sets})" for n, sets in zip(table["n"], wanted, strict=True)]
    verdict = table["verdict"].mask(waiting, f"{NO_VERDICT} yet (those of its correction are not whole)")
    early = waiting | (wanted > 0)
    signs = [() if not_yet else signs for not_yet, signs in zip(early, table["signs"], strict=True)]
    table = table.assign(verdict=verdict.mask(wanted > 0, pd.Series(own, table.index)), signs=signs)
    return table.assign(**{name: table[name].mask(early) for name in TESTS})


def family_of(table: pd.DataFrame) -> pd.Series:
    """Which rows share their corrections: those of one ``family``, in an ablation all."""
    return table["family"] if "family" in table else pd.Series("", table.index)


def without_rows(table: pd.DataFrame, planned: Mapping[str, int]) -> dict[str, int]:
    """By family how many of its planned exploratory contrasts have no row, since an arm has no run."""
    there = family_of(table)[~table["primary"].astype(bool)].value_counts() if len(table) else {}
    missing = {family: number - there.get(family, 0) for family, number in planned.items()}
    return {family: number for family, number in missing.items() if number}


def most_wanted(row: Mapping[str, object], unfinished: Mapping[str, int]) -> int:
    """The sets planned of the unfinished arms of a contrast; 0 without any."""
    arms = set(row["arms"])
    if "case" in row:
        arms |= {f"{row['case']}: {Arm.named(arm).label}" for arm in arms}
    return max((unfinished[arm] for arm in arms if arm in unfinished), default=0)
