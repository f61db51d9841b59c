"""Means, intervals, tests and contrasts, against slow computations, hand-checked numbers and simulations."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ddlib.study.ablations import TWO_BY_TWO, Contrast
from ddlib.study.arms import Arm
from ddlib.study.contrasts import common_seeds, compare, effect, paired_difference, planned_contrasts, sets_needed
from ddlib.study.ddranking import hlr, ior, lrs
from ddlib.study.statistics import (
    LEVEL,
    MARGIN,
    MIN_PAIRS,
    STUDY_SETS,
    bca_interval,
    detectable,
    equal_sets_as_one,
    equality_power,
    half_width,
    own_pools,
    power,
    set_means,
    summary,
    variance_components,
)


def table(arms, networks=1, architecture="ConvNet-3"):
    """Accuracies of arms {name: one mean per seed}; the networks of a set differ by +-0.001 around it."""
    offsets = 0.001 * (np.arange(networks) - (networks - 1) / 2)
    rows = [
        {"arm": arm, "architecture": architecture, "seed": seed, "network": k, "accuracy": mean + o}
        for arm, means in arms.items()
        for seed, mean in enumerate(means)
        for k, o in enumerate(offsets)
    ]
    return pd.DataFrame(rows)


def noisy(seeds, networks, seed=0):
    rng = np.random.default_rng(seed)
    arms = {"none": rng.normal(0.5, 0.02, seeds), "clom": rng.normal(0.58, 0.02, seeds)}
    frame = table(arms, networks)
    frame["accuracy"] += rng.normal(0, 0.01, len(frame))
    return frame


# The mean and the interval of one arm


def test_networks_are_averaged_inside_a_set_first():
    # Set 0 has one network, set 1 has three: the mean of set means is 0.5, the mean of all networks 0.65.
    frame = pd.DataFrame({"seed": [0, 1, 1, 1], "network": [0, 0, 1, 2], "accuracy": [0.2, 0.7, 0.8, 0.9]})
    means = set_means(frame, [])
    assert means["accuracy"].tolist() == pytest.approx([0.2, 0.8])
    assert means["networks"].tolist() == [1, 3]
    row = summary(frame, []).iloc[0]
    assert (row["mean"], row["n"], row["networks"]) == (pytest.approx(0.5), 2, 4)


def test_t_interval_of_five_numbers_by_hand():
    # 1..5 %: mean 3, s = sqrt(2.5) = 1.5811, t(0.975, 4) = 2.7764; half width 2.7764 s / sqrt(5) = 1.9632.
    row = summary(table({"clom": [0.01, 0.02, 0.03, 0.04, 0.05]}, networks=20), ["arm"]).iloc[0]
    assert (row["n"], row["networks"]) == (5, 100), "the unit is the set, however many networks judge it"
    assert row["mean"] == pytest.approx(0.03)
    assert row["std"] == pytest.approx(0.015811, abs=1e-6)
    assert (row["low"], row["high"]) == pytest.approx((0.03 - 0.019632, 0.03 + 0.019632), abs=1e-6)


def test_one_set_has_no_interval():
    two = summary(table({"clom": [0.5, 0.7], "none": [0.1, 0.1]}), ["arm"]).set_index("arm")
    assert two["std"].tolist() == pytest.approx([0.2 / 2**0.5, 0])
    assert two.index.tolist() == ["clom", "none"]
    row = summary(table({"clom": [0.5]}, networks=20), ["arm"]).iloc[0]
    assert row["mean"] == pytest.approx(0.5)
    assert row[["std", "low", "high"]].isna().all()


def test_cells_with_no_value_in_a_column_are_kept():
    frame = table({"clom": [0.5, 0.6]}).assign(strategy=None)
    assert summary(frame, ["arm", "strategy"])["n"].tolist() == [2]


def test_settings_are_never_mixed_silently():
    frame = table({"clom": [0.5, 0.6]})
    both = pd.concat([frame.assign(augment=True, run="a"), frame.assign(augment=False, run="b")])
    for function in (set_means, variance_components):
        with pytest.raises(ValueError, match=r"2 rows for .*augment \[True, False\]: select one setting"):
            function(both, ["arm"])
    assert len(set_means(both, ["arm", "augment"])) == 4
    with pytest.raises(ValueError, match="2 rows for arm = clom, seed = 0, architecture = ConvNet-3"):
        set_means(pd.concat([frame, frame]), ["arm"])


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (table({"a": [0.5]}).drop(columns="seed"), r"columns \['seed'\] are missing; the table has"),
        (table({"a": [0.5]}).head(0), "has no rows"),
        (table({"a": [0.5, math.nan]}), "1 accuracies are NaN"),
    ],
)
def test_unusable_tables_are_refused(frame, message):
    with pytest.raises(ValueError, match=message):
        summary(frame, ["arm"])


# Variance components


def test_variance_components_by_hand():
    # Sets (1, 3) and (5, 7): MSW = (2 + 2) / 2 = 2, MSB = 2 * (4 + 4) / 1 = 16, between = (16 - 2) / 2 = 7.
    values = np.array([0.1, 0.3, 0.5, 0.7])
    frame = pd.DataFrame({"seed": [0, 0, 1, 1], "network": [0, 1, 0, 1], "accuracy": values})
    row = variance_components(frame).iloc[0]
    assert (row["within"], row["between"]) == pytest.approx((0.02, 0.07))
    assert (row["n"], row["networks"]) == (2, 4)


def test_variance_components_of_unequal_sets_match_a_plain_transcription():
    rng = np.random.default_rng(1)
    sets = [rng.normal(rng.normal(0.5, 0.05), 0.02, size) for size in (2, 5, 3, 7)]
    rows = [(s, k, x) for s, xs in enumerate(sets) for k, x in enumerate(xs)]
    frame = pd.DataFrame(rows, columns=["seed", "network", "accuracy"])
    everything = [x for xs in sets for x in xs]
    total, grand = len(everything), sum(everything) / len(everything)
    between = sum(len(xs) * (sum(xs) / len(xs) - grand) ** 2 for xs in sets) / (len(sets) - 1)
    within = sum((x - sum(xs) / len(xs)) ** 2 for xs in sets for x in xs) / (total - len(sets))
    size = (total - sum(len(xs) ** 2 for xs in sets) / total) / (len(sets) - 1)
    row = variance_components(frame.sample(frac=1, random_state=0)).iloc[0]
    assert row["within"] == pytest.approx(within)
    assert row["between"] == pytest.approx((between - within) / size)
    assert between / within == pytest.approx(stats.f_oneway(*sets).statistic), "the transcription itself"


def test_variance_components_are_never_negative_and_nan_where_unknown():
    frame = pd.DataFrame({"seed": [0, 0, 1, 1], "network": [0, 1, 0, 1], "accuracy": [0.1, 0.9, 0.1, 0.9]})
    assert variance_components(frame)["between"].tolist() == [0.0]
    one_set = variance_components(frame[frame["seed"] == 0]).iloc[0]
    assert math.isnan(one_set["between"])
    assert one_set["within"] == pytest.approx(0.32)
    one_network = variance_components(frame[frame["network"] == 0]).iloc[0]
    assert math.isnan(one_network["between"])
    assert math.isnan(one_network["within"])


def test_the_limits_of_the_spread_between_sets_hold_it_as_often_as_they_say():
    draw, sets, networks = np.random.default_rng(3), 8, 3
    rows = pd.MultiIndex.from_product([range(400), range(sets), range(networks)], names=["study", "seed", "network"])
    level = np.repeat(draw.normal(0.5, 0.005, 400 * sets), networks)
    frame = pd.DataFrame({"accuracy": level + draw.normal(0, 0.006, len(rows))}, index=rows).reset_index()
    parts = variance_components(frame, ["study"])
    held = (parts["low"] <= 0.005**2 / 0.006**2 * parts["within"]) & (
        0.005**2 / 0.006**2 * parts["within"] <= parts["high"]
    )
    assert held.mean() == pytest.approx(0.95, abs=0.03)
    assert (parts["low"] <= parts["between"]).all()
    assert (parts["between"] <= parts["high"]).all()


def test_variance_components_refuse_mixed_architectures():
    frame = pd.concat([table({"a": [0.5, 0.6]}), table({"a": [0.3, 0.4]}, architecture="VGG-11")])
    with pytest.raises(ValueError, match="mixes the architectures ConvNet-3, VGG-11"):
        variance_components(frame)
    assert len(variance_components(frame, ["architecture"])) == 2


# Two arms


def test_paired_difference_of_five_pairs():
    gains = np.array([0.01, 0.02, 0.03, 0.04, 0.05])
    base = np.array([0.3, 0.9, 0.5, 0.1, 0.6])
    frame = table({"none": base, "clom": base + gains}, networks=3)
    row = compare(frame, [("clom", "none")]).iloc[0]
    assert (row["architecture"], row["a"], row["b"], row["n"]) == ("ConvNet-3", "clom", "none", 5)
    assert row["difference"] == pytest.approx(0.03)
    assert (row["t_low"], row["t_high"]) == pytest.approx((0.010368, 0.049632), abs=1e-6)
    assert row["p_value"] == 0.0625, "2 / 2^5, however clear the effect"
    assert row["improvement"] == 1.0
    assert row["verdict"] == "no verdict (n < 6)"


def test_p_value_enumerates_all_signs():
    rng = np.random.default_rng(3)
    # In steps of 0.1 point, so that many sign patterns have equal sums.
    d = rng.integers(-5, 12, size=7) / 1000
    frame = table({"a": np.full(7, 0.5) + d, "b": np.full(7, 0.5)})
    sums = [abs(round(float(np.dot(signs, d)), 9)) for signs in itertools.product((-1, 1), repeat=7)]
    expected = np.mean([s >= abs(round(d.sum(), 9)) for s in sums])
    assert paired_difference(frame, "a", "b").iloc[0]["p_value"] == pytest.approx(expected)


def test_many_pairs_are_drawn_instead_of_enumerated():
    d = np.random.default_rng(0).normal(0.005, 0.01, size=20)
    frame = table({"a": 0.5 + d, "b": np.full(20, 0.5)})
    row = paired_difference(frame, "a", "b").iloc[0]
    assert row["p_value"] == pytest.approx(stats.ttest_1samp(d, 0).pvalue, abs=0.01)
    assert row["p_value"] == paired_difference(frame, "a", "b").iloc[0]["p_value"]


def test_no_difference_and_ties():
    same = [0.5, 0.6, 0.7, 0.8, 0.4, 0.3]
    row = paired_difference(table({"a": same, "b": same}), "a", "b").iloc[0]
    assert (row["difference"], row["p_value"], row["improvement"], row["t_low"]) == (0, 1, 0.5, 0)
    third = np.add(same, [0.1, -0.1, 0, 0, 0.1, 0.1])
    row = paired_difference(table({"a": third, "b": same}), "a", "b").iloc[0]
    assert row["improvement"] == pytest.approx((3 + 0.5 * 2) / 6)


@pytest.mark.parametrize(("shift", "p"), [(0.0, 0), (0.005, 0), (-0.005, 0), (0.02, 1), (-0.02, 1)])
def test_differences_without_any_spread_are_equal_or_not(shift, p):
    """The limit of the t tests: no chance is left, so what is within the margin is equal for sure."""
    frame = table({"clom": np.full(8, 0.5 + shift), "none": np.full(8, 0.5)})
    row = compare(frame, [("clom", "none")]).iloc[0]
    assert row["p_equivalence"] == p
    assert ("±1 point" in row["verdict"]) == (p == 0)


def test_equivalence_is_two_one_sided_t_tests():
    d = np.array([0.001, -0.002, 0.003, 0.0, 0.002, -0.001])
    row = compare(table({"a": 0.5 + d, "b": np.full(6, 0.5)}), [("a", "b")]).iloc[0]
    t_low = (d.mean() + 0.01) / (d.std(ddof=1) / math.sqrt(6))
    t_high = (d.mean() - 0.01) / (d.std(ddof=1) / math.sqrt(6))
    assert row["p_equivalence"] == pytest.approx(max(stats.t.sf(t_low, 5), stats.t.cdf(t_high, 5)))
    assert row["verdict"] == "equal (±1 point)"


def test_one_and_two_pairs_give_an_effect_and_no_more():
    one = paired_difference(table({"a": [0.6], "b": [0.5]}), "a", "b").iloc[0]
    assert (one["difference"], one["p_value"], one["n"]) == (0.1, 1.0, 1)
    assert one[["std", "t_low", "t_high", "p_equivalence"]].isna().all()
    two = paired_difference(table({"a": [0.6, 0.7], "b": [0.5, 0.5]}), "a", "b").iloc[0]
    assert two["p_value"] == 0.5
    assert two["t_low"] < 0.15 < two["t_high"]


def test_swapping_the_arms_flips_every_sign():
    frame = noisy(seeds=7, networks=3)
    ab = compare(frame, [("clom", "none")]).iloc[0]
    ba = compare(frame, [("none", "clom")]).iloc[0]
    assert ab["difference"] == -ba["difference"]
    assert (ab["t_low"], ab["t_high"]) == pytest.approx((-ba["t_high"], -ba["t_low"]))
    assert ab["improvement"] == 1 - ba["improvement"]
    assert (ab["p_value"], ab["p_equivalence"]) == pytest.approx((ba["p_value"], ba["p_equivalence"]))
    assert ab["verdict"] == ba["verdict"] == "CLoM better"


def test_the_order_of_rows_changes_nothing():
    frame = noisy(seeds=7, networks=3)
    frame = pd.concat([frame, frame.assign(architecture="VGG-11", accuracy=frame["accuracy"] / 2)])
    shuffled = frame.sample(frac=1, random_state=5)
    pairs = [], [("clom", "none")]
    expected = compare(frame, *pairs)
    pd.testing.assert_frame_equal(compare(shuffled, *pairs), expected, rtol=1e-9)
    pd.testing.assert_frame_equal(summary(shuffled, ["arm", "architecture"]), summary(frame, ["arm", "architecture"]))


def test_architectures_are_rows_or_one_mean():
    convnet = table({"a": [0.6, 0.7, 0.8], "b": [0.5, 0.5, 0.5]})
    vgg = table({"a": [0.4, 0.5, 0.6], "b": [0.5, 0.5, 0.5]}, architecture="VGG-11")
    rows = paired_difference(pd.concat([convnet, vgg]), "a", "b")
    assert rows["architecture"].tolist() == ["ConvNet-3", "VGG-11"]
    assert rows["difference"].tolist() == pytest.approx([0.2, 0.0])
    mean = paired_difference(pd.concat([convnet, vgg]), "a", "b", by=())
    assert mean["n"].tolist() == [3], "two architectures do not make six pairs"
    assert mean["difference"].tolist() == pytest.approx([0.1])


def test_unpaired_seeds_are_named():
    frame = table({"a": [0.5, 0.6, 0.7, 0.8], "b": [0.5, 0.6]})
    with pytest.raises(ValueError, match=r"architecture = ConvNet-3.: seeds \[2, 3\] occur in some arms only"):
        paired_difference(frame, "a", "b")
    kept = common_seeds(frame)
    assert sorted(kept["seed"].unique()) == [0, 1]
    assert paired_difference(kept, "a", "b")["n"].tolist() == [2]


def test_common_seeds_goes_cell_by_cell():
    short = table({"a": [0.5, 0.6], "b": [0.5]}, architecture="VGG-11")
    kept = common_seeds(pd.concat([table({"a": [0.5, 0.6], "b": [0.5, 0.7]}), short]))
    assert kept.groupby("architecture")["seed"].nunique().to_dict() == {"ConvNet-3": 2, "VGG-11": 1}


@pytest.mark.parametrize(("a", "b", "message"), [("x", "b", "no rows of arm 'x'; present: a, b"), ("a", "a", "itself")])
def test_impossible_pairs_of_arms(a, b, message):
    with pytest.raises(ValueError, match=message):
        paired_difference(table({"a": [0.5], "b": [0.6]}), a, b)


# Several pairs


def test_holm_by_hand():
    # Six pairs: p = 2/64 = 0.03125 when all signs agree. "mid" has one small negative of six.
    base = np.full(6, 0.5)
    gains = np.array([0.02, 0.03, 0.001, 0.025, 0.028, 0.04])
    arms = {"none": base, "up": base + gains, "mid": base + gains * [1, 1, -1, 1, 1, 1], "zero": base}
    rows = compare(table(arms), [], [(arm, "none") for arm in ("up", "mid", "zero")]).set_index("a")
    assert rows["p_value"].to_dict() == {"up": 0.03125, "mid": 0.0625, "zero": 1.0}
    # Holm: 3 * 0.03125, then max(0.09375, 2 * 0.0625), then max(0.125, 1).
    assert rows["p_holm"].to_dict() == {"up": 0.09375, "mid": 0.125, "zero": 1.0}
    # 3 tests need 3 * 2 / 2^n <= 0.05, so n >= 7.
    assert rows.loc["up", "verdict"] == "no verdict (n < 7)"


def test_primary_contrasts_are_not_corrected():
    base = np.full(6, 0.5)
    losses = np.array([0.02, 0.03, 0.01, 0.025, 0.028, 0.04])
    arms = {"none": base, "clom": base - losses, "both": base, "cclom": base}
    pairs = [("clom", "none")], [("both", "none"), ("cclom", "none")]
    rows = compare(table(arms), *pairs).set_index("a")
    assert rows["primary"].to_dict() == {"both": False, "cclom": False, "clom": True}
    assert rows.loc["clom", "p_holm"] == rows.loc["clom", "p_value"] == 0.03125
    assert rows.loc["clom", "verdict"] == "no guidance better"
    assert rows["p_holm"][["both", "cclom"]].tolist() == [1.0, 1.0]


def test_planned_pairs_that_are_not_there_have_no_rows():
    there = table({"clom": [0.5, 0.6], "none": [0.4, 0.4]})
    rows = compare(there, [("clom", "cclom")], [("clom", "none"), ("both", "none")])
    assert rows[["a", "b", "primary"]].values.tolist() == [["clom", "none", False]]
    assert compare(there, [("clom", "cclom")]).empty
    apart = table({"clom": [0.5]})
    other = table({"none": [0.4, 0.4]}).query("seed == 1")
    assert compare(pd.concat([apart, other]), [("clom", "none")]).empty, "no seed that both have"


def test_undecided_is_said_where_a_verdict_was_possible():
    d = np.array([0.05, -0.04, 0.03, -0.02, 0.06, -0.05, 0.01])
    row = compare(table({"none": np.full(7, 0.5), "clom": 0.5 + d}), [], [("clom", "none")]).iloc[0]
    assert row["verdict"] == "undecided"
    every = compare(table({"none": np.full(7, 0.5), "clom": 0.5 + d}), [("clom", "none")])
    assert every["p_holm"].tolist() == [row["p_value"]], "no exploratory row is left to correct"


def test_tables_without_a_network_column_are_taken_as_they_are():
    frame = table({"clom": [0.5, 0.6]}, networks=3).drop(columns=["network", "architecture"])
    assert summary(frame, ["arm"])["networks"].tolist() == [6]


def slow_holm(p_values):
    """Holm 1979 as he writes it: the smallest p times k, the next times k - 1, ...; never below the one before."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected, so_far = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        so_far = max(so_far, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = so_far
    return corrected


def test_holm_corrects_differences_and_equalities_among_the_exploratory_rows():
    rng = np.random.default_rng(4)
    base = rng.normal(0.5, 0.02, STUDY_SETS)
    gains = {"clom": 0.03, "cclom": 0.0005, "both": 0.004, "ce_ratio": -0.02, "cos_mean": 0.0}
    arms = {name: base + gain + rng.normal(0, 0.005, STUDY_SETS) for name, gain in gains.items()}
    pairs = [(name, "none") for name in gains]
    rows = compare(table({"none": base, **arms}), pairs[:1], pairs[1:])
    alone = [paired_difference(table({"none": base, **arms}), *pair).iloc[0] for pair in pairs]
    for raw, holm in (("p_value", "p_holm"), ("p_equivalence", "p_equivalence_holm")):
        values = [row[raw] for row in alone]
        assert rows[raw].tolist() == pytest.approx(values)
        assert rows[holm].tolist() == pytest.approx([values[0], *slow_holm(values[1:])])


def test_an_equality_that_its_correction_does_not_leave_is_no_verdict():
    """Ten rows near the margin: one of them is equal by itself, and not among ten."""
    d = 0.0075 + 0.0035 * np.array([-1.5, -1, -0.7, -0.3, -0.1, 0.1, 0.3, 0.7, 1, 1.5])
    base = np.full(STUDY_SETS, 0.5)
    one = compare(table({"none": base, "clom": base + d}), [], [("clom", "none")]).iloc[0]
    assert one["p_equivalence"] < LEVEL
    assert one["verdict"] == "CLoM better, within ±1 point"
    names = [f"arm {i}" for i in range(10)]
    ten = compare(table({"none": base} | dict.fromkeys(names, base + d)), [], [(name, "none") for name in names])
    assert (ten["p_equivalence_holm"] > LEVEL).all()
    assert set(ten["verdict"]) == {f"{name} better" for name in names}


def test_false_equalities_are_rare_among_ten_rows_at_the_margin():
    """Of 2000 tables; without a correction 40 % hold one. The first one goes through ``compare``."""
    tables = MARGIN + np.random.default_rng(0).normal(0, 0.005, (2000, 10, STUDY_SETS))
    means, errors = tables.mean(2), stats.sem(tables, axis=2)
    sides = (
        stats.t.sf((means + MARGIN) / errors, STUDY_SETS - 1),
        stats.t.cdf((means - MARGIN) / errors, STUDY_SETS - 1),
    )
    alone = np.maximum(*sides)
    corrected = np.array([slow_holm(row) for row in alone.tolist()])
    assert (alone < LEVEL).any(1).mean() == pytest.approx(1 - 0.95**10, abs=0.04)
    assert (corrected < LEVEL).any(1).mean() == pytest.approx(0.05, abs=0.015)
    arms = {f"arm {i}": 0.5 + differences for i, differences in enumerate(tables[0])}
    rows = compare(table({"none": np.full(STUDY_SETS, 0.5), **arms}), [], [(name, "none") for name in arms])
    assert rows["p_equivalence_holm"].tolist() == pytest.approx(corrected[0].tolist())


# Four arms


def test_effects_of_the_2_by_2_are_computed_within_each_seed():
    rng = np.random.default_rng(2)
    arms = {name: rng.normal(0.5, 0.02, 7) for name in ("clom", "ce_ratio", "cos_mean", "cclom")}
    rows = compare(table(arms, networks=2), [], TWO_BY_TWO).set_index("contrast")
    seeds = list(zip(*arms.values(), strict=True))
    distance = [(clom + ce_ratio) / 2 - (cos_mean + cclom) / 2 for clom, ce_ratio, cos_mean, cclom in seeds]
    form = [(clom + cos_mean) / 2 - (ce_ratio + cclom) / 2 for clom, ce_ratio, cos_mean, cclom in seeds]
    interaction = [((clom - ce_ratio) - (cos_mean - cclom)) / 2 for clom, ce_ratio, cos_mean, cclom in seeds]
    for words, expected in zip(rows.index, (distance, form, interaction), strict=True):
        row = rows.loc[words]
        assert row["difference"] == pytest.approx(np.mean(expected))
        assert row["std"] == pytest.approx(np.std(expected, ddof=1))
        low, high = stats.t.interval(0.95, 6, np.mean(expected), stats.sem(expected))
        assert (row["t_low"], row["t_high"]) == pytest.approx((low, high))
        sums = [abs(round(float(np.dot(signs, expected)), 9)) for signs in itertools.product((-1, 1), repeat=7)]
        assert row["p_value"] == pytest.approx(np.mean([s >= abs(round(sum(expected), 9)) for s in sums]))
        assert row["n"] == 7


def test_effects_have_words_for_what_they_find():
    noise = 0.001 * np.array([-3, -2, -1, 0, 0, 1, 2, 3])
    d, f, i = 0.04 + noise, -0.004 + noise[::-1], np.roll(noise, 3)
    arms = {"clom": d + f + i, "ce_ratio": d - f - i, "cos_mean": f - d - i, "cclom": i - d - f}
    rows = compare(table({name: 0.5 + sum_ / 2 for name, sum_ in arms.items()}), TWO_BY_TWO)
    assert rows["difference"].tolist() == pytest.approx([0.04, -0.004, 0])
    assert rows["verdict"].tolist() == [
        "cross-entropy better",
        "ratio better, within ±1 point",
        "no interaction (±1 point)",
    ]
    assert rows[["a", "b"]].values.tolist()[0] == ["clom + ce_ratio", "cos_mean + cclom"]


def test_a_contrast_of_four_arms_asks_for_all_four_by_their_common_seeds():
    arms = {name: [0.5, 0.6, 0.7] for name in ("clom", "ce_ratio", "cos_mean")}
    assert compare(table(arms), [], TWO_BY_TWO).empty
    assert compare(table({**arms, "cclom": [0.5, 0.4]}), [], TWO_BY_TWO)["n"].tolist() == [2, 2, 2]
    with pytest.raises(ValueError, match="no rows of arm 'cclom'"):
        effect(table(arms), TWO_BY_TWO[0])


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0,), (0.5, -0.6)])
def test_a_contrast_sums_to_zero(weights):
    with pytest.raises(ValueError, match="sum to zero"):
        Contrast(("clom", "cclom"), weights, "", "", "")


# One rule for n


SAME = ["herding", "k_center", "k_means", "class_means", "full_data"]


def test_arms_whose_sets_are_equal_for_every_seed():
    arms = [Arm.parse(name) for name in [*SAME, "random_real", "none", "clom", "clom loss_avg"]]
    assert [arm.name for arm in arms if not arm.replicated] == SAME
    assert Arm(other="a file").replicated


@pytest.mark.parametrize("arm", SAME)
def test_equal_sets_are_one_with_all_their_networks_and_without_an_interval(arm):
    frame = table({arm: [0.5, 0.52, 0.57], "clom": [0.5, 0.52, 0.57]}, networks=2)
    rows = summary(frame, ["arm"]).set_index("arm")
    assert (rows.loc[arm, "n"], rows.loc[arm, "networks"]) == (1, 6)
    assert rows.loc[arm, "mean"] == pytest.approx(0.53)
    assert rows.loc[arm, ["std", "low", "high"]].isna().all()
    assert rows.loc["clom", "n"] == 3
    parts = variance_components(frame, ["arm"]).set_index("arm")
    assert math.isnan(parts.loc[arm, "between"])
    assert parts.loc[arm, "n"] == 1
    assert compare(frame, [("clom", arm)], [(arm, "clom")]).empty, "nothing to pair with"


def test_equal_hashes_tell_equal_sets_and_other_hashes_other_sets():
    frame = table({"herding": [0.5, 0.6, 0.7], "zebra": [0.1, 0.2, 0.3], "clom": [0.4, 0.5, 0.6]})
    hashes = {"herding": "aab", "zebra": "ccc"}  # the third pool of PTMs chooses other images
    hashed = frame.assign(synthetic_hash=[hashes.get(arm, "xyz")[seed] for arm, seed in frame[["arm", "seed"]].values])
    assert equal_sets_as_one(hashed)["seed"].tolist() == [0, 0, 2, 0, 0, 0, 0, 1, 2]
    unknown = frame.assign(synthetic_hash=None)
    assert equal_sets_as_one(unknown)["seed"].tolist() == [0, 0, 0, 0, 1, 2, 0, 1, 2]


def test_the_bootstrap_begins_with_the_number_of_sets_of_the_study():
    values = np.random.default_rng(0).normal(0.5, 0.01, STUDY_SETS)
    low, high = bca_interval(values)
    assert low < values.mean() < high
    assert bca_interval(values) == (low, high), "drawn from a seed"
    assert bca_interval(100 - 200 * values) == pytest.approx((100 - 200 * high, 100 - 200 * low), abs=0.05)
    assert np.isnan(bca_interval(values[1:])).all()
    assert np.isnan(bca_interval(np.full(STUDY_SETS, 0.5))).all()
    frame = table({"a": values, "b": np.full(STUDY_SETS, 0.5)})
    assert paired_difference(frame, "a", "b")["bca_low"].notna().all()
    assert paired_difference(frame[frame["seed"] > 0], "a", "b")["bca_low"].isna().all()


@pytest.mark.parametrize(("n", "covered"), [(3, 0.71), (6, 0.85), (STUDY_SETS, 0.91)])
def test_the_bootstrap_covers_less_than_it_says(n, covered):
    """Of 1000 samples with mean zero, how many intervals hold it: what the protocol and a docstring say."""
    samples = np.random.default_rng(n).normal(size=(1000, n))
    drawn = {"method": "BCa", "axis": 1, "n_resamples": 2000, "batch": 100, "rng": np.random.default_rng(0)}
    found = stats.bootstrap((samples,), np.mean, **drawn).confidence_interval
    assert np.mean((found.low < 0) & (found.high > 0)) == pytest.approx(covered, abs=0.015)


def test_who_looks_at_every_number_of_sets_finds_a_false_difference_twice_as_often():
    """What the page with the slider says."""
    samples, found = np.random.default_rng(0).normal(size=(4000, STUDY_SETS)), []
    for n in range(MIN_PAIRS, STUDY_SETS + 1):
        signs = np.array(list(itertools.product((-1, 1), repeat=n)))
        sums = samples[:, :n] @ signs.T
        p_values = (np.abs(sums) >= np.abs(samples[:, :n].sum(1, keepdims=True)) - 1e-12).mean(1)
        found.append(p_values < LEVEL)
    assert np.any(found, axis=0).mean() / np.mean(found[-1]) == pytest.approx(2, abs=0.1)


def test_the_planned_families_can_be_decided_with_the_sets_of_the_study():
    names = ["none", "random_real", "clom", "ce_ratio", "cos_mean", "cclom", "both", "clom alone", "cclom alone"]
    rng = np.random.default_rng(0)
    rows = planned_contrasts(table({name: rng.normal(0.5, 0.01, STUDY_SETS) for name in names}), "01_guidance")
    assert rows["contrast"].tolist()[:6] == [
        "CLoM − CCLoM",
        *(contrast.words for contrast in TWO_BY_TWO),
        "CLoM + CCLoM − CLoM",
        "CLoM + CCLoM − CCLoM",
    ]
    assert rows["primary"].sum() == 1
    assert sets_needed((~rows["primary"]).sum()) <= STUDY_SETS
    assert not rows["verdict"].str.startswith("no verdict").any()
    assert sets_needed() == MIN_PAIRS


# Pools, and power


def test_own_pools():
    frame = table({"clom": [0.5, 0.6]}, networks=2)
    assert own_pools(frame) is None
    assert own_pools(frame.assign(ptm_hashes="ab")) is False
    assert own_pools(frame.assign(ptm_hashes=frame["seed"].map(str))) is True
    assert own_pools(frame.assign(ptm_hashes="")) is None
    three = table({"a": [0.5, 0.6, 0.7]}).assign(ptm_hashes=["a", "a", "b"])
    assert own_pools(three) is None, "some share one"
    assert own_pools(frame[frame["seed"] == 0].assign(ptm_hashes="ab")) is None


@pytest.mark.parametrize(("n", "tests"), [(6, 1), (8, 6), (10, 1), (10, 3), (10, 13)])
def test_power_is_the_share_of_simulated_studies_that_find_the_difference(n, tests):
    spread, draw = 0.005, np.random.default_rng(n + tests)
    difference = detectable(spread, n, tests)
    signs = np.array(list(itertools.product((-1, 1), repeat=n)))
    sets = draw.normal(difference, spread, (4000, n))
    p_values = (np.abs(sets @ signs.T) >= np.abs(sets.sum(1, keepdims=True)) - 1e-12).mean(1)
    assert power(difference, spread, n, tests) == pytest.approx(0.8)
    assert (p_values < LEVEL / tests).mean() == pytest.approx(0.8, abs=0.02)


def test_a_correction_that_no_flip_passes_has_no_power():
    assert power(1.0, 0.005, 5) == 0
    assert detectable(0.005, 10, tests=26) == math.inf


@pytest.mark.parametrize(("n", "tests", "difference"), [(10, 1, 0.0), (10, 1, 0.005), (6, 1, 0.003), (10, 13, 0.0)])
def test_equality_power_is_the_share_of_simulated_studies_that_are_called_equal(n, tests, difference):
    spread, draw = 0.007, np.random.default_rng(n + tests)
    sets = draw.normal(difference, spread, (20_000, n))
    one_sided = [stats.ttest_1samp(sign * sets + MARGIN, 0, axis=1, alternative="greater").pvalue for sign in (1, -1)]
    equal = np.maximum(*one_sided) < LEVEL / tests
    assert equality_power(difference, spread, n, tests) == pytest.approx(equal.mean(), abs=0.012)


def test_half_width_is_the_interval_of_that_spread():
    values = np.array([0.4, 0.5, 0.6, 0.7])
    row = summary(table({"a": values}), ["arm"]).iloc[0]
    assert half_width(values.std(ddof=1), 4) == pytest.approx((row["high"] - row["low"]) / 2)
    assert power(0.0, 1.0, 10) == pytest.approx(50 / 2**10)  # the most of an even number of flips below LEVEL
    assert detectable(0.005, 6) > detectable(0.005, 10) > 0


# DD-Ranking


def test_label_robust_score_at_its_end_points():
    assert hlr(0.85, 0.5) == pytest.approx(0.35)
    assert ior(0.5, 0.3) == pytest.approx(0.2)
    assert lrs(hlr=-1, ior=1) == pytest.approx(1)
    assert lrs(hlr=1, ior=-1) == 0
    assert lrs(hlr=0, ior=0) == pytest.approx(1 / (1 + math.e))  # (1 - 1/e) / (e - 1/e) = 0.2689
    # a = 0.5 * 0.2 - 0.5 * 0.35 = -0.075: (0.927743 - 0.367879) / 2.350402
    assert lrs(hlr(0.85, 0.5), ior(0.5, 0.3)) == pytest.approx(0.238199, abs=1e-6)
    assert lrs(hlr=0.4, ior=0.1, weight=1.0) == lrs(hlr=0.9, ior=0.1, weight=1.0), "weight 1 sees IOR alone"


def test_percentages_are_refused():
    with pytest.raises(ValueError, match=r"fraction in 0\.\.1, not 65\.2: divide % by 100"):
        hlr(0.848, 65.2)
    with pytest.raises(ValueError, match="differences of fractions"):
        lrs(hlr=35.0, ior=20.0)
