"""The grids of the study have the sets, the seeds and the alphas that its rules ask for."""

from types import SimpleNamespace

import pandas as pd
import pytest
from made import ROOT

from ddlib.guidance import GUIDANCE
from ddlib.study import alphas, runs
from ddlib.study.ablations import ABLATIONS
from ddlib.study.arms import Arm
from ddlib.study.contrasts import sets_needed
from ddlib.study.statistics import STUDY_SETS
from workflow.grid import read_grid


def seeds(job):
    return range(job.parameters["seed"], job.parameters["seed"] + job.parameters["num_sets"])


def study(name):
    return read_grid(ROOT / "params" / "sweeps" / f"{name}.yaml").jobs


def seeds_of(jobs):
    found = {}
    for job in jobs:
        arm = Arm.planned(SimpleNamespace(**job.parameters)).name
        found.setdefault(arm, set()).update(seeds(job))
    return found


@pytest.mark.parametrize(("name", "notebook"), [("desk-guidance", "01_guidance"), ("desk-ensemble", "02_ensemble")])
def test_the_grids_of_the_two_ablations_have_the_sets_that_the_rules_ask_for(name, notebook):
    """And in them the planned contrasts can be decided, each job is one set, and nothing of the pilot is there."""
    jobs, pilot = study(name), {0, 1, 2, 3}
    arms = seeds_of(jobs)
    assert all(len(job.records) == 1 for job in jobs)
    assert {len(those) for name, those in arms.items() if Arm.parse(name).replicated} - {2} == {STUDY_SETS}
    assert [name for name, those in arms.items() if len(those) == 2] == ["clom grad_avg"] * (notebook == "02_ensemble")
    assert {len(those) for name, those in arms.items() if not Arm.parse(name).replicated} <= {1}
    assert not pilot & set().union(*arms.values())
    assert {job.parameters["evaluate_on"] for job in jobs} == {"test"}
    assert {job.parameters["ptm_seed"] for job in jobs} == {None}, "a pool for each set"
    there = [Arm.parse(name) for name in arms]
    row = ABLATIONS[notebook]
    assert all(set(contrast.arms) <= set(arms) for contrast in row.primary(there))
    family = [contrast for contrast in row.exploratory(there) if set(contrast.arms) <= set(arms)]
    assert len(family) >= 10
    assert sets_needed(len(family)) <= STUDY_SETS


def test_averaging_at_equal_passes_guides_once_in_as_many_updates_as_there_are_ptms():
    for name in ("desk-ensemble", "paper"):
        rare = [job.parameters for job in study(name) if job.parameters["guide_every"] > 1]
        assert rare
        assert all(p["guide_every"] == p["num_ptms"] for p in rare)


def test_alphas_are_chosen_on_the_hold_out_alone_with_other_seeds_than_the_study():
    for name in ("desk-alpha", "desk-ensemble-alpha", "desk-elsewhere-alpha", "paper-alpha"):
        assert {job.parameters["evaluate_on"] for job in study(name)} == {"holdout"}
    used = {seed for job in study("desk-guidance") for seed in seeds(job)}
    assert not used & {seed for job in study("desk-alpha") for seed in seeds(job)}


def test_the_alphas_of_the_study_are_among_those_of_its_grid():
    tried = {}
    for job in study("desk-alpha"):
        arm = Arm.planned(SimpleNamespace(**job.parameters))
        tried.setdefault(arm.name, set()).add(job.parameters.get(f"alpha_{arm.guidance}"))
    for job in study("desk-guidance"):
        arm = Arm.planned(SimpleNamespace(**job.parameters))
        for loss in GUIDANCE[arm.guidance]:
            assert job.parameters[f"alpha_{loss}"] in tried[arm.name if arm.guidance == loss else loss], arm.name


def test_the_alphas_of_the_study_are_those_that_the_hold_out_chose():
    folder = ROOT / "book" / "results" / "sweeps" / "desk-alpha"
    planned = [folder / record for job in study("desk-alpha") for record in job.records]
    if missing := sum(not record.is_file() for record in planned):
        pytest.skip(f"of the grid desk-alpha {missing} of {len(planned)} records are missing")
    records, _ = runs.load_runs(folder)
    chosen = alphas.chosen_alphas(runs.reference(alphas.alpha_grid(records, 0)))
    for name in ("desk-guidance", "desk-ensemble"):
        used = [{"arm": Arm.planned(SimpleNamespace(**job.parameters)).name, **job.parameters} for job in study(name)]
        assert alphas.unchosen_alphas(pd.DataFrame(used), chosen) == []
