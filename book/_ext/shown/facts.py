"""The numbers that prose may name, by arm or contrast: what ``{num}`` reads."""

import math
from collections.abc import Callable, Mapping
from functools import cache

import pandas as pd

from ddlib.study import cases
from ddlib.study.alphas import chosen_alphas
from ddlib.study.statistics import set_means, summary

from .findings import Findings

Facts = dict[str, dict[str, object]]


@cache
def of_arms(found: Findings) -> Facts:
    """Per cent, by arm, and by arm and architecture, such as ``clom by VGG-11``."""
    facts = {row["arm"]: {key: row[key] for key in ("mean", "low", "high", "n")} for _, row in found.arms.iterrows()}
    if found.records.empty:
        return facts
    by_name = summary(found.records, ["arm", "architecture"]).to_dict("records")
    return facts | {f"{row['arm']} by {row['architecture']}": {"mean": 100 * row["mean"]} for row in by_name}


@cache
def of_costs(found: Findings) -> Facts:
    """PTM passes and seconds, by arm."""
    return found.costs.to_dict("index")


@cache
def of_contrasts(found: Findings) -> Facts:
    """Points, by contrast."""
    return {name: numbers(row) for name, row in found.named_contrasts.items()}


@cache
def of_architectures(found: Findings) -> Facts:
    """Points, by contrast and architecture."""
    return {name: numbers(row) for name, row in found.named_by_architecture.items()}


@cache
def of_alphas(found: Findings) -> Facts:
    """Of the best alpha of each arm on the hold-out: per cent, its gain over no guidance, and the next larger."""
    grid = found.alpha_grids.get(cases.USUAL)
    return {} if grid is None else best_alphas(grid)


KINDS: dict[str, Callable[[Findings], Facts]] = {
    "arms": of_arms,
    "costs": of_costs,
    "contrasts": of_contrasts,
    "judged": of_architectures,
    "alphas": of_alphas,
}


def numbers(row: Mapping[str, object]) -> dict[str, object]:
    """Of a contrast, in points; ``size`` is without a sign."""
    points = {"points": row["difference"], "low": row["t_low"], "high": row["t_high"]}
    rest = {
        "size": abs(100 * row["difference"]),
        "n": row["n"],
        "p": row["p_value"],
        "above": row["improvement"],
        "verdict": row["verdict"],
    }
    return {**{key: 100 * value for key, value in points.items()}, **rest}


def best_alphas(grid: pd.DataFrame) -> Facts:
    """Of guided arms ``alpha``, ``mean`` (per cent), ``n``, ``gain``, ``beyond`` and ``short`` (points, what the next
    larger and smaller alpha change); of ``none`` the mean."""
    sets = set_means(grid.fillna({"alpha": 0}), ["arm", "alpha"])
    sets = 100 * sets.pivot_table(index="seed", columns=["arm", "alpha"], values="accuracy")
    facts: Facts = {"none": {"mean": sets["none"].mean().iloc[0]}} if "none" in sets else {}
    for arm, row in chosen_alphas(grid).iterrows():
        line = sets[arm].dropna()  # the seeds that all its alphas have
        best = line[row["alpha"]]
        larger, smaller = line.columns[line.columns > row["alpha"]], line.columns[line.columns < row["alpha"]]
        facts[arm] = {"alpha": row["alpha"], "mean": best.mean(), "n": row["n"]}
        facts[arm]["gain"] = (best - sets["none"].squeeze(axis=1)).mean() if "none" in sets else math.nan
        facts[arm]["beyond"] = (line[larger.min()] - best).mean() if len(larger) else math.nan
        facts[arm]["short"] = (line[smaller.max()] - best).mean() if len(smaller) else math.nan
    return facts
