"""What pages make of records: numbers, sentences, charts and tables, from sweeps that nobody ran."""

import json
import math
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from imagined import write_study
from made import BOOK
from scipy import stats
from shown import (
    account,
    cards,
    charts,
    findings,
    forests,
    literature,
    outcomes,
    pictures,
    plans,
    result_tables,
    sentences,
    set_charts,
)

from ddlib.study.arms import Arm

GRIDS = ("guidance", "ensemble", "ensemble-own", "alpha", "options", "elsewhere")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    write_study(folder, GRIDS)
    return folder


@pytest.fixture(scope="module")
def whole(results):
    """The pages' functions on a whole study."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "RESULTS", results)
        findings.of_chapter.cache_clear()
        yield results
    findings.of_chapter.cache_clear()


def accuracies(folder: Path, **wanted: object) -> dict[int, float]:
    """Mean accuracy of ConvNet-3 (%) by seed, of the records with some parameters: read by hand."""
    found = {}
    for path in folder.glob("*.json"):
        record = json.loads(path.read_text())
        if all((record | record["parameters"])[name] == value for name, value in wanted.items()):
            networks = zip(record["accuracies"]["architecture"], record["accuracies"]["accuracy"], strict=True)
            values = [value for name, value in networks if name == "ConvNet-3"]
            found[record["seed"]] = 100 * sum(values) / len(values)
    return found


def test_what_is_missing_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(plans, "RESULTS", tmp_path)
    monkeypatch.setattr(findings, "SMOKE", tmp_path)
    findings.of_chapter.cache_clear()
    assert sentences.evidence("guidance") == [
        "Evidence: none yet.",
        "For this chapter, 0 of 95 planned runs are there.",
    ]
    assert sentences.number("options.arms.CLoM, 6 PTMs.mean") == "not measured yet"
    assert forests.primary(findings.of_chapter("guidance")) is None
    assert pictures.pictures_of(findings.of_chapter("guidance")) == {}
    findings.of_chapter.cache_clear()


def test_numbers_of_the_prose_are_those_of_the_records(whole):
    clom = accuracies(whole / "desk-guidance", arm="clom")
    cclom = accuracies(whole / "desk-guidance", arm="cclom")
    pairs = [clom[seed] - cclom[seed] for seed in clom]
    mean = sum(pairs) / len(pairs)
    assert len(pairs) == 10
    low, high = stats.t.interval(0.95, 9, mean, stats.sem(pairs))
    told = {
        what: sentences.number(f"guidance.contrasts.clom - cclom.{what}:+.3f") for what in ("points", "low", "high")
    }
    by_hand = {"points": mean, "low": low, "high": high}
    assert told == {name: f"{value:+.3f}".replace("-", "−") for name, value in by_hand.items()}
    assert sentences.number("guidance.contrasts.clom - cclom.n") == "10"
    assert sentences.number("guidance.arms.clom.mean") == f"{sum(clom.values()) / 10:.1f}"
    of_option = accuracies(whole / "desk-options", guidance="clom", ptm_epoch=0)
    assert sentences.number("options.arms.CLoM, untrained network.mean:.3f") == f"{sum(of_option.values()) / 8:.3f}"


def test_numbers_by_architecture_are_those_of_the_records(whole):
    by_hand: dict[tuple[str, str], dict[int, float]] = {}
    for path in (whole / "desk-guidance").glob("*.json"):
        record = json.loads(path.read_text())
        table = record["accuracies"]
        for architecture in set(table["architecture"]):
            values = [
                a for name, a in zip(table["architecture"], table["accuracy"], strict=True) if name == architecture
            ]
            by_hand.setdefault((record["arm"], architecture), {})[record["seed"]] = 100 * sum(values) / len(values)
    found = findings.of_chapter("guidance")
    _, rows, caption = result_tables.transfer_cells(found)
    cells = {row[0].removesuffix(" (primary)"): row[1:] for row in rows}
    assert "n = 10" in caption
    architectures = ["ConvNet-3", "ConvNet-4", "VGG-11", "AlexNet", "ResNet-18"]
    for pair, words in {("clom", "cclom"): "CLoM − CCLoM", ("cos_mean", "cclom"): "mean cosine − CCLoM"}.items():
        for place, architecture in enumerate(architectures):
            a, b = (by_hand[arm, architecture] for arm in pair)
            pairs = [a[seed] - b[seed] for seed in range(10, 20)]
            mean = sum(pairs) / 10
            low, high = stats.t.interval(0.95, 9, mean, stats.sem(pairs))
            name = f"{pair[0]} - {pair[1]} by {architecture}"
            assert sentences.number(f"guidance.judged.{name}.size:.3f") == f"{abs(mean):.3f}"
            for what, value in {"points": mean, "low": low, "high": high}.items():
                told = sentences.number(f"guidance.judged.{name}.{what}:+.3f")
                assert told == f"{value:+.3f}".replace("-", "−")
            assert cells[words][place] == f"{mean:+z.2f}\n[{low:+z.2f}, {high:+z.2f}]".replace("-", "−")
            sign = "above" if low > 0 else "below" if high < 0 else "open"
            for other in ("above", "below", "equal", "open"):
                text = f"words <guidance: {name} is {other}>"
                if other == sign:
                    address = sentences.claim(text)[2]
                    html = result_tables.html_table(*result_tables.transfer_cells(found), "guidance transfer")
                    assert html.count(f'id="{address.partition("#")[2]}"') == 1
                else:
                    with pytest.raises(ValueError, match=architecture):
                        sentences.claim(text)
    assert sentences.number("guidance.judged.clom every_9 - cclom by VGG-11.points") == "not measured yet"
    with pytest.raises(KeyError):
        sentences.number("guidance.judged.clom - cclom.points")


def test_a_number_that_there_cannot_be_is_an_error(whole):
    for wrong in ("guidance.arms.clam.mean", "guidance.arms.clom.median", "nothing.arms.clom.mean"):
        with pytest.raises(KeyError):
            sentences.number(wrong)
    with pytest.raises(KeyError, match="5 PTMs"):
        sentences.number("options.arms.CLoM, 6 PTMs.mean")


def test_a_claim_is_borne_out_by_a_verdict_and_leads_to_it(whole):
    rows = findings.of_chapter("guidance").contrasts
    seen = set()
    for row in rows.to_dict("records"):
        name, raised = f"{row['a']} - {row['b']}", "" if row["primary"] else "_holm"
        clear = row["p_value" if row["primary"] else "p_holm"] < 0.05
        equal = row[f"p_equivalence{raised}"] < 0.05
        so = {"open": not clear and not equal, "equal": equal}
        so |= {"above": clear and row["difference"] > 0, "below": clear and row["difference"] < 0}
        for sign in so:
            text = f"some words <guidance: {name} is {sign}>"
            if not so[sign]:
                with pytest.raises(ValueError, match=re.escape(row["contrast"])):
                    sentences.claim(text)
                continue
            seen.add(sign)
            words, told, address = sentences.claim(text)
            assert words == "some words"
            assert told.startswith(f"{row['contrast']}: ")
            assert f"n = {row['n']}" in told
            page, _, anchor = address.partition("#")
            assert page == "ablation_1.html"
            table = result_tables.html_table(*result_tables.contrast_cells(findings.of_chapter("guidance")), "guidance")
            assert table.count(f'id="{anchor}"') == 1
    assert len(seen) > 1, "the imagined study has several kinds of verdict"


def test_arms_at_another_alpha_than_the_chosen_are_told(whole, monkeypatch):
    tried: dict[float, list[float]] = {}
    for path in (whole / "desk-alpha").glob("*.json"):
        record = json.loads(path.read_text())
        if record["arm"] == "clom":
            values = record["accuracies"]["accuracy"]
            tried.setdefault(record["parameters"]["alpha_clom"], []).append(sum(values) / len(values))
    best = max(tried, key=lambda alpha: sum(tried[alpha]) / len(tried[alpha]))
    assert best == 1000, "as params/desk.yaml has it"
    told = " ".join(sentences.evidence("guidance"))
    assert "CLoM: alpha_clom" not in told
    grid = findings.of_chapter("alpha").alpha_grids["as in the ablations"]
    monkeypatch.setitem(
        vars(findings.of_chapter("alpha")), "alpha_grids", {"as in the ablations": grid[grid["alpha"] != best]}
    )
    rest = max(set(tried) - {best}, key=lambda alpha: sum(tried[alpha]))
    (line,) = [line for line in sentences.evidence("guidance") if line.startswith("Not at the alpha")]
    assert f"CLoM: alpha_clom is 1,000, and the hold-out chose {rest:g}" in line
    monkeypatch.setattr(sentences, "whole", lambda chapter: False)
    assert sentences.other_alphas(findings.of_chapter("guidance")) == [], "a grid that is not whole has chosen nothing"


@pytest.fixture
def part(tmp_path, whole, monkeypatch):
    """A study whose last set of CLoM in the first ablation is missing, and one of DM on Fashion-MNIST."""
    for grid in GRIDS:
        shutil.copytree(whole / f"desk-{grid}", tmp_path / f"desk-{grid}")
    for folder, wanted in (
        ("desk-guidance", {"arm": "clom", "seed": 19}),
        ("desk-elsewhere", {"arm": "none", "seed": 19, "dataset": "fashion_mnist"}),
    ):
        (path,) = [
            path
            for path in (tmp_path / folder).glob("*.json")
            for record in [json.loads(path.read_text())]
            if all((record | record["parameters"])[name] == value for name, value in wanted.items())
        ]
        path.unlink()
    monkeypatch.setattr(plans, "RESULTS", tmp_path)
    findings.of_chapter.cache_clear()
    yield tmp_path
    findings.of_chapter.cache_clear()


def test_there_is_no_test_before_all_planned_sets_are_there(part, whole):
    table = findings.of_chapter("guidance").contrasts.set_index("contrast")
    early = table.loc["CLoM − CCLoM"]
    assert early["verdict"] == "no verdict yet (n = 9 of 10)"
    assert early["t_low"] < early["difference"] < early["t_high"]
    assert cards.card("guidance", "Which?").count("Too few sets so far for a choice.") == 1
    with pytest.raises(ValueError, match="no verdict yet"):
        sentences.claim("words <guidance: clom - cclom is equal>")
    effects = table.loc[table["a"].str.contains(" + ", regex=False), "verdict"]
    assert set(effects) == {"no verdict yet (n = 9 of 10)"}
    shared = "no verdict yet (those of its correction are not whole)"
    assert table.loc["CCLoM − no guidance", "verdict"] == shared
    assert table.loc[:, "p_value":"p_value"].isna().all(axis=None)
    growing = forests.growing(findings.of_chapter("guidance")).table
    assert growing["verdict"].str.startswith("no verdict").all()
    assert not findings.of_chapter("ensemble").contrasts["verdict"].str.startswith("no verdict yet").any()

    there = findings.of_chapter("elsewhere").contrasts
    cases = {case: set(rows["verdict"].str.startswith("no verdict yet")) for case, rows in there.groupby("case")}
    assert cases.pop("as in the ablations") == {True, False}
    assert cases.pop("Fashion-MNIST") == {True, False}
    assert set().union(*cases.values()) == {False}
    row = there[(there["case"] == "Fashion-MNIST") & (there["a"] == "clom") & (there["b"] == "cclom")].iloc[0]
    assert not math.isnan(row["p_value"]), "a primary contrast waits for its own arms alone"


def test_the_exploratory_wait_for_an_arm_that_has_no_run(part):
    for path in (part / "desk-ensemble").glob("*.json"):
        if json.loads(path.read_text())["arm"] == "clom mgda":
            path.unlink()
    findings.of_chapter.cache_clear()
    table = findings.of_chapter("ensemble").contrasts
    assert not table["a"].str.contains("mgda").any()
    early = table["verdict"] == "no verdict yet (those of its correction are not whole)"
    assert (early == ~table["primary"].astype(bool)).all()
    says = cards.card("ensemble", "How?")
    assert "With CLoM, at equal updates" in says


def test_an_option_waits_for_its_own_family(part):
    for path in (part / "desk-options").glob("*seed17.json"):
        if json.loads(path.read_text())["parameters"]["num_ptms"] == 2:
            path.unlink()
    findings.of_chapter.cache_clear()
    table = findings.of_chapter("options").contrasts
    for family, rows in table.groupby("family"):
        early = rows["verdict"].str.startswith("no verdict yet")
        assert early.all() if family == "num_ptms" else not early.any(), family
    assert set(table["family"]) > {"num_ptms", "ptm_epoch"}


def test_an_option_and_a_setting_wait_for_an_arm_without_a_run(part):
    for path in part.glob("desk-*/*.json"):
        record = json.loads(path.read_text())
        two = path.parent.name == "desk-options" and record["parameters"]["num_ptms"] == 2
        fifty = path.parent.name == "desk-elsewhere" and record["parameters"]["ipc"] == 50
        if two or (fifty and record["arm"] == "cclom"):
            path.unlink()
    findings.of_chapter.cache_clear()
    table = findings.of_chapter("options").contrasts
    early = table["verdict"] == "no verdict yet (those of its correction are not whole)"
    assert not table["a"].str.contains("2 PTMs").any()
    assert (early == (table["family"] == "num_ptms")).all()
    table = findings.of_chapter("elsewhere").contrasts
    row = table[(table["case"] == "50 images per class") & (table["a"] == "clom") & (table["b"] == "none")].iloc[0]
    assert row["verdict"] == "no verdict yet (those of its correction are not whole)"
    assert math.isnan(row["p_value"])
    assert not table.loc[table["case"] == "1 image per class", "verdict"].str.startswith("no verdict yet").any()


def test_an_arm_whose_runs_all_failed_makes_its_family_no_smaller(part):
    """They are there, so nothing waits; the contrast that cannot be computed counts in the correction all the same."""
    before = findings.of_chapter("ensemble").contrasts.set_index("contrast")
    for path in (part / "desk-ensemble").glob("*.json"):
        record = json.loads(path.read_text())
        if record["arm"] == "clom mgda":
            record |= {"status": "failed", "error": "FloatingPointError: it diverged", "synthetic_hash": None}
            record["accuracies"] = {name: [] for name in record["accuracies"]}
            record.pop("sha256")
            path.write_text(json.dumps(record))
    findings.of_chapter.cache_clear()
    assert plans.whole("desk-ensemble")
    after = findings.of_chapter("ensemble").contrasts.set_index("contrast")
    assert len(after) == len(before) - 1
    assert not after["verdict"].str.startswith("no verdict").any()
    smallest = after.loc[~after["primary"].astype(bool)].nsmallest(1, "p_value")
    assert smallest["p_holm"].iloc[0] == pytest.approx(13 * smallest["p_value"].iloc[0]), "13 were planned"


def test_strategies_at_alphas_of_their_own_are_compared_with_each_other_and_with_the_rest(whole):
    table = findings.of_chapter("own").contrasts.set_index("contrast")
    assert not table["primary"].astype(bool).any()
    random = accuracies(whole / "desk-ensemble", arm="clom random")
    every = accuracies(whole / "desk-ensemble-own", arm="clom loss_avg every_5")
    equal_passes = table.loc["CLoM: average of losses (every 5th update) − one at random"]
    assert 100 * equal_passes["difference"] == pytest.approx(sum(every[s] - random[s] for s in random) / 10)
    assert table["a"].eq("clom loss_avg every_5").all(), "the arm that has an alpha of its own"
    assert findings.of_chapter("own").planned_families == {"": len(table)}
    smallest = table.nsmallest(1, "p_value")
    assert smallest["p_holm"].iloc[0] == pytest.approx(min(1, len(table) * smallest["p_value"].iloc[0]))


def test_strategies_at_their_own_alphas_wait_for_those_beside_them(part):
    for path in (part / "desk-ensemble").glob("*.json"):
        record = json.loads(path.read_text())
        if record["arm"] == "clom random" and record["seed"] == 19:
            path.unlink()
    findings.of_chapter.cache_clear()
    table = findings.of_chapter("own").contrasts
    assert table["verdict"].str.startswith("no verdict yet").all()
    row = table.set_index("contrast").loc["CLoM: average of losses (every 5th update) − one at random"]
    assert row["verdict"] == "no verdict yet (n = 9 of 10)"


def test_a_chapter_is_whole_with_the_one_beside_it(part):
    """An arm without any run there is no failure."""
    assert findings.of_chapter("own").whole
    for path in (part / "desk-ensemble").glob("*.json"):
        if json.loads(path.read_text())["arm"] == "clom random":
            path.unlink()
    findings.of_chapter.cache_clear()
    assert plans.whole("desk-ensemble-own")
    assert not findings.of_chapter("own").whole
    assert findings.of_chapter("own").contrasts.empty, "its one contrast asks for random selection"


def test_one_contrast_of_strategies_is_no_choice_between_losses():
    """If all runs of the other one failed: the costs of its sides differ."""
    rows = [{"a": "clom loss_avg", "verdict": "undecided", "signs": ()}]
    assert cards.headline(rows, True).startswith("With CLoM, at equal updates: undecided. Averaging")


def test_a_claim_that_names_nothing_is_an_error(whole):
    for wrong in ("words", "words <guidance: clom - clam is equal>", "words <nothing: clom - cclom is equal>"):
        with pytest.raises(KeyError):
            sentences.claim(wrong)
    with pytest.raises(KeyError):
        sentences.claim("words <guidance: clom - cclom is nice>")


def test_a_claim_rests_on_no_smoke_run(tmp_path, whole, monkeypatch):
    monkeypatch.setattr(plans, "RESULTS", tmp_path)
    monkeypatch.setattr(findings, "SMOKE", whole / "desk-guidance")
    findings.of_chapter.cache_clear()
    for sign in ("above", "below", "equal", "open"):
        with pytest.raises(ValueError, match="smoke"):
            sentences.claim(f"words <guidance: clom - cclom is {sign}>")
    findings.of_chapter.cache_clear()


def test_a_whole_sweep_misses_nothing(whole):
    assert plans.progress("desk-guidance") == (95, 95)
    first, scale, *rest = sentences.evidence("guidance")
    assert first == "Evidence: from the study's runs."
    assert "CIFAR-10, 10 images per class, DM, 500 iterations, networks of width 32." in scale
    assert scale.endswith("95 runs: 9 arms of 10 sets and 5 arms of 1 set.")
    assert not any("missing" in line for line in rest)
    assert any(re.fullmatch(r"Run \S+, with the code of commit \w+\.", line) for line in rest)
    took, machines = sentences.computing("guidance")
    assert re.match(r"[\d.]+ hours of computing, ", took)
    assert re.fullmatch(r"Run on .+, PyTorch [\d.]+\.", machines)


@pytest.mark.parametrize(
    ("machines", "says"),
    [
        ({10: "A", 11: "A"}, "A, PyTorch 2.15.0"),
        ({10: "A(R) B(TM) C", 11: "A B C"}, "A B C, PyTorch 2.15.0"),
        ({10: "B", 11: "A", 12: "B"}, "B (4 runs) and A (2 runs), pairs on one of them, PyTorch 2.15.0"),
        ({10: "AB", 11: "AA"}, "A (3 runs) and B (1 run), pairs on one of them in all but 1 seed, PyTorch 2.15.0"),
        (
            {10: "AB", 11: "BA", 12: "AA"},
            "A (4 runs) and B (2 runs), pairs on one of them in all but 2 seeds, PyTorch 2.15.0",
        ),
    ],
)
def test_the_strip_names_the_processors(machines, says):
    """Of two runs a seed, on a machine each or both on one."""
    rows = [
        {"arm": arm, "seed": seed, "device_name": name, "torch": "2.15.0+cu132"}
        for seed, names in machines.items()
        for arm, name in zip(("none", "clom"), names if len(names) == 2 else [names] * 2, strict=True)
    ]
    assert sentences.machines_in_words(pd.DataFrame(rows)) == says


def test_a_set_without_a_pair_may_be_from_another_processor():
    pair = [{"arm": arm, "seed": seed, "device_name": "A", "torch": "2.15.0"} for arm in "ab" for seed in (10, 11)]
    alone = {"arm": "full", "seed": 10, "device_name": "B", "torch": "2.14.1"}
    told = sentences.machines_in_words(pd.DataFrame([*pair, alone]))
    assert told == "A (4 runs) and B (1 run), pairs on one of them, PyTorch 2.14.1 or 2.15.0"


@pytest.mark.parametrize(
    ("verdict", "signs", "lasting", "says"),
    [
        ("CLoM better", ["above"], True, "CLoM is the better choice here."),
        ("CCLoM better", ["below"], True, "CCLoM is the better choice here."),
        (
            "CLoM better, within ±1 point",
            ["above", "equal"],
            True,
            "CLoM is the better choice here, by less than the point that counts as small.",
        ),
        ("equal (±1 point)", ["equal"], True, "No difference larger than a point: choose either, they cost the same."),
        ("undecided", [], True, "These runs do not tell the two apart: choose either, they cost the same."),
        ("no verdict (n < 6)", [], True, "Too few sets so far for a choice."),
        ("CLoM better", ["above"], False, "Not measured yet: smoke runs are no ground for a choice."),
    ],
)
def test_advice_follows_the_verdict(verdict, signs, lasting, says):
    row = {"a": "clom", "b": "cclom", "verdict": verdict, "signs": tuple(signs)}
    assert cards.advice(row, lasting) == says


def test_the_headline_names_what_is_equal_in_each_contrast():
    """Whatever the order of the rows; names of arms keep their letters."""
    rows = [
        {"a": "clom loss_avg every_5", "verdict": "CLoM: one at random better", "signs": ("below",)},
        {"a": "clom loss_avg", "verdict": "undecided", "signs": ()},
    ]
    says = cards.headline(rows, True)
    assert says.startswith("With CLoM, at equal passes: CLoM: one at random better; at equal updates: undecided. Ave")


def test_the_headline_asks_one_at_random_where_averaging_changes_less_than_a_point():
    rows = [
        {"a": "clom loss_avg", "verdict": "CLoM, average of losses better, equal", "signs": ("above", "equal")},
        {"a": "clom loss_avg every_5", "verdict": "CLoM, one at random better", "signs": ("below",)},
    ]
    says = cards.headline(rows, True)
    assert says.startswith("With CLoM, at equal updates: average of losses better, equal; at equal passes: one at ")
    assert says.endswith("and changes less than a point: ask one at random, unless passes are cheap.")
    rows[0]["signs"] = ("above",)
    assert "ask one" not in cards.headline(rows, True)


def test_the_card_tells_a_contrast_at_an_alpha_of_its_own(whole):
    row = findings.of_chapter("own").named_contrasts["clom loss_avg every_5 - clom random"]
    assert f"With an alpha of its own, {cards.in_words(row)}" in cards.card("ensemble", "Which?")
    assert "With an alpha" not in cards.card("guidance", "Which?")


def test_two_strategies_that_are_one_method_are_compared_network_by_network(whole):
    found = {}
    for path in (whole / "desk-ensemble").glob("*.json"):
        record = json.loads(path.read_text())
        names, values = (record["accuracies"][key] for key in ("architecture", "accuracy"))
        of = [value for name, value in zip(names, values, strict=True) if name == "ConvNet-3"]
        found[record["arm"], record["seed"]] = of
    gaps = []
    for (arm, seed), of in found.items():
        if arm == "clom grad_avg":
            gaps += [100 * (a - b) for a, b in zip(found["clom loss_avg", seed], of, strict=True)]
    table = {name: rest for name, *rest in result_tables.twin_cells(findings.of_chapter("ensemble")).rows}
    mean, largest, networks = table["ConvNet-3"]
    assert float(mean.replace("−", "-")) == pytest.approx(sum(gaps) / len(gaps), abs=0.006)
    assert float(largest) == pytest.approx(max(map(abs, gaps)), abs=0.006)
    assert int(networks) == len(gaps) > 0


CHARTS = {
    "forest guidance": (forests.primary, 1),
    "others ensemble": (forests.others, None),
    "architectures guidance": (forests.architectures, 5),
    "architectures ensemble": (forests.architectures, 10),
    "costs guidance": (set_charts.costs, None),
    "effects guidance": (forests.effects, 3),
    "strips guidance": (set_charts.strips, 8 * 10 + 10 + 5),
    "growing ensemble": (forests.growing, 9 * 2),
    "costs ensemble": (set_charts.costs, None),
    "recognised guidance": (set_charts.recognised, 7 * 10),
    "gradients ensemble": (set_charts.gradients, 10 * 3 * 10),
    "gains ensemble": (set_charts.gains, 10),
    "others options": (forests.others, None),
    "strips options": (set_charts.strips, 126),
    "forest elsewhere": (forests.primary, 2 * 5 + 1),
    "others elsewhere": (forests.others, None),
    "alpha alpha": (set_charts.alpha, None),
}


@pytest.mark.parametrize("name", CHARTS)
def test_charts_hold_what_they_show_and_say_it(name, whole):
    draw, rows = CHARTS[name]
    found = findings.of_chapter(name.split()[1])
    chart = draw(found)
    assert len(chart.table) == (rows or len(chart.table)) > 0
    picture = charts.picture(chart.chart)
    assert picture.startswith("<svg")
    assert "NaN" not in picture
    assert len(chart.seen) > 40
    assert chart.seen.endswith(".")
    json.dumps(charts.specification(chart.chart), allow_nan=False)


def test_a_forest_shows_what_the_contrasts_say(whole):
    found = findings.of_chapter("guidance")
    chart = forests.primary(found)
    (row,) = chart.table.to_dict("records")
    assert row["contrast"] == "CLoM − CCLoM"
    assert row["difference"] == pytest.approx(100 * found.primary.iloc[0]["difference"], abs=1e-4)
    assert f"CLoM − CCLoM {row['points']} {row['interval']}, n = 10" in charts.picture(chart.chart).replace("\xa0", " ")


def test_costs_are_medians_of_the_records(whole):
    seconds: dict[str, list[dict]] = {}
    for path in (whole / "desk-guidance").glob("*.json"):
        record = json.loads(path.read_text())
        seconds.setdefault(record["arm"], []).append(record["seconds"] | {"passes": record["ptm_passes"]})
    head, rows, _ = result_tables.cost_cells(findings.of_chapter("guidance"))
    assert head == ["arm", "PTM passes", "distillation, s", "training of its PTMs, s"]
    told = {row[0]: row[1:] for row in rows}
    for arm, label in {"none": "no guidance", "clom": "CLoM", "cclom alone": "CCLoM alone"}.items():
        middle = {part: sorted(of[part] for of in seconds[arm])[5] for part in ("passes", "distill", "ptms")}
        assert told[label] == [f"{middle[part]:,.0f}" for part in ("passes", "distill", "ptms")]
    assert "random real images" not in told


def test_alphas_in_use_are_those_of_the_profile_and_the_grid(whole):
    profile = yaml.safe_load((plans.ROOT / "params" / "desk.yaml").read_text())
    told = {row[0]: row[1:] for row in result_tables.alphas_in_use_cells(findings.of_chapter("guidance")).rows}
    clom, cclom = f"{profile['alpha_clom']:,.0f}", f"{profile['alpha_cclom']:,.0f}"
    assert told["CLoM"] == [clom, "1"]
    assert told["CLoM + CCLoM"] == [f"{clom} + {cclom}", "1"]
    arms = yaml.safe_load((plans.GRIDS / "desk-guidance.yaml").read_text())["arms"]
    (alone,) = [arm for arm in arms if arm["guidance"] == "clom" and arm.get("base_method") == "none"]
    assert told["CLoM alone"] == [f"{alone['alpha_clom']:,.0f}", "0.1"]
    assert "no guidance" not in told


def test_gains_pair_a_pool_with_its_own_set(whole):
    found = findings.of_chapter("ensemble")
    table = set_charts.gains(found).table.set_index("seed")
    average = accuracies(whole / "desk-ensemble", arm="clom loss_avg")
    one = accuracies(whole / "desk-ensemble", arm="clom single")
    for seed in average:
        assert table["gain"][seed] == pytest.approx(average[seed] - one[seed], abs=1e-3)
    logged = found.gradients.query("arm == 'clom loss_avg' and seed == 12")["cosine"]
    assert table["cosine"][12] == pytest.approx(logged.mean(), abs=1e-4)


def test_elsewhere_stands_beside_the_ablations(whole):
    found = findings.of_chapter("elsewhere")
    table = found.contrasts
    assert {"as in the ablations", "Fashion-MNIST", "1 image per class", "DSA, 1 image per class"} <= set(table["case"])
    row = table[(table["case"] == "Fashion-MNIST") & (table["a"] == "clom") & (table["b"] == "cclom")].iloc[0]
    clom = accuracies(whole / "desk-elsewhere", arm="clom", dataset="fashion_mnist")
    cclom = accuracies(whole / "desk-elsewhere", arm="cclom", dataset="fashion_mnist")
    assert 100 * row["difference"] == pytest.approx(sum(clom[seed] - cclom[seed] for seed in clom) / 10)
    here = table[(table["case"] == "as in the ablations") & (table["b"] == "cclom")].iloc[0]
    assert here["difference"] == pytest.approx(findings.of_chapter("guidance").primary.iloc[0]["difference"])
    assert not math.isnan(row["p_holm"])


def test_every_planned_arm_is_listed_with_what_was_run(whole):
    rows = {(sweep, arm): (runs, hours) for sweep, arm, runs, hours in account.arms()}
    assert rows["desk-guidance", "clom"][0] == "10 of 10"
    assert rows["desk-ensemble-alpha", "num_ptms5-loss_avg-alpha_clom1000.0"] == ("0 of 3", "–")
    assert rows["desk-guidance", "none"] == ("10 of 10", f"{10 * 160 / 3600:.1f}")


def networks_of(seed: int, made_of: str, machine: str, **accuracies: float) -> list[dict[str, object]]:
    """Rows of one synthetic set, a network of each architecture."""
    shared = {"seed": seed, "synthetic_hash": made_of, "device_name": machine, "network": 0, "augment": True}
    return [shared | {"architecture": name, "accuracy": share} for name, share in accuracies.items()]


def test_sets_that_were_made_twice_are_compared_by_the_networks_that_judged_both():
    first = [
        *networks_of(10, "a", "old", convnet=0.40, vgg=0.10),
        *networks_of(11, "b", "old", convnet=0.41, vgg=0.20),
        *networks_of(12, "c", "old", convnet=0.42, vgg=0.30),
        *networks_of(13, "d", "old", convnet=0.90),
    ]
    second = [
        *networks_of(10, "a", "old", convnet=0.40),
        *networks_of(11, "x", "new", convnet=0.43),
        *networks_of(12, "y", "new", convnet=0.43),
    ]
    again = account.again(pd.DataFrame(first), pd.DataFrame(second))
    assert again == ["3", "1", "+1.50, +1.00 to +2.00", "2"]
    assert account.again(pd.DataFrame(first[:1]), pd.DataFrame(second[:1])) == ["1", "1", "–", "0"]


def test_the_sets_that_two_sweeps_made_are_listed(whole):
    rows = {tuple(row[:2]): row[2:] for row in account.twice()}
    assert len(rows) == len(account.ONE_SET), "each name is that of an arm of its chapter"
    assert rows["CCLoM: which guidance", "CCLoM: the paper's options"][:2] == ["8", "8"]
    other = rows["CLoM: which guidance", "CLoM, one fixed PTM: how to combine several PTMs"]
    assert other[:2] == ["10", "0"], "the hashes of imagined sets hold the name of their arm"


def test_a_wide_page_knows_its_commands():
    import study_pages

    assert study_pages.COMMANDS["options"] == 'make study STUDY="params/sweeps/desk-options.yaml" && make book'
    assert study_pages.COMMANDS["alpha"].count("params/sweeps/") == 3


@pytest.mark.parametrize(
    ("expected", "difference", "signs", "outcome"),  # with an interval of half a point to either side
    [
        ("above", 0.03, "above", "as expected"),
        ("below", 0.03, "above", "otherwise"),
        ("equal", 0.03, "above", "otherwise"),
        ("equal", 0.013, "above", "otherwise; it may lie within a point"),
        ("equal below", 0.013, "above", "otherwise; it may lie within a point"),
        ("below", 0.013, "above", "otherwise"),
        ("equal", 0.005, "above equal", "as expected: within a point, though the difference is clear"),
        ("above", 0.005, "above equal", "as expected"),
        ("below", 0.005, "above equal", "otherwise"),
        ("equal", -0.001, "equal", "as expected"),
        ("above", 0.001, "equal", "otherwise"),
        ("equal below", -0.02, "below", "as expected"),
        ("above", 0.02, "", "open"),
    ],
)
def test_the_outcome_of_a_prediction_follows_the_verdict(expected, difference, signs, outcome):
    row = {"difference": difference, "t_low": difference - 0.005, "t_high": difference + 0.005}
    assert outcomes.outcome(expected.split(), row | {"signs": tuple(signs.split())}) == outcome


@pytest.mark.parametrize(
    ("size", "difference", "result"),  # in points, with an interval of half a point to either side
    [
        ("less than a point", 0.4, "as expected, in size too"),
        ("less than a point", 0.9, "sign as expected, size open"),
        ("less than a point", 1.6, "sign as expected, size otherwise"),
        ("several points", 1.6, "as expected, in size too"),
        ("several points", 1.4, "sign as expected, size open"),
        ("several points", 0.4, "sign as expected, size otherwise"),
        ("some three points", 3.2, "as expected, in size too"),
        ("some three points", 3.7, "sign as expected, size open"),
        ("some three points", 4.6, "sign as expected, size otherwise"),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_predicted_size_is_held_to_the_interval(sign, size, difference, result):
    row = {"difference": sign * difference / 100, "signs": ("above",) if sign > 0 else ("below",)}
    row |= {"t_low": row["difference"] - 0.005, "t_high": row["difference"] + 0.005}
    expected = ("above",) if sign > 0 else ("below",)
    assert outcomes.outcome(expected, row, size) == result
    assert outcomes.outcome(("equal",), row, size).startswith("otherwise"), (
        "a size says nothing where the sign is another"
    )
    assert outcomes.outcome(expected, row | {"signs": ()}, size) == "open"


def test_predicted_sizes_are_those_of_the_hypotheses():
    """In the words of its tables, for contrasts that have an expectation."""
    text = (plans.ROOT / "book" / "hypotheses.md").read_text(encoding="utf-8")
    for key in ("guidance", "ensemble"):
        sizes = outcomes.expected_sizes(key)
        assert set(sizes) <= set(outcomes.expectations(key))
        for size in sizes.values():
            assert f", {size} |" in text
            assert size in outcomes.SIZES


def test_differences_within_the_two_by_two_are_those_of_the_records(whole):
    by_arm = {arm: accuracies(whole / "desk-guidance", arm=arm) for arm in ("clom", "ce_ratio", "cos_mean", "cclom")}
    _, rows, _ = result_tables.simple_cells(findings.of_chapter("guidance"))
    assert [row[0] for row in rows] == [
        *("CLoM − CE ratio", "mean cosine − CCLoM", "CLoM − mean cosine", "CE ratio − CCLoM"),
    ]
    by_hand = [by_arm["ce_ratio"][seed] - by_arm["cclom"][seed] for seed in by_arm["cclom"]]
    low, high = stats.t.interval(0.95, 9, sum(by_hand) / 10, stats.sem(by_hand))
    assert rows[3][1:] == [
        f"{sum(by_hand) / 10:+.2f}".replace("-", "−"),
        f"[{low:+.2f}, {high:+.2f}]".replace("-", "−"),
        "10",
    ]


def test_a_contrast_that_the_study_does_not_plan_has_no_outcome(whole, monkeypatch):
    found = findings.of_chapter("ensemble")
    more = found.contrasts.assign(a=found.contrasts["a"].replace("clom mgda", "clom accuracy_weighted"))
    monkeypatch.setitem(vars(found), "contrasts", more)
    head, rows, _ = result_tables.outcome_cells(found)
    assert len(rows) == len(more) - 1
    assert head == ["contrast", "expected", "found, points", "outcome"]


@pytest.mark.parametrize("key", ["guidance", "ensemble"])
def test_every_planned_contrast_has_a_prediction_and_none_is_of_another(key, whole):
    planned = {f"{row.a} - {row.b}" for row in findings.of_chapter(key).contrasts.itertuples()}
    assert planned == set(outcomes.expectations(key))
    assert {sign for those in outcomes.expectations(key).values() for sign in those} <= set(outcomes.SIGNS)


@pytest.fixture
def some(whole, tmp_path, monkeypatch):
    """Some records of the study, those that a condition on chapter and record admits."""

    def admit(condition):
        for path in whole.glob("*/*.json"):
            if condition(path.parent.name, json.loads(path.read_text())):
                (tmp_path / path.parent.name).mkdir(exist_ok=True)
                (tmp_path / path.parent.name / path.name).write_bytes(path.read_bytes())
        monkeypatch.setattr(plans, "RESULTS", tmp_path)
        monkeypatch.setattr(findings, "SMOKE", tmp_path / "none")
        findings.of_chapter.cache_clear()
        return tmp_path

    yield admit
    findings.of_chapter.cache_clear()


def test_the_slider_takes_seeds_that_have_both_arms(some):
    some(lambda grid, record: grid == "desk-guidance" and (record["arm"] != "cclom" or record["seed"] == 12))
    assert forests.growing(findings.of_chapter("guidance")) is None, "one pair alone"
    some(lambda grid, record: grid == "desk-guidance" and (record["arm"] != "cclom" or record["seed"] in (12, 15, 18)))
    chart = forests.growing(findings.of_chapter("guidance"))
    assert chart.table[["first", "n"]].values.tolist() == [[2, 2], [3, 3]]
    assert "all 3 sets" in chart.seen
    json.dumps(charts.specification(chart.chart), allow_nan=False)


def test_strategies_stand_without_the_line_that_has_not_been_run(some):
    some(lambda grid, record: grid == "desk-ensemble" or (grid == "desk-guidance" and record["arm"] == "clom"))
    assert findings.reference_lines(findings.of_chapter("ensemble")) == {}
    assert set_charts.strips(findings.of_chapter("ensemble")) is not None


def test_a_headline_waits_for_every_contrast():
    """That at equal updates alone would be advice from the costlier side."""
    found = {"clom": "average better", "clom every_5": "no verdict yet (n = 6 of 10)"}
    signs = {"clom": ("above",), "clom every_5": ()}
    rows = [{"verdict": verdict, "signs": signs[arm], "a": arm} for arm, verdict in found.items()]
    assert cards.headline(rows, True) == "Too few sets so far for a choice."


def test_full_data_that_are_beaten_are_no_ceiling_in_the_figure(some):
    assert "full data" in findings.reference_lines(findings.of_chapter("guidance"))
    folder = some(lambda grid, record: True) / "desk-guidance"
    for path in folder.glob("*.json"):
        record = json.loads(path.read_text())
        if record["arm"] == "full_data":
            record["accuracies"]["accuracy"] = [0.1] * len(record["accuracies"]["accuracy"])
            record.pop("sha256")
            path.write_text(json.dumps(record))
    findings.of_chapter.cache_clear()
    assert "full data (beaten, so no ceiling)" in findings.reference_lines(findings.of_chapter("guidance"))


def test_sets_of_one_are_in_no_correlation(some):
    """Within an arm they differ by nothing, and would be ties."""
    some(lambda grid, record: grid == "desk-guidance" and record["seed"] == 10)
    seen = set_charts.recognised(findings.of_chapter("guidance")).seen
    assert "correlation" not in seen
    assert "nan" not in seen


def test_contrasts_of_the_ablations_are_not_corrected_anew(whole):
    there = findings.of_chapter("elsewhere").contrasts.set_index("contrast")
    here = findings.of_chapter("guidance").contrasts.set_index("contrast")
    one = there.loc["CLoM − no guidance, as in the ablations"]
    assert one["p_holm"] == here.loc["CLoM − no guidance", "p_holm"]
    assert one["verdict"] == here.loc["CLoM − no guidance", "verdict"]


def test_a_number_of_a_setting_has_a_colon_in_its_name(whole):
    cells = findings.of_chapter("elsewhere").arms.set_index("arm")
    assert (
        sentences.number("elsewhere.arms.Fashion-MNIST: CLoM.mean:.2f") == f"{cells['mean']['Fashion-MNIST: CLoM']:.2f}"
    )


def test_commits_stand_by_time():
    days = ["2026-11-25", "2026-11-24", "2026-11-26"]
    assert sentences.commits_of(pd.DataFrame({"created": days, "git_commit": ["0aa", "f00", "7bb"]})) == [
        "f00",
        "0aa",
        "7bb",
    ]


@pytest.mark.parametrize("key", ["guidance", "options"])
def test_failed_runs_are_counted_and_are_no_results(key, some):
    def first(grid, record):
        return grid == f"desk-{key}" and record["arm"] == "clom" and record["seed"] in (10, 11)

    folder = some(first) / f"desk-{key}"
    paths = sorted(folder.glob("*.json"))
    failed = [path for path in paths if json.loads(path.read_text())["seed"] == 11]
    for path in failed:
        fail(path)
    found = findings.of_chapter(key)
    assert sum(found.failed.values()) == len(failed) > 0
    assert plans.progress(found.chapter.grid)[0] == len(paths), "a failed run is not missing: it will not be run again"
    _, rows, _ = result_tables.KINDS["arms"](found)
    assert [row[0] for row in rows if "failed" in row[0]] == [
        f"{Arm.named(arm).label} ({n} failed)" for arm, n in found.failed.items()
    ]
    assert any(line.startswith(f"{len(failed)} run") and "failed" in line for line in sentences.evidence(key))
    told = [runs for sweep, _, runs, _ in account.arms() if sweep == f"desk-{key}" and "failed" in runs]
    assert sum(int(runs.rpartition(", ")[2].split()[0]) for runs in told) == len(failed)

    for path in paths:
        fail(path)
    findings.of_chapter.cache_clear()
    assert findings.of_chapter(key).records.empty
    assert sentences.evidence(key)[-1] == f"{len(paths)} runs failed, and are no part of any mean."
    assert account.sweeps() == []


def fail(path):
    record = json.loads(path.read_text()) | {"status": "failed", "error": "ValueError: it diverged"}
    record.pop("sha256", None)
    record["accuracies"] = {name: [] for name in record["accuracies"]}
    path.write_text(json.dumps(record))


def test_every_case_of_the_page_on_alpha_has_a_curve_and_a_choice(tmp_path, monkeypatch):
    write_study(tmp_path, ("elsewhere-alpha",))
    monkeypatch.setattr(plans, "RESULTS", tmp_path)
    findings.of_chapter.cache_clear()
    page = (BOOK / "alpha.md").read_text()
    cases = re.findall(r"^:case: (.+)$", page, re.MULTILINE)
    assert len(cases) == 5
    found = findings.of_chapter("alphas_elsewhere")
    assert all(set_charts.alpha(found, case) for case in cases)
    rows = result_tables.alpha_cells(found).rows
    assert {label.rpartition(": ")[0] for label, *_ in rows} == set(cases)
    findings.of_chapter.cache_clear()


def test_our_runs_stand_beside_the_published_numbers(monkeypatch):
    """Each method that the published grid has finds its own number; others are not ours to run."""
    numbers = {
        ("dm", 48.9): 49.9,
        ("dsa", 52.1): 53.1,
        ("dc", 44.9): 44.0,
        ("random", 31.0): 32.0,
        ("random", 26.0): 25.0,
    }
    ours = [
        {"dataset": "cifar10", "base_method": method, "published": number, "mean": mean, "n": 3}
        | {"difference": mean - number}
        for (method, number), mean in numbers.items()
    ]
    monkeypatch.setattr(literature, "published_runs", lambda: ours)
    published = yaml.safe_load((BOOK / "published.yaml").read_text())["cifar10"]
    rows = {(method, ipc): rest for method, ipc, *rest in literature.rows(published, "cifar10")}
    assert rows["DM", "10"][2:] == ["49.9", "+1.0", "3"]
    assert rows["DSA", "10"][2:] == ["53.1", "+1.0", "3"]
    assert rows["DC", "10"][2:] == ["44.0", "−0.9", "3"]
    assert rows["random real images", "10"][2:] == ["32.0", "+1.0", "3"]
    assert rows["random real images, evaluated without augmentation", "10"][2:] == ["25.0", "−1.0", "3"]
    assert rows["DM", "1"][2:] == ["not run", "–", "0"]
    assert rows["CAFE", "10"][2:] == ["–", "–", "–"]


@pytest.mark.parametrize("key", ["guidance", "ensemble", "options", "elsewhere", "alpha"])
def test_every_chapter_says_what_it_rests_on(whole, key):
    """Some vary what others share: data, images per class, base methods."""
    first, scale, *_ = sentences.evidence(key)
    assert first == "Evidence: from the study's runs."
    varied = "CIFAR-10 or Fashion-MNIST, 1, 10 or 50 images per class, DM or DSA" if key == "elsewhere" else None
    assert scale.startswith(f"Scale: {varied or 'CIFAR-10, 10 images per class, DM'}, ")
