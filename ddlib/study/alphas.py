"""Which alpha a hold-out chooses, from the records of a grid of alphas, and whether runs on test images keep it."""

import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from ddlib.guidance import GUIDANCE
from ddlib.study.arms import Arm, ordered
from ddlib.study.runs import ALPHAS, keys_of, load_runs, setting_columns, stacked
from ddlib.study.statistics import summary
from ddlib.study.words import weight

# What a grid of alphas may do without, for it looks at one network alone: these may differ from the setting's.
SPARED = ("evaluate_on", "architectures", "num_eval", "eval_epochs_plain", "full_epochs", "judges")


def alpha_folders(folder: str | Path) -> list[Path]:
    """Where the hold-out runs of a sweep lie: its own and those of its profile, as far as folders hold records.

    Of ``sweeps/desk-ensemble`` these are ``sweeps/desk-ensemble-alpha`` and ``sweeps/desk-alpha``.
    """
    folder = Path(folder)
    names = dict.fromkeys(f"{name}-alpha" for name in (folder.name, folder.name.partition("-")[0]))
    return [path for path in map(folder.with_name, names) if any(path.glob("*.json"))]


def load_held_out(folder: str | Path) -> pd.DataFrame:
    """The records from which the alphas of a sweep were chosen (``alpha_folders``); no rows if there are none."""
    return stacked(*(load_runs(path)[0] for path in alpha_folders(folder)), pd.DataFrame())


def alpha_grid(
    records: pd.DataFrame, setting: int, base_method: str = "dm", held_out: pd.DataFrame | None = None
) -> pd.DataFrame:
    """The hold-out runs that share all but the alphas with a setting, with a column ``alpha``.

    They stand among the records, or in a table of their own (``load_held_out``), and may be evaluated with fewer
    networks. ``alpha`` is the one alpha that an arm uses, and NaN without guidance; arms with both losses have two, so
    no curve, and are left out, as are real images. No rows unless some arm has several alphas.
    """
    apart = held_out is not None and not held_out.empty
    together = stacked(records, held_out.assign(setting=-1)) if apart else records
    columns = [name for name in setting_columns(together) if name not in {*ALPHAS.values(), *SPARED}]
    keys = keys_of(together, columns)
    shared = together[keys == keys[together["setting"] == setting].iloc[0]]
    grid = shared[(shared.get("evaluate_on") == "holdout") & shared["augment"]]
    grid = grid[grid["base_method"].isin([base_method, "none"])]
    grid = grid[grid["guidance"].isin([name for name, losses in GUIDANCE.items() if len(losses) < 2])]
    grid = grid.assign(alpha=[row.get(ALPHAS.get(GUIDANCE[row["guidance"]]), math.nan) for _, row in grid.iterrows()])
    # A run is there once for each value of the alpha that it does not use.
    grid = grid.drop_duplicates(["arm", "num_ptms", "alpha", "seed", "architecture", "network"])
    return grid if (grid.groupby("arm")["alpha"].nunique() > 1).any() else grid.head(0)


def unguided(grid: pd.DataFrame) -> pd.Series:
    """Which rows of a grid are without guidance: an alpha of 0 is none."""
    return (grid["arm"] == Arm().name) | (grid["alpha"] == 0)


CHOSEN = ["alpha", "parameter", "accuracy", "n", "edge"]


def chosen_alphas(grid: pd.DataFrame) -> pd.DataFrame:
    """Which alpha the hold-out chooses for each arm of a grid (``alpha_grid``, of one architecture), a row each.

    That with the best mean accuracy over the seeds that all alphas of the arm have; of equal ones the smallest. Alpha 0
    is no guidance, and can be chosen too where it was run. An arm without a common seed has no row.

    Returns: ``alpha``, ``parameter`` (its name), ``accuracy`` (mean, a fraction), ``n`` (sets), ``edge`` (the smallest
    or the largest that was run, so a better one may lie beyond), by arm.
    """
    guided = grid[grid["alpha"].notna() & (grid["arm"] != Arm().name)] if len(grid) else grid
    if guided.empty:
        return pd.DataFrame(columns=CHOSEN)
    rows: dict[str, dict[str, object]] = {}
    for arm, runs in guided.groupby("arm"):
        common = set.intersection(*runs.groupby("alpha")["seed"].agg(set))
        if not common:
            continue
        cells = summary(runs[runs["seed"].isin(common)], ["alpha"])
        best = cells.sort_values("alpha").loc[lambda line: line["mean"].round(12).idxmax()]
        rows[arm] = {
            "alpha": best["alpha"],
            "parameter": ALPHAS[GUIDANCE[Arm.named(arm).guidance]],
            "accuracy": best["mean"],
            "n": int(best["n"]),
            "edge": best["alpha"] in (cells["alpha"].min(), cells["alpha"].max()),
        }
    return pd.DataFrame.from_dict(rows, orient="index", columns=CHOSEN)


def unchosen_alphas(records: pd.DataFrame, chosen: pd.DataFrame) -> list[str]:
    """A line for each guided arm on the test split whose alpha is not the one that the hold-out chose.

    ``chosen`` is that of ``chosen_alphas``. What a loss alone or a strategy was not chosen for itself, it has from the
    loss with a base loss and one PTM; ``both`` has that of each of its losses.
    """
    tested = records[records["evaluate_on"] == "test"] if "evaluate_on" in records else records.head(0)
    lines = []
    for name in ordered(tested["arm"].unique()):
        arm = Arm.named(name)
        for loss in GUIDANCE.get(arm.guidance, ()):
            column = f"alpha_{loss}"
            there = sorted(tested.loc[tested["arm"] == name, column].dropna().unique()) if column in tested else []
            own = arm.name if arm.guidance == loss and arm.name in chosen.index else Arm(loss).name
            best = chosen["alpha"].get(own)
            if best is None and there:
                lines.append(f"{arm.label}: {column} {_listed(there)} was not chosen on a hold-out")
            elif there and there != [best]:
                lines.append(f"{arm.label}: {column} is {_listed(there)}, and the hold-out chose {weight(best)}")
    return lines


def _listed(numbers: Iterable[float]) -> str:
    return " and ".join(map(weight, numbers))
