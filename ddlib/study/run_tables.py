"""What a notebook shows of its own runs: PTMs, and accuracies of each set."""

import json
from collections.abc import Mapping, Sequence

import pandas as pd

from ddlib.ptms.ptm import PTM
from ddlib.study.record import read_record
from ddlib.study.run import Run


def ptm_table(ptms: Sequence[PTM]) -> pd.DataFrame:
    """What the pool is and what it costs: a row for each PTM."""
    return _card_table([ptm.card for ptm in ptms])


def recorded_ptm_table(records: pd.DataFrame) -> pd.DataFrame:
    """The PTMs of all runs in a table of records, a row for each; no rows if no run had any."""
    cards = {
        card["hash"]: card for text in records.get("ptms", pd.Series()).dropna().unique() for card in json.loads(text)
    }
    return _card_table(sorted(cards.values(), key=lambda card: (card["source_dataset"], card["name"])))


def _card_table(cards: Sequence[Mapping[str, object]]) -> pd.DataFrame:
    def percent(share: float | None) -> float | None:
        return None if share is None else 100 * share

    columns = {
        "trained on": [card["source_dataset"] for card in cards],
        "test accuracy (%)": [percent(card["accuracy"]) for card in cards],
        "training (s)": [card["seconds"] for card in cards],
        "on": [card["device"] for card in cards],
        "storage (MB)": [card["size_bytes"] / 1e6 for card in cards],
        "seed": [card["seed"] for card in cards],
        "hash": [card["hash"] for card in cards],
        "recipe": [_words(card["recipe"] or {}) for card in cards],
    }
    return pd.DataFrame(columns, index=[card["name"] for card in cards])


def _words(recipe: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in recipe.items() if value not in (None, "none"))


def mean_accuracies(runs: Sequence[Run]) -> pd.DataFrame:
    """Mean accuracy (%) of each set, a row for each seed and a column for each architecture."""
    rows = [run.accuracies.assign(seed=run.seed) for run in runs]
    table = pd.concat(rows)
    columns = ["architecture"] if table["augment"].nunique() == 1 else ["architecture", "augment"]
    means = 100 * table.pivot_table(index="seed", columns=columns, values="accuracy", sort=False)
    return means.rename_axis(index=None).rename(index="seed {}".format)


def tour_table(accuracies: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Mean and spread of the networks trained on each of some sets, in per cent."""
    columns = {name: 100 * table["accuracy"] for name, table in accuracies.items()}
    rows = {
        name: {"mean accuracy (%)": values.mean(), "std of networks": values.std(), "networks": len(values)}
        for name, values in columns.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").round(1)


def recognised_table(runs: Sequence[Run]) -> pd.DataFrame:
    """The share (%) of each set that its PTMs classify as it is labelled, a row for each seed and PTM.

    No rows for PTMs of other classes.
    """
    rows = [
        {"set": f"seed {run.seed}", "role": said["role"], "PTM": said["ptm"], "recognised (%)": 100 * said["accuracy"]}
        for run in runs
        for said in read_record(run.record)["ptm_accuracies"]
    ]
    return pd.DataFrame(rows, columns=["set", "role", "PTM", "recognised (%)"]).set_index(["set", "role", "PTM"])
