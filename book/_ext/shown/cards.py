"""The cards of the first screen: a question, its verdict, a small forest, and what is still missing, as HTML."""

from collections.abc import Mapping
from html import escape

import pandas as pd

from ddlib.study.arms import Arm
from ddlib.study.contrasts import NO_VERDICT, within
from ddlib.study.statistics import MARGIN
from ddlib.study.words import estimate

from . import findings, plans
from .chapters import CHAPTERS


def card(key: str, question: str) -> str:
    """HTML of an answer."""
    found = findings.of_chapter(key)
    chapter = CHAPTERS[key]
    parts = [f'<p class="question">{escape(question)}</p>']
    if found.primary.empty:
        says = "Not measured yet: no seed has both sides of the planned comparison."
        parts.append(f'<p class="verdict">{says}</p>')
    else:
        rows = [row for _, row in found.primary.iterrows()]
        parts.append(f'<p class="verdict">{escape(headline(rows, found.lasting))}</p>')
        measured = [in_words(row) for row in rows]
        measured += [f"With an alpha of its own, {in_words(row)}" for row in at_own_alphas(key)]
        parts += [small_forest(rows)] + [f'<p class="measured">{escape(says)}</p>' for says in measured]
    state = plans.state(chapter.grid)
    scale = "" if found.lasting else "Shown are smoke runs, which are no evidence. " if len(found.sets) else ""
    link = f'<a href="{chapter.page}.html">Read the chapter</a>'
    parts.append(f"<p><small>{escape(scale)}{escape(state[0].upper() + state[1:])}. {link}</small></p>")
    return f'<section class="answer" aria-label="{escape(question)}">{"".join(parts)}</section>'


def at_own_alphas(key: str) -> list[Mapping]:
    """The primary contrasts of a chapter in which an arm was run again at an alpha of its own."""
    primary = {*findings.of_chapter(key).primary["arms"]}
    beside = [findings.of_chapter(chapter.key) for chapter in CHAPTERS.values() if chapter.beside == key]
    return [row for found in beside for _, row in found.contrasts.iterrows() if row["arms"] in primary]


def headline(rows: list[Mapping], lasting: bool) -> str:
    """What the primary contrasts of a question say together: the advice of one, or the verdicts of all."""
    few = [row for row in rows if str(row["verdict"]).startswith(NO_VERDICT)]
    of_losses = len(rows) == 1 and not Arm.named(rows[0]["a"]).strategy
    if of_losses or not lasting or few:
        return advice((few or rows)[0], lasting)
    shares = ["passes" if Arm.named(row["a"]).guide_every > 1 else "updates" for row in rows]
    loss = Arm(Arm.named(rows[0]["a"]).guidance).label
    verdicts = [str(row["verdict"]).replace(f"{loss}, ", "") for row in rows]
    says = "; ".join(f"at equal {share}: {verdict}" for share, verdict in zip(shares, verdicts, strict=True))
    small = any("equal" in row["signs"] for row, share in zip(rows, shares, strict=True) if share == "updates")
    cost = "Averaging in every update takes a pass for each PTM"
    choice = ", and changes less than a point: ask one at random, unless passes are cheap" if small else ""
    return f"With {loss}, {says}. {cost}{choice}."


def advice(row: Mapping, lasting: bool) -> str:
    """One sentence for somebody who has to choose between two losses, from the verdict on their contrast."""
    if not lasting:
        return "Not measured yet: smoke runs are no ground for a choice."
    if not row["signs"]:
        few = str(row["verdict"]).startswith(NO_VERDICT)
        apart = "These runs do not tell the two apart: choose either, they cost the same."
        return "Too few sets so far for a choice." if few else apart
    if row["signs"] == ("equal",):
        return "No difference larger than a point: choose either, they cost the same."
    size = ", by less than the point that counts as small" if "equal" in row["signs"] else ""
    return f"{Arm.named(row['a'] if 'above' in row['signs'] else row['b']).label} is the better choice here{size}."


def in_words(row: Mapping) -> str:
    """A contrast with its interval and n."""
    return f"{row['contrast']}: {estimate(row)}"


def small_forest(rows: list[Mapping]) -> str:
    """Means and intervals on one scale from the widest bound to its mirror image, the margin shaded."""
    values = [abs(100 * row[key]) for row in rows for key in ("t_low", "t_high", "difference") if pd.notna(row[key])]
    margin = 100 * MARGIN
    most = max([1.5 * margin, *values]) * 1.05

    def x(value: float) -> float:
        return round(160 + 150 * value / most, 1)

    height = 24 * len(rows) + 6
    band = f'<rect x="{x(-margin)}" y="0" width="{x(margin) - x(-margin):.1f}" height="{height}"'
    marks = [f'{band} fill="currentColor" opacity="0.12"/>']
    marks.append(f'<line x1="160" x2="160" y1="0" y2="{height}" stroke="currentColor"/>')
    for place, row in enumerate(rows):
        y, mean = 24 * place + 15, x(100 * row["difference"])
        if pd.notna(row["t_low"]):
            low, high = x(100 * row["t_low"]), x(100 * row["t_high"])
            marks.append(f'<line x1="{low}" x2="{high}" y1="{y}" y2="{y}" stroke="currentColor" stroke-width="3"/>')
        marks.append(f'<circle cx="{mean}" cy="{y}" r="5" fill="currentColor"/>')
    label = escape(f"{'; '.join(in_words(row) for row in rows)}. The shaded band is {within()}.")
    return f'<svg viewBox="0 0 320 {height}" role="img" aria-label="{label}">{"".join(marks)}</svg>'
