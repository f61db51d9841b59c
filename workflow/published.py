"""Accuracies that somebody published, beside those of a sweep: the key ``published`` of an arm in a grid.

It is no parameter: it shapes no run, and changing it runs nothing again.
"""

import math
from collections.abc import Iterator, Mapping
from numbers import Real
from pathlib import Path

import pandas as pd

from ddlib.disk.files import replacing
from ddlib.study.allowed import counted
from ddlib.study.record import read_record
from workflow.plan import Grid, Job

PUBLISHED = "published"
EVALUATIONS = {"augmented": True, "plain": False}  # networks trained with DSA augmentation, or without
ARCHITECTURE = "ConvNet-3"  # of all published numbers
COLUMNS = ("dataset", "arm", "base_method", "evaluation", "n", "mean", "sd", "published", "difference")


def wrong_with_published(published: object, parameters: Mapping[str, object]) -> str:
    """Why an arm cannot be compared with these numbers; empty if it can."""
    if not isinstance(published, Mapping) or not set(published) <= set(EVALUATIONS):
        return f"{PUBLISHED} is {published!r}; expected accuracies such as {{augmented: 48.9, plain: 26.0}}"
    numbers = [value for value in published.values() if isinstance(value, Real) and not isinstance(value, bool)]
    if len(numbers) < len(published) or not all(0 <= value <= 100 for value in numbers):
        return f"{PUBLISHED} is {published!r}; expected percent, from 0 to 100"
    if published and ARCHITECTURE not in counted(parameters["architectures"]):
        return f"{PUBLISHED} is the accuracy of {ARCHITECTURE}, which is not among architectures"
    if "plain" in published and parameters["eval_epochs_plain"] is None:
        return f"{PUBLISHED} has a plain accuracy, and eval_epochs_plain says that there is no such training"
    return ""


def published_table(grid: Grid, any_code: bool = False) -> pd.DataFrame:
    """A row for each published number: the mean of our sets in percent, its spread over sets, and the difference.

    Of records of other code than today's only if ``any_code``, as those are that a book keeps.
    """
    arms: dict[tuple[str, str], list[Job]] = {}
    for job in grid.jobs:
        if job.published:
            arms.setdefault((job.notebook, job.arm), []).append(job)
    return pd.DataFrame([row for jobs in arms.values() for row in _rows(grid, jobs, any_code)], columns=COLUMNS)


def _rows(grid: Grid, jobs: list[Job], any_code: bool) -> Iterator[dict[str, object]]:
    """Of one arm."""
    found = [accuracies for job in jobs for accuracies in _accuracies(grid, job, any_code)]
    for evaluation, accuracy in jobs[0].published.items():
        chosen = [table[table["augment"] == EVALUATIONS[evaluation]]["accuracy"] for table in found]
        means = pd.Series([100 * values.mean() for values in chosen if len(values)], dtype=float)
        mean = means.mean() if len(means) else math.nan
        yield {
            "dataset": jobs[0].parameters["dataset"],
            "arm": jobs[0].arm,
            "base_method": jobs[0].parameters["base_method"],
            "evaluation": evaluation,
            "n": len(means),
            "mean": mean,
            "sd": means.std(),
            "published": float(accuracy),
            "difference": mean - accuracy,
        }


def _accuracies(grid: Grid, job: Job, any_code: bool) -> Iterator[pd.DataFrame]:
    """Those of the architecture, for each set that is there and was made by the code of the sweep, or by any."""
    for path in map(grid.folder.joinpath, job.records):
        try:
            record = read_record(path)
        except (OSError, ValueError):
            continue
        if any_code or record["code_hash"] == job.made_with["code"]:
            table = record["accuracies"]
            yield table[table["architecture"] == ARCHITECTURE]


def published_text(table: pd.DataFrame) -> str:
    """The table for a terminal."""
    told = table.assign(**{"ours": [_mean_and_spread(*row) for row in table[["mean", "sd"]].itertuples(index=False)]})
    told = told[["dataset", "arm", "evaluation", "n", "ours", "published", "difference"]]
    return told.to_string(index=False, na_rep="", float_format="{:.1f}".format)


def _mean_and_spread(mean: float, spread: float) -> str:
    if math.isnan(mean):
        return ""
    return f"{mean:.1f}" if math.isnan(spread) else f"{mean:.1f} ({spread:.1f})"


def write_published(grid: Grid) -> Path:
    """The table as published.csv in the folder of the sweep."""
    path = grid.folder / "published.csv"
    with replacing(path) as temporary:
        published_table(grid).to_csv(temporary, index=False)
    return path
