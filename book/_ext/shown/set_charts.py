"""Charts of synthetic sets: their accuracies, costs and gradients, and what alpha does to them."""

import math

import altair as alt
import pandas as pd
from matplotlib.colors import to_hex
from scipy.stats import spearmanr

from ddlib.study.alphas import chosen_alphas, unguided
from ddlib.study.arms import Arm, ordered
from ddlib.study.cases import USUAL
from ddlib.study.statistics import LEVEL, MIN_PAIRS, set_means, summary
from ddlib.study.words import plural, signed, weight

from .charts import ACCURACY, INK, Drawn, Lanes, colours_of, folded, styled, unbroken
from .findings import Findings, reference_lines, setting_of
from .pages import PICTURES, RECORDS, Files
from .pictures import pictures_of


def strips(found: Findings) -> Drawn | None:
    """One dot a synthetic set, which leads to its record and shows its images; and mean and interval over them."""
    if found.sets.empty:
        return None
    sets, arms, pictures = found.sets.copy(), found.arms.copy(), pictures_of(found)
    sets["pictured"] = [run in pictures for run in sets["run"]]
    sets["accuracy"] = sets["accuracy"].round(4)
    bounds = ["" if pd.isna(row.low) else f" [{row.low:.1f}, {row.high:.1f}]" for row in arms.itertuples()]
    arms["text"] = [
        folded(f"{row.label} " + unbroken(f" {row.mean:.1f}{bound}, n = {row.n}"))
        for row, bound in zip(arms.itertuples(), bounds, strict=True)
    ]
    order = list(arms["arm"])
    colours = alt.Color("arm:N", legend=None, scale=colours_of(order))
    y = alt.Y("arm:N", sort=order, axis=None, scale=alt.Scale(padding=0.3))
    x = alt.X("accuracy:Q", title=ACCURACY, scale=alt.Scale(zero=False, nice=True))
    # What the sets of an arm share stands once: a page has little weight to spare.
    sets["setting"] = sets["run"].map(setting_of)
    shared = ["arm", "label", "networks", "setting"]
    sets["of"] = sets.groupby(shared, sort=False).ngroup()
    about = alt.LookupData(sets[["of", *shared]].drop_duplicates(), "of", shared)
    dots = (
        alt.Chart(sets[["of", "seed", "accuracy", "pictured"]])
        .transform_lookup("of", about)
        .transform_calculate(run="datum.setting + '-seed' + datum.seed")
        .transform_calculate(
            record=f"'{RECORDS}/' + datum.run + '.json'",
            image=f"datum.pictured ? '{PICTURES}/' + datum.run + '.png' : null",
            spoken="datum.label + ', seed ' + datum.seed + ': ' + format(datum.accuracy, '.1f') + ' %'",
        )
    )
    means = alt.Chart(arms[["arm", "mean", "low", "high", "text"]].round(4))
    tips = [alt.Tooltip(f"{name}:N") for name in ("label", "seed", "networks", "run", "image")]
    tips.insert(2, alt.Tooltip("accuracy:Q", format=".2f"))
    lines = pd.DataFrame([{"what": name, "accuracy": value} for name, value in reference_lines(found).items()])
    place = Lanes.of(arms["text"])
    layers = [
        place.words(means.encode(y=y), "text"),
        means.mark_rule(strokeWidth=2.5, color=INK, yOffset=place.below, aria=False).encode(
            y=y, x="low:Q", x2="high:Q"
        ),
        means.mark_tick(thickness=3, height=12, color=INK, yOffset=place.below, aria=False).encode(y=y, x="mean:Q"),
        dots.mark_circle(size=110, opacity=0.9, yOffset=place.below, stroke="white", strokeWidth=0.7).encode(
            x=x, y=y, color=colours, tooltip=tips, href=alt.Href("record:N"), description=alt.Description("spoken:N")
        ),
    ]
    if len(lines):
        rule = alt.Chart(lines).encode(x="accuracy:Q")
        layers.insert(0, rule.mark_rule(strokeDash=[4, 3], color="#777777", aria=False).encode(tooltip=["what:N"]))
        layers.append(
            rule.mark_text(angle=0, align="left", dx=3, dy=2, color="#666666", fontSize=11).encode(
                y=alt.value(-8), text="what:N"
            )
        )
    chart = place.finished(alt.layer(*layers))
    best = arms.loc[arms["mean"].idxmax()]
    seen = f"{plural(len(order), 'arm')}, one dot a synthetic set. Highest mean: {best['label']}, {best['mean']:.1f} %."
    table = sets[["arm", "seed", "accuracy", "networks", "run"]]
    files: Files = {f"{PICTURES}/{run}.png": content for run, content in pictures.items()}
    files |= {f"{RECORDS}/{run}.json": (found.folder / f"{run}.json").read_bytes() for run in table["run"]}
    return Drawn(chart, table, seen, files)


COSTS = {"steps": "updates of the images", "passes": "PTM passes", "seconds": "seconds of distillation"}
COSTS |= {"training": "seconds of the training of its PTMs"}


def costs(found: Findings) -> Drawn | None:
    """What each arm costs, the most accurate first; a choice of updates, passes, seconds, or training of the PTMs."""
    if found.sets.empty:
        return None
    runs = found.reference.drop_duplicates(["arm", "seed"])
    # A run with equal passes takes K times as many updates; its record counts one pass for each.
    longer = runs["equal_passes"].eq(True) & (runs["ptm_passes"] > 0)
    runs = runs.assign(steps=runs["iterations"].where(~longer, runs["ptm_passes"]))
    names = {"ptm_passes": "passes", "seconds_distill": "seconds", "seconds_ptms": "training"}
    medians = runs.groupby("arm")[["steps", *names]].median().rename(columns=names)  # a run may have been interrupted
    table = found.arms.join(medians, on="arm")
    table = table[[Arm.named(arm).selection == "" for arm in table["arm"]]]
    if table.empty:
        return None
    table = table[["arm", "label", "mean", "low", "high", "n", *COSTS]].round(4)
    table = table.sort_values("mean", ascending=False, kind="stable")
    table["text"] = [
        folded(f"{row.label} " + unbroken(f" {row.mean:.1f} %, n = {row.n}")) for row in table.itertuples()
    ]
    place = Lanes.of(table["text"])
    order = list(table["arm"])
    buttons = alt.binding_radio(options=list(COSTS), labels=list(COSTS.values()), name="cost: ")
    choice = alt.param(name="cost", value="passes", bind=buttons)
    colours = alt.Color("arm:N", legend=None, scale=colours_of(order))
    y = alt.Y("arm:N", sort=order, axis=None, scale=alt.Scale(padding=0.3))
    x = alt.X("x:Q", title="updates, PTM passes or seconds, as chosen: median over sets", scale=alt.Scale(zero=True))
    spent = [alt.Tooltip(f"{name}:Q", format=".4~r", title=title) for name, title in COSTS.items()]
    tips = ["label:N", alt.Tooltip("mean:Q", format=".1f"), *spent]
    base = alt.Chart(table).transform_calculate(x="datum[cost]").encode(y=y)
    layers = (
        base.mark_bar(height=12, yOffset=place.below).encode(
            x=x, color=colours, tooltip=[*tips, "n:Q"], description=alt.Description("text:N")
        ),
        place.words(base, "text"),
    )
    chart = place.finished(alt.layer(*layers).add_params(choice))
    seen = f"{plural(len(table), 'arm')}, the most accurate first, with bars for PTM passes, or for updates"
    return Drawn(chart, table.drop(columns="text"), f"{seen} or seconds.")


def recognised(found: Findings) -> Drawn | None:
    """Accuracy of each set against the share of it that PTMs recognise: those held back, where there are any."""
    rows = found.reference
    kind = "judge" if "judge_accuracy" in rows and rows["judge_accuracy"].notna().any() else "guide"
    if rows.empty or f"{kind}_accuracy" not in rows or rows[f"{kind}_accuracy"].isna().all():
        return None
    shares = rows.drop_duplicates("run").set_index("run")[f"{kind}_accuracy"]
    table = found.sets[["arm", "label", "seed", "accuracy", "run"]]
    table = table.assign(recognised=[100 * shares[run] for run in table["run"]]).dropna().round(4)
    order = list(dict.fromkeys(table["arm"]))
    table["spoken"] = [f"{row.label}, seed {row.seed}: {row.recognised:.0f} %" for row in table.itertuples()]
    names = [Arm.named(arm).label for arm in order]
    scale = colours_of(order, names)
    who = "PTMs held back" if kind == "judge" else "the PTMs that guided it"
    chart = (
        alt.Chart(table)
        .mark_circle(size=110, opacity=0.9, stroke="white", strokeWidth=0.7)
        .encode(
            x=alt.X("recognised:Q", title=f"share of the set that {who} recognise, %", scale=alt.Scale(zero=False)),
            y=alt.Y("accuracy:Q", title=ACCURACY, scale=alt.Scale(zero=False)),
            color=alt.Color("label:N", title=None, scale=scale, legend=alt.Legend(orient="top", columns=3)),
            tooltip=["label:N", "seed:N", "recognised:Q", "accuracy:Q"],
            description=alt.Description("spoken:N"),
        )
        .properties(width="container", height=320)
    )
    count = plural(len(table), "set")
    seen = f"{count} by the share that {who} recognise and by the accuracy of networks trained on them."
    several = table[table.groupby("arm")["seed"].transform("nunique") > 1][["arm", "recognised", "accuracy"]]
    within = several[["recognised", "accuracy"]] - several.groupby("arm").transform("mean")
    if len(within) >= MIN_PAIRS and (within.nunique() > 1).all():
        rho, p = spearmanr(within["recognised"], within["accuracy"])
        seen += f" Within arms the rank correlation is {signed(rho)} over {len(within)} sets"
        seen += f", p = {p:.2g} as if they were independent"
        seen += ": no relation is shown." if p >= LEVEL else "."
    return Drawn(styled(chart), table.drop(columns="spoken"), seen)


AVERAGE, ONE = Arm("clom", "loss_avg"), Arm("clom", "single")


def gradients(found: Findings) -> Drawn | None:
    """Cosines between the gradients of PTMs over an averaging run: every pair of every set, and the mean."""
    table = found.gradients[found.gradients["arm"] == AVERAGE.name]
    if table.empty:
        return None
    table = table.drop(columns=["run", "arm"]).replace({"ratio": {math.inf: None}})
    x = alt.X("iteration:Q", title="iteration", axis=alt.Axis(tickCount=6))
    y = alt.Y("cosine:Q", title="cosine of two PTMs' gradients", scale=alt.Scale(domain=[-1, 1]))
    pairs = alt.Chart(table).mark_circle(size=36, opacity=0.35, color=to_hex(AVERAGE.colour))
    tips = ["seed:N", "pair:N", "iteration:Q", alt.Tooltip("cosine:Q", format=".3f")]
    tips.append(alt.Tooltip("ratio:Q", format=".2f", title="longer : shorter"))
    means = table.groupby("iteration", as_index=False)["cosine"].mean().round(4)
    layers = (
        alt.Chart(pd.DataFrame({"zero": [0]})).mark_rule(color=INK).encode(y=alt.Y("zero:Q")),
        pairs.encode(x=x, y=y, tooltip=tips),
        alt.Chart(means).mark_line(color=INK, strokeWidth=2).encode(x=x, y=y),
    )
    below, ratio = 100 * (table["cosine"] < 0).mean(), table["ratio"].median()
    seen = (
        f"{plural(len(table), 'cosine')} of {plural(table['seed'].nunique(), 'set')}:"
        f" mean {table['cosine'].mean():.2f}, from {table['cosine'].min():.2f} to {table['cosine'].max():.2f},"
        f" {below:.1f} % below zero. Of two gradients the longer one is {ratio:.2f} times as long, the median."
    )
    return Drawn(styled(alt.layer(*layers).properties(width="container", height=300)), table, seen)


def gains(found: Findings) -> Drawn | None:
    """What averaging gained over one fixed PTM, set by set, against how far its PTMs agreed."""
    agreed = found.gradients[found.gradients["arm"] == AVERAGE.name].groupby("seed")["cosine"].mean()
    sets = found.sets.pivot_table(index="seed", columns="arm", values="accuracy") if len(found.sets) else found.sets
    if agreed.empty or not {AVERAGE.name, ONE.name} <= set(sets):
        return None
    table = pd.DataFrame({"gain": sets[AVERAGE.name] - sets[ONE.name], "cosine": agreed}).dropna().round(4)
    if table.empty:
        return None
    table = table.reset_index()
    table["spoken"] = [
        f"seed {row.seed}: cosine {row.cosine:.2f}, {signed(row.gain)} points" for row in table.itertuples()
    ]
    chart = (
        alt.Chart(table)
        .mark_circle(size=110, opacity=0.9, color=to_hex(AVERAGE.colour), stroke="white", strokeWidth=0.7)
        .encode(
            x=alt.X(
                "cosine:Q",
                title="mean cosine of the PTMs' gradients",
                scale=alt.Scale(zero=False),
                axis=alt.Axis(tickCount=6),
            ),
            y=alt.Y("gain:Q", title=f"{AVERAGE.minus(ONE)}, points", scale=alt.Scale(zero=False)),
            tooltip=["seed:N", "cosine:Q", alt.Tooltip("gain:Q", format="+.2f")],
            description=alt.Description("spoken:N"),
        )
        .properties(width="container", height=300)
    )
    seen = f"{plural(len(table), 'set')} by the mean cosine of their PTMs' gradients and by what averaging them gained."
    if len(table) >= MIN_PAIRS:
        rho, p = spearmanr(table["cosine"], table["gain"])
        seen += f" Rank correlation {signed(rho)}, p = {p:.2g}, n = {len(table)}."
    return Drawn(styled(chart), table.drop(columns="spoken"), seen)


def alpha(found: Findings, case: str = USUAL) -> Drawn | None:
    """Hold-out accuracy against alpha in one case: a line for each arm, a small dot for each set.

    The base method without guidance is a dashed line.
    """
    grid = found.alpha_grids.get(case)
    if grid is None:
        return None
    plain = unguided(grid)
    cells = summary(grid[~plain], ["arm", "alpha"])
    percent = {name: (100 * cells[name]).round(4) for name in ("mean", "low", "high")}
    cells = cells.assign(label=[Arm.named(arm).label for arm in cells["arm"]], **percent)
    order = ordered(cells["arm"].unique())
    names = [Arm.named(arm).label for arm in order]
    axis = alt.Axis(labelOverlap="greedy", labelSeparation=8)
    x = alt.X("alpha:Q", title="alpha, the weight of the guidance", scale=alt.Scale(type="log"), axis=axis)
    y = alt.Y("mean:Q", title="hold-out accuracy, %", scale=alt.Scale(zero=False))
    legend = alt.Legend(orient="top", columns=1, labelLimit=0)  # a phone has room for one
    colour = alt.Color("label:N", title=None, scale=colours_of(order, names), legend=legend)
    tips = ["label:N", "alpha:Q", alt.Tooltip("mean:Q", format=".2f"), "n:Q"]
    base = alt.Chart(cells[["arm", "label", "alpha", "mean", "low", "high", "n"]]).encode(x=x, color=colour)
    sets = set_means(grid[~plain], ["arm", "alpha"])
    sets = sets.assign(mean=(100 * sets["accuracy"]).round(4), label=[Arm.named(arm).label for arm in sets["arm"]])
    dots = alt.Chart(sets[["label", "alpha", "seed", "mean"]]).mark_circle(size=30, opacity=0.5)
    layers = [
        dots.encode(x=x, y=y, color=colour, tooltip=["label:N", "seed:N", alt.Tooltip("mean:Q", format=".2f")]),
        base.mark_line().encode(y=y),
        base.mark_circle(size=100, opacity=1).encode(y=y, tooltip=tips, description=alt.Description("label:N")),
    ]
    if plain.any():
        once = grid[plain].drop_duplicates(["seed", "architecture", "network"])
        level = pd.DataFrame([{"mean": round(100 * summary(once, []).iloc[0]["mean"], 4), "what": Arm().label}])
        layers.append(
            alt.Chart(level).mark_rule(strokeDash=[4, 3], color="#777777").encode(y="mean:Q", tooltip="what:N")
        )
    best = chosen_alphas(grid)["alpha"]
    seen = "; ".join(f"{Arm.named(arm).label} is best at alpha {weight(value)}" for arm, value in best.items())
    return Drawn(styled(alt.layer(*layers).properties(width="container", height=320)), cells, f"{seen}.")
