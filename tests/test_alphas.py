"""Alphas: the runs on the hold-out that they are chosen from, the choice, and arms that do not follow it."""

import itertools

import pandas as pd
from made import records_of

from ddlib.study import alphas, figures, runs, tables


def alpha_runs(values=(1.0, 10.0, 100.0), **changes):
    """Hold-out runs of CLoM and CCLoM over a grid of both alphas, and one without guidance."""
    arms = [("clom", a, c) for a in values for c in (1.0, 5.0)] + [("cclom", 7.0, c) for c in (1.0, 5.0)]
    arms += [("none", 7.0, 1.0), ("both", 1.0, 1.0), ("both", 10.0, 1.0)]
    shared = {"evaluate_on": "holdout", "dataset_hash": "held out", **changes}
    made = [
        row
        for arm, a, c in arms
        for row in records_of("01_guidance", arm, 0.5 + a / 1000, alpha_clom=a, alpha_cclom=c, **shared)
    ]
    return pd.DataFrame(made).assign(run=lambda table: table["run"] + table["alpha_cclom"].astype(str))


def curve(arm, accuracies):
    """Hold-out runs of one arm: for each alpha the means of its sets."""
    return [
        {"arm": arm, "alpha": alpha, "seed": seed, "architecture": "ConvNet-3", "network": 0, "accuracy": mean}
        for alpha, means in accuracies.items()
        for seed, mean in enumerate(means)
    ]


def test_the_alpha_grid_collects_hold_out_runs_that_share_all_else(guidance_runs):
    tested = guidance_runs.assign(evaluate_on="test", alpha_cclom=1000.0)
    other = alpha_runs(ipc=10)
    real = alpha_runs().query("arm == 'none'").assign(arm="random_real", base_method="random")
    records = runs.with_settings(pd.concat([tested, alpha_runs(), other, real], ignore_index=True))
    grid = alphas.alpha_grid(records, 0)
    assert grid.groupby("arm")["alpha"].unique().map(sorted).loc[["clom", "cclom"]].to_dict() == {
        "clom": [1.0, 10.0, 100.0],
        "cclom": [1.0, 5.0],
    }
    assert set(grid["arm"]) == {"clom", "cclom", "none"}, "with both losses there are two alphas"
    assert set(grid["ipc"]) == {1}
    assert set(grid["evaluate_on"]) == {"holdout"}
    assert grid[grid["arm"] == "none"]["alpha"].isna().all()
    assert len(grid[grid["arm"] == "clom"]) == 3 * 12, "once, whatever the alpha that it does not use"
    ax = figures.alpha_curve(runs.reference(grid))
    assert [line.get_label() for line in ax.lines if "n =" in line.get_label()] == [
        "no guidance (n = 3)",
        "CLoM (n = 3)",
        "CCLoM (n = 3)",
    ]


def test_the_hold_out_runs_may_lie_in_a_folder_of_their_own_and_be_judged_by_fewer_networks(guidance_runs):
    tested = runs.with_settings(guidance_runs.assign(evaluate_on="test", alpha_cclom=1000.0, judges=1))
    fewer = alpha_runs(architectures="ConvNet-3", judges=0).query("architecture == 'ConvNet-3'")
    held_out = runs.with_settings(fewer)
    grid = alphas.alpha_grid(tested, 0, held_out=held_out)
    assert set(grid["arm"]) == {"clom", "cclom", "none"}
    assert set(grid["evaluate_on"]) == {"holdout"}
    assert alphas.alpha_grid(tested, 0, held_out=pd.DataFrame()).empty
    assert len(alphas.alpha_grid(held_out, 0)) == len(grid), "a folder of hold-out runs alone has a grid too"


def test_where_the_hold_out_runs_of_a_sweep_lie(failed_runs):
    path, _ = failed_runs
    above = path / "sweeps"
    assert alphas.alpha_folders(above / "desk-ensemble") == []
    assert alphas.load_held_out(above / "desk-ensemble").empty
    for name in ("desk-ensemble-alpha", "desk-alpha", "paper-alpha"):
        (above / name).mkdir(parents=True)
        for record in path.glob("*.json"):
            (above / name / record.name).write_bytes(record.read_bytes())
    found = {name: [path.name for path in alphas.alpha_folders(above / name)] for name in ("desk-ensemble", "paper")}
    assert found == {"desk-ensemble": ["desk-ensemble-alpha", "desk-alpha"], "paper": ["paper-alpha"]}
    assert len(alphas.load_held_out(above / "desk-ensemble")) == 2 * len(alphas.load_held_out(above / "paper")) == 6


def test_a_run_has_the_alpha_of_its_own_loss_and_counts_once_whatever_the_other_three():
    losses = ("clom", "ce_ratio", "cos_mean", "cclom")
    made = []
    for place, loss in enumerate(losses):
        for own, others in itertools.product((1.0, 10.0), (2.0, 3.0)):
            given = {f"alpha_{name}": own if name == loss else others for name in losses}
            made += records_of("01_guidance", loss, 0.5, **given, evaluate_on="holdout", judges=place)
    table = pd.DataFrame(made)
    table = runs.with_settings(
        table.assign(run=[f"{row.run} {row.alpha_clom} {row.alpha_cclom}" for row in table.itertuples()])
    )
    grid = alphas.alpha_grid(table, 0)
    assert grid.groupby("arm")["alpha"].unique().map(sorted).to_dict() == {loss: [1.0, 10.0] for loss in losses}
    assert (grid.groupby("arm").size() == len(table) / len(losses) / 2).all()


def test_without_several_alphas_there_is_no_grid(guidance_runs):
    records = runs.with_settings(guidance_runs.assign(alpha_cclom=1.0))
    assert alphas.alpha_grid(records, 0).empty, "records that do not say what they were evaluated on"
    tested = guidance_runs.assign(evaluate_on="test", alpha_cclom=1.0)
    one = alpha_runs((10.0,)).query("arm in ('clom', 'none')")
    assert alphas.alpha_grid(runs.with_settings(pd.concat([tested, one], ignore_index=True)), 0).empty


def test_the_alpha_with_the_best_mean_is_chosen_and_of_equal_ones_the_smallest():
    grid = [
        *curve("none", {float("nan"): [0.3, 0.4]}),
        *curve("clom", {1000.0: [0.2, 0.2], 10.0: [0.4, 0.5], 100.0: [0.5, 0.4]}),
        *curve("cclom", {1.0: [0.1, 0.2], 10.0: [0.3, 0.3]}),
        *curve("clom alone", {5.0: [0.9, 0.1], 50.0: [0.52, 0.5], 500.0: [0.4, 0.4]}),
    ]
    chosen = alphas.chosen_alphas(pd.DataFrame(grid))
    assert chosen["alpha"].to_dict() == {"clom": 10.0, "cclom": 10.0, "clom alone": 50.0}
    assert chosen["edge"].to_dict() == {"clom": True, "cclom": True, "clom alone": False}
    assert chosen["parameter"].to_dict() == {"clom": "alpha_clom", "cclom": "alpha_cclom", "clom alone": "alpha_clom"}
    assert alphas.chosen_alphas(pd.DataFrame(grid).head(2)).empty
    table = tables.alpha_table(pd.DataFrame(grid))
    assert table.index.tolist() == ["no guidance", *["CLoM"] * 3, *["CLoM alone"] * 3, *["CCLoM"] * 2]
    assert table["alpha"].tolist() == ["–", "10", "100", "1,000", "5", "50", "500", "1", "10"]
    assert table[""].tolist() == [
        *("", "chosen, at the edge of the grid", "", ""),
        *("", "chosen", "", "", "chosen, at the edge of the grid"),
    ]
    assert tables.alpha_table(pd.DataFrame()).empty
    assert figures.alpha_curve(pd.DataFrame(grid).assign(augment=True)) is not None


def test_a_half_run_grid_compares_alphas_on_the_seeds_that_all_have():
    grid = pd.DataFrame(
        [
            {
                "arm": "clom",
                "alpha": alpha,
                "seed": seed,
                "architecture": "ConvNet-3",
                "network": 0,
                "accuracy": share,
            }
            for alpha, accuracies in {1.0: [0.5, 0.5], 10.0: [0.4, 0.9], 100.0: [0.45]}.items()
            for seed, share in enumerate(accuracies)
        ]
    )
    row = alphas.chosen_alphas(grid).loc["clom"]
    assert (row["alpha"], row["accuracy"], row["n"]) == (1.0, 0.5, 1), "10 is best on seed 1 alone, which 100 lacks"
    apart = grid[(grid["alpha"] == 1.0) & (grid["seed"] == 0) | (grid["alpha"] == 10.0) & (grid["seed"] == 1)]
    assert alphas.chosen_alphas(apart).empty


def test_an_arm_at_another_alpha_than_the_chosen_one_is_named():
    chosen = pd.DataFrame({"alpha": {"clom": 10.0, "cclom": 100.0, "clom alone": 1000.0}})
    there = pd.DataFrame(
        [
            {"arm": arm, "evaluate_on": "test", "alpha_clom": clom, "alpha_cclom": 30.0, "alpha_ce_ratio": 1.0}
            for arm, clom in {
                **{"none": 1.0, "clom": 10.0, "clom alone": 1000.0, "clom random": 20.0},
                **{"both": 10.0, "ce_ratio": 5.0},
            }.items()
        ]
    )
    assert alphas.unchosen_alphas(there, chosen) == [
        "CLoM, one at random: alpha_clom is 20, and the hold-out chose 10",
        "CE ratio: alpha_ce_ratio 1 was not chosen on a hold-out",
        "CLoM + CCLoM: alpha_cclom is 30, and the hold-out chose 100",
    ]
    assert alphas.unchosen_alphas(there.assign(evaluate_on="holdout"), chosen) == []
    assert alphas.unchosen_alphas(there.drop(columns="evaluate_on"), chosen) == []
    assert len(alphas.unchosen_alphas(there, chosen.head(0))) == 6
