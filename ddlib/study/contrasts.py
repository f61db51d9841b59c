"""Arms compared in pairs of synthetic sets that share a seed: effect, intervals, tests, and their limits.

Two sets with one seed start from the same images, see the same real batches and are judged by networks that
start alike, so much of their spread is shared and cancels in the difference. The unit stays the set.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from ddlib.study.ablations import ABLATIONS
from ddlib.study.arms import Arm
from ddlib.study.statistics import LEVEL, MARGIN, cells, require_columns, set_means, std, t_interval


def planned_contrasts(records: pd.DataFrame, notebook: str, by: Sequence[str] = ("architecture",)) -> pd.DataFrame:
    """What the row of an ablation plans: its primary contrasts, then its exploratory ones (``compare_pairs``)."""
    row, arms = ABLATIONS[notebook], {Arm.named(name) for name in records["arm"].unique()}
    primary, exploratory = ([(a.name, b.name) for a, b in plan(arms)] for plan in (row.primary, row.exploratory))
    return compare_pairs(records, primary, exploratory, by)


MIN_PAIRS = 6  # below it the smallest exact two-sided p, 2 / 2^n, cannot fall under 0.05
EXACT_PAIRS = 14  # up to here all 2^n sign patterns are enumerated, beyond it 2^14 are drawn


def paired_difference(
    accuracies: pd.DataFrame,
    a: str,
    b: str,
    by: Sequence[str] = ("architecture",),
    margin: float = MARGIN,
    seed: int = 0,
) -> pd.DataFrame:
    """Arm ``a`` minus arm ``b``, paired by seed, one row per cell of ``by`` (default: per architecture).

    With ``by=()`` the networks of all architectures present are averaged inside a set: select the transfer
    architectures first to get their mean.

    Returns:
        columns of ``by`` and
        ``a``, ``b``, ``n`` (pairs), ``difference`` (mean, a fraction), ``std`` (of the differences);
        ``t_low``, ``t_high``: 95 % t interval (NaN for n = 1);
        ``p_value``: two-sided sign-flip permutation test, exact up to 14 pairs, so never below 2 / 2^n, and from
        2^14 flips drawn by ``seed`` beyond;
        ``improvement``: probability of improvement, the share of pairs with a > b, ties counted half;
        ``p_equivalence``: two one-sided t tests against +-``margin`` (NaN without spread).
    Raises:
        ValueError: an arm is unknown, or seeds occur in one arm only (``common_seeds`` drops them).
    """
    require_columns(accuracies, ["arm", *by, "seed", "accuracy"])
    known = sorted(accuracies["arm"].dropna().unique())
    for arm in (a, b):
        if arm not in known:
            raise ValueError(f"no rows of arm {arm!r}; present: {', '.join(known)}")
    if a == b:
        raise ValueError(f"arm {a!r} cannot be compared with itself")
    sets = set_means(accuracies[accuracies["arm"].isin([a, b])], ["arm", *by])
    rows = []
    for cell, group in cells(sets, by):
        pairs = group.pivot(index="seed", columns="arm", values="accuracy").reindex(columns=[a, b])
        unpaired = pairs.index[pairs.isna().any(axis=1)].tolist()
        if unpaired:
            place = ", ".join(f"{key} = {value}" for key, value in cell.items()) or "all rows"
            raise ValueError(
                f"{a} against {b} ({place}): seeds {unpaired} occur in one arm only; "
                "run the missing ones, or keep what all arms share with common_seeds()"
            )
        # Rounded, so that equal means of differently ordered sums tie instead of differing by 1e-17.
        differences = (pairs[a] - pairs[b]).to_numpy(float).round(12)
        rows.append({**cell, "a": a, "b": b, **_paired_statistics(differences, margin, seed)})
    return pd.DataFrame(rows)


def compare_pairs(
    accuracies: pd.DataFrame,
    primary: Sequence[tuple[str, str]],
    exploratory: Sequence[tuple[str, str]] = (),
    by: Sequence[str] = ("architecture",),
    margin: float = MARGIN,
    seed: int = 0,
) -> pd.DataFrame:
    """Those of the planned pairs ``(a, b)`` whose arms are both there, by the seeds that both have.

    The rows of ``paired_difference`` with ``primary``, ``p_holm`` and ``verdict``; no pair there: no rows. Contrasts
    fixed before the study (``primary``) keep their p value; all other rows are exploratory and share one Holm
    correction. The verdict is the better arm or equality, at the 5 % level. It uses ``p_holm``: among k exploratory
    rows it can name a better arm only if 2 k / 2^n <= 0.05, and it states the n needed where there are too few pairs,
    at least six.
    """
    present, tables = set(accuracies["arm"].dropna()), []
    for pairs, first in ((primary, True), (exploratory, False)):
        for a, b in pairs:
            if not {a, b} <= present:
                continue
            shared = common_seeds(accuracies[accuracies["arm"].isin([a, b])], by)
            if len(shared):
                row = paired_difference(shared, a, b, by, margin, seed)
                tables.append(row.assign(primary=first))
    if not tables:
        return pd.DataFrame(columns=[*by, "a", "b", "n", "difference", "t_low", "t_high", "verdict", "primary"])
    return _holm(pd.concat(tables, ignore_index=True), margin)


def _holm(table: pd.DataFrame, margin: float) -> pd.DataFrame:
    """Adds ``p_holm`` (corrected among the exploratory rows) and the verdicts that follow from it."""
    table["p_holm"] = table["p_value"]
    exploratory = ~table["primary"].astype(bool)
    if exploratory.any():
        table.loc[exploratory, "p_holm"] = multipletests(table.loc[exploratory, "p_value"], method="holm")[1]
    table["verdict"] = _verdicts(table, table["p_holm"], margin, np.where(exploratory, exploratory.sum(), 1))
    return table


def common_seeds(accuracies: pd.DataFrame, by: Sequence[str] = ("architecture",)) -> pd.DataFrame:
    """The rows whose seed every arm has, cell by cell: what can be paired while some runs are missing."""
    require_columns(accuracies, ["arm", *by, "seed"])
    kept = []
    for _, group in cells(accuracies, by):
        arms = group.groupby("seed")["arm"].nunique()
        kept.append(group[group["seed"].isin(arms.index[arms == accuracies["arm"].nunique()])])
    return pd.concat(kept).sort_index()


def _paired_statistics(differences: np.ndarray, margin: float, seed: int) -> dict[str, float]:
    n, spread = len(differences), np.ptp(differences) > 0
    t_low, t_high = t_interval(differences)
    zeros = np.zeros(n)
    return {
        "n": n,
        "difference": differences.mean(),
        "std": std(differences),
        "t_low": t_low,
        "t_high": t_high,
        "p_value": _sign_flip_p(differences, seed),
        "improvement": np.mean((differences > 0) + 0.5 * (differences == 0)),
        "p_equivalence": ttost_paired(differences, zeros, -margin, margin)[0] if spread else math.nan,
    }


def _sign_flip_p(differences: np.ndarray, seed: int) -> float:
    if len(differences) == 1:
        return 1.0  # both signs are equally extreme; scipy asks for two observations
    # Exchanging a difference with its zero partner flips its sign in "first mean minus second mean".
    # The statistic is rounded, so that flips with the same sum count as ties.
    result = stats.permutation_test(
        (differences, np.zeros_like(differences)),
        lambda x, y, axis: (x - y).mean(axis=axis).round(12),
        permutation_type="samples",
        n_resamples=2 ** min(len(differences), EXACT_PAIRS),
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def _verdicts(table: pd.DataFrame, p_values: pd.Series, margin: float, families: np.ndarray) -> list[str]:
    """In words, row by row; ``families`` counts the tests that each p value is adjusted for."""
    verdicts = []
    for row, p, tests in zip(table.itertuples(), p_values, families, strict=True):
        if row.n < MIN_PAIRS:
            verdicts.append(f"no verdict (n < {MIN_PAIRS})")
        elif p < LEVEL:
            verdicts.append(f"{row.a if row.difference > 0 else row.b} better")
        elif row.p_equivalence < LEVEL:
            verdicts.append(f"equal (±{100 * margin:g} points)")
        elif row.n < (needed := math.ceil(math.log2(2 * tests / LEVEL))):
            verdicts.append(f"no verdict (n < {needed})")
        else:
            verdicts.append("undecided")
    return verdicts
