"""Prose takes its numbers from records: no accuracy of ours is typed into a page or a notebook."""

import json
import math
import re

import pandas as pd
import pytest
from made import BOOK, ROOT
from shown import facts, findings, plans, sentences

from ddlib.study.arms import Arm
from ddlib.study.statistics import summary
from ddlib.study.words import estimate

# A number with a decimal that is called per cent or points, or stands before a spread.
ACCURACY = re.compile(r"\b\d{1,2}\.\d+(?= ?(?:%|± ?\d|(?:percentage )?points?\b))")
# Measured and typed before there were records for it: what rounding alone does (promises), by a test of its own.
TYPED = {"promises"}


def blocks(text: str) -> list[str]:
    """Paragraphs, lists and tables of Markdown, without code."""
    return re.split(r"\n\s*\n", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def typed(text: str) -> list[str]:
    """Accuracies in blocks that cite nobody: with a citation they are somebody else's."""
    return [found for block in blocks(text) if "{cite" not in block for found in ACCURACY.findall(block)]


def pages() -> dict[str, str]:
    """Texts by name: pages, and the Markdown of notebooks."""
    found = {path.stem: path.read_text(encoding="utf-8") for path in sorted(BOOK.glob("*.md"))}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        found[path.stem] = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return found


@pytest.mark.parametrize(("name", "text"), pages().items(), ids=pages())
def test_no_accuracy_is_typed(name, text):
    assert name in TYPED or typed(text) == []


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("CLoM reaches 63.5 % here.", 1),
        ("It is 1.2 points better, 40.1 ± 0.3.", 2),
        ("DC rises from 44.9 to 51.0 % {cite:p}`cui2022dcbench`.", 0),
        ("A margin of 1 point; a 95 % interval; width 32.", 0),
        ("```\n63.5 %\n```", 0),
        ("{num}`guidance.arms.clom.mean` %", 0),
    ],
)
def test_what_counts_as_typed(text, count):
    assert len(typed(text)) == count


def test_a_number_is_of_the_records_or_says_that_it_is_missing():
    text = sentences.number("guidance.arms.clom alone every_9.mean")
    assert text == "not measured yet"
    for wrong in ("nothing.arms.clom.mean", "guidance.arms.clomm.mean", "guidance.means.clom.mean"):
        with pytest.raises(KeyError):
            sentences.number(wrong)


def test_what_the_readme_found_is_in_the_records():
    found = re.findall(
        r"^- (.+?: [+−][\d.]+ points \[.+?\], n = \d+)\.", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE
    )
    told = {
        f"{row['contrast']}: {estimate(row)}": row
        for key in ("guidance", "ensemble")
        for row in findings.of_chapter(key).contrasts.to_dict("records")
    }
    assert len(found) == 7
    for line in found:
        assert line in told
        assert {*told[line]["signs"]} & {"above", "below"}, "a verdict bears it out"


def test_what_the_second_ablation_says_beside_its_claims_is_so():
    """Sentences about logged gradients, means and single intervals, read off the records."""
    found = findings.of_chapter("ensemble")
    cosines = found.gradients.set_index(["arm", "iteration"])["cosine"]
    assert cosines["clom loss_avg"].between(0, 0.5, inclusive="neither").all(), "none conflict, all small"
    assert cosines["clom loss_avg"].groupby("iteration").mean().is_monotonic_decreasing, "more so later"
    assert (cosines["clom pcgrad"] > 0).all()
    assert 0.3 < (cosines["cclom loss_avg"] < 0).mean() < 0.37, "a third"
    assert cosines["cclom loss_avg"].min() > -0.05, "none by much"
    assert cosines["cclom loss_avg"].sort_index().loc[:150].min() > 0, "late"
    turn = found.named_contrasts["clom sequential - clom loss_avg"]
    assert turn["t_high"] < 0
    assert not turn["signs"], "undecided, though its interval lies below zero"
    passes = found.records.groupby("arm")["ptm_passes"].unique()
    assert passes["clom loss_avg"] == 5 * passes["clom random"]
    assert passes["clom single"] == passes["clom random"] == passes["clom loss_avg every_5"]
    assert (found.costs["ptms"] > 2 * found.costs["distill"]).all(), "training takes longer than distilling"
    one, five = (found.named_by_architecture[f"clom {of} - cclom {of} by ConvNet-3"] for of in ("single", "random"))
    assert one["t_high"] < five["t_low"], "the intervals of CLoM's lead are apart"


def test_mgda_comes_to_follow_the_one_ptm_that_is_satisfied():
    """Read off what its ten runs log: lengths alike at first, then one near zero, the same to the end."""
    logs = [json.loads(path.read_text()) for path in (plans.RESULTS / "desk-ensemble").glob("*.json")]
    logs = [record["ptm_gradients"] for record in logs if record["arm"] == "clom mgda"]
    assert len(logs) == 10
    for entries in logs:
        norms = pd.DataFrame({entry["iteration"]: entry["norms"] for entry in entries})
        assert norms[0].max() < 1.25 * norms[0].min()
        late = norms.loc[:, norms.columns >= 200]
        assert (late.min() < late.median() / 100).all()
        assert norms.loc[:, norms.columns >= 100].idxmin().nunique() == 1


def test_what_the_first_ablation_says_beside_its_claims_is_so():
    """Sentences that compare means, or say how near an interval comes, read off the records."""
    found = findings.of_chapter("guidance")
    means = 100 * found.records.groupby(["architecture", "arm"])["accuracy"].mean()
    distilled = [arm for arm in found.arms["arm"] if not Arm.named(arm).selection]
    for judge in ("AlexNet", "ResNet-18"):
        assert means[judge, "k_means"] > max(means[judge, arm] for arm in distilled)
        assert abs(facts.of_architectures(found)[f"cclom - none by {judge}"]["low"]) < 0.05, "at the edge of zero"
        assert max(distilled, key=lambda arm: means[judge, arm]) == "both"
    assert [arm for arm in distilled if means["VGG-11", arm] >= means["VGG-11", "k_means"]] == ["both"]
    lead = {judge: facts.of_architectures(found)[f"clom - cclom by {judge}"] for judge in means.index.levels[0]}
    assert lead["ConvNet-3"]["low"] > 0 > lead["ConvNet-4"]["high"]
    assert all(lead[judge]["low"] < 0 < lead[judge]["high"] for judge in ("VGG-11", "AlexNet", "ResNet-18"))
    ratio = facts.of_architectures(found)["clom - ce_ratio by ConvNet-3"]
    assert max(abs(ratio["low"]), abs(ratio["high"])) < 0.5
    assert {facts.of_arms(found)[arm]["n"] for arm in ("k_means", "k_center")} == {1}
    assert 10 <= means["ConvNet-3", "k_center"] < 13, "near chance"
    tests = found.contrasts[~found.contrasts["primary"].astype(bool)]
    assert tests["p_value"].min() == pytest.approx(2 / 2**10)
    assert tests["p_holm"].min() == pytest.approx(13 * 2 / 2**10)


def test_what_the_page_on_alpha_says_of_strategies_is_so():
    if not plans.whole("desk-ensemble-alpha"):
        pytest.skip("the sweep desk-ensemble-alpha is not whole")
    best = facts.of_alphas(findings.of_chapter("alphas"))
    every = best.pop("clom loss_avg every_5")
    assert every["alpha"] == 300
    assert math.isnan(every["short"]), "the smallest that was tried"
    assert every["beyond"] < -2
    assert len(best) == 5
    assert all(strategy["alpha"] == 1000 and -1 < strategy["short"] < 0 for strategy in best.values())
    grid = plans.jobs_of("desk-ensemble-own")
    assert {(job.parameters["guide_every"], job.parameters["alpha_clom"]) for job in grid} == {(5, every["alpha"])}


def held_out(arm: str) -> dict[float, float]:
    """Mean hold-out accuracy in points of the grid of alphas, by alpha."""
    (grid,) = findings.of_chapter("alpha").alpha_grids.values()
    cells = summary(grid[grid["arm"] == arm].fillna({"alpha": 0}), ["alpha"])
    return dict(zip(cells["alpha"], 100 * cells["mean"], strict=True))


def test_what_the_page_on_alpha_says_is_so():
    """Its sentences are about these numbers."""
    if not plans.whole("desk-alpha"):
        pytest.skip("the sweep desk-alpha is not whole")
    none = held_out("none")[0]
    told = {name: sentences.number(f"alpha.alphas.{name}") for name in ("clom.alpha:g", "clom.gain:.3f", "none.mean")}
    clom, cclom, ratio, cosine = map(held_out, ("clom", "cclom", "ce_ratio", "cos_mean"))
    best = max(clom, key=clom.get)
    assert max(clom.values()) == max(max(of.values()) for of in (clom, cclom, ratio, cosine))
    assert told == {
        "clom.alpha:g": f"{best:g}",
        "clom.gain:.3f": f"{clom[best] - none:.3f}",
        "none.mean": f"{none:.1f}",
    }
    next_one = min(alpha for alpha in clom if alpha > best)
    assert sentences.number("alpha.alphas.clom.beyond:+.3f") == f"−{clom[best] - clom[next_one]:.3f}"
    assert (clom[best] - clom[next_one]) / (clom[best] - none) > 0.5, "it has lost most of its gain"
    assert 3 <= next_one / best < 3.5, "half a decade"
    middle = sorted(cclom)[1:4]
    assert max(cclom[a] for a in middle) - min(cclom[a] for a in middle) < 1
    assert abs(max(ratio.values()) - max(cclom.values())) < 0.25
    assert max(cosine.values()) - none < 0.5
    assert max(max(held_out(f"{arm} alone").values()) for arm in ("clom", "cclom")) < none - 5
