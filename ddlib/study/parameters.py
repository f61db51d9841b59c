"""The parameters of an experiment, each declared once, and the guard that a notebook runs before any work.

papermill only logs a misspelt parameter and goes on with the default, so a night's run may answer another
question than the one asked. :func:`check_parameters` turns this, wrong types and impossible values into one error.
"""

import ast
import difflib
import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import SimpleNamespace

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from ddlib.base_methods import BASE_METHODS
from ddlib.combine import STRATEGIES
from ddlib.compute import COMPILE, PRECISIONS
from ddlib.data.readers import DATASETS
from ddlib.foreign import PIXELS
from ddlib.guidance import GUIDANCE
from ddlib.networks import NETWORKS
from ddlib.selection import SELECTIONS
from ddlib.study.allowed import (
    ABOVE_0,
    AT_LEAST_0,
    FLAG,
    Allowed,
    line,
    listed,
    one_of,
    or_none,
    pattern,
    shown,
    some_of,
    whole,
)
from ddlib.study.arms import FULL
from ddlib.study.cells import declarations, declared_and_given
from ddlib.study.contradictions import CONTRADICTIONS, IMAGENET


class ParameterError(ValueError):
    """Parameters that make no run. In a notebook it shows its message alone, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"ParameterError: {self}"]


SIZE = whole(8, 256)
DATASET = line(lambda: f"one of {listed(DATASETS)}, or the path of an image folder")
SOURCE = line(lambda: f"one of {listed(DATASETS)}, {IMAGENET}, or the path of an image folder")
NETWORKS_OR_OTHERS = line(lambda: f"one or more, joined by commas, of {listed(NETWORKS)}; torchvision's for {IMAGENET}")
AUTHORS = "the choice of the method's authors"


class Parameters(BaseModel):
    """Every parameter that a notebook may declare; the defaults are those of the smoke profile."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    # data
    dataset: DATASET = Field("digits", description="real images")
    image_size: or_none(SIZE, "the data set's own") = Field(16, description="height and width in pixels")
    evaluate_on: one_of(("test", "holdout")) = Field(
        "test", description="test images, or a held-out tenth of the training data to choose alpha on"
    )
    # distillation
    ipc: whole(1) = Field(1, description="synthetic images per class")
    base_method: one_of(BASE_METHODS, SELECTIONS, [FULL]) = Field("dm", description="base loss, none, or real images")
    iterations: whole(1) = Field(25, description="steps of the distillation")
    lr_img: or_none(ABOVE_0, AUTHORS) = Field(None, description="learning rate of the pixels")
    batch_real: whole(1) = Field(32, description="real images per class and update")
    start: or_none(one_of(("real", "noise")), AUTHORS) = Field(None, description="what synthetic images start from")
    outer_loops: or_none(whole(1), AUTHORS) = Field(None, description="image updates per iteration of dc, dsa")
    inner_loops: or_none(whole(1), AUTHORS) = Field(None, description="epochs of network training between them")
    lr_net: ABOVE_0 = Field(0.01, description="learning rate of that training")
    base_network: one_of(NETWORKS) = Field("ConvNet-3", description="random networks that the base method matches with")
    width: whole(2) = Field(16, description="channels of ConvNets, others in proportion; the reference has 128")
    precision: one_of(PRECISIONS) = Field("float32", description="of networks; tf32 on a GPU, bf16 where it is fast")
    compile: one_of(COMPILE) = Field("never", description="torch.compile for networks, for long runs")
    # guidance
    guidance: one_of(GUIDANCE) = Field("clom", description="losses of the PTMs")
    alpha_clom: AT_LEAST_0 = Field(10.0, description="weight of CLoM")
    alpha_ce_ratio: AT_LEAST_0 = Field(100.0, description="weight of the CE ratio")
    alpha_cos_mean: AT_LEAST_0 = Field(100.0, description="weight of the mean cosine")
    alpha_cclom: AT_LEAST_0 = Field(1000.0, description="weight of CCLoM")
    strategy: one_of(STRATEGIES) = Field("single", description="how several PTMs are combined")
    equal_passes: FLAG = Field(
        False, description="a strategy of one PTM a step runs K times as long: as many PTM passes as an average"
    )
    guide_every: whole(1) = Field(
        1, description="only every N-th update of the images is guided, with N times the weight"
    )
    # pre-trained models
    num_ptms: whole(1) = Field(1, description="initialisations of each PTM architecture")
    ptm_architectures: NETWORKS_OR_OTHERS = Field("ConvNet-3", description="of the PTMs, joined by commas")
    ptm_epochs: whole(1) = Field(15, description="epochs of training of a PTM")
    ptm_epoch: or_none(whole(0), "the last") = Field(
        None, description="its checkpoint to use, 0 for that before any training"
    )
    ptm_seed: or_none(whole(0), "a pool for each set, of its seed") = Field(
        0, description="of the pool, which all sets share"
    )
    source_dataset: or_none(SOURCE, "the data set itself") = Field(None, description="what PTMs were trained on")
    ptm_image_size: or_none(SIZE, "that of their training") = Field(None, description="pixels that those see")
    judges: whole(0) = Field(0, description="PTMs held back: more of the same, which only judge the finished set")
    # a set that was not made here
    synthetic: or_none(line(), "random real images") = Field(
        None, description="path of a synthetic set: a file, or an exported folder"
    )
    labels: or_none(line(), "with the images, or beside them") = Field(None, description="path of its labels")
    pixels: one_of(["auto"], PIXELS) = Field("auto", description="what its numbers are")
    name: or_none(line(), "that of the file") = Field(None, description="of the set, in tables and figures")
    # evaluation
    architectures: some_of(NETWORKS) = Field("ConvNet-3,VGG-11", description="networks to evaluate with")
    num_eval: whole(1) = Field(
        2,
        description="fresh networks of each architecture for each set; of one with x3 behind it three times as many",
    )
    eval_epochs: whole(1) = Field(50, description="epochs of the fresh networks' training, with DSA augmentation")
    eval_epochs_plain: or_none(whole(1), "no such training") = Field(None, description="the same without augmentation")
    full_epochs: whole(1) = Field(12, description="epochs of training on the full data")
    # replication and place
    seed: whole(0) = Field(0, description="of the first synthetic set")
    num_sets: whole(1) = Field(3, description="synthetic sets: seeds seed, seed + 1, ...")
    setting: whole(0) = Field(0, description="which of the settings in a folder of records to compare")
    device: pattern("auto|cpu|cuda(:[0-9]{1,3})?", "auto (the first GPU, else the CPU), cpu, cuda or cuda:<number>") = (
        Field("auto", description="where to compute")
    )
    runs_folder: or_none(line(), "DDLIB_RUNS, else runs/ in the project") = Field(None, description="of records")
    results_folder: or_none(line(), "benchmarks/results in the project") = Field(
        None, description="of the benchmarks' records"
    )

    @field_validator("*")
    @classmethod
    def _fits(cls, value: object, about: ValidationInfo) -> object:
        allowed = allowed_of(about.field_name)
        if value is not None and not allowed.fits(value):
            raise ValueError(f"expected {allowed}")
        return value


PARAMETERS = Parameters.model_fields
"""Every parameter by its name, as pydantic describes it."""


def allowed_of(name: str) -> Allowed:
    """What a parameter may be."""
    return next(item for item in PARAMETERS[name].metadata if isinstance(item, Allowed))


def type_of(name: str) -> str:
    """The type of a parameter as a notebook's cell spells it: ``float or None``, for papermill cannot read a ``|``."""
    annotation = PARAMETERS[name].annotation
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace(" | ", " or ")


def reference() -> list[dict[str, str]]:
    """All parameters in words: a row of the book's table each."""
    return [
        {
            "name": name,
            "type": type_of(name),
            "allowed": str(allowed_of(name)),
            "default": repr(field.default),
            "meaning": field.description,
        }
        for name, field in PARAMETERS.items()
    ]


class _Missing:
    def __repr__(self) -> str:
        return "missing"


def check_parameters(namespace: Mapping[str, object]) -> SimpleNamespace:
    """The parameters of a notebook, checked: its first statement after the parameters cell.

    ``namespace`` is the notebook's ``globals()``. The declared names are those of its ``parameters`` cell, a cell of
    annotated assignments alone; names in the cell that papermill adds after it must be among them. Both are read from
    the history of cells, so variables that a user makes later are never mistaken for parameters.

    Returns the values as attributes; a whole number given for a float is one. Raises ParameterError that lists all
    that is wrong, with what was found and what is allowed.
    """
    history = [source for source in namespace.get("In", []) if source]
    # Some runners (nbval) keep no history; they inject nothing either, so what is there was declared.
    here = [name for name in PARAMETERS if name in namespace]
    names, given = declared_and_given(history, PARAMETERS) if history else (here, [])
    if not names:
        raise ParameterError("no parameters were found: run the cell with the parameters first, then this one.")
    return check({name: namespace.get(name, _Missing()) for name in names}, given)


def check(values: Mapping[str, object], given: Collection[str] = ()) -> SimpleNamespace:
    """The same for a plain mapping: ``values`` by all declared names; ``given`` are names that somebody set.

    The declared ``image_size`` is one for the declared data set: another one that is given without a size is read in
    its own (None), an image folder in the one that suits its pictures.
    """
    problems = [_unknown(name, list(values)) for name in given if name not in values]
    foreign = [name for name in values if name not in PARAMETERS]
    problems += [f"the parameters cell declares {name!r:.80}, which is not a parameter of ddlib" for name in foreign]
    fine, wrong = _validated({name: value for name, value in values.items() if name in PARAMETERS})
    problems += [f"{name} is {shown(values[name])}; expected {allowed_of(name)}" for name in wrong]
    problems += _contradictions(fine)
    if problems:
        raise ParameterError("\n  ".join(["nothing was run, because", *problems]))
    if {"dataset", "image_size"} & set(given) == {"dataset"} and fine["dataset"] != PARAMETERS["dataset"].default:
        fine |= {"image_size": None} if "image_size" in fine else {}
    return SimpleNamespace(**fine)


def declared(source: str) -> dict[str, object]:
    """Names and defaults in the source of a parameters cell. Raises ParameterError if it is not such a cell."""
    defaults = {}
    for name, value in declarations(source).items():
        try:
            defaults[name] = ast.literal_eval(value)
        except ValueError as error:
            raise ParameterError(f"{name} has no plain default: write a number, a text, True, False or None") from error
    if not defaults:
        raise ParameterError("no parameters were found: expected lines such as `ipc: int = 1`, and nothing else")
    return defaults


def _validated(values: Mapping[str, object]) -> tuple[dict[str, object], list[str]]:
    """The values that are allowed, each of its type, and the names of the others."""
    try:
        model = Parameters.model_validate(values)
    except ValidationError as error:
        wrong = {problem["loc"][0] for problem in error.errors(include_input=False, include_url=False)}
        fine, _ = _validated({name: value for name, value in values.items() if name not in wrong})
        return fine, [name for name in values if name in wrong]
    return {name: getattr(model, name) for name in values}, []


def _contradictions(values: Mapping[str, object]) -> Iterator[str]:
    """What the rules say that ask for none but these parameters."""
    for rule in CONTRADICTIONS:
        needed = inspect.signature(rule).parameters.keys()
        if needed <= values.keys() and (problem := rule(**{name: values[name] for name in needed})):
            yield problem


def _unknown(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"unknown parameter {name!r}{hint}; this notebook has {', '.join(known)}"
