"""The guard of the notebooks: what it lets through, and what it says about the rest."""

from types import SimpleNamespace

import pytest
import yaml

from ddlib.base_methods import BASE_METHODS
from ddlib.combine import STRATEGIES
from ddlib.data.readers import DATASETS
from ddlib.guidance import GUIDANCE
from ddlib.networks import NETWORKS
from ddlib.selection import SELECTIONS
from ddlib.study.allowed import names
from ddlib.study.contradictions import CONTRADICTIONS, initialisations_of_one_file
from ddlib.study.parameters import (
    PARAMETERS,
    ParameterError,
    Parameters,
    allowed_of,
    check,
    check_parameters,
    declared,
    reference,
)

DECLARED = """
guidance: str = "clom"  # comment
strategy: str = "loss_avg"
base_method: str = "dm"
compile: str = "never"
ipc: int = 1
alpha_clom: float = 10.0
equal_passes: bool = False
guide_every: int = 1
judges: int = 0
ptm_seed: int | None = 0
iterations: int = 25
source_dataset: str | None = None
ptm_architectures: str = "ConvNet-3"
ptm_epochs: int = 15
ptm_epoch: int | None = None
architectures: str = "ConvNet-3,VGG-11"
"""


def notebook(injected: str = "", by_hand: str = "", declared: str = DECLARED) -> dict[str, object]:
    """The globals of a notebook whose cells ran: parameters, what papermill injected, what a user typed."""
    cells = ["", declared, *([f"# Parameters\n{injected}"] if injected else []), *([by_hand] if by_hand else [])]
    namespace = {"__name__": "__main__"}
    for cell in cells:
        exec(cell, namespace)
    return {**namespace, "In": [*cells, "p = ddlib.check_parameters(globals())"]}


def refused(**kwargs: str) -> str:
    with pytest.raises(ParameterError) as caught:
        check_parameters(notebook(**kwargs))
    return str(caught.value)


def test_defaults_pass_and_come_back_as_attributes():
    p = check_parameters(notebook())
    assert isinstance(p, SimpleNamespace)
    assert (p.guidance, p.ipc, p.alpha_clom, p.equal_passes) == ("clom", 1, 10.0, False)
    assert len(vars(p)) == len(DECLARED.strip().splitlines())


def test_papermill_wins_over_the_default_and_the_hand_over_both():
    assert check_parameters(notebook("ipc = 5")).ipc == 5
    assert check_parameters(notebook("ipc = 5", by_hand="ipc = 7")).ipc == 7


def test_a_whole_number_given_for_a_float_becomes_one():
    alpha = check_parameters(notebook("alpha_clom = 3")).alpha_clom
    assert type(alpha) is float
    assert alpha == 3


def test_an_unknown_name_is_refused_and_the_known_ones_are_listed():
    message = refused(injected='stratgey = "random"')
    assert "'stratgey' (did you mean 'strategy'?)" in message
    assert "did you mean" not in refused(injected="xyzzy = 1")
    assert all(line.split(":")[0] in message for line in DECLARED.strip().splitlines())


@pytest.mark.parametrize(
    ("injected", "found", "allowed"),
    [
        ("ipc = 0", "ipc is 0", "a whole number from 1 on"),
        ("ipc = -3", "ipc is -3", "from 1 on"),
        ("ipc = 1.5", "ipc is 1.5", "a whole number"),
        ("ipc = True", "ipc is True", "a whole number"),
        ('ipc = "ten"', "ipc is 'ten'", "a whole number"),
        ("ipc = 10**10", "ipc is 10000000000", "at most 1000000000"),
        ("ipc = 10**5000", "a number of more than 80 digits", "at most 1000000000"),
        ("alpha_clom = 10**400", "a number of more than 80 digits", "a number of 0 or more"),
        ("ipc = None", "ipc is None", "a whole number"),
        ('strategy = "nope"', "strategy is 'nope'", "single, random, sequential, shuffled, loss_avg"),
        ('guidance = "CLoM"', "guidance is 'CLoM'", ", ".join(GUIDANCE)),
        ("guidance = 3", "guidance is 3", "none, clom"),
        ('alpha_clom = "1e3"', "alpha_clom is '1e3'", "a number of 0 or more"),
        ("alpha_clom = -1.0", "alpha_clom is -1.0", "a number of 0 or more"),
        ('alpha_clom = float("nan")', "alpha_clom is nan", "a number"),
        ('alpha_clom = float("inf")', "alpha_clom is inf", "a number"),
        ("alpha_clom = True", "alpha_clom is True", "a number"),
        ('equal_passes = "false"', "equal_passes is 'false'", "True or False"),
        ('architectures = "ConvNet-3,LeNet"', "'ConvNet-3,LeNet'", "VGG-11, ResNet-18"),
        ('architectures = "ConvNet-3,ConvNet-3"', "'ConvNet-3,ConvNet-3'", "joined by commas"),
        ('architectures = ","', "','", "one or more"),
        ('architectures = "ConvNet-3 x0"', "'ConvNet-3 x0'", "with x2, x3"),
        ('architectures = "ConvNet-3 x2,ConvNet-3"', "'ConvNet-3 x2,ConvNet-3'", "joined by commas"),
        ('base_method = "mtt"', "'mtt'", ", ".join([*BASE_METHODS, *SELECTIONS, "full"])),
    ],
)
def test_an_impossible_value_is_refused_with_what_was_found_and_what_is_allowed(injected, found, allowed):
    message = refused(injected=injected)
    assert found in message
    assert allowed in message


@pytest.mark.parametrize(
    ("injected", "says"),
    [
        ("ptm_epoch = 20", "ptm_epochs = 15"),
        ('guidance = "none"\nbase_method = "none"', "nothing would be learned"),
        ('base_method = "herding"', "set guidance none"),
        ('guidance = "cclom"\nstrategy = "prob_avg"', "use single, random"),
        ('base_method = "dsa"\nguidance = "none"\ncompile = "always"', "for base_method dm, not dsa"),
        ("equal_passes = True", "single, random, sequential, shuffled"),
        ('source_dataset = "mnist"', "use guidance cclom"),
        (
            'guidance = "cclom"\nsource_dataset = "imagenet"\nstrategy = "accuracy_weighted"',
            "accuracies on train splits, and those of imagenet are unknown",
        ),
        ('ptm_architectures = "resnet"', "ConvNet-3, ConvNet-4"),
        ('guidance = "none"\nguide_every = 2', "guides no update: set guide_every 1"),
        ('base_method = "none"\nguide_every = 2', "would follow no loss at all"),
        ('strategy = "random"\nequal_passes = True\nguide_every = 2', "two ways to equal PTM passes: choose one"),
        ("guide_every = 26", "iterations = 25 updates only"),
        ('guidance = "ce_ratio"\nsource_dataset = "mnist"', "use guidance cclom or cos_mean"),
        ('guidance = "cclom"\nsource_dataset = "mnist"\njudges = 1', "set judges 0, or source_dataset None"),
        ('guidance = "cclom"\nsource_dataset = "imagenet"\njudges = 1', "set judges 0, or source_dataset None"),
        ('guidance = "cclom"\nsource_dataset = "imagenet"\nptm_seed = None', "are one pool: set ptm_seed 0"),
        ('guidance = "cclom"\nstrategy = "confidence_weighted"', "use single, random"),
    ],
)
def test_values_that_contradict_each_other_are_refused(injected, says):
    assert says in refused(injected=injected)


def test_torchvision_has_one_network_of_each_architecture():
    assert "set num_ptms 1" in initialisations_of_one_file("imagenet", 5)
    assert initialisations_of_one_file("imagenet", 1) is None
    assert initialisations_of_one_file(None, 5) is None


@pytest.mark.parametrize(
    "injected",
    [
        "guide_every = 25",
        'base_method = "dsa"\nguide_every = 100\nstrategy = "random"',  # of many updates in an iteration
        'guidance = "none"\njudges = 2',
        'guidance = "none"\nbase_method = "random"\njudges = 2',
        'guidance = "cos_mean"\nsource_dataset = "mnist"\nptm_seed = None',
        'guidance = "cclom"\nsource_dataset = "imagenet"',
        'strategy = "per_image"\nequal_passes = True',
    ],
)
def test_what_does_not_contradict_is_let_through(injected):
    check_parameters(notebook(injected))


@pytest.mark.parametrize(("device", "what"), [("cpu", "C++ compiler"), ("cuda", "C compiler"), ("auto", "compiler")])
def test_compile_needs_a_compiler(monkeypatch, tmp_path, device, what):
    given = DECLARED + f'device: str = "{device}"'
    check_parameters(notebook(declared=given))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("CC", raising=False)
    said = refused(declared=given, injected='compile = "always"')
    assert what in said
    assert "install it, or leave compile out" in said


def test_imagenet_brings_its_own_names_of_architectures():
    injected = 'guidance = "cclom"\nsource_dataset = "imagenet"\nptm_architectures = "mobilenet_v2"'
    assert check_parameters(notebook(injected)).ptm_architectures == "mobilenet_v2"


def test_all_problems_are_listed_at_once():
    message = refused(injected='ipc = 0\nstrategy = "nope"\nfoo = 1\nptm_epoch = 20')
    assert message.splitlines()[0] == "nothing was run, because"
    assert [line.split()[0] for line in message.splitlines()[1:]] == ["unknown", "strategy", "ipc", "ptm_epoch"]
    assert all(word in message for word in ("ipc is 0", "'nope'", "'foo'", "ptm_epochs = 15"))


def test_variables_of_the_user_are_no_parameters():
    namespace = notebook(by_hand="foo = 1")
    assert not hasattr(check_parameters(namespace), "foo")


def test_the_guard_may_run_again_after_the_parameters_cell():
    namespace = notebook("ipc = 5\nfoo = 1")
    namespace["In"] += [DECLARED]  # by hand, without papermill's cell: its names no longer count
    namespace["ipc"] = 1
    assert check_parameters(namespace).ipc == 1


@pytest.mark.parametrize("history", [[], ["import ddlib", "x = 1", "%matplotlib inline", "# only a comment"]])
def test_without_a_parameters_cell_it_says_so(history):
    with pytest.raises(ParameterError, match="run the cell with the parameters first"):
        check_parameters({"In": history})


def test_without_history_the_variables_there_are_the_parameters():
    p = check_parameters({"In": ["", ""], "ipc": 2, "seed": 1, "foo": 3})
    assert vars(p) == {"ipc": 2, "seed": 1}
    with pytest.raises(ParameterError, match="ipc is 0"):
        check_parameters({"ipc": 0})


def test_the_notebook_shows_the_message_without_a_traceback():
    assert ParameterError("ipc is 0")._render_traceback_() == ["ParameterError: ipc is 0"]


def test_names_splits_at_commas():
    assert names(" ConvNet-3, VGG-11 ,") == ["ConvNet-3", "VGG-11"]


def test_numbers_with_an_exponent_need_a_point_in_yaml():
    """What the documentation warns of: YAML reads 1e-4 as text, and the guard refuses it."""
    assert yaml.safe_load("1e-4") == "1e-4"
    assert "alpha_clom is '1e-4'" in refused(injected=f"alpha_clom = {yaml.safe_load('1e-4')!r}")


# --- None ---------------------------------------------------------------------------------------------------

OPTIONAL = {name for name in PARAMETERS if allowed_of(name).none}


def test_none_is_for_those_that_say_what_it_means():
    written = {"image_size", "ptm_image_size", "lr_img", "start", "outer_loops", "inner_loops", "ptm_epoch"}
    written |= {"synthetic", "labels", "name", "ptm_seed"}
    assert written | {"source_dataset", "eval_epochs_plain", "runs_folder", "results_folder"} == OPTIONAL
    for name in PARAMETERS:
        if name in OPTIONAL:
            assert getattr(check({name: None}), name) is None
        else:
            with pytest.raises(ParameterError, match=f"{name} is None; expected (?!.*None)"):
                check({name: None})


def test_none_comes_through_papermill_and_yaml():
    p = check_parameters(notebook(f"source_dataset = {yaml.safe_load('null')!r}\nptm_epoch = None"))
    assert (p.source_dataset, p.ptm_epoch) == (None, None)


NAMES_OF_FOLDERS = {
    "source_dataset",
    "runs_folder",
    "results_folder",
    "synthetic",
    "labels",
    "name",
}  # they may be called "default"
MEAN_0 = {"ptm_seed", "ptm_epoch"}  # a seed, and a network before its training
OLD = [(name, old) for name in sorted(OPTIONAL) for old in (0, 0.0, "", "default") if old != 0 or name not in MEAN_0]


@pytest.mark.parametrize(
    ("name", "old"), [(n, old) for n, old in OLD if (old != "default" or n not in NAMES_OF_FOLDERS)]
)
def test_what_stood_for_none_before_is_refused_and_the_new_form_is_named(name, old):
    with pytest.raises(ParameterError) as caught:
        check({name: old})
    assert f"{name} is {old!r}; expected " in str(caught.value)
    assert str(caught.value).endswith(f", or None for {allowed_of(name).none}")


def test_a_variable_that_was_deleted_is_not_none():
    namespace = notebook()
    del namespace["ptm_epoch"]
    with pytest.raises(ParameterError, match="ptm_epoch is missing; expected a whole number"):
        check_parameters(namespace)


# --- the model ----------------------------------------------------------------------------------------------


def test_the_model_is_strict_closed_and_frozen():
    assert Parameters().model_config["strict"]
    assert Parameters(alpha_clom=3).alpha_clom == 3.0
    for wrong in ({"foo": 1}, {"ipc": True}, {"ipc": "1"}, {"alpha_clom": "1"}, {"equal_passes": 1}, {"ipc": 0}):
        with pytest.raises(ValueError, match="1 validation error"):
            Parameters(**wrong)
    with pytest.raises(ValueError, match="frozen"):
        Parameters().ipc = 2


def test_the_defaults_pass_their_own_checks():
    defaults = {name: field.default for name, field in PARAMETERS.items()}
    assert vars(check(defaults)) == defaults


def test_the_reference_has_every_parameter_once_in_words():
    rows = reference()
    assert [row["name"] for row in rows] == list(PARAMETERS)
    assert all(isinstance(text, str) and text.strip() for row in rows for text in row.values())
    by_name = {row["name"]: row for row in rows}
    assert by_name["lr_img"] == {
        "name": "lr_img",
        "type": "float or None",
        "allowed": "a number above 0, or None for the choice of the method's authors",
        "default": "None",
        "meaning": "learning rate of the pixels",
    }
    assert by_name["equal_passes"]["type"] == "bool"
    assert by_name["guidance"]["allowed"] == f"one of {', '.join(GUIDANCE)}"


@pytest.mark.parametrize(
    ("name", "table", "like"),
    [
        ("base_method", BASE_METHODS, "dm"),
        ("base_method", SELECTIONS, "random"),
        ("base_network", NETWORKS, "ConvNet-3"),
        ("architectures", NETWORKS, "ConvNet-3"),
        ("ptm_architectures", NETWORKS, "ConvNet-3"),
        ("guidance", GUIDANCE, "clom"),
        ("strategy", STRATEGIES, "single"),
        ("dataset", DATASETS, "digits"),
        ("source_dataset", DATASETS, "digits"),
    ],
)
def test_a_row_registered_at_run_time_is_allowed_and_told(monkeypatch, name, table, like):
    assert "dummy" not in str(allowed_of(name))
    monkeypatch.setitem(table, "dummy", table[like])
    assert getattr(check({name: "dummy"}), name) == "dummy"
    assert "dummy" in str(allowed_of(name))
    assert "dummy" in next(row for row in reference() if row["name"] == name)["allowed"]


def test_choices_of_the_core_are_those_of_the_guard():
    with pytest.raises(ParameterError, match="start is 'zeros'; expected one of real, noise"):
        check({"start": "zeros"})
    assert {row.start for row in BASE_METHODS.values()} <= {"real", "noise"}


@pytest.mark.parametrize("rule", CONTRADICTIONS, ids=lambda rule: rule.__name__)
def test_a_rule_speaks_of_declared_parameters_alone(rule):
    assert rule.__annotations__.keys() - {"return"} <= PARAMETERS.keys()
    assert rule.__doc__


# --- plain mappings and the reader of a cell ----------------------------------------------------------------


def test_a_plain_mapping_is_checked_alike():
    values = declared(DECLARED)
    assert vars(check(values | {"alpha_clom": 3})) == values | {"alpha_clom": 3.0}
    with pytest.raises(ParameterError, match=r"unknown parameter 'ipcs' \(did you mean 'ipc'\?\).*\n  ipc is 0"):
        check(values | {"ipc": 0}, given=["ipcs", "ipc"])
    with pytest.raises(ParameterError, match="declares 'foo', which is not a parameter of ddlib"):
        check({"foo": 1})


def test_the_reader_of_a_cell_gives_names_and_defaults():
    found = declared("# a comment\nipc: int = 1  # another\n\nlr_img: float | None = None\nalpha_clom: float = -1.5")
    assert found == {"ipc": 1, "lr_img": None, "alpha_clom": -1.5}
    assert list(found) == ["ipc", "lr_img", "alpha_clom"]


@pytest.mark.parametrize("source", ["", "ipc = 1", "ipc: int = 1\nprint(ipc)", "%matplotlib inline", "ipc: int ="])
def test_a_cell_of_another_kind_is_refused(source):
    with pytest.raises(ParameterError, match="no parameters were found: expected lines such as"):
        declared(source)


@pytest.mark.parametrize("source", ["ipc: int = 2 * 3", "ipc: int", "ipc: int = seed"])
def test_a_default_that_is_not_plain_is_refused_by_the_reader_and_accepted_from_a_user(source):
    with pytest.raises(ParameterError, match="ipc has no plain default"):
        declared(source)
    assert check_parameters({"In": [source], "ipc": 6}).ipc == 6
