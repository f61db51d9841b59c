"""What a notebook shows of its runs: small tables and pictures."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from ddlib import plots
from ddlib.data import Dataset
from ddlib.pictures import side_by_side
from ddlib.ptm import PTM
from ddlib.study import Run


def ptm_table(ptms: Sequence[PTM]) -> pd.DataFrame:
    """What the pool is and what it costs: a row for each PTM."""
    return (
        pd.DataFrame(
            {
                "": [ptm.name for ptm in ptms],
                "trained on": [ptm.source_dataset for ptm in ptms],
                "test accuracy (%)": [None if ptm.accuracy is None else 100 * ptm.accuracy for ptm in ptms],
                "training (s)": [ptm.seconds for ptm in ptms],
                "storage (MB)": [ptm.size_bytes / 1e6 for ptm in ptms],
            }
        )
        .set_index("")
        .rename_axis(None)
    )


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


def picture(run: Run, data: Dataset, per_class: int = 10) -> Figure:
    """The images of one run, beside those it started from if it was distilled."""
    arms = {"synthetic images" if run.distilled else "chosen real images": run.synthetic.pixels}
    if run.distilled:
        arms = {"start": data.denormalise(run.distilled.snapshots[0]), **arms}
    return side_by_side(arms, run.synthetic.labels, data.class_names, min(per_class, 50 // len(arms)))


def curves(run: Run) -> Figure | str:
    """How the losses of one run went; baselines have none."""
    if run.distilled is None:
        return "Nothing was distilled: this arm is a baseline of real images."
    history = run.distilled.history
    columns = [name for name in ("base_loss", "guidance_loss") if history[name].any()]
    return plots.history(history, columns)
