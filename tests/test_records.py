"""Records: what is written is what is read, what is damaged is refused in a sentence, and tables of many."""

import json
import math
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from made import KEPT, a_run, accuracies

from ddlib.study import provenance
from ddlib.study import record as records
from ddlib.study.provenance import environment, git_commit, peak_memory_bytes, run_hash
from ddlib.study.record import parameter_hash, read_record, reason, record_path, write_failure, write_record
from ddlib.study.runs import FIRST_COLUMNS, load_gradients, load_records, load_runs
from ddlib.study.schema import Record


def damage(path: Path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_parameter_hash_ignores_order_and_sees_every_digit():
    assert parameter_hash({"a": 0.1, "b": [1, 2]}) == parameter_hash({"b": (1, 2), "a": 0.1})
    assert len(parameter_hash({})) == 16
    different = [{"a": v} for v in (0.1, math.nextafter(0.1, 1), 1, 1.0, True, "1", None, [1], {"b": 1})]
    assert len({parameter_hash(p) for p in different}) == len(different)
    assert parameter_hash({"a": np.float64(0.1)}) == parameter_hash({"a": 0.1})
    assert parameter_hash({"a": torch.tensor(2)}) == parameter_hash({"a": 2})


@pytest.mark.parametrize(("value", "error"), [(math.inf, ValueError), (Path("x"), TypeError)])
def test_parameter_hash_rejects_what_json_cannot_hold(value, error):
    with pytest.raises(error, match=r"parameters\['alpha'\] is"):
        parameter_hash({"alpha": value})


def test_gradients_are_a_row_for_each_pair(tmp_path):
    cosines = [[1.0, 0.5, -0.2], [0.5, 1.0, 0.1], [-0.2, 0.1, 1.0]]
    logged = [{"iteration": 7, "norms": [2.0, 1.0, 0.0], "cosines": cosines}]
    write_record(tmp_path, **a_run(ptm_gradients=logged))
    write_record(tmp_path, **a_run(arm="clom", parameters=KEPT | {"num_ptms": 1}))
    table = load_gradients(tmp_path)
    assert table[["arm", "seed", "iteration", "pair", "cosine", "ratio"]].values.tolist() == [
        ["clom loss_avg", 3, 7, "0-1", 0.5, 2.0],
        ["clom loss_avg", 3, 7, "0-2", -0.2, math.inf],
        ["clom loss_avg", 3, 7, "1-2", 0.1, math.inf],
    ]


def test_round_trip(tmp_path):
    path = write_record(tmp_path / "new", **a_run())
    assert path == record_path(tmp_path / "new", "02_ensemble", KEPT, 3)
    assert records.synthetic_path(path).name == path.stem + ".safetensors"
    record = read_record(path)
    pd.testing.assert_frame_equal(record["accuracies"], accuracies(), check_dtype=False)
    assert record["accuracies"]["accuracy"].tolist() == [0.1, 1 / 3, 0.5, 0.75], "raw accuracies keep all digits"
    assert record["history"]["loss"].tolist() == pytest.approx([3.0, math.nan, 1.23457], nan_ok=True)
    assert record["parameters"] == KEPT
    assert (record["arm"], record["ptm_hashes"]) == ("clom loss_avg", ["a" * 16, "b" * 16])
    assert record["code_hash"] == run_hash()
    assert record["created"].endswith("+00:00")


def test_seeds_share_the_hash_and_a_repeated_run_replaces_its_record(tmp_path):
    first = write_record(tmp_path, **a_run())
    again = write_record(tmp_path, **a_run(accuracies=accuracies([0.2] * 4)))
    other = write_record(tmp_path, **a_run(seed=4, parameters={**KEPT, "seed": 4}))
    assert again == first
    assert other.name.replace("seed4", "seed3") == first.name
    assert len(list(tmp_path.iterdir())) == 2
    assert read_record(first)["accuracies"]["accuracy"].unique().tolist() == [0.2]


def test_history_is_thinned_to_200_rows_with_both_ends(tmp_path):
    long = pd.DataFrame({"iteration": range(1001), "loss": np.linspace(1, 0, 1001)})
    record = read_record(write_record(tmp_path, **a_run(history=long)))
    kept = record["history"]["iteration"]
    assert (len(kept), kept.iloc[0], kept.iloc[-1], record["history_length"]) == (200, 0, 1000, 1001)
    assert kept.diff().dropna().between(4, 6).all()


def test_a_failed_write_leaves_no_file_and_the_old_record_alone(tmp_path, monkeypatch):
    path = write_record(tmp_path, **a_run())
    before = path.read_text()
    with pytest.raises(TypeError, match="seconds"):
        write_record(tmp_path, **a_run(seconds={"distill": object()}))

    def no_space(*_):
        raise OSError("no space left")

    monkeypatch.setattr("ddlib.disk.files.os.replace", no_space)
    with pytest.raises(OSError, match="no space left"):
        write_record(tmp_path, **a_run(ptm_passes=41))
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accuracies": accuracies([0.1, 65.2, 0.1, 0.1])}, r"'accuracies.accuracy\[1\]' is 65.2, but should be less"),
        ({"accuracies": accuracies([-0.1, 0.1, 0.1, 0.1])}, r"'accuracies.accuracy\[0\]' is -0.1, but should be great"),
        ({"accuracies": accuracies([math.nan, 0.1, 0.1, 0.1])}, r"'accuracies.accuracy\[0\]' is None, but should be a"),
        ({"accuracies": accuracies([True, 0.1, 0.1, 0.1])}, r"'accuracies.accuracy\[0\]' is True, but should be a"),
        (
            {"accuracies": accuracies().assign(network=0.5)},
            r"'accuracies.network\[0\]' is 0.5, but should be a valid int",
        ),
        ({"accuracies": accuracies().assign(augment=1)}, r"'accuracies.augment\[0\]' is 1, but should be a valid bool"),
        (
            {"accuracies": accuracies().assign(seconds=-1.0)},
            r"'accuracies.seconds\[0\]' is -1.0, but should be greater",
        ),
        ({"accuracies": accuracies().assign(architecture=3)}, r"'accuracies.architecture\[0\]' is 3, but should be a"),
        ({"accuracies": accuracies().assign(more=1)}, "'accuracies.more' is unknown"),
        ({"accuracies": accuracies().drop(columns="augment")}, "'accuracies.augment' is missing"),
        ({"seconds": {"distill": -1.0}}, "'seconds.distill' is -1.0, but should be greater than or equal to 0"),
        ({"ptm_hashes": [7]}, r"'ptm_hashes\[0\]' is 7, but should be a valid string"),
        ({"peak_memory_bytes": -1}, "'peak_memory_bytes' is -1, but should be greater"),
        ({"accuracies": accuracies().head(0)}, "is empty, but the status is ok"),
        ({"seed": 4}, "seed is 4, but parameters"),
        ({"status": "fine"}, "'status' is 'fine', but should be 'ok' or 'failed'"),
        ({"notebook": "../x"}, "notebook is '../x'"),
        ({"seed": "../x"}, "seed is '../x'; expected a whole number"),
        ({"ptm_passes": 1.5}, "'ptm_passes' is 1.5, but should be a valid integer"),
        (
            {"status": "failed", "error": "it diverged"},
            "'accuracies' is not empty, but the status is failed: a failed run has no accuracies",
        ),
    ],
)
def test_impossible_values_are_refused_before_anything_is_written(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        write_record(tmp_path, **a_run(**changes))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": "three"}, "field 'seed' is 'three', but should be a valid integer"),
        ({"seed": True}, "field 'seed' is True, but should be a valid integer"),
        ({"schema": 99}, "field 'schema' is 99, this ddlib reads 2: use a matching ddlib or run again"),
        ({"schema": True}, "field 'schema' is True, but should be a valid integer"),
        ({"arm": None}, "field 'arm' is None, but should be a valid string"),
        ({"parameters": []}, r"field 'parameters' is \[\], but should be a valid dictionary"),
        ({"more": 1}, "field 'more' is unknown"),
        ({"history": {"a": [1], "b": [1, 2]}}, "field 'history' has columns of unequal length"),
        ({"history": {"a": 1}}, "field 'history.a' is 1, but should be a valid list"),
    ],
)
def test_reading_names_the_file_and_the_field(tmp_path, changes, message):
    path = write_record(tmp_path, **a_run())
    damage(path, **changes)
    with pytest.raises(ValueError, match=message) as error:
        read_record(path)
    assert path.name in str(error.value)


def test_a_record_of_the_first_schema_is_refused_with_what_to_do(tmp_path):
    """Its parameters have 0, "" and "default" where None stands now; its checksum fits."""
    path = write_record(tmp_path, **a_run())
    held = {
        **json.loads(path.read_text()),
        "schema": 1,
        "parameters": {**KEPT, "lr_img": 0.0, "start": "default"},
    }
    path.write_text(json.dumps({**held, "sha256": records.checksum(held)}))
    with pytest.raises(ValueError, match="this ddlib reads 2") as error:
        read_record(path)
    assert str(error.value) == (
        f"{path}: field 'schema' is 1, this ddlib reads 2 (its parameters have 0, '' and 'default' where None stands "
        "now): delete the file and run again, or read it with the ddlib of its git_commit"
    )


def test_a_record_has_the_fields_of_the_model_and_null_for_none(tmp_path):
    path = write_record(tmp_path, **a_run(parameters={"lr_img": None, "seed": 3}))
    held = json.loads(path.read_text())
    fields = [field.alias or name for name, field in Record.model_fields.items()]
    assert list(held) == [name for name in fields if name != "error"]
    assert '"lr_img": null' in path.read_text()
    assert read_record(path)["parameters"] == {"lr_img": None, "seed": 3}
    failed = write_failure(tmp_path / "failed", MemoryError(), **failure())
    assert list(json.loads(failed.read_text())) == fields


def test_settings_with_none_are_told_apart_and_kept_together(tmp_path):
    """None in some runs and a number in others; a failed run belongs to the setting of its seeds."""
    for seed, rate in ((1, None), (2, None), (1, 0.5)):
        shared = KEPT | {"lr_img": rate, "seed": seed}
        write_record(tmp_path, **a_run(parameters=shared, seed=seed))
    write_failure(tmp_path, MemoryError(), **failure(parameters=KEPT | {"lr_img": None, "seed": 9}, seed=9))
    found, failures = load_runs(tmp_path)
    assert found.groupby("setting")["run"].nunique().tolist() == [2, 1]
    assert found.groupby("setting")["lr_img"].first().isna().tolist() == [True, False]
    assert failures["setting"].tolist() == [0]


def test_reading_names_a_missing_field(tmp_path):
    path = write_record(tmp_path, **a_run())
    record = json.loads(path.read_text())
    del record["dataset_hash"]
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="field 'dataset_hash' is missing"):
        read_record(path)
    path.write_text("[1]")
    with pytest.raises(ValueError, match="holds a list"):
        read_record(path)


@pytest.mark.parametrize(("old", "new"), [("0.75", "0.76"), ('"clom"', '"none"'), ("40", "41"), ("sha256", "sha257")])
def test_a_changed_digit_or_letter_is_found(tmp_path, old, new):
    path = write_record(tmp_path, **a_run())
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=r"checksum does not match|field 'sha257' is unknown") as error:
        read_record(path)
    assert path.name in str(error.value)


def test_another_layout_is_the_same_record_and_one_without_checksum_is_read(tmp_path):
    path = write_record(tmp_path, **a_run())
    held = json.loads(path.read_text())
    path.write_text(json.dumps(held, sort_keys=True, indent=4))
    assert read_record(path)["parameters"] == KEPT
    del held["sha256"]
    path.write_text(json.dumps(held))
    assert read_record(path)["parameters"] == KEPT


def test_load_records_is_tidy(tmp_path):
    write_record(tmp_path, **a_run())
    guided = {"dataset": "digits", "guidance": "none", "alpha": 0.0, "device": "auto"}
    write_record(
        tmp_path, **a_run(notebook="01_guidance", arm="none", parameters=guided, seed=5, peak_memory_bytes=None)
    )
    table = load_records(tmp_path)
    assert tuple(table.columns[: len(FIRST_COLUMNS)]) == FIRST_COLUMNS
    assert len(table) == 8
    assert table.groupby("run").size().tolist() == [4, 4]
    ensemble = table[table["notebook"] == "02_ensemble"].iloc[1]
    assert (ensemble["arm"], ensemble["network"], ensemble["accuracy"]) == ("clom loss_avg", 1, 1 / 3)
    assert (ensemble["seconds"], ensemble["seconds_distill"], ensemble["peak_memory_mb"]) == (0.25, 2.5, 3.0)
    assert (ensemble["architectures"], ensemble["alphas"]) == ("ConvNet-3, VGG-11", '{"AlexNet": 2000.0}')
    assert ensemble["architecture"] == "ConvNet-3"
    guidance = table[table["notebook"] == "01_guidance"].iloc[0]
    assert (guidance["arm"], guidance["seed"], guidance["device"]) == ("none", 5, "cpu")
    assert math.isnan(guidance["peak_memory_mb"])


def test_one_fixed_ptm_is_charged_for_itself_alone(tmp_path):
    card = {"name": "ConvNet-3 #0", "architecture": "ConvNet-3", "source_dataset": "digits", "hash": "a" * 16}
    card |= {
        "accuracy": 0.9,
        "train_accuracy": 1.0,
        "recipe": {},
        "seed": 0,
        "epoch": 1,
        "size_bytes": 9,
        "device": "cpu",
    }
    pool = {"ptms": [card | {"seconds": 40.0}, card | {"seconds": 60.0}]}
    pool |= {"seconds": {"ptms": 100.0, "distill": 2.5}}
    write_record(tmp_path, **a_run(**pool))
    write_record(tmp_path, **a_run(**pool, arm="clom single", parameters=KEPT | {"strategy": "single"}))
    chosen = {"base_method": "herding", "guidance": "none"}
    write_record(tmp_path, **a_run(**pool, arm="herding", parameters=KEPT | chosen))
    table = load_records(tmp_path).drop_duplicates("run").set_index("arm")["seconds_ptms"]
    assert table.to_dict() == {"clom loss_avg": 100.0, "clom single": 40.0, "herding": 40.0}


def test_load_records_names_every_damaged_file(tmp_path):
    paths = [write_record(tmp_path, **a_run(seed=s, parameters={"a": 1})) for s in range(3)]
    paths[0].write_text(paths[0].read_text()[:100])
    damage(paths[2], ptm_passes=None)
    with pytest.raises(ValueError, match="2 of 3 records cannot be read") as error:
        load_records(tmp_path)
    assert paths[0].name in str(error.value)
    assert paths[2].name in str(error.value)
    assert paths[1].name not in str(error.value)


def test_load_records_says_how_to_make_some(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(FileNotFoundError, match="run a notebook first"):
            load_records(folder)


def test_failed_runs_are_named_and_left_out(tmp_path):
    failed = a_run(status="failed", accuracies=accuracies().head(0), seed=9, parameters=KEPT | {"seed": 9})
    path = write_record(tmp_path, **failed)
    with pytest.raises(ValueError, match=r"no record in .* holds accuracies, all its runs failed:\n.*not recorded"):
        load_records(tmp_path)
    assert load_runs(tmp_path)[1]["error"].tolist() == ["not recorded"], "a record from before the field"
    write_record(tmp_path, **a_run())
    with pytest.warns(UserWarning, match=f"{path.name} .failed."):
        table = load_records(tmp_path)
    assert table["seed"].unique().tolist() == [3]


def failure(**changes):
    """The arguments of a failed run, with changes."""
    known = ("notebook", "arm", "parameters", "seed", "dataset_hash", "ptm_hashes", "peak_memory_bytes", "device")
    return {name: value for name, value in a_run(**changes).items() if name in known}


def test_a_failure_keeps_its_reason_and_has_no_accuracies(tmp_path):
    path = write_failure(tmp_path, FloatingPointError("iteration 7: the base loss is nan"), **failure())
    assert path == record_path(tmp_path, "02_ensemble", KEPT, 3)
    record = read_record(path)
    assert (record["status"], record["error"]) == ("failed", "FloatingPointError: iteration 7: the base loss is nan")
    assert record["accuracies"].empty
    assert (record["history_length"], record["synthetic_hash"], record["arm"]) == (0, None, "clom loss_avg")
    table = load_runs(tmp_path)[1]
    assert table[["run", "notebook", "arm", "seed"]].values.tolist() == [[path.stem, "02_ensemble", "clom loss_avg", 3]]
    assert table["error"].tolist() == [record["error"]]
    assert table["alpha"].tolist() == [100.0]
    with pytest.raises(ValueError, match=r"all its runs failed:\n.*-seed3.json: FloatingPointError: iteration 7"):
        load_records(tmp_path)
    write_record(tmp_path, **a_run())
    assert load_runs(tmp_path)[1].empty, "a result takes the place of a failure"
    assert len(load_records(tmp_path)) == 4


def test_a_failure_never_replaces_a_result_of_the_same_code(tmp_path):
    path = write_record(tmp_path, **a_run())
    before = path.read_text()
    assert write_failure(tmp_path, MemoryError(), **failure()) is None
    assert path.read_text() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_failure_sets_a_result_of_other_code_aside(tmp_path, monkeypatch):
    path = write_record(tmp_path, **a_run())
    before, code = path.read_text(), run_hash()
    monkeypatch.setattr(records, "run_hash", lambda: "other code")
    assert write_failure(tmp_path, MemoryError(), **failure()) == path
    assert read_record(path)["status"] == "failed"
    assert path.with_suffix(f".{code}").read_text() == before, "nothing that was computed is lost"
    assert len(load_runs(tmp_path)[1]) == 1
    write_failure(tmp_path, KeyError("again"), **failure())
    assert read_record(path)["error"] == "KeyError: 'again'", "the last failure counts"


def test_a_failure_replaces_a_damaged_record(tmp_path):
    path = write_record(tmp_path, **a_run())
    path.write_text("half a rec")
    write_failure(tmp_path, MemoryError(), **failure())
    assert read_record(path)["error"] == "MemoryError"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("  one\ntwo "), "ValueError: one"),
        (MemoryError(), "MemoryError"),
        (OSError(28, "No space left", "/mnt/data of mine/runs/a.json"), "OSError: [Errno 28] No space left: 'a.json'"),
        (
            ValueError("The checkpoint /srv/jane/runs/.a-seed0.checkpoint is"),
            "ValueError: The checkpoint .a-seed0.checkpoint is",
        ),
        (ValueError(r"in C:\Users\jane\a.json or ~/b/c.json"), "ValueError: in a.json or c.json"),
        (ValueError(r"in 'C:\\Users\\jane d\\a.json'"), "ValueError: in 'a.json'"),
    ],
)
def test_a_reason_is_one_line_without_local_paths(error, text):
    assert reason(error) == text


def test_a_home_with_spaces_is_not_told(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/home/jane doe"))
    assert reason(ValueError("in /home/jane doe/runs/a.json")) == "ValueError: in a.json"
    monkeypatch.setattr(Path, "home", lambda: Path("/"))
    assert reason(ValueError("1/2 of /a/b")) == "ValueError: 1/2 of b"


def test_a_reason_keeps_what_is_no_path_and_all_notes():
    plain = "ratio 1/2 of runs/smoke, see https://example.org/x"
    error = ValueError(plain)
    error.add_note("lower\nipc")
    assert reason(error) == f"ValueError: {plain} lower ipc"
    assert len(reason(ValueError("word " * 1000))) < 400


@pytest.mark.parametrize("error", ["two\nlines", "", 7, None])
def test_a_reason_in_a_record_is_checked(tmp_path, error):
    path = write_failure(tmp_path, MemoryError(), **failure())
    damage(path, error=error)
    with pytest.raises(ValueError, match=f"{path.name}: field 'error' is"):
        read_record(path)


def test_a_result_has_no_reason_to_fail(tmp_path):
    with pytest.raises(ValueError, match="'error' is 'why', expected one line, and that of a failed run"):
        write_record(tmp_path, **a_run(error="why"))


def test_git_commit_is_that_of_the_checkout():
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
    if head.returncode:
        pytest.skip("no checkout")
    assert git_commit() == head.stdout[:12]


def test_git_commit_is_none_outside_a_checkout(tmp_path, monkeypatch):
    (tmp_path / "study").mkdir()
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path)
    assert git_commit.__wrapped__() is None
    monkeypatch.setenv("PATH", "")
    assert git_commit.__wrapped__() is None, "no git at all"


def test_environment_tells_the_software_and_nothing_personal():
    found = environment("cpu")
    assert found["python"] == platform.python_version()
    assert found["torch"] == torch.__version__
    assert found["torch_threads"] == torch.get_num_threads()
    assert found["cpu"]
    text = json.dumps(found)
    assert platform.node() not in text or not platform.node()
    assert str(Path.home()) not in text


def test_other_machines_and_bare_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "Path", lambda _: tmp_path / "absent")
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    assert environment("cpu")["cpu"] == "arm", "no /proc: what Python's platform module knows"
    monkeypatch.setitem(sys.modules, "resource", None)
    assert peak_memory_bytes("cpu") is None, "Windows"
    assert provenance._version("no-such-package") is None


def test_history_may_hold_vectors(tmp_path):
    cosines = pd.DataFrame({"cosines": [[0.5, math.nan], np.array([0.123456789, 1.0])]})
    record = read_record(write_record(tmp_path, **a_run(history=cosines)))
    assert record["history"]["cosines"].tolist() == [[0.5, None], [0.123457, 1.0]]


def test_peak_memory_of_the_process_is_in_bytes():
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    peak = peak_memory_bytes("cpu")
    assert 50e6 < peak < installed, "torch alone takes more than 50 MB"
    assert peak_memory_bytes(torch.device("cpu")) >= peak


def test_on_a_gpu_its_own_memory_and_name_are_recorded(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 1234 + device.index)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    assert peak_memory_bytes("cuda:1") == 1235
    assert environment("cuda:1")["device_name"] == "GPU 1"
