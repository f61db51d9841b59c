"""No verdict before all planned runs of a contrast are there: a test at every look finds too much."""

from collections.abc import Mapping

import pandas as pd

from ddlib.study.arms import Arm
from ddlib.study.contrasts import NO_VERDICT

from .plans import planned, planned_for

TESTS = ["p_value", "p_holm", "p_equivalence", "p_equivalence_holm"]


def without_early_verdicts(table: pd.DataFrame, unfinished: Mapping[str, int], others: bool = False) -> pd.DataFrame:
    """Contrasts, where those of unfinished arms have an interval alone.

    Exploratory ones wait for all that share their correction (``family``, else all of the table), and for ``others``
    that are not in the table yet.
    """
    if table.empty or not (unfinished or others):
        return table
    wanted = pd.Series([most_wanted(row, unfinished) for row in table.to_dict("records")], table.index)
    shared = table["family"] if "family" in table else pd.Series("", table.index)
    exploratory = ~table["primary"].astype(bool)
    waiting = exploratory & (shared.isin(shared[exploratory & (wanted > 0)]) | others)
    own = [f"{NO_VERDICT} yet (n = {n} of {sets})" for n, sets in zip(table["n"], wanted, strict=True)]
    verdict = table["verdict"].mask(waiting, f"{NO_VERDICT} yet (those of its correction are not whole)")
    table = table.assign(verdict=verdict.mask(wanted > 0, pd.Series(own, table.index)))
    return table.assign(**{name: table[name].mask(waiting | (wanted > 0)) for name in TESTS})


def lacks_planned(table: pd.DataFrame, notebook: str, grid: str) -> bool:
    """Whether an exploratory contrast that a grid can answer has no row, since an arm has no run."""
    if not notebook or planned(grid) is None:
        return False
    wanted = {c.words for c, kind, _ in planned_for(notebook, grid) if kind == "exploratory"}
    return not wanted <= set(table["contrast"] if len(table) else ())


def most_wanted(row: Mapping[str, object], unfinished: Mapping[str, int]) -> int:
    """The sets planned of the unfinished arms of a contrast; 0 without any."""
    arms = {name for side in (row["a"], row["b"]) for name in (side, *side.split(" + "))}
    if "case" in row:
        arms |= {f"{row['case']}: {Arm.named(arm).label}" for arm in arms}
    return max((unfinished[arm] for arm in arms if arm in unfinished), default=0)
