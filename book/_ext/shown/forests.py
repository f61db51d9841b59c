"""Forests: planned contrasts as rows of words, interval and mean, with the margin of equality as a band."""

import altair as alt
import pandas as pd

from ddlib.study.arms import Arm
from ddlib.study.contrasts import compare
from ddlib.study.statistics import MARGIN
from ddlib.study.words import estimate, interval, p_value, signed

from .charts import INK, Drawn, Lanes, folded, unbroken
from .findings import Findings
from .waiting import without_early_verdicts

SHOWN = ["contrast", "difference", "low", "high", "points", "interval", "n", "p", "verdict", "decided", "spoken"]
POINTS = "difference of test accuracy, percentage points"


def primary(found: Findings) -> Drawn | None:
    """The primary contrasts: mean, interval, margin of equality."""
    return of_contrasts(found.primary)


def others(found: Findings) -> Drawn | None:
    """The exploratory contrasts.

    What real images are worth is in the table alone: so large a difference would squeeze all others.
    """
    table = found.contrasts
    if len(table):
        distilled = table["b"].map(lambda arm: not Arm.named(arm).selection)
        table = table[~table["primary"].astype(bool) & distilled]
    return of_contrasts(table)


def effects(found: Findings) -> Drawn | None:
    """The contrasts of four arms: distance, form, interaction."""
    table = found.contrasts
    return of_contrasts(table[table["arms"].map(len) > 2] if len(table) else table)


def architectures(found: Findings) -> Drawn | None:
    """The primary contrasts judged by each architecture: intervals, and no verdicts."""
    table = found.by_architecture
    table = table[table["primary"].astype(bool)]
    return of_contrasts(table.assign(contrast=table["contrast"] + ", " + table["architecture"]))


def growing(found: Findings) -> Drawn | None:
    """What the first n sets say on each primary contrast, with a slider for n."""
    table = found.primary
    if table.empty:
        return None
    pairs = list(zip(table["a"], table["b"], strict=True))
    arms = found.reference.groupby("seed")["arm"].agg(set)
    seeds = [seed for seed, there in arms.items() if any({*pair} <= there for pair in pairs)]
    most, rows = len(seeds), []
    if most < 3:
        return None  # a slider with one place
    for n in range(2, most + 1):
        some = compare(found.reference[found.reference["seed"].isin(seeds[:n])], pairs)
        told = contrast_rows(without_early_verdicts(some, found.unfinished)).assign(first=n)
        rows.append(told if n == most else told.assign(verdict=told["verdict"] + " (not the test)"))
    data = pd.concat(rows, ignore_index=True)
    data["text"] = (data["label"].str.replace("\n", " ") + ": " + data["verdict"]).map(folded)
    slider = alt.param(name="first_sets", value=most, bind=alt.binding_range(min=2, max=most, step=1, name="sets"))
    lows, highs = data["low"].clip(lower=-20), data["high"].clip(upper=20)
    domain = [float(min(-1.2, *lows.dropna())), float(max(1.2, *highs.dropna()))]
    names = list(dict.fromkeys(data["contrast"]))
    place = Lanes.of(data["text"])._replace(count=len(names))
    chosen = alt.Chart(data[[*SHOWN, "first", "text"]]).transform_filter("datum.first == first_sets")
    layers = intervals(chosen, names, alt.Scale(domain=domain, clamp=True), place, "text")
    chart = place.finished(layers.add_params(slider))
    seen = f"Primary contrasts from all {most} sets; a slider takes the first 2 to {most} of them alone."
    return Drawn(chart, data.drop(columns=["label", "spoken", "text"]), seen)


def of_contrasts(table: pd.DataFrame) -> Drawn | None:
    """A forest of some contrasts."""
    if table.empty:
        return None
    rows = contrast_rows(table)
    place = Lanes.of(rows["label"])
    layers = intervals(alt.Chart(rows[[*SHOWN, "label"]]), list(rows["contrast"]), alt.Scale(nice=True), place, "label")
    chart = place.finished(layers)
    seen = "; ".join(rows["spoken"].head(6)) + ("; and more, in the table below." if len(rows) > 6 else ".")
    return Drawn(chart, rows.drop(columns=["label", "spoken"]), f"Differences with 95 % intervals. {seen}")


def intervals(rows: alt.Chart, names: list[str], scale: alt.Scale, place: Lanes, words: str) -> alt.LayerChart:
    """A row for each contrast: words, interval and mean, hollow where a verdict decides nothing, and the margin."""
    y = alt.Y("contrast:N", sort=names, axis=None, scale=alt.Scale(padding=0.3, domain=names))
    x = alt.X("low:Q", title=POINTS, scale=scale, axis=alt.Axis(tickCount=5))
    tips = ["contrast", "points", "interval", "n", "p", "verdict"]
    base = rows.encode(y=y, tooltip=[alt.Tooltip(f"{name}:N") for name in tips])
    band = alt.Chart(pd.DataFrame({"low": [-100 * MARGIN], "high": [100 * MARGIN]}))
    return alt.layer(
        band.mark_rect(color="#888888", opacity=0.18, aria=False).encode(x=x, x2="high:Q"),
        alt.Chart(pd.DataFrame({"zero": [0]})).mark_rule(color=INK, aria=False).encode(x="zero:Q"),
        base.mark_rule(color=INK, strokeWidth=2.5, yOffset=place.below, aria=False).encode(x=x, x2="high:Q"),
        base.mark_point(stroke=INK, fill=INK, size=90, shape="diamond", opacity=1, yOffset=place.below).encode(
            x="difference:Q",
            description=alt.Description("spoken:N"),
            fillOpacity=alt.condition("datum.decided", alt.value(1), alt.value(0)),
        ),
        place.words(base, words),
    )


def contrast_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Contrasts in points and in words."""
    rows = table[["contrast", "n", "verdict"]].assign(decided=table["signs"].map(bool))
    for name, key in {"difference": "difference", "low": "t_low", "high": "t_high"}.items():
        rows[name] = (100 * table[key].astype(float)).round(4)
    rows["points"] = rows["difference"].map(signed)
    rows["interval"] = [interval(low, high) for low, high in zip(rows["low"], rows["high"], strict=True)]
    for name, key in {"p": "p_value", "p_holm": "p_holm", "p_equal_holm": "p_equivalence_holm"}.items():
        rows[name] = table[key].map(p_value)
    rows["bca_low"], rows["bca_high"] = (100 * table["bca_low"]).round(4), (100 * table["bca_high"]).round(4)
    rows["share_above_0"] = table["improvement"]
    told = pd.Series([estimate(row) for row in table.to_dict("records")], table.index, dtype=object)
    numbers = told.str.replace(" points", "")
    rows["label"] = (rows["contrast"] + " " + numbers.map(unbroken)).map(folded)
    rows["spoken"] = rows["contrast"] + ": " + told
    return rows.reset_index(drop=True)
