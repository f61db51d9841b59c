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
from scipy import stats

LEVEL = 0.05  # intervals cover 1 - LEVEL, tests are read at LEVEL
MARGIN = 0.01  # "no difference" means: within one percentage point
# Columns that differ between runs of one setting anyhow, and so do not explain why a network occurs twice.
IDENTITY = ("run", "created", "parameter_hash", "synthetic_hash")
MEASURED = ("accuracy", "seconds", "ptm_passes", "peak_memory_mb")


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
    """
    by = list(by)
    require_columns(accuracies, [*by, "seed", "accuracy"])
    _require_one_setting(accuracies, by)
    groups = accuracies.groupby([*by, "seed"], dropna=False)["accuracy"]
    return groups.agg(accuracy="mean", networks="size").reset_index()


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

    Returns: columns of ``by``, ``between``, ``within`` (squared fractions), ``n`` (sets), ``networks``. NaN
    where a component cannot be estimated (one set; one network in every set).
    Raises:
        ValueError: a cell mixes architectures, whose differences would pass for spread between networks.
    """
    require_columns(accuracies, [*by, "seed", "accuracy"])
    _require_one_setting(accuracies, by)
    rows = []
    for cell, group in cells(accuracies, by):
        if "architecture" in group and group["architecture"].nunique() > 1:
            names = ", ".join(sorted(group["architecture"].unique()))
            raise ValueError(
                f"variance_components: a cell mixes the architectures {names}; "
                "choose one, or add 'architecture' to `by`"
            )
        sets = _networks_of_sets(group)
        between, within = _components(sets)
        rows.append({**cell, "between": between, "within": within, "n": len(sets), "networks": len(group)})
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


def _components(sets: list[np.ndarray]) -> tuple[float, float]:
    n, sizes = len(sets), np.array([len(s) for s in sets])
    total = sizes.sum()
    if total == n:
        return math.nan, math.nan
    within = sum(((s - s.mean()) ** 2).sum() for s in sets) / (total - n)
    if n == 1:
        return math.nan, within
    grand = np.concatenate(sets).mean()
    mean_square_between = sum(len(s) * (s.mean() - grand) ** 2 for s in sets) / (n - 1)
    typical_size = (total - (sizes**2).sum() / total) / (n - 1)
    return max(0.0, (mean_square_between - within) / typical_size), within


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
