"""Tables of results: head and rows of each kind, and their HTML, which a phone shows as a card for each row."""

from collections.abc import Collection, Mapping
from html import escape
from typing import NamedTuple

import pandas as pd

from ddlib.base_methods import BASE_METHODS
from ddlib.guidance import GUIDANCE
from ddlib.study import runs
from ddlib.study.alphas import chosen_alphas
from ddlib.study.arms import Arm
from ddlib.study.cases import USUAL
from ddlib.study.tables import accuracy_table, contrast_table, equal_methods_table, spread_table
from ddlib.study.words import interval, signed, weight

from . import outcomes
from .findings import SIMPLE, Findings
from .sentences import row_address


class Cells(NamedTuple):
    """What a table shows, as texts."""

    head: list[str]
    rows: list[list[str]]
    caption: str = ""


BREAK = "\n"  # of a line within a cell, where there is room for columns
WORDS = ("arm", "verdict", "PTMs", "edge of the grid", "expected", "outcome", "and for", "others, points")  # columns
PRIMARY = " (primary)"


def html_table(head: list[str], rows: list[list[str]], caption: str = "", called: str = "") -> str:
    """The first column names the row; in a table that is ``called`` something each has an address (``row_address``)."""
    columns = "".join(f'<th scope="col"{kind(name)}>{escape(name)}</th>' for name in head)
    body = ""
    for row in rows:
        cells = "".join(
            f'<td data-label="{escape(name)}"{kind(name)}>{escape(cell).replace(BREAK, " <br>")}</td>'
            for name, cell in zip(head[1:], row[1:], strict=True)
        )
        about = ' class="primary"' if row[0].endswith(PRIMARY) else ""
        about += f' id="{row_address(called, row[0].removesuffix(PRIMARY))}"' if called else ""
        body += f'<tr{about}><th scope="row">{escape(row[0])}</th>{cells}</tr>'
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<table class="results">{above}<thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table>\n'


def kind(name: str) -> str:
    """Columns of words have more room than columns of numbers."""
    return ' class="words"' if name in WORDS else ""


def contrast_cells(found: Findings) -> Cells:
    """All planned contrasts whose arms are there."""
    if found.contrasts.empty:
        return Cells([], [])
    table = contrast_table(found.contrasts).assign(verdict=found.contrasts["verdict"].to_numpy())  # these may wrap
    names = [name + PRIMARY * (kind == "primary") for name, kind in table["planned"].items()]
    head = ["points", "95 % interval", "n", "verdict", "p", "p (Holm)", "p equal", "p equal (Holm)"]
    rows = [[name, *map(str, row)] for name, *row in zip(names, *(table[column] for column in head), strict=True)]
    return Cells(["contrast", *head], rows)


def simple_cells(found: Findings) -> Cells:
    """The four differences within the 2 x 2 of losses, with intervals and without verdicts."""
    rows = []
    for a, b in SIMPLE:
        row = next((row for row in of_reference(found) if (row["a"], row["b"]) == (a, b)), None)
        if row:
            points = signed(100 * row["difference"]), interval(100 * row["t_low"], 100 * row["t_high"]) or "–"
            rows.append([row["contrast"], *points, str(row["n"])])
    return Cells(["difference", "points", "95 % interval", "n"], rows)


def twin_cells(found: Findings) -> Cells:
    """How far networks lie apart that were trained on sets of two strategies which are one method."""
    records = runs.load_runs(found.folder)[0] if found.lasting else pd.DataFrame()
    table = equal_methods_table(records, found.chapter.notebook) if len(records) else records
    rows = [
        [name.partition(", ")[2], signed(row["mean"]), f"{row['largest']:.2f}", str(int(row["networks"]))]
        for name, row in table.iterrows()
    ]
    return Cells(["judged by", "mean difference, points", "largest", "networks"], rows)


def of_reference(found: Findings) -> list[dict[str, object]]:
    """Rows of the architecture that contrasts are about."""
    table = found.by_architecture
    return table[table["architecture"].isin(found.reference["architecture"])].to_dict("records") if len(table) else []


def transfer_cells(found: Findings) -> Cells:
    """Contrasts by architectures, with intervals and without verdicts."""
    table = found.by_architecture
    sizes = sorted(table["n"].unique()) if len(table) else []
    rows = []
    for name, cells in table.groupby("contrast", sort=False):
        by_name = {cell["architecture"]: cell for cell in cells.to_dict("records")}
        texts = [points_of(by_name.get(architecture), sizes) for architecture in table["architecture"].unique()]
        texts = [text.replace(" [", f"{BREAK}[") for text in texts]
        rows.append([name + PRIMARY * bool(cells["primary"].any()), *texts])
    counted = f", n = {sizes[0]}" if len(sizes) == 1 else ""
    caption = f"Points and their 95 % interval{counted}, judged by each architecture"
    return Cells(["contrast", *table["architecture"].unique()], rows, caption)


def points_of(row: Mapping[str, object] | None, sizes: Collection[int] = ()) -> str:
    """An estimate with its interval, and with n where there are several ``sizes``."""
    if row is None:
        return "–"
    counted = f" (n = {row['n']})" if len(sizes) > 1 else ""
    bounds = interval(100 * row["t_low"], 100 * row["t_high"])
    return f"{signed(100 * row['difference'])} {bounds}".strip() + counted


def outcome_cells(found: Findings) -> Cells:
    """What was expected of each planned contrast, and what was found."""
    key = found.chapter.key
    rows = []
    for row in found.contrasts.to_dict("records"):
        name = f"{row['a']} - {row['b']}"
        expected, size = outcomes.expectations(key).get(name), outcomes.expected_sizes(key).get(name)
        if expected is None:  # of smoke runs: an arm that the study leaves out
            continue
        measured = points_of(row)
        result = outcomes.outcome(expected, row, size) if found.lasting else "open: smoke runs"
        predicted = " or ".join(outcomes.SIGNS[sign] for sign in expected)
        rows.append(
            [row["contrast"], ", ".join(filter(None, [predicted, outcomes.in_numbers(size)])), measured, result]
        )
        if row["primary"]:
            rows[-1][0] += PRIMARY
    return Cells(["contrast", "expected", "found, points", "outcome"], rows)


def by_arm(table: pd.DataFrame) -> Cells:
    """A table with a row for each arm; what its cells are stands above it."""
    rows = [[str(name), *map(str, row)] for name, row in zip(table.index, table.to_numpy(), strict=True)]
    return Cells(["arm", *map(str, table.columns)], rows, str(table.columns.name or ""))


def arm_cells(found: Findings) -> Cells:
    """Mean accuracies of all networks, arms by architectures."""
    if found.records.empty:
        return Cells([], [])
    return by_arm(accuracy_table(found.records, found.failed, found.in_order))


def cost_cells(found: Findings) -> Cells:
    """What a set of each distilled arm costs, medians; the PTMs are those that it asks."""
    parts = {"passes": "PTM passes", "distill": "distillation, s", "ptms": "training of its PTMs, s"}
    rows = [[Arm.named(arm).label, *(f"{cost[part]:,.0f}" for part in parts)] for arm, cost in found.costs.iterrows()]
    return Cells(["arm", *parts.values()], rows, "A synthetic set, median over sets") if rows else Cells([], [])


def alphas_in_use_cells(found: Findings) -> Cells:
    """The alpha of each guided arm, and the learning rate of the pixels beside it."""
    rows = []
    for name in found.in_order(found.reference["arm"].unique()) if len(found.reference) else []:
        row, losses = found.reference[found.reference["arm"] == name].iloc[0], GUIDANCE[Arm.named(name).guidance]
        if losses:
            rate = BASE_METHODS[row["base_method"]].lr_img if pd.isna(row["lr_img"]) else row["lr_img"]
            alphas = " + ".join(weight(row[f"alpha_{loss}"]) for loss in losses)
            rows.append([Arm.named(name).label, alphas, f"{rate:g}"])
    return Cells(["arm", "alpha", "learning rate"], rows)


def spread_cells(found: Findings) -> Cells:
    """Standard deviations in points: between sets, with or without the pools of PTMs, and between networks of a set."""
    if found.reference.empty:
        return Cells([], [])
    replicated = found.reference[[Arm.named(arm).replicated for arm in found.reference["arm"]]]
    return by_arm(spread_table(replicated, found.in_order))


def alpha_cells(found: Findings) -> Cells:
    """The alpha that the hold-out chooses for each arm, in every case of a grid of alphas."""
    rows = []
    for case, grid in found.alpha_grids.items():
        for arm, row in chosen_alphas(grid).iterrows():
            label = Arm.named(arm).label if case == USUAL else f"{case}: {Arm.named(arm).label}"
            edge = "the last that was tried" if row["edge"] else ""
            rows.append([label, weight(row["alpha"]), f"{100 * row['accuracy']:.1f}", str(row["n"]), edge])
    return Cells(["arm", "alpha", "hold-out accuracy, %", "n", "edge of the grid"], rows)


KINDS = {
    "contrasts": contrast_cells,
    "outcomes": outcome_cells,
    "simple": simple_cells,
    "twins": twin_cells,
    "transfer": transfer_cells,
    "arms": arm_cells,
    "costs": cost_cells,
    "alphas-in-use": alphas_in_use_cells,
    "spread": spread_cells,
    "alphas": alpha_cells,
}
