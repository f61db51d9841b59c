"""A recipe: composed of parts or named setting by setting, one and the same; every part checks itself."""

import dataclasses
import inspect
import re

import pytest
import torch

from ddlib.base_methods import BASE_METHODS, BaseMethod, Matching
from ddlib.compute import Compute
from ddlib.distill import distill
from ddlib.guidance import Guidance
from ddlib.recipe import PARTS, Optimisation, Recipe

SETTINGS = {
    "ipc": 3,
    "base_method": "dsa",
    "base_network": "ConvNet-4",
    "width": 8,
    "batch_real": 5,
    "outer_loops": 2,
    "inner_loops": 1,
    "lr_net": 0.2,
    "guidance": "both",
    "strategy": "loss_avg",
    "alpha_clom": 3.0,
    "alpha_ce_ratio": 2.0,
    "alpha_cos_mean": 1.5,
    "alpha_cclom": {"ConvNet-3": 7.0},
    "guide_every": 2,
    "iterations": 2,
    "lr_img": 0.3,
    "start": "noise",
    "precision": "bf16",
    "compile": "auto",
    "seed": 4,
    "log_every": 1,
}


def composed(ptms):
    return Recipe(
        ipc=3,
        base=Matching("dsa", "ConvNet-4", 8, batch_real=5, outer_loops=2, inner_loops=1, lr_net=0.2),
        guidance=Guidance("both", ptms, "loss_avg", 3.0, 2.0, 1.5, alpha_cclom={"ConvNet-3": 7.0}, guide_every=2),
        optimisation=Optimisation(iterations=2, lr_img=0.3, start="noise"),
        compute=Compute("bf16", "auto"),
        seed=4,
        log_every=1,
    )


# Two forms


@pytest.mark.filterwarnings("ignore:this processor has no bf16")
def test_both_forms_give_the_same_bits(tiny, tiny_ptms):
    short, whole = distill(tiny, ptms=tiny_ptms, **SETTINGS), distill(tiny, composed(tiny_ptms))
    assert short.synthetic.hash == whole.synthetic.hash
    assert short.synthetic.provenance == whole.synthetic.provenance
    assert torch.equal(short.cosines, whole.cosines)
    assert short.history.drop(columns="seconds").equals(whole.history.drop(columns="seconds"))
    other = distill(tiny, dataclasses.replace(composed(tiny_ptms), seed=5))
    assert other.synthetic.hash != short.synthetic.hash


def test_both_forms_have_the_same_defaults(tiny):
    tiny_work = {"base": Matching(width=4), "optimisation": Optimisation(iterations=1)}
    short = distill(tiny, ipc=1, iterations=1, width=4)
    assert short.synthetic.hash == distill(tiny, Recipe(ipc=1, **tiny_work)).synthetic.hash
    assert Recipe.of().settings() == Recipe().settings()


def test_every_setting_is_named_in_the_help_of_distill():
    """And stands in the test above, with another value than its default."""
    assert set(SETTINGS) == set(Recipe().settings())
    known = set(re.findall(r"\w+", inspect.getdoc(distill)))
    assert {*SETTINGS, "ptms"} <= known
    default = Recipe().settings()
    assert [name for name in SETTINGS if SETTINGS[name] == default[name]] == []


def test_settings_and_back(tiny_ptms):
    recipe = composed(tiny_ptms)
    assert recipe.settings() == SETTINGS
    again = Recipe.of(**recipe.settings(), ptms=tiny_ptms)
    assert again.settings() == recipe.settings()
    assert again.guidance.ptms is recipe.guidance.ptms
    assert (again.base, again.optimisation) == (recipe.base, recipe.optimisation)
    assert list(recipe.settings()) == list(Recipe().settings())


def test_each_setting_reaches_its_part(tiny_ptms):
    for name, value in SETTINGS.items():
        recipe = Recipe.of(ptms=tiny_ptms, **{name: value})
        assert recipe.settings() == Recipe().settings() | {name: value}


def test_a_recipe_and_settings_together_are_refused(tiny):
    with pytest.raises(TypeError, match="a recipe or settings by name, not both; found a recipe and ipc, seed"):
        distill(tiny, Recipe(), ipc=1, seed=2)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("iteration", r" \(did you mean 'iterations'\?\)"),
        ("lr_imgs", r" \(did you mean 'lr_img'\?\)"),
        ("method", r" \(did you mean 'base_method'\?\)"),  # its name inside of Matching
        ("kind", ""),
        ("qqq", ""),
    ],
)
def test_an_unknown_setting_gets_a_hint_and_the_known_ones(tiny, name, hint):
    known = ", ".join(["ipc", "base_method", "base_network", "width"])
    for call in (lambda: Recipe.of(**{name: 1}), lambda: distill(tiny, **{name: 1})):
        with pytest.raises(TypeError, match=f"a distillation has no setting '{name}'{hint}; it has {known}"):
            call()


def test_no_two_parts_have_a_setting_of_one_name():
    names = [*Recipe().settings(), "ptms"]
    fields = [field for part in PARTS.values() for field in dataclasses.fields(part)]
    assert len(set(names)) == len(names) == len(fields) + len(dataclasses.fields(Recipe)) - len(PARTS)


# The values of the authors

AUTHORS = [
    ("dm", 10, (1.0, "real", 1, 1)),
    ("dc", 1, (0.1, "noise", 1, 1)),
    ("dc", 10, (0.1, "noise", 10, 50)),
    ("dsa", 10, (0.1, "real", 10, 50)),
    ("dsa", 50, (0.1, "real", 50, 10)),
]


def authors_of(recipe):
    return tuple(recipe.settings()[name] for name in ("lr_img", "start", "outer_loops", "inner_loops"))


@pytest.mark.parametrize(("method", "ipc", "values"), AUTHORS)
def test_complete_fills_in_the_values_of_the_authors(method, ipc, values):
    recipe = Recipe.of(base_method=method, ipc=ipc)
    assert authors_of(recipe) == (None,) * 4
    assert authors_of(recipe.complete()) == values
    assert authors_of(recipe) == (None,) * 4  # a copy
    rest = recipe.complete().settings() | dict.fromkeys(("lr_img", "start", "outer_loops", "inner_loops"))
    assert rest == recipe.settings()


@pytest.mark.parametrize("method", ["dm", "dc", "dsa"])
def test_complete_overwrites_nothing(method):
    given = {"lr_img": 0.0, "start": "noise" if method != "dc" else "real", "outer_loops": 3, "inner_loops": 7}
    recipe = Recipe.of(base_method=method, ipc=10, **given)
    assert recipe.complete().settings() == recipe.settings()
    for name, value in given.items():
        completed = Recipe.of(base_method=method, ipc=10, **{name: value}).complete().settings()
        authors = Recipe.of(base_method=method, ipc=10).complete().settings()
        assert completed == authors | {name: value}
        assert completed != authors


def test_complete_keeps_the_ptms(tiny_ptms):
    assert Recipe.of(guidance="clom", ptms=tiny_ptms).complete().guidance.ptms is tiny_ptms


# Every part checks itself


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Matching("mtt"), "unknown base method 'mtt'; known: dm, dc, dsa, none"),
        (lambda: Matching(batch_real=0), "batch_real must be at least 1; found 0"),
        (lambda: Matching(outer_loops=0), "outer_loops must be at least 1; found 0"),
        (lambda: Matching(inner_loops=-2), "inner_loops must be at least 1; found -2"),
        (lambda: Recipe.of(base_method="dc", compile="always"), "compile is for base method dm only; found dc"),
        (lambda: Compute("fp16"), "unknown precision 'fp16'; known: float32, tf32, bf16"),
        (lambda: Compute(compile="yes"), "unknown compile 'yes'; known: never, auto, always"),
        (lambda: Guidance("clip"), "unknown guidance 'clip'; known: none, clom, ce_ratio, cos_mean, cclom, both"),
        (lambda: Guidance("clom"), "guidance 'clom' needs at least one PTM"),
        (lambda: Guidance(strategy="vote"), "Unknown strategy 'vote'; known: single, random"),
        (lambda: Guidance("both", [object()], "prob_avg"), "'prob_avg' is not defined for guidance 'both'; use one"),
        (lambda: Optimisation(iterations=0), "iterations must be at least 1; found 0"),
        (lambda: Recipe(log_every=0), "log_every must be at least 1; found 0"),
        (lambda: Recipe(base=Matching("none")), "nothing would be learned: choose one"),
        (lambda: dataclasses.replace(Matching("dsa"), method="x"), "unknown base method 'x'"),
    ],
)
def test_every_part_checks_itself(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_weighting_by_accuracy_asks_the_ptms_at_once(tiny_ptms):
    unknown = dataclasses.replace(tiny_ptms[0], train_accuracy=None)
    with pytest.raises(ValueError, match="one of these has none recorded"):
        Guidance("clom", [*tiny_ptms, unknown], "accuracy_weighted")
    assert Guidance("clom", tiny_ptms, "accuracy_weighted").strategy == "accuracy_weighted"
    assert Guidance("none", [unknown], "accuracy_weighted").kind == "none"  # nobody is asked


@pytest.mark.parametrize("part", [Recipe(), *(part() for part in PARTS.values())])
def test_parts_are_frozen(part):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(part, dataclasses.fields(part)[0].name, 2)


# A new base method is a row


def test_a_new_row_is_all_a_base_method_needs(tiny, tiny_ptms, monkeypatch):
    """Its updates, start, rate and loops are those of the row; guidance adds to it as to any other."""
    seen = []

    def towards_zero(images, task, iteration):
        for _ in range(task.matching.outer_loops):
            seen.append((iteration, images.detach().clone()))
            yield 0.5 * images.square().sum()

    row = BaseMethod(updates=towards_zero, lr_img=0.25, start="noise", source="this test", loops=True)
    monkeypatch.setitem(BASE_METHODS, "shrink", row)
    made = distill(tiny, base_method="shrink", ipc=2, outer_loops=1, iterations=2, width=4)
    assert [iteration for iteration, _ in seen] == [0, 1]
    first, second = (images for _, images in seen)
    torch.testing.assert_close(second, 0.75 * first)  # one step of 0.25 down the gradient, which is the images
    torch.testing.assert_close(made.synthetic.images, second - 0.25 * (second + 0.5 * first))  # momentum 0.5
    assert made.history["base_loss"].iloc[0] == pytest.approx(float(first.square().sum() / 2))
    provenance = made.synthetic.provenance
    assert [provenance[name] for name in ("base_method", "lr_img", "start")] == ["shrink", 0.25, "noise"]
    guided = distill(tiny, base_method="shrink", guidance="clom", ptms=tiny_ptms[:1], ipc=2, iterations=1, width=4)
    assert guided.synthetic.provenance["outer_loops"] == 2  # of the rule of loops, for two images a class
    assert (guided.history["guidance_loss"] > 0).all()
    with pytest.raises(ValueError, match=r"known: dm, dc, dsa, none, shrink"):
        Matching("another")
