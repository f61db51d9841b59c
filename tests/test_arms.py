"""Names of arms: what parameters and records say is one object, with one label, one place and one colour."""

import itertools
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from ddlib.combine import STRATEGIES, Selecting
from ddlib.guidance import GUIDANCE
from ddlib.selection import SELECTIONS, Selection
from ddlib.study.ablations import ABLATIONS
from ddlib.study.arms import FULL, MARKERS, Arm, guidances, is_selection, ordered, ordered_networks


def every_arm():
    """All arms that can be told apart."""
    passes = ({}, {"equal_passes": True}, {"guide_every": 5})
    parts = itertools.product(guidances(), ("", *STRATEGIES), (False, True), passes)
    guided = [Arm(guidance, strategy, alone, **equal) for guidance, strategy, alone, equal in parts]
    return [Arm(), *guided, *(Arm(selection=key) for key in (*SELECTIONS, FULL))]


def parameters(**changes):
    plain = {"base_method": "dm", "guidance": "clom", "strategy": "single", "equal_passes": False, "guide_every": 1}
    return SimpleNamespace(**plain | changes)


@pytest.mark.parametrize(
    ("changes", "num_ptms", "name", "label"),
    [
        ({"guidance": "none", "strategy": "random"}, 0, "none", "no guidance"),
        ({}, 1, "clom", "CLoM"),
        ({"guidance": "cclom", "strategy": "mgda"}, 1, "cclom", "CCLoM"),
        ({"guidance": "cclom", "strategy": "mgda"}, 4, "cclom mgda", "CCLoM, MGDA"),
        ({"guidance": "both"}, 4, "both single", "CLoM + CCLoM, one fixed PTM"),
        ({"base_method": "none"}, 1, "clom alone", "CLoM alone"),
        (
            {"base_method": "none", "strategy": "random", "equal_passes": True},
            2,
            "clom random alone equal_passes",
            "CLoM, one at random alone (equal passes)",
        ),
        (
            {"strategy": "random", "equal_passes": True},
            2,
            "clom random equal_passes",
            "CLoM, one at random (equal passes)",
        ),
        (
            {"strategy": "loss_avg", "guide_every": 5},
            5,
            "clom loss_avg every_5",
            "CLoM, average of losses (every 5th update)",
        ),
        ({"guidance": "ce_ratio", "guide_every": 2}, 1, "ce_ratio every_2", "CE ratio (every 2nd update)"),
        ({"guidance": "cos_mean", "guide_every": 11}, 1, "cos_mean every_11", "mean cosine (every 11th update)"),
        ({"guidance": "none", "guide_every": 1}, 1, "none", "no guidance"),
        ({"base_method": "k_means", "guidance": "none"}, 1, "k_means", "k-means"),
        ({"base_method": "class_means", "guidance": "none"}, 0, "class_means", "class means (not real images)"),
        ({"base_method": "random", "guidance": "none"}, 0, "random_real", "random real images"),
        ({"base_method": "herding", "guidance": "none"}, 1, "herding", "herding"),
        ({"base_method": "k_center", "guidance": "none"}, 1, "k_center", "K-Center"),
        ({"base_method": "full", "guidance": "none"}, 0, "full_data", "full data"),
    ],
)
def test_parameters_make_a_name_and_the_name_makes_the_arm_again(changes, num_ptms, name, label):
    arm = Arm.of(parameters(**changes), num_ptms)
    assert (arm.name, arm.label) == (name, label)
    assert Arm.parse(name) == Arm.named(name) == arm


def test_a_planned_pool_has_so_many_ptms_of_each_architecture():
    p = parameters(strategy="random", num_ptms=1, ptm_architectures="ConvNet-3, VGG-11")
    assert Arm.planned(p).name == "clom random"
    p.ptm_architectures = "ConvNet-3"
    assert Arm.planned(p).name == "clom"
    p.num_ptms = 5
    assert Arm.planned(p).name == "clom random"


def test_parse_is_the_inverse_of_name_for_every_arm():
    arms = every_arm()
    assert [Arm.parse(arm.name) for arm in arms] == arms
    assert len({arm.name for arm in arms}) == len({arm.label for arm in arms}) == len(arms)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "zebra",
            "random",
            "full",
            "",
            "none alone",
            "clom alone random",
            "clom  random",
            "clom random random",
            "Clom",
        ),
        *("clom every_1", "clom every_0", "clom every_05", "clom every_", "clom every_5 random", "none every_5"),
        *("clom every_5 every_6", f"clom every_{'9' * 5000}"),
    ],
)
def test_another_name_is_refused_and_shown_all_the_same(name):
    with pytest.raises(
        ValueError, match=rf"is not an arm; known: none, random_real, herding.*{', '.join(guidances())}, foll"
    ):
        Arm.parse(name)
    arm = Arm.named(name)
    assert arm.label == arm.name == (name or "(no name)")
    assert ordered([name, "full_data", "none"]) == ["none", "full_data", name]
    assert not arm.guided
    assert not arm.needs_ptms


def test_the_order_is_that_of_the_tables():
    expected = ["random_real", "herding", "k_center", "none", "clom", "clom alone", "clom single", "clom random"]
    expected += ["clom random equal_passes", "clom loss_avg", "cclom", "both", "both mgda", "full_data", "a", "b"]
    assert ordered(reversed(expected)) == expected
    assert ordered_networks(["VGG-11", "a new one", "ConvNet-3"]) == ["ConvNet-3", "VGG-11", "a new one"]


def test_a_difference_puts_a_shared_guidance_in_front():
    def words(a, b):
        return Arm.parse(a).minus(Arm.parse(b))

    assert (
        words("clom loss_avg", "clom random equal_passes") == "CLoM: average of losses − one at random (equal passes)"
    )
    assert words("clom", "none") == "CLoM − no guidance"
    assert words("clom alone", "clom") == "CLoM alone − CLoM"
    assert words("clom random", "cclom random") == "CLoM, one at random − CCLoM, one at random"
    assert words("none", "random_real") == "no guidance − random real images"


def test_ptms_are_asked_for_to_guide_and_to_choose():
    needing = {arm.name for arm in every_arm() if arm.needs_ptms}
    assert needing == {arm.name for arm in every_arm() if arm.guided} | {"herding", "k_center", "k_means"}
    assert [is_selection(name) for name in ("random", "full", "dm", "none")] == [True, True, False, False]


# Colours


def linear(rgb):
    rgb = np.array(rgb)
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def oklab(rgb):
    """Ottosson's OKLab, in which a distance of 0.02 can just be seen."""
    first = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566]]
    second = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099]]
    cones = np.cbrt(np.array([*first, [0.0883024619, 0.2817188376, 0.6299787005]]) @ linear(rgb))
    return np.array([*second, [0.0259040371, 0.7827717662, -0.8086757660]]) @ cones


def nearest(arms):
    """The smallest distance between two of their colours."""
    points = np.array([oklab(arm.colour) for arm in arms])
    return min(np.linalg.norm(a - b) for a, b in itertools.combinations(points, 2))


def test_every_colour_has_a_contrast_of_three_on_white():
    for arm in (*every_arm(), Arm.named("zebra"), Arm.named("an older arm")):
        assert 1.05 / (linear(arm.colour) @ [0.2126, 0.7152, 0.0722] + 0.05) >= 3, arm.name


@pytest.mark.parametrize(
    ("number", "word"), [(2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (12, "12th"), (21, "21st"), (113, "113th")]
)
def test_updates_are_counted_as_a_text_does(number, word):
    assert Arm("clom", guide_every=number).label == f"CLoM (every {word} update)"


def test_colours_that_meet_in_a_figure_are_far_apart_and_no_two_are_equal():
    arms = every_arm()
    assert nearest([Arm(), *map(Arm, guidances()), *(Arm(selection=key) for key in (*SELECTIONS, FULL))]) > 0.06
    for guidance in guidances():
        assert nearest([Arm(guidance, strategy) for strategy in STRATEGIES]) > 0.06
    assert nearest(arms) > 0.005


def test_arms_of_one_marker_differ_in_colour():
    by_marker = {}
    for arm in every_arm():
        by_marker.setdefault(arm.marker, []).append(arm)
    assert all(nearest([arm for arm in arms if arm.guided]) > 0.02 for arms in by_marker.values() if len(arms) > 1)


def test_markers_tell_strategies_and_guidances_apart_too():
    for guidance in guidances():
        markers = [Arm(guidance, strategy).marker for strategy in ("", *STRATEGIES)]
        assert len(set(markers)) == len(markers) <= len(MARKERS)
    meeting = [Arm(), *map(Arm, guidances()), *(Arm(selection=key) for key in SELECTIONS)]
    assert len({arm.marker for arm in meeting}) == len(meeting)


def test_a_new_row_leaves_all_other_colours_as_they_are(monkeypatch):
    before = {arm: (arm.colour, arm.marker) for arm in every_arm()}
    new = Selecting(select=lambda num_ptms, step: 0, rule="the first", source="this test")
    monkeypatch.setitem(STRATEGIES, "dummy", new)
    monkeypatch.setitem(SELECTIONS, "dummy_real_images", Selection(lambda *_: None, "dummy images", "this test"))
    monkeypatch.setitem(GUIDANCE, "dummy_guidance", ("clom",))
    assert {arm: (arm.colour, arm.marker) for arm in before} == before
    added = set(every_arm()) - set(before)
    assert {arm.name for arm in added} >= {"clom dummy", "dummy_real_images", "dummy_guidance", "dummy_guidance mgda"}
    taken = [oklab(colour) for colour, _ in before.values()]
    for arm in (Arm("clom", "dummy"), Arm(selection="dummy_real_images")):
        assert min(np.linalg.norm(oklab(arm.colour) - other) for other in taken) > 0.005


# Ablations


def test_the_contrasts_that_are_planned_are_between_arms_that_can_be_run():
    there = every_arm()
    for name, row in ABLATIONS.items():
        primary, exploratory = row.primary(there), row.exploratory(there)
        assert bool(primary) == (name != "06_ptm_options"), "without one an ablation has no question"
        planned = primary + exploratory
        assert len(set(planned)) == len({contrast.words for contrast in planned}) == len(planned)
        assert {arm for contrast in planned for arm in contrast.arms} <= {arm.name for arm in there}


def pairs(contrasts):
    return [(contrast.a, contrast.b) for contrast in contrasts]


def test_the_second_ablation_compares_each_strategy_that_has_been_run_with_averaging():
    row = ABLATIONS["02_ensemble"]
    names = ["cclom mgda", "clom pcgrad", "clom single", "clom", "clom mgda alone", "none"]
    planned = pairs(row.exploratory([Arm.parse(name) for name in names]))
    assert [pair for pair in planned if pair[0] in names] == [
        ("clom pcgrad", "clom loss_avg"),
        ("clom single", "clom random"),
        ("cclom mgda", "cclom loss_avg"),
    ]
    assert ("clom loss_avg", "clom random equal_passes") in planned, "the longer run is an option"
    assert ("cclom loss_avg", "cclom random") in planned
    assert pairs(row.primary([])) == [("clom loss_avg", "clom random")]


def test_averaging_at_equal_passes_guides_every_few_updates():
    row = ABLATIONS["02_ensemble"]
    there = [Arm.parse(f"{guidance} {arm}") for guidance in ("clom", "cclom") for arm in ("loss_avg every_5", "random")]
    assert pairs(row.primary(there)) == [("clom loss_avg", "clom random"), ("clom loss_avg every_5", "clom random")]
    assert ("cclom loss_avg every_5", "cclom random") in pairs(row.exploratory(there))


def test_the_first_ablation_asks_for_each_alone_and_for_both():
    planned = pairs(ABLATIONS["01_guidance"].exploratory([]))
    assert {("both", "clom"), ("both", "cclom"), ("clom alone", "clom"), ("cclom alone", "cclom")} <= set(planned)
    assert ("clom + cos_mean", "ce_ratio + cclom") in planned, "the form of the loss"


def test_the_table_of_ablations_is_light():
    """The engine reads it each time that it is called."""
    heavy = ["pandas", "matplotlib", "seaborn", "statsmodels", "torchvision"]
    code = f"import sys, ddlib.study.ablations; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
