"""Bad input of many kinds: what is read is exactly what was written, or one clear error names the file or parameter.

Each test says how many inputs it tries; together there are more than a thousand, the same ones in every run.
"""

import json
import math
import os
import re
import zlib
from typing import get_args

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made import IMAGES, a_run, a_state

from ddlib.checkpoint import State
from ddlib.data.dataset import ImageFormat
from ddlib.data.readers import load_dataset
from ddlib.disk.tensors import read_tensors, write_tensors
from ddlib.foreign import load_synthetic
from ddlib.ptms.pool import train_ptms
from ddlib.study.allowed import MOST
from ddlib.study.parameters import PARAMETERS, ParameterError, allowed_of, check_parameters
from ddlib.study.places import runs_folder
from ddlib.study.record import checksum, read_record, record_path, synthetic_path, write_record
from ddlib.study.runs import load_records
from ddlib.synthetic import SyntheticSet


def tries(number):
    """So many inputs, always the same ones, and no database beside the tests."""
    return settings(
        max_examples=number,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def outcome(read, path):
    """What ``read`` gives for ``path``, or None after a clear error: one line, that names the file."""
    try:
        return read(path)
    except (ValueError, FileNotFoundError) as caught:
        error = caught
    assert type(error) in (ValueError, FileNotFoundError), "a subclass is an error that came through by chance"
    assert str(path) in str(error)
    assert len(str(error)) < 2000
    return None


@st.composite
def damaged(draw, whole):
    """The bytes of a file after an accident: cut, flipped, overwritten, doubled, or with something put in."""
    content = bytearray(whole)
    kind = draw(st.sampled_from(["cut", "flip", "flips", "overwrite", "insert", "delete", "double", "zero", "tail"]))
    place = draw(st.integers(0, len(whole) - 1))
    length = draw(st.integers(1, 64))
    if kind == "cut":
        return bytes(content[:place])
    if kind == "flip":
        content[place] ^= 1 << draw(st.integers(0, 7))
    elif kind == "flips":
        for other in draw(st.lists(st.integers(0, len(whole) - 1), min_size=2, max_size=9)):
            content[other] ^= 1 << draw(st.integers(0, 7))
    elif kind == "overwrite":
        content[place : place + length] = draw(st.binary(min_size=length, max_size=length))
    elif kind == "insert":
        content[place:place] = draw(st.binary(min_size=1, max_size=length))
    elif kind == "delete":
        del content[place : place + length]
    elif kind == "double":
        content[place:place] = content[place : place + length]
    elif kind == "zero":
        content[place:] = bytes(len(whole) - place)  # what a file system leaves after a power cut
    else:
        content += draw(st.binary(min_size=1, max_size=length))
    return bytes(content)


# Records


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """The path of a record, its text, and what is read of it."""
    path = write_record(tmp_path_factory.mktemp("records"), **a_run())
    return path, path.read_bytes(), plain(read_record(path))


def plain(record):
    """A record as read, with tables that ``==`` compares."""
    tables = {name: record[name].to_json(double_precision=15) for name in ("accuracies", "history")}
    return json.dumps({**record, **tables}, sort_keys=True)


@tries(400)
@given(data=st.data())
def test_records_after_an_accident(record, data):
    """400 inputs. Whatever happened to the bytes: the same record, or an error."""
    path, whole, wanted = record
    path.write_bytes(data.draw(damaged(whole)))
    found = outcome(read_record, path)
    assert found is None or plain(found) == wanted
    if found is None or one_in_ten(path):
        assert (outcome_of_all(path) is None) == (found is None)


def outcome_of_all(path):
    """The table of the folder, which takes much longer than the record."""
    return outcome(lambda path: load_records(path.parent), path)


def one_in_ten(path):
    """Of files with different bytes, always the same ones."""
    return zlib.crc32(path.read_bytes()) % 10 == 0


NUMBERS = st.one_of(
    st.sampled_from([10**400, -(10**400), 2**63, 1e308, -1e308, 1e-320, math.nan, math.inf, -math.inf, -0.0, 65.2]),
    st.integers(),
    st.floats(),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=20), st.just("\ud800")),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)),
    max_leaves=8,
)


@tries(400)
@given(data=st.data(), value=JSON, signed=st.booleans())
def test_records_with_wrong_fields(record, data, value, signed):
    """400 inputs: another value in a field or in a column, a field more or less; half of them with a fitting checksum.

    What is accepted then has accuracies from 0 to 1, finite seconds, and makes a table (one in ten is looked at).
    """
    path, whole, _ = record
    held = json.loads(whole)
    where = data.draw(st.sampled_from(["replace", "remove", "add", "column", "cell", "environment", "seconds"]))
    if where == "replace":
        held[data.draw(st.sampled_from(sorted(held)))] = value
    elif where == "remove":
        del held[data.draw(st.sampled_from(sorted(held)))]
    elif where == "add":
        held[data.draw(st.text(max_size=5))] = value
    elif where == "column":
        held["accuracies"][data.draw(st.sampled_from(sorted(held["accuracies"])))] = value
    elif where == "cell":
        held["accuracies"][data.draw(st.sampled_from(sorted(held["accuracies"])))][0] = value
    else:
        held[where][data.draw(st.sampled_from(sorted(held[where])))] = value
    if signed and "sha256" in held:
        held["sha256"] = checksum(held)
    elif not signed:
        held.pop("sha256", None)
    path.write_text(json.dumps(held))
    found = outcome(read_record, path)
    if found is None:
        assert outcome_of_all(path) is None
        return
    accuracies = found["accuracies"]
    assert found["status"] == "failed" or len(accuracies)
    assert all(isinstance(v, float | int) and 0 <= v <= 1 for v in accuracies["accuracy"])
    assert all(math.isfinite(seconds) for seconds in found["seconds"].values())
    if one_in_ten(path):
        outcome_of_all(path)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'"text"',
        b"1e999",
        b"NaN",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 600 + b"]" * 600,
        b"1" * 10_000,
        b"\xff\xfe{}",
        b"\x00" * 100,
        b'{"schema": 1, "schema": 1}',
        b"{'schema': 1}",
        b"__import__('os').system('touch x')",
    ],
)
def test_records_of_other_content(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_bytes(text)
    assert outcome(read_record, path) is None
    assert outcome_of_all(path) is None


@pytest.mark.parametrize("depth", [50, 500, 5_000, 100_000])
def test_deep_parameters_are_read_or_refused(record, depth):
    path, whole, _ = record
    text = whole.decode().replace('"alpha": 100.0', f'"alpha": {"[" * depth}{"]" * depth}')
    for checked in (text, re.sub(r',\n"sha256": "\w+"', "", text)):
        path.write_text(checked)
        found = outcome(read_record, path)
        assert found is None or depth <= 500
        outcome_of_all(path)


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1" + "0" * 400])
def test_no_number_that_is_none(record, literal):
    """In any place of a record without a checksum."""
    path, whole, _ = record
    text = re.sub(r',\n"sha256": "\w+"', "", whole.decode())
    places = [match.span() for match in re.finditer(r"(?<=[ \[])[\d.]+(?=[,\]}])", text)]
    assert len(places) > 20
    for start, end in places:
        path.write_text(text[:start] + literal + text[end:])
        assert outcome(read_record, path) is None


def test_doubled_fields_are_refused(record):
    path, whole, _ = record
    text = re.sub(r',\n"sha256": "\w+"', "", whole.decode())
    for name in json.loads(text):
        path.write_text(text.replace("{\n", f'{{\n"{name}": 0,\n', 1))
        assert outcome(read_record, path) is None


# Parameters

CODE = [
    "__import__('os').system('touch x')",
    "'; import os; os.system('touch x'); '",
    "$(touch x)",
    "`touch x`",
    "{{ x }}",
    "!!python/object/apply:os.system ['touch x']",
    "../..",
    "../../etc/passwd",
    "/etc/passwd",
    "~nobody-of-that-name/x",
    "C:\\Windows",
    "a\0b",
    "a\nb",
    "\ud800",
    "x" * 300,
    "x" * 100_000,
    "",
    " ",
    "cuda:-1",
    "cuda:1; touch x",
    "cuda" * 10,
]
ODD = [*CODE, math.nan, math.inf, -math.inf, -0.5, 0.5, 1e308, -1, 0, 10**10, 10**400, 10**5000, -(10**5000)]
ODD += [None, True, [], [1], {}, (1,), {1}, b"", 1j, int, object()]
KINDS = {name: next(iter(get_args(field.annotation)), field.annotation) for name, field in PARAMETERS.items()}
VALUES = st.one_of(JSON, NUMBERS, st.binary(max_size=5), st.sampled_from(ODD))


@tries(500)
@given(
    namespace=st.dictionaries(st.sampled_from(sorted(PARAMETERS)), VALUES, min_size=1, max_size=5),
    unknown=st.dictionaries(st.one_of(st.sampled_from(CODE), st.text(max_size=8)), VALUES, max_size=1),
)
def test_parameters_of_any_kind(namespace, unknown):
    """500 inputs. What passes has the kind, and is within the bounds, that the table of parameters names."""
    require_clear(namespace | {name: value for name, value in unknown.items() if name not in PARAMETERS})


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_parameter_with_every_odd_value(name):
    """44 inputs for each parameter."""
    for value in ODD:
        require_clear({name: value})


def require_clear(given):
    namespace = {name: value for name, value in given.items() if name in PARAMETERS}
    try:
        p = check_parameters(given)
    except ParameterError as error:
        message, p = str(error), None
    if p is None:
        assert any(name in message for name in namespace)
        assert len(message) < 3000
        message.encode()  # to be shown on a screen
        return
    assert vars(p).keys() == namespace.keys()
    for name, value in vars(p).items():
        if value is None:
            assert namespace[name] is None
            assert allowed_of(name).none
            continue
        assert type(value) is KINDS[name]
        assert value == KINDS[name](namespace[name])
        assert not isinstance(value, float) or (math.isfinite(value) and value >= 0)
        assert not isinstance(value, int) or 0 <= value <= MOST
        assert not isinstance(value, str) or (value.isprintable() and len(value) <= 1000)


@tries(200)
@given(declared=st.lists(st.text(max_size=40), max_size=3), injected=st.lists(st.text(max_size=40), max_size=3))
def test_cells_of_any_content(declared, injected):
    """200 inputs: the history of a notebook after its user typed something."""
    history = ["", *declared, "ipc: int = 1", "# Parameters\nipc = 2", *injected]
    assert check_parameters({"In": history, "ipc": 2}).ipc == 2


@pytest.mark.parametrize(
    "cell", ["foo: int = 1", "a.b: int = 1", "a[0]: int = 1", "x = '\0'", "(" * 500, "-" * 100_000 + "1", "\ud800"]
)
def test_cells_that_declare_no_parameter(cell):
    assert check_parameters({"In": ["ipc: int = 1", cell], "ipc": 1}).ipc == 1
    with pytest.raises(ParameterError, match=r"foo"):
        check_parameters({"In": ["ipc: int = 1\nfoo: int = 1", cell], "ipc": 1, "foo": 1})


@pytest.mark.parametrize("text", CODE)
def test_text_is_never_code_nor_a_way_out(tmp_path, monkeypatch, text):
    """Through papermill's own translation into a cell, the guard, the reader of data sets, and the names of files."""
    translators = pytest.importorskip("papermill.translators")
    inside = tmp_path / "deep" / "inside"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    before = set(tmp_path.rglob("*"))
    cell, namespace = translators.PythonTranslator.codify({"dataset": text}), {}
    try:
        exec(compile(cell.encode(errors="surrogatepass").decode(errors="replace"), "cell", "exec"), namespace)
    except (SyntaxError, ValueError):  # no cell at all: the notebook ends there
        namespace = {"dataset": text}
    if "\ud800" not in text:
        assert namespace["dataset"] == text
    try:
        p = check_parameters({"In": ["dataset: str = 'digits'", cell], "dataset": text})
    except ParameterError as error:
        message = str(error)
        assert message.startswith("nothing was run, because\n  dataset is ")
    else:
        with pytest.raises(
            ValueError, match=r"neither a known data set|has no (folder train|train/|class)|not in its place"
        ):
            load_dataset(p.dataset)
    for parameters in ({"dataset": text}, {text: text}):
        path = record_path(runs_folder(tmp_path / "runs"), "01_guidance", parameters, 0)
        assert path.parent == synthetic_path(path).parent == tmp_path / "runs"
        assert re.fullmatch(r"01_guidance-[0-9a-f]{16}-seed0\.json", path.name)
    for notebook, seed in ((f"{text}/", 0), ("01_guidance", text), ("../01", 0), ("a/b", 0), ("..\\b", 0), ("", 0)):
        with pytest.raises(ValueError, match=r"notebook is|seed is"):
            record_path(tmp_path / "runs", notebook, {}, seed)
    assert set(tmp_path.rglob("*")) == before


# Synthetic sets, checkpoints, PTMs


def of(images):
    return {
        "images": images,
        "labels": torch.arange(len(images)) % 3,
        "mean": torch.tensor([0.5]),
        "std": torch.tensor([0.25]),
    }


NAMES = {"class_names": ["ant", "bee", "cat"], "provenance": {"seed": 1}}


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    path = tmp_path_factory.mktemp("sets") / "set.safetensors"
    form = ImageFormat(1, 4, (0.5,), (0.25,))
    made = SyntheticSet(IMAGES, torch.arange(3), form, ("ant", "bee", "cat"), {"seed": 1})
    made.save(path)
    return path, path.read_bytes(), made


@tries(400)
@given(data=st.data())
def test_synthetic_sets_after_an_accident(synthetic, data):
    """400 inputs."""
    path, whole, made = synthetic
    path.write_bytes(data.draw(damaged(whole)))
    found = outcome(SyntheticSet.load, path)
    assert found is None or (found.hash == made.hash and found.provenance == made.provenance)


DTYPES = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64]
DTYPES += [torch.float8_e4m3fn, torch.float32]
SHAPES = [(), (0,), (3,), (3, 0, 4, 4), (0, 1, 4, 4), (3, 2, 4, 4), (3, 1, 4, 0), (2, 1, 4, 4), (1, 1, 1, 1), (1,)]


def wrong_tensors():
    return st.one_of(
        st.builds(lambda shape, dtype: torch.zeros(shape).to(dtype), st.sampled_from(SHAPES), st.sampled_from(DTYPES)),
        st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 1e38]).map(lambda x: torch.full((3, 1, 4, 4), x)),
        st.sampled_from([math.nan, math.inf, 0.0, -1.0]).map(lambda x: torch.tensor([x])),
        st.sampled_from([[0, 1, 3], [-1, 0, 1], [2**62, 0, 0]]).map(torch.tensor),
    )


@tries(200)
@given(name=st.sampled_from(["images", "labels", "mean", "std", "more"]), tensor=wrong_tensors(), about=JSON)
def test_synthetic_sets_of_other_tensors(synthetic, name, tensor, about):
    """200 inputs with a fitting checksum: shapes, types and values that are none of a synthetic set."""
    path, _, _ = synthetic
    for tensors, said in ((of(IMAGES) | {name: tensor}, NAMES), (of(IMAGES), {**NAMES, "class_names": about})):
        try:
            write_tensors(path, tensors, said)
        except (TypeError, ValueError):  # what JSON or the file cannot hold
            continue
        found = outcome(SyntheticSet.load, path)
        if found is not None:
            assert (found.images.dtype, found.labels.dtype) == (torch.float32, torch.int64)
            assert torch.isfinite(found.images).all()
            assert tuple(found.images.shape[1:]) == found.format.shape
            assert all(math.isfinite(moment) for moment in (*found.format.mean, *found.format.std))
            assert found.pixels.numel()
            assert int(found.labels.max()) < len(found.class_names)


@pytest.mark.parametrize("about", [None, [], 5, "text", {}])
@pytest.mark.parametrize("extra", [{}, {"sha256": 1}, {"sha256": None}])
def test_headers_of_other_content(tmp_path, about, extra):
    path = tmp_path / "set.safetensors"
    for header in (json.dumps({"about": about, **extra}), json.dumps(about), "[" * 100_000, "NaN", "\x00", ""):
        safetensors.torch.save_file(of(IMAGES), path, metadata={"ddlib": header})
        assert outcome(SyntheticSet.load, path) is None
    write_tensors(path, of(IMAGES), about)
    assert outcome(SyntheticSet.load, path) is None


def test_swapped_headers_are_found(tmp_path):
    """The header of one file before the tensors of another, both whole."""
    first, second = tmp_path / "first", tmp_path / "second"
    write_tensors(first, of(IMAGES), NAMES)
    write_tensors(second, of(IMAGES + 1), NAMES)
    header, body = first.read_bytes(), second.read_bytes()
    end = 8 + int.from_bytes(header[:8], "little")
    first.write_bytes(header[:end] + body[end:])
    assert outcome(read_tensors, first) is None


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoints") / ".run.checkpoint"
    a_state().save(path)
    return path, path.read_bytes(), read_tensors(path)


def resumed(path):
    """What a run has that did nothing yet, and goes on from ``path``."""
    images = torch.zeros_like(IMAGES).requires_grad_()
    fresh = State(images, torch.optim.SGD([images], lr=0.1, momentum=0.5), 2, {"seed": 0})
    fresh.resume(path, 10)
    return fresh


def all_of(run):
    """Whatever a run goes on with."""
    return {
        "images": run.images,
        "momentum": run.optimizer.state[run.images]["momentum_buffer"],
        "history": run.history,
        "snapshots": run.snapshots,
        "agreement": run.agreement,
    }


@tries(300)
@given(data=st.data())
def test_checkpoints_after_an_accident(checkpoint, data):
    """300 inputs."""
    path, whole, _ = checkpoint
    path.write_bytes(data.draw(damaged(whole)))
    found = outcome(resumed, path)
    if found is not None:
        torch.testing.assert_close(all_of(found), all_of(a_state()), rtol=0, atol=0, equal_nan=True)


def test_a_whole_checkpoint_gives_all_of_the_run(checkpoint):
    path, whole, _ = checkpoint
    path.write_bytes(whole)
    torch.testing.assert_close(all_of(resumed(path)), all_of(a_state()), rtol=0, atol=0, equal_nan=True)


@tries(200)
@given(data=st.data(), tensor=wrong_tensors(), value=JSON)
def test_checkpoints_of_other_content(checkpoint, data, tensor, value):
    """200 inputs with a fitting checksum: another tensor, or another value in what is said about them."""
    path, _, (tensors, about) = checkpoint
    about = json.loads(json.dumps(about))
    name = data.draw(st.sampled_from([*tensors, "more", *about, "row"]))
    if name == "row":
        about["history"][0][data.draw(st.sampled_from(sorted(about["history"][0])))] = value
    elif name in about:
        about[name] = value
    write_tensors(path, tensors | ({} if name in (*about, "row") else {name: tensor}), about)
    found = outcome(resumed, path)
    if found is not None:
        assert found.images.shape == IMAGES.shape
        assert torch.isfinite(found.images).all()
        assert found.iteration == len(found.history) <= 10


@pytest.fixture(scope="module")
def ptm(tiny, tmp_path_factory):
    """The file of a trained PTM, its bytes, and a function that reads it without training."""
    cache = tmp_path_factory.mktemp("cache")

    def obtain():
        return train_ptms(tiny, epochs=1, width=2, batch_size=36, cache=cache)[0]

    first = obtain()
    (path,) = cache.glob("*.safetensors")
    return path, path.read_bytes(), first, obtain


def same(first, second):
    a, b = first.network.state_dict(), second.network.state_dict()
    return first.accuracy == second.accuracy and all(torch.equal(a[name], b[name]) for name in a)


@tries(60)
@given(data=st.data())
def test_ptms_after_an_accident_are_trained_again(ptm, data):
    """60 inputs: the same PTM comes back, and the file is whole again."""
    path, whole, first, obtain = ptm
    path.write_bytes(data.draw(damaged(whole)))
    assert same(obtain(), first)
    assert read_tensors(path)[0].keys() == first.network.state_dict().keys()


@tries(60)
@given(data=st.data(), tensor=wrong_tensors())
def test_ptms_of_other_content_are_trained_again(ptm, data, tensor):
    """60 inputs with a fitting checksum: other shapes and types, weights that are NaN, accuracies that are none."""
    path, whole, first, obtain = ptm
    path.write_bytes(whole)
    tensors, about = read_tensors(path)
    name = data.draw(st.sampled_from([*tensors, "more", "accuracy", "train_accuracy", "seconds"]))
    wrong = st.sampled_from([math.nan, math.inf, -0.5, 1.5, 65, True, None, "0.5", [0.5]])
    if name in about:
        about[name] = data.draw(wrong)
    elif data.draw(st.booleans()) and name in tensors:
        tensors[name] = torch.full_like(tensors[name], math.nan)
    else:
        tensors[name] = tensor
    write_tensors(path, tensors, about)
    if name == "seconds" and about[name] in (1.5, 65, math.inf):
        return  # nobody can tell
    own, given = first.network.state_dict().get(name), tensors.get(name)
    fits = own is not None and (given.shape, given.dtype) == (own.shape, own.dtype) and bool(given.isfinite().all())
    again = obtain()
    assert same(again, first) or (fits and torch.equal(again.network.state_dict()[name], given))
    assert 0 <= again.accuracy <= 1


@tries(100)
@given(data=st.data())
def test_reference_files_after_an_accident(tiny, tmp_path_factory, data):
    """100 inputs. A .pt file has no checksum: what is read are finite images of the right shape, or nothing."""
    path = tmp_path_factory.getbasetemp() / "reference.pt"
    made = SyntheticSet.of(tiny, tiny.train.images[:3], tiny.train.labels[:3])
    made.save_reference(path)
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    found = outcome(lambda path: load_synthetic(path, tiny, pixels="normalised"), path)
    if found is not None:
        assert found.images.shape[1:] == (1, 8, 8)
        assert torch.isfinite(found.images).all()
    os.unlink(path)
