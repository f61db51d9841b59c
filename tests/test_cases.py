"""Settings side by side: the words of a case, and contrasts within each."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ddlib.study import cases

USUAL = {"dataset": "cifar10", "ipc": 10, "base_method": "dm", "width": 32, "batch_real": 64}
USUAL |= {"num_ptms": 1, "ptm_architectures": "ConvNet-3", "ptm_epoch": 10, "ptm_seed": None, "source_dataset": None}


def rows(arm, values, notebook="01_guidance", **changes):
    """One network of ConvNet-3 for each set, seeds 10, 11, ..."""
    fixed = {"notebook": notebook, "arm": arm, "guidance": arm.split()[0], "architectures": "ConvNet-3 x2,ConvNet-4"}
    fixed |= {"architecture": "ConvNet-3", "network": 0, "augment": True, **USUAL, **changes}
    return [fixed | {"seed": 10 + place, "accuracy": value} for place, value in enumerate(values)]


@pytest.mark.parametrize(
    ("changes", "words", "told"),
    [
        ({}, cases.SETTINGS, "as in the ablations"),
        ({"dataset": "fashion_mnist"}, cases.SETTINGS, "Fashion-MNIST"),
        ({"ipc": 1}, cases.SETTINGS, "1 image per class"),
        ({"ipc": 1, "base_method": "dsa"}, cases.SETTINGS, "DSA, 1 image per class"),
        ({"base_method": "none"}, cases.SETTINGS, "as in the ablations"),
        ({"base_method": "herding", "dataset": "mnist"}, cases.SETTINGS, "MNIST"),
        ({"width": 128.0, "batch_real": 256}, cases.SETTINGS, "width 128, 256 real images per class"),
        ({"ptm_epoch": 0}, cases.OPTIONS, "untrained network"),
        ({"ptm_epoch": 2.0}, cases.OPTIONS, "PTM of epoch 2"),
        ({"ptm_seed": math.nan, "source_dataset": math.nan}, cases.OPTIONS, "as in the ablations"),
        ({"num_ptms": 5}, cases.OPTIONS, "5 PTMs"),
        ({"ptm_architectures": "ConvNet-3,VGG-11"}, cases.OPTIONS, "PTMs of 2 architectures"),
        ({"ptm_architectures": "VGG-11"}, cases.OPTIONS, "PTM is VGG-11"),
        ({"source_dataset": "cifar100"}, cases.OPTIONS, "PTM of CIFAR-100"),
        (
            {"source_dataset": "imagenet", "ptm_architectures": "mobilenet_v2", "ptm_seed": 0},
            cases.OPTIONS,
            "PTM of ImageNet",
        ),
        ({"ptm_seed": 10}, cases.OPTIONS, "one pool for all sets"),
    ],
)
def test_a_case_is_what_differs_in_words(changes, words, told):
    assert cases.case_of(USUAL | changes, USUAL, words) == told
    table = cases.with_cases(pd.DataFrame([USUAL | changes, USUAL]), USUAL, words)
    assert list(table["case"]) == [told, "as in the ablations"]


def test_elsewhere_compares_and_corrects_within_each_case():
    draw = np.random.default_rng(0)
    values = {
        (dataset, arm): draw.normal(level, 0.01, 8)
        for dataset, levels in {"cifar10": (0.4, 0.44, 0.43), "fashion_mnist": (0.7, 0.72, 0.75)}.items()
        for arm, level in zip(("none", "clom", "cclom"), levels, strict=True)
    }
    records = pd.DataFrame([row for (data, arm), of in values.items() for row in rows(arm, of, dataset=data)])
    table = cases.elsewhere(records, USUAL)
    assert set(table["case"]) == {"as in the ablations", "Fashion-MNIST"}
    assert table["primary"].tolist() == [True, True, False, False, False, False]
    for _, row in table.iterrows():
        dataset = "cifar10" if row["case"] == "as in the ablations" else "fashion_mnist"
        by_hand = values[dataset, row["a"]] - values[dataset, row["b"]]
        assert row["difference"] == pytest.approx(by_hand.mean())
        assert (row["t_low"], row["t_high"]) == pytest.approx(
            stats.t.interval(0.95, 7, by_hand.mean(), stats.sem(by_hand))
        )
        assert row["contrast"].endswith(f", {row['case']}")
    for _, those in table.groupby("case"):
        first, others = those[those["primary"]], those[~those["primary"]].sort_values("p_value")
        assert list(first["p_holm"]) == list(first["p_value"])
        steps = np.maximum.accumulate([min(1, (2 - place) * p) for place, p in enumerate(others["p_value"])])
        assert list(others["p_holm"]) == pytest.approx(list(steps))


def test_options_are_compared_with_the_usual_ptm_of_the_same_guidance():
    draw = np.random.default_rng(1)
    made = {
        ("none", "no guidance"): {},
        ("clom", "CLoM"): {},
        ("cclom", "CCLoM"): {},
        ("clom", "CLoM, untrained network"): {"ptm_epoch": 0},
        ("clom", "CLoM, 5 PTMs"): {"num_ptms": 5},
        ("clom", "CLoM, 2 PTMs"): {"num_ptms": 2},
        ("cclom", "CCLoM, PTM of CIFAR-100"): {"source_dataset": "cifar100"},
        ("clom", "CLoM, one pool for all sets"): {"ptm_seed": 9},
    }
    values = {key: draw.normal(0.4, 0.02, 6) for key in made}
    plain = pd.DataFrame([row for key, changes in made.items() for row in rows(key[0], values[key], **changes)])
    records = cases.options(plain, USUAL)
    assert set(records["arm"]) == {label for _, label in made}
    table = cases.options_against_usual(records)
    by_arm = {label: of for (_, label), of in values.items()}
    pairs = {(f"CLoM, {option}", "CLoM") for option in ("untrained network", "5 PTMs", "2 PTMs")}
    pairs |= {("CCLoM, PTM of CIFAR-100", "CCLoM")}
    assert set(zip(table["a"], table["b"], strict=True)) == pairs
    for _, row in table.iterrows():
        assert row["difference"] == pytest.approx((by_arm[row["a"]] - by_arm[row["b"]]).mean())
    assert "5 PTMs − CLoM" in set(table["contrast"])
    families = [{"CLoM, 5 PTMs", "CLoM, 2 PTMs"}]  # these share a correction, the others have none
    families += [{"CLoM, untrained network"}, {"CCLoM, PTM of CIFAR-100"}]
    for family in families:
        those = table[table["a"].isin(family)].sort_values("p_value")
        assert len(those) == len(family)
        steps = np.maximum.accumulate([min(1, (len(family) - at) * p) for at, p in enumerate(those["p_value"])])
        assert list(those["p_holm"]) == pytest.approx(list(steps))


def test_options_stand_in_the_order_of_their_values():
    made = [{"num_ptms": 10}, {"num_ptms": 2}, {"ptm_epoch": 20}, {}, {"ptm_epoch": 0}, {"source_dataset": "cifar100"}]
    plain = [row for changes in made for row in rows("clom", [0.4], **changes)] + rows("none", [0.3])
    records = cases.options(pd.DataFrame(plain), USUAL)
    assert list(dict.fromkeys(records["arm"])) == [
        "no guidance",
        "CLoM",
        *("CLoM, 2 PTMs", "CLoM, 10 PTMs"),
        *("CLoM, untrained network", "CLoM, PTM of epoch 20", "CLoM, PTM of CIFAR-100"),
    ]


def test_settings_stand_side_by_side_in_the_order_of_their_values():
    made = [("clom", {"ipc": 50}), ("none", {"ipc": 50}), ("clom", {"ipc": 1}), ("clom", {"dataset": "fashion_mnist"})]
    records = cases.named_by_case(pd.DataFrame([row for arm, ch in made for row in rows(arm, [0.4], **ch)]), USUAL)
    assert list(records["arm"]) == [
        *("1 image per class: CLoM", "50 images per class: no guidance", "50 images per class: CLoM"),
        "Fashion-MNIST: CLoM",
    ]
