"""The PTMs of a run: pools of all sets or of each, judges that guide nothing, and what a record keeps of them."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from made import SHORT

from ddlib.ptms.pool import train_ptms
from ddlib.study import pools
from ddlib.study import run as study
from ddlib.study.record import read_record
from ddlib.study.runs import load_records

pytestmark = pytest.mark.usefixtures("folders")

RECIPE = {"epochs": 1, "width": 4}


@pytest.fixture
def arm(tmp_path):
    """Run one arm; keyword arguments are parameters that differ from SHORT. Its runs, and their records."""

    def run(**changes):
        p = SimpleNamespace(**{**SHORT, "runs_folder": str(tmp_path / "runs"), **changes})
        data = study.open_dataset(p)
        runs = study.run_arm(p, data, study.open_ptms(p, data), "02_ensemble")
        return runs, [read_record(run.record) for run in runs]

    return run


def hashes(ptms):
    return [ptm.hash for ptm in ptms]


# Alphas, and updates that are not guided


@pytest.mark.parametrize("guidance", ["clom", "ce_ratio", "cos_mean", "cclom"])
def test_each_loss_has_the_weight_of_its_own_name(arm, guidance):
    own, others = f"alpha_{guidance}", {f"alpha_{loss}": 7.0 for loss in ("clom", "ce_ratio", "cos_mean", "cclom")}
    unguided = arm(guidance="none", strategy="single")[0][0].synthetic.hash
    assert arm(guidance=guidance, **others | {own: 0.0})[0][0].synthetic.hash == unguided
    assert arm(guidance=guidance, **dict.fromkeys(others, 0.0) | {own: 7.0})[0][0].synthetic.hash != unguided


def test_every_second_update_is_guided_with_twice_the_weight(arm):
    runs, [record] = arm(iterations=5, guide_every=2)
    assert (record["arm"], record["ptm_passes"]) == ("clom loss_avg every_2", 3 * 2)
    assert record["history"]["ptm_passes"].tolist() == [2, 2, 4, 4, 6]
    assert record["parameters"]["guide_every"] == 2
    once = arm(iterations=1, alpha_clom=2.0)[0][0].synthetic
    assert torch.equal(once.images, arm(iterations=1, guide_every=2)[0][0].synthetic.images)
    assert len(runs) == 1


# Pools


def test_each_set_can_have_a_pool_of_its_own(arm, digits):
    runs, records = arm(ptm_seed=None, num_sets=2)
    for run, record in zip(runs, records, strict=True):
        assert record["parameters"]["ptm_seed"] is None
        assert record["ptm_hashes"] == hashes(train_ptms(digits, num_ptms=2, seed=run.seed, **RECIPE))
        assert {card["seed"] for card in record["ptms"]} == {run.seed}
        [same], _ = arm(ptm_seed=run.seed, seed=run.seed)
        assert same.synthetic.hash == run.synthetic.hash
        assert same.accuracies["accuracy"].tolist() == run.accuracies["accuracy"].tolist()
    assert len({hash for record in records for hash in record["ptm_hashes"]}) == 4
    assert records[0]["parameter_hash"] == records[1]["parameter_hash"]


def test_what_a_notebook_shows_is_the_pool_of_its_first_set(digits):
    p = SimpleNamespace(**SHORT | {"ptm_seed": None, "num_sets": 3})
    assert {ptm.seed for ptm in study.open_ptms(p, digits)} == {5}
    assert [*pools.pool_seeds(p)] == [5, 6, 7]
    assert [*pools.pool_seeds(SimpleNamespace(**SHORT))] == [0]


def test_an_arm_of_many_seeds_that_was_stopped_gives_the_same_sets(arm, monkeypatch):
    """With pools of their own too."""
    real, whole = pools.open_pool, arm(ptm_seed=None, num_sets=2)[1]

    def stopped(p, data):
        if p.ptm_seed == 6:
            raise KeyboardInterrupt
        return real(p, data)

    for run in whole:
        assert run["status"] == "ok"
    monkeypatch.setattr(pools, "open_pool", stopped)
    with pytest.raises(KeyboardInterrupt):
        arm(ptm_seed=None, num_sets=2)
    monkeypatch.setattr(pools, "open_pool", real)
    again = arm(ptm_seed=None, num_sets=2)[1]
    assert [record["synthetic_hash"] for record in again] == [record["synthetic_hash"] for record in whole]


# Judges


def recognised(ptm, synthetic):
    """The slow way."""
    right = 0
    for image, label in zip(synthetic.images, synthetic.labels.tolist(), strict=True):
        scores = ptm.logits(image[None])[0].tolist()
        right += scores.index(max(scores)) == label
    return right / len(synthetic)


def test_judges_are_the_next_initialisations_and_change_nothing(arm, digits):
    [plain], [before] = arm()
    assert [said["role"] for said in before["ptm_accuracies"]] == ["guide"] * 2
    [run], [record] = arm(judges=2)
    four = train_ptms(digits, num_ptms=4, **RECIPE)
    assert [(said["ptm"], said["role"]) for said in record["ptm_accuracies"]] == [
        *zip(hashes(four), ["guide", "guide", "judge", "judge"], strict=True)
    ]
    assert [said["accuracy"] for said in record["ptm_accuracies"]] == [
        pytest.approx(recognised(ptm, run.synthetic)) for ptm in four
    ]
    assert record["ptm_hashes"] == hashes(four[:2])
    assert run.synthetic.hash == plain.synthetic.hash
    assert run.accuracies["accuracy"].tolist() == plain.accuracies["accuracy"].tolist()
    assert record["ptm_passes"] == before["ptm_passes"]


def test_judges_of_an_arm_without_guidance_are_all_that_is_trained(arm, tmp_path):
    _, [record] = arm(guidance="none", strategy="single", judges=1)
    assert [said["role"] for said in record["ptm_accuracies"]] == ["judge"]
    assert len(list((tmp_path / "ptms").glob("*.safetensors"))) == 1
    _, [other] = arm(judges=1)
    assert other["ptm_accuracies"][-1]["ptm"] == record["ptm_accuracies"][0]["ptm"]


def test_judges_of_sets_with_pools_of_their_own_have_their_seeds(arm, digits):
    _, records = arm(judges=1, ptm_seed=None, num_sets=2)
    for seed, record in zip((5, 6), records, strict=True):
        wanted = train_ptms(digits, num_ptms=3, seed=seed, **RECIPE)[2]
        assert record["ptm_accuracies"][-1] == {
            "ptm": wanted.hash,
            "role": "judge",
            "accuracy": record["ptm_accuracies"][-1]["accuracy"],
        }


def test_a_judge_is_of_the_first_architecture_and_the_epoch_of_the_pool(arm):
    architectures = "ConvNet-3,ConvNet-4"
    _, [record] = arm(judges=1, num_ptms=1, ptm_architectures=architectures, image_size=16, ptm_epochs=2, ptm_epoch=1)
    assert [said["role"] for said in record["ptm_accuracies"]] == ["guide", "guide", "judge"]
    assert all(said["ptm"].endswith("-1") for said in record["ptm_accuracies"])


def test_ptms_with_other_classes_and_those_that_were_never_asked_say_nothing(arm, digits):
    _, [record] = arm(strategy="single")
    assert [said["ptm"] for said in record["ptm_accuracies"]] == record["ptm_hashes"][:1]
    p = SimpleNamespace(**SHORT)
    run, _ = arm()
    foreign = [ptm.__class__(**{**vars(ptm), "class_names": tuple("abcdefghij")}) for ptm in study.open_ptms(p, digits)]
    assert pools.said_of(p, digits, foreign, run[0].synthetic) == []


def test_a_selection_by_features_is_judged_and_one_by_chance_is_not(arm):
    _, [chosen] = arm(guidance="none", base_method="k_center", strategy="single")
    assert [said["role"] for said in chosen["ptm_accuracies"]] == ["guide"]
    _, [random] = arm(guidance="none", base_method="random", strategy="single")
    assert random["ptm_accuracies"] == []


def test_the_table_of_records_has_the_mean_of_each_role(arm, tmp_path):
    _, [record] = arm(judges=2)
    row = load_records(tmp_path / "runs").iloc[0]
    for role in ("guide", "judge"):
        shares = [said["accuracy"] for said in record["ptm_accuracies"] if said["role"] == role]
        assert row[f"{role}_accuracy"] == pytest.approx(sum(shares) / 2)


# Gradients


def test_the_record_holds_norms_and_cosines_of_the_gradients(arm, digits):
    runs, [record] = arm(alpha_clom=3.0)
    p = SimpleNamespace(**SHORT)
    start, labels = runs[0].distilled.snapshots[0].clone().requires_grad_(), runs[0].synthetic.labels
    losses = [3.0 * F.cross_entropy(ptm.logits(start), labels) for ptm in study.open_ptms(p, digits)]
    a, b = (torch.autograd.grad(loss, start)[0].flatten() for loss in losses)
    first = record["ptm_gradients"][0]
    assert first["iteration"] == 0
    assert first["norms"] == pytest.approx([float(a.norm()), float(b.norm())], rel=1e-4)
    cosine = float(a @ b / (a.norm() * b.norm()))
    assert [value for row in first["cosines"] for value in row] == pytest.approx([1, cosine, cosine, 1], abs=1e-4)


@pytest.mark.parametrize(("iterations", "logged"), [(3, [0, 1, 2]), (10, [*range(10)]), (25, [*range(0, 25, 3)])])
def test_gradients_are_looked_at_ten_times_at_most(arm, iterations, logged):
    runs, [record] = arm(iterations=iterations, strategy="random", guidance="cos_mean")
    assert [said["iteration"] for said in record["ptm_gradients"]] == logged
    seen = [said["cosines"][0][1] for said in record["ptm_gradients"]]
    assert float(runs[0].distilled.cosines[0, 1]) == pytest.approx(sum(seen) / len(seen), abs=1e-5)


@pytest.mark.parametrize("changes", [{"num_ptms": 1, "strategy": "single"}, {"guidance": "none", "strategy": "single"}])
def test_one_ptm_has_none_to_agree_with(arm, changes):
    assert arm(**changes)[1][0]["ptm_gradients"] == []


def test_they_survive_an_interruption(arm, monkeypatch):
    _, [whole] = arm(iterations=12)
    real = study.evaluate
    monkeypatch.setattr(study, "evaluate", lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        arm(iterations=12)
    monkeypatch.setattr(study, "evaluate", real)
    _, [again] = arm(iterations=12)
    assert again["ptm_gradients"] == whole["ptm_gradients"]
    assert again["ptm_accuracies"] == whole["ptm_accuracies"]
