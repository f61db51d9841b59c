"""Arms compared within synthetic sets that share a seed: effect, intervals, tests, verdict, and their limits.

Sets with one seed start from the same images, see the same real batches and are judged by networks that start alike, so
much of their spread is shared and cancels in the difference. The unit stays the set. A contrast is a difference of two
arms or a weighted sum of more (``ablations.Contrast``).
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import ttost_paired

from ddlib.study.ablations import ABLATIONS, Contrast
from ddlib.study.arms import Arm
from ddlib.study.statistics import (
    LEVEL,
    MARGIN,
    MIN_PAIRS,
    bca_interval,
    cells,
    require_columns,
    set_means,
    std,
    t_interval,
)

NO_VERDICT, UNDECIDED = "no verdict", "undecided"
EXACT_PAIRS = 14  # up to here all 2^n sign patterns are enumerated, beyond it 2^14 are drawn
COLUMNS = ("contrast", "a", "b", "arms", "n", "difference", "t_low", "t_high", "verdict", "signs", "primary")
Planned = Contrast | tuple[str, str]


def planned_contrasts(
    records: pd.DataFrame, notebook: str, by: Sequence[str] = ("architecture",), untested: int = 0
) -> pd.DataFrame:
    """What the row of an ablation plans: its primary contrasts, then its exploratory ones (``compare``)."""
    row, arms = ABLATIONS[notebook], {Arm.named(name) for name in records["arm"].unique()}
    return compare(records, row.primary(arms), row.exploratory(arms), by, untested=untested)


def paired_difference(
    accuracies: pd.DataFrame,
    a: str,
    b: str,
    by: Sequence[str] = ("architecture",),
    margin: float = MARGIN,
    seed: int = 0,
) -> pd.DataFrame:
    """Arm ``a`` minus arm ``b``, paired by seed, one row per cell of ``by``: ``effect`` of two arms."""
    return effect(accuracies, Contrast.of(a, b), by, margin, seed)


def effect(
    accuracies: pd.DataFrame,
    contrast: Contrast,
    by: Sequence[str] = ("architecture",),
    margin: float = MARGIN,
    seed: int = 0,
) -> pd.DataFrame:
    """A contrast, computed within each seed, one row per cell of ``by`` (default: per architecture).

    With ``by=()`` the networks of all architectures present are averaged inside a set: select the transfer
    architectures first to get their mean.

    Returns:
        columns of ``by`` and
        ``contrast`` (in words), ``a`` and ``b`` (the arms that count for and against it), ``arms`` (all of them);
        ``n`` (seeds), ``difference`` (mean, a fraction), ``std`` (of the differences);
        ``t_low``, ``t_high``: 95 % t interval (NaN for n = 1);
        ``bca_low``, ``bca_high``: 95 % BCa interval, from ``STUDY_SETS`` on (else NaN);
        ``p_value``: two-sided sign-flip permutation test, exact up to 14 pairs, so never below 2 / 2^n, and from
        2^14 flips drawn by ``seed`` beyond;
        ``improvement``: probability of improvement, the share of seeds with a contrast above 0, ties counted half;
        ``p_equivalence``: two one-sided t tests against +-``margin`` (without spread 0 inside
        the margin, else 1; NaN for n = 1).
    Raises:
        ValueError: an arm is unknown, or seeds occur in some arms only (``common_seeds`` drops them).
    """
    require_columns(accuracies, ["arm", *by, "seed", "accuracy"])
    known = sorted(accuracies["arm"].dropna().unique())
    for arm in contrast.arms:
        if arm not in known:
            raise ValueError(f"no rows of arm {arm!r}; present: {', '.join(known)}")
    sets = set_means(accuracies[accuracies["arm"].isin(contrast.arms)], ["arm", *by])
    rows = []
    for cell, group in cells(sets, by):
        arms = group.pivot(index="seed", columns="arm", values="accuracy").reindex(columns=list(contrast.arms))
        unpaired = arms.index[arms.isna().any(axis=1)].tolist()
        if unpaired:
            place = ", ".join(f"{key} = {value}" for key, value in cell.items()) or "all rows"
            raise ValueError(
                f"{' against '.join(contrast.arms)} ({place}): seeds {unpaired} occur in some arms only; "
                "run the missing ones, or keep what all arms share with common_seeds()"
            )
        # Rounded, so that equal means of differently ordered sums tie instead of differing by 1e-17.
        differences = (arms.to_numpy(float) @ np.array(contrast.weights)).round(12)
        about = {"contrast": contrast.words, "a": contrast.a, "b": contrast.b, "arms": contrast.arms}
        rows.append({**cell, **about, **_paired_statistics(differences, margin, seed)})
    return pd.DataFrame(rows)


def compare(
    accuracies: pd.DataFrame,
    primary: Sequence[Planned],
    exploratory: Sequence[Planned] = (),
    by: Sequence[str] = ("architecture",),
    margin: float = MARGIN,
    seed: int = 0,
    untested: int = 0,
) -> pd.DataFrame:
    """Those of the planned contrasts, or pairs ``(a, b)``, whose arms are all there, by the seeds that all have.

    The rows of ``effect`` with ``primary``, ``p_holm``, ``p_equivalence_holm``, ``verdict`` (words) and ``signs`` (what
    it decides: "above" or "below", "equal", both or none); none there: no rows. Arms that are the same set for every
    seed are left out: with n = 1 there is nothing to pair.

    Contrasts fixed before the study (``primary``) keep their p values. All other rows are exploratory and share two
    Holm corrections, one of the tests for a difference and one of those for equality. The ``untested``, exploratory
    contrasts that were planned and have no row since all runs of an arm failed, count in both: a failure makes no
    family smaller. The verdict uses the corrected values, at the 5 % level: which arm is better, that they are equal,
    or both, where a difference is clear and clearly smaller than the margin. Among k exploratory contrasts of n seeds
    each it can name a better arm only if 2 k / 2^n <= 0.05, and it states the n that all would need where there are
    too few, at least ``MIN_PAIRS``.
    """
    present, tables = {arm for arm in accuracies["arm"].dropna().unique() if Arm.named(arm).replicated}, []
    for planned, first in ((primary, True), (exploratory, False)):
        for contrast in (item if isinstance(item, Contrast) else Contrast.of(*item) for item in planned):
            if not set(contrast.arms) <= present:
                continue
            shared = common_seeds(accuracies[accuracies["arm"].isin(contrast.arms)], by)
            if len(shared):
                words = {"above": contrast.above, "below": contrast.below, "same": contrast.equal}
                tables.append(effect(shared, contrast, by, margin, seed).assign(primary=first, **words))
    if not tables:
        return pd.DataFrame(columns=[*by, *COLUMNS])
    table = _holm(pd.concat(tables, ignore_index=True), untested)
    tests = np.where(table["primary"], 1, (~table["primary"]).sum() + untested)
    signs = [_signs(row) for row in table.itertuples()]
    verdicts = [_verdict(row, *of, margin) for row, *of in zip(table.itertuples(), signs, tests, strict=True)]
    return table.drop(columns=["above", "below", "same"]).assign(verdict=verdicts, signs=signs)


def _holm(table: pd.DataFrame, untested: int) -> pd.DataFrame:
    """With p values corrected among exploratory rows and ``untested`` more; an unknown one (NaN) stays, and counts."""
    corrected = {"p_value": "p_holm", "p_equivalence": "p_equivalence_holm"}
    exploratory = ~table["primary"].astype(bool)
    for raw, holm in corrected.items():
        table[holm] = table[raw]
        if exploratory.any():
            there = table.loc[exploratory, raw]
            values = multipletests([*there.fillna(1), *[1.0] * untested], method="holm")[1][: len(there)]
            table.loc[exploratory, holm] = np.where(there.isna(), math.nan, values)
    return table


def _signs(row: tuple) -> tuple[str, ...]:
    """What the tests of a row decide; nothing from few pairs."""
    if row.n < MIN_PAIRS:
        return ()
    side = ("above" if row.difference > 0 else "below",) if row.p_holm < LEVEL else ()
    return (*side, "equal") if row.p_equivalence_holm < LEVEL else side


def _verdict(row: tuple, signs: Sequence[str], tests: int, margin: float) -> str:
    """In words; ``tests`` is the number that the p values of the row are corrected for."""
    if signs == ("equal",):
        return f"{row.same} ({within(margin)})"
    if signs:
        better = row.above if signs[0] == "above" else row.below
        return f"{better}, within {within(margin)}" if "equal" in signs else better
    if row.n < MIN_PAIRS:
        return f"{NO_VERDICT} (n < {MIN_PAIRS})"
    needed = sets_needed(tests)
    return f"{NO_VERDICT} (n < {needed})" if row.n < needed else UNDECIDED


def within(margin: float = MARGIN) -> str:
    """The margin, as verdicts name it.

    >>> within(0.01), within(0.005)
    ('±1 point', '±0.5 points')
    """
    return f"±{100 * margin:g} point" + "s" * (100 * margin != 1)


def sets_needed(tests: int = 1) -> int:
    """How many seeds it takes until the smallest exact p, 2 / 2^n, can pass Holm's first step of ``tests`` contrasts.

    >>> [sets_needed(tests) for tests in (1, 4, 13, 25, 26)]
    [6, 8, 10, 10, 11]
    """
    return math.ceil(math.log2(2 * tests / LEVEL))


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
    (t_low, t_high), (bca_low, bca_high) = t_interval(differences), bca_interval(differences, seed)
    zeros = np.zeros(n)
    return {
        "n": n,
        "difference": differences.mean(),
        "std": std(differences),
        "t_low": t_low,
        "t_high": t_high,
        "bca_low": bca_low,
        "bca_high": bca_high,
        "p_value": _sign_flip_p(differences, seed),
        "improvement": np.mean((differences > 0) + 0.5 * (differences == 0)),
        "p_equivalence": ttost_paired(differences, zeros, -margin, margin)[0]
        if spread
        else _p_without_spread(differences, margin),
    }


def _p_without_spread(differences: np.ndarray, margin: float) -> float:
    """Of two one-sided tests where all differences are the same: nothing is left to chance. NaN for a single one."""
    return math.nan if len(differences) == 1 else float(abs(differences[0]) >= margin)


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
