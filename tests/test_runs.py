"""Which runs of a folder are compared: settings, ablations, and those that failed."""

import pandas as pd
import pytest
from made import LEVELS, records_of

from ddlib.study import contrasts, runs, tables


def test_settings_group_runs_that_share_all_but_the_arm(guidance_runs, ensemble_runs):
    other = pd.DataFrame(records_of("01_guidance", "clom", 0.7, alpha_clom=100.0))
    records = runs.with_settings(pd.concat([other, guidance_runs, ensemble_runs], ignore_index=True))
    assert set(records.loc[records["alpha_clom"] == 10.0, "setting"]) == {0}  # the one with most runs
    assert set(records.loc[records["alpha_clom"] == 100.0, "setting"]) == {1}
    table = tables.settings_table(records)
    assert table["runs"].tolist() == [36, 3]
    assert table["alpha_clom"].tolist() == [10.0, 100.0]
    assert "ipc" in table
    assert len(runs.choose_setting(records, 1)) == 12
    with pytest.raises(ValueError, match="settings 0, 1"):
        runs.choose_setting(records, 2)


def test_arms_of_another_base_method_are_not_mixed_in(guidance_runs):
    dsa = pd.DataFrame(records_of("01_guidance", "clom", 0.7)).assign(base_method="dsa", run="dsa")
    alone = pd.DataFrame(records_of("01_guidance", "clom alone", 0.6, base_method="none"))
    real = pd.DataFrame(records_of("01_guidance", "herding", 0.4, base_method="herding", guidance="none"))
    records = runs.with_settings(pd.concat([guidance_runs, dsa, alone, real], ignore_index=True))
    dm, other = (runs.choose_setting(records, 0, method) for method in ("dm", "dsa"))
    assert set(dm["arm"]) == {*LEVELS, "clom alone", "herding"}
    assert set(other["arm"]) == {"clom", "clom alone", "herding"}
    assert tables.accuracy_table(other).loc["CLoM alone", "ConvNet-3"].startswith("61.0")
    pairs = contrasts.planned_contrasts(runs.reference(dm), "01_guidance")
    assert ("clom alone", "clom") in set(zip(pairs["a"], pairs["b"], strict=True))


def test_other_data_are_another_setting(guidance_runs):
    other = guidance_runs.assign(dataset_hash="e", run=guidance_runs["run"] + "e")
    assert runs.with_settings(pd.concat([guidance_runs, other], ignore_index=True))["setting"].nunique() == 2


def test_an_ablation_has_one_row_for_the_two_averages(guidance_runs, ensemble_runs):
    records = pd.concat([guidance_runs, ensemble_runs], ignore_index=True)
    assert set(runs.ablation(records, "01_guidance")["arm"]) == set(LEVELS)
    assert "clom grad_avg" not in set(runs.ablation(records, "02_ensemble")["arm"])
    alone = records[records["strategy"] != "loss_avg"]
    assert "clom grad_avg" in set(runs.ablation(alone, "02_ensemble")["arm"])
    assert runs.ablation(records, "01_guidance", augment=False).empty


def test_only_the_arm_that_has_a_twin_is_left_out():
    """Arms of the second ablation without guidance carry its default strategy, loss_avg, in their parameters."""
    unguided = records_of("02_ensemble", "none", 0.4, strategy="loss_avg")
    both = records_of("02_ensemble", "both loss_avg", 0.5) + records_of("02_ensemble", "both grad_avg", 0.5)
    records = pd.DataFrame(unguided + both + records_of("02_ensemble", "clom grad_avg", 0.5))
    assert set(runs.ablation(records, "02_ensemble")["arm"]) == {"none", "both loss_avg", "clom grad_avg"}


def test_the_reference_architecture_is_the_first_named(guidance_runs):
    assert set(runs.reference(guidance_runs)["architecture"]) == {"ConvNet-3"}


def test_another_number_of_ptms_in_one_ablation_is_another_setting(guidance_runs, ensemble_runs):
    more = pd.DataFrame(records_of("02_ensemble", "clom random", 0.7, num_ptms=10)).assign(run="more")
    records = runs.with_settings(pd.concat([guidance_runs, ensemble_runs, more], ignore_index=True))
    assert records.groupby("num_ptms")["setting"].unique().map(list).to_dict() == {1: [0], 4: [0], 10: [1]}
    assert "unusual_pool" not in records


def test_guidance_alone_has_an_alpha_of_its_own_on_the_test_images(guidance_runs):
    tested = guidance_runs.assign(evaluate_on="test")
    alone = pd.DataFrame(
        records_of("01_guidance", "clom alone", 0.6, base_method="none", alpha_clom=100.0, evaluate_on="test")
    )
    records = runs.with_settings(pd.concat([tested, alone], ignore_index=True))
    assert set(records["setting"]) == {0}
    held_out = runs.with_settings(pd.concat([tested, alone], ignore_index=True).assign(evaluate_on="holdout"))
    assert set(held_out["setting"]) == {0, 1}, "there alphas are compared"


def test_failed_runs_have_the_setting_of_those_they_would_be_compared_with(failed_runs):
    records, failures = runs.load_runs(failed_runs[0])
    assert records["setting"].tolist() == [0, 0, 0]
    assert failures.groupby("alpha_clom")["setting"].unique().map(list).to_dict() == {10.0: [0], 1e9: [1]}
    chosen = runs.choose_setting(records, 0)
    failed = runs.failed_arms(failures, chosen, 0)
    assert failed == {"01_guidance": {"clom": 1, "cclom": 3}, "02_ensemble": {"clom grad_avg": 1}, "06_ptm_options": {}}
    assert runs.failed_arms(failures, chosen, 0, "dsa")["01_guidance"] == {"clom": 1}
    table = tables.accuracy_table(runs.ablation(chosen, "01_guidance"), failed["01_guidance"])
    assert table["ConvNet-3"].to_dict() == {"CLoM (1 failed)": "50.0 ± 0.0", "CCLoM (3 failed)": "failed"}


def test_a_failed_grad_avg_has_no_row_where_loss_avg_is_there(failed_runs):
    path, write = failed_runs
    write(0, notebook="02_ensemble", strategy="loss_avg", num_ptms=2)
    write(0, MemoryError(), notebook="02_ensemble", strategy="mgda", num_ptms=2)
    records, failures = runs.load_runs(path)
    failed = runs.failed_arms(failures, runs.choose_setting(records, 0), 0)
    assert failed["02_ensemble"] == {"clom mgda": 1}


def test_a_folder_of_failed_runs_alone_has_a_report():
    nothing = pd.DataFrame(columns=["setting", "arm"])
    assert tables.settings_table(nothing).empty
    with pytest.raises(ValueError, match="no run has accuracies: all failed"):
        runs.choose_setting(nothing, 0)
