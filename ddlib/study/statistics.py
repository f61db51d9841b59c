"""Statistics of ablations, where the unit of replication is the synthetic set (one distillation seed).

Twenty networks trained on one synthetic set tell how well that *set* does, not how well the *method* does:
five sets with twenty networks each are n = 5. So networks are averaged inside a set first, and intervals come
from the spread between sets. Accuracies are fractions in 0..1 throughout, one row per trained network, as
``runs.load_records`` returns them. ``contrasts`` compares arms with each other.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from scipy import integrate, optimize, stats

from ddlib.study.arms import Arm

# The rule for n, of tables, figures, grids and pages alike.
STUDY_SETS = 10  # of every arm of the two ablations; below it no bootstrap, whose intervals are too short there
MIN_PAIRS = 6  # of any verdict: below it the smallest exact two-sided p, 2 / 2^n, cannot fall under 0.05
LEVEL = 0.05  # intervals cover 1 - LEVEL, tests are read at LEVEL
MARGIN = 0.01  # "no difference" means: within one percentage point
POWER = 0.8  # with which a difference is said to be found
# Standard deviations of paired differences in a pilot (CIFAR-10, 10 images per class, 4 sets): to plan n by.
PILOT_STD = (0.003, 0.005, 0.007)
# Columns that differ between runs of one setting anyhow, and so do not explain why a network occurs twice.
IDENTITY = ("run", "created", "parameter_hash", "synthetic_hash")
MEASURED = ("accuracy", "balanced_accuracy", "class_accuracies", "guide_accuracy", "judge_accuracy")
MEASURED += ("seconds", "ptm_passes", "peak_memory_mb")


def set_means(accuracies: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """One row per synthetic set: the mean accuracy of its networks.

    Args:
        accuracies: one row per network with columns ``seed``, ``accuracy``, those of ``by``, and usually
            ``architecture`` and ``network``.
        by: columns that tell cells apart, for example ``["guidance", "architecture"]``.
    Returns: columns of ``by``, ``seed``, ``accuracy``, ``networks`` (how many were averaged), sorted.
    Raises:
        ValueError: a column is missing, or one network occurs twice in a cell, because then several settings
            (two alphas, evaluation with and without augmentation) would be averaged as if they were one.
    Sets that are equal for several seeds are one (``equal_sets_as_one``).
    """
    by = list(by)
    require_columns(accuracies, [*by, "seed", "accuracy"])
    _require_one_setting(accuracies, by)
    groups = equal_sets_as_one(accuracies).groupby([*by, "seed"], dropna=False)["accuracy"]
    return groups.agg(accuracy="mean", networks="size").reset_index()


def equal_sets_as_one(accuracies: pd.DataFrame) -> pd.DataFrame:
    """The same rows, where all networks that judge one set of an arm carry the smallest of its seeds.

    Herding, K-Center, k-means, class means and the full data give every seed the same set (``Arm.replicated``): so n
    is 1, however many seeds were run. Where records hold the hash of the set, equal hashes tell it, else the arm does.
    """
    if "arm" not in accuracies:
        return accuracies
    replicated = {arm: Arm.named(arm).replicated for arm in accuracies["arm"].unique()}
    by_arm = accuracies["arm"].map(replicated).map({True: None, False: "the same"})
    which = accuracies["synthetic_hash"].fillna(by_arm) if "synthetic_hash" in accuracies else by_arm
    one = which.notna()
    first = accuracies[one].groupby(["arm", which[one]])["seed"].transform("min")
    return accuracies.assign(seed=accuracies["seed"].where(~one, first).astype(accuracies["seed"].dtype))


def summary(accuracies: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Mean and spread over synthetic sets, one row per cell.

    Returns: columns of ``by``, ``mean``, ``std`` (between set means), ``n`` (sets), ``networks`` (in all),
    ``low`` and ``high`` (95 % t interval). One set has no spread: ``std``, ``low``, ``high`` are then NaN.
    """
    rows = []
    for cell, sets in cells(set_means(accuracies, by), by):
        values = sets["accuracy"].to_numpy()
        low, high = t_interval(values)
        rows.append(
            {
                **cell,
                "mean": values.mean(),
                "std": std(values),
                "n": len(values),
                "networks": int(sets["networks"].sum()),
                "low": low,
                "high": high,
            }
        )
    return pd.DataFrame(rows)


def variance_components(accuracies: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Variance between synthetic sets and between networks of one set, one row per cell.

    One-way random-effects analysis of variance; sets may have different numbers m_i of networks. With mean
    squares MSB and MSW: within = MSW, between = max(0, (MSB - MSW) / m), m = (N - sum m_i^2 / N) / (n - 1).
    Where each set has a pool of PTMs of its own (``own_pools``), ``between`` is that of sets and pools together: one
    set for each pool cannot tell the two apart.

    Returns: columns of ``by``, ``between``, ``within`` (squared fractions), ``n`` (sets), ``networks``, ``low`` and
    ``high``. NaN where a component cannot be estimated (one set; one network in every set). The last two are MSW times
    the 95 % limits of between / within by the F distribution, exact for normal sets of one size; 0 is no spread.
    Raises:
        ValueError: a cell mixes architectures, whose differences would pass for spread between networks.
    """
    require_columns(accuracies, [*by, "seed", "accuracy"])
    _require_one_setting(accuracies, by)
    rows = []
    for cell, group in cells(equal_sets_as_one(accuracies), by):
        if "architecture" in group and group["architecture"].nunique() > 1:
            names = ", ".join(sorted(group["architecture"].unique()))
            raise ValueError(
                f"variance_components: a cell mixes the architectures {names}; "
                "choose one, or add 'architecture' to `by`"
            )
        sets = _networks_of_sets(group)
        rows.append({**cell, **_components(sets), "n": len(sets), "networks": len(group)})
    return pd.DataFrame(rows)


def t_interval(values: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean by Student's t; NaN for fewer than two values.

    >>> [round(float(bound), 2) for bound in t_interval(np.array([1.0, 2.0, 3.0]))]
    [-0.48, 4.48]
    """
    if len(values) < 2:
        return math.nan, math.nan
    half = stats.t.ppf(1 - LEVEL / 2, len(values) - 1) * stats.sem(values)
    return values.mean() - half, values.mean() + half


def bca_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean by the BCa bootstrap; NaN below ``STUDY_SETS`` values, and without spread.

    With fewer it covers less than it says: in simulations 71 to 85 % for 3 to 6 values.
    """
    if len(values) < STUDY_SETS or np.ptp(values) == 0:
        return math.nan, math.nan
    draws = np.random.default_rng(seed)
    found = stats.bootstrap((values,), np.mean, confidence_level=1 - LEVEL, method="BCa", rng=draws)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def half_width(spread: float, n: int) -> float:
    """Half of the 95 % t interval of the mean of ``n`` values with that standard deviation.

    >>> round(half_width(0.5, 10), 2)
    0.36
    """
    return float(stats.t.ppf(1 - LEVEL / 2, n - 1) * spread / math.sqrt(n))


def power(difference: float, spread: float, n: int, tests: int = 1) -> float:
    """How probably the sign-flip test of ``n`` normal pairs finds a true mean difference, at ``LEVEL / tests``.

    ``tests`` above 1 is the most that Holm's correction can ask of a contrast. Where it lets pass the most extreme flip
    alone, all pairs must have one sign: exact. Else that of a t test at the level of so many flips, by the non-central
    t distribution: in simulations within two points of that of the flips.
    """
    flips = math.floor(LEVEL / tests * 2**n / 2 + 1e-9)  # so many of the 2^n, and as many with all signs exchanged
    if flips < 2:
        return float(flips * sum(stats.norm.cdf(sign * difference / spread) ** n for sign in (1, -1)))
    limit, shift = stats.t.isf(flips / 2**n, n - 1), difference / spread * math.sqrt(n)
    wrong_sign = np.nan_to_num(stats.nct.cdf(-limit, n - 1, shift))  # far out in its tail SciPy has no number
    return float(np.nan_to_num(stats.nct.sf(limit, n - 1, shift), nan=1) + wrong_sign)


def detectable(spread: float, n: int, tests: int = 1) -> float:
    """The smallest true mean difference that ``n`` pairs with that spread find with a probability of ``POWER``.

    Infinite where ``tests`` share a correction that so few pairs cannot pass.

    >>> round(detectable(0.5, 10), 2)
    0.5
    """
    if power(20 * spread, spread, n, tests) < POWER:
        return math.inf
    return float(optimize.brentq(lambda x: power(x, spread, n, tests) - POWER, 0, 20 * spread))


def equality_power(difference: float, spread: float, n: int, tests: int = 1, margin: float = MARGIN) -> float:
    """How probably ``n`` pairs are called equal by two one-sided t tests against ``margin``, each at ``LEVEL / tests``.

    The mean and the standard deviation of the pairs are independent: the integral is over the second.
    """
    limit, error = stats.t.ppf(1 - LEVEL / tests, n - 1), spread / math.sqrt(n)

    def inside(ratio: float) -> float:
        """How probably the mean lies where both tests succeed, if the spread found is ``ratio`` times the true."""
        room = margin - limit * ratio * error
        places = stats.norm.cdf([(room - difference) / error, (-room - difference) / error])
        return (places[0] - places[1]) * stats.chi.pdf(ratio * math.sqrt(n - 1), n - 1) * math.sqrt(n - 1)

    return float(integrate.quad(inside, 0, margin / (limit * error), limit=200)[0])


def own_pools(accuracies: pd.DataFrame) -> bool | None:
    """Whether the sets of an arm have a pool of PTMs each (True) or share one (False); None if there is no telling.

    There is none without PTMs, with one set, and where some sets share a pool and others do not.
    """
    if "ptm_hashes" not in accuracies or accuracies["seed"].nunique() < 2:
        return None
    pools = accuracies.drop_duplicates("seed")["ptm_hashes"].replace("", None)
    if pools.isna().any() or 1 < pools.nunique() < len(pools):
        return None
    return pools.nunique() > 1


def std(values: np.ndarray) -> float:
    """Sample standard deviation; NaN, not 0, for one value."""
    return values.std(ddof=1) if len(values) > 1 else math.nan


def cells(frame: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[dict[str, object], pd.DataFrame]]:
    """The groups of a table with the values that name each; the whole table for an empty ``by``."""
    if not by:
        yield {}, frame
        return
    for key, group in frame.groupby(list(by), dropna=False):
        yield dict(zip(by, key, strict=True)), group


def require_columns(frame: pd.DataFrame, columns: Sequence[str]) -> None:
    """Raises ValueError when columns are missing, when there are no rows, or when an accuracy is NaN."""
    missing = [column for column in columns if column not in frame]
    if missing:
        raise ValueError(f"columns {missing} are missing; the table has {list(frame.columns)}")
    if frame.empty:
        raise ValueError("the table of accuracies has no rows: was the selection too narrow?")
    if "accuracy" in columns and frame["accuracy"].isna().any():
        missing = frame["accuracy"].isna().sum()
        raise ValueError(f"{missing} accuracies are NaN: leave those runs out, and say so")


def _components(sets: list[np.ndarray]) -> dict[str, float]:
    n, sizes = len(sets), np.array([len(s) for s in sets])
    total = sizes.sum()
    found = dict.fromkeys(("between", "within", "low", "high"), math.nan)
    if total == n:
        return found
    within = sum(((s - s.mean()) ** 2).sum() for s in sets) / (total - n)
    if n == 1:
        return found | {"within": within}
    grand = np.concatenate(sets).mean()
    mean_square_between = sum(len(s) * (s.mean() - grand) ** 2 for s in sets) / (n - 1)
    typical_size = (total - (sizes**2).sum() / total) / (n - 1)
    upper, lower = stats.f.isf((LEVEL / 2, 1 - LEVEL / 2), n - 1, total - n)
    parts = {"between": 1.0, "low": upper, "high": lower}
    parts = {name: (mean_square_between / limit - within) / typical_size for name, limit in parts.items()}
    return {name: max(0.0, part) for name, part in parts.items()} | {"within": within}


def _networks_of_sets(group: pd.DataFrame) -> list[np.ndarray]:
    return [values.to_numpy(float) for _, values in group.groupby("seed")["accuracy"]]


def _require_one_setting(frame: pd.DataFrame, by: Sequence[str]) -> None:
    """Every network once per cell, as far as the columns ``architecture`` and ``network`` can tell."""
    if "network" not in frame:
        return
    identity = list(dict.fromkeys(c for c in (*by, "seed", "architecture", "network") if c in frame))
    repeated = frame[frame.duplicated(identity, keep=False)]
    if repeated.empty:
        return
    _, group = next(iter(repeated.groupby(identity, dropna=False)))
    varying = [
        f"{column} [{', '.join(group[column].map(str).unique())}]"
        for column in group.columns
        if column not in (*identity, *IDENTITY, *MEASURED)
        and not column.startswith("seconds_")
        and group[column].map(str).nunique() > 1
    ]
    place = ", ".join(f"{column} = {group[column].iloc[0]}" for column in identity)
    difference = f", which differ in {'; '.join(varying)}" if varying else ""
    raise ValueError(
        f"{len(group)} rows for {place}{difference}: select one setting, or name the differing column in `by`"
    )
