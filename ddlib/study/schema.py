"""What a run record holds, field by field. ``ddlib.study.record`` writes and reads it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from ddlib.study.allowed import shown

SCHEMA = 2
EARLIER = {1: "its parameters have 0, '' and 'default' where None stands now"}
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


class Accuracies(BaseModel):
    """Every raw accuracy, as columns: a row for each network that was trained on the set.

    Records of others, and the first of ours, may lack those of the classes.
    """

    model_config = ConfigDict(strict=True, extra="forbid")

    architecture: list[str]
    network: list[Count]
    augment: list[bool]
    accuracy: list[Share]
    balanced_accuracy: list[Share] | None = None
    class_accuracies: list[list[Share | None]] | None = None
    seconds: list[Seconds | None]


class PTMCard(BaseModel):
    """What is known of one PTM: where it comes from, what it can do, what it cost."""

    model_config = ConfigDict(strict=True, extra="forbid")

    name: str
    architecture: str
    source_dataset: str
    hash: str
    seed: int | None
    epoch: int | None
    recipe: dict[str, object] | None
    accuracy: Share | None
    train_accuracy: Share | None
    seconds: Seconds | None
    size_bytes: Count
    device: str | None


class PTMAccuracy(BaseModel):
    """What one PTM recognises of the finished set: the share of its images that it classifies as they are labelled."""

    model_config = ConfigDict(strict=True, extra="forbid")

    ptm: str  # its hash
    role: Literal["guide", "judge"]  # a judge was held back: it guided nothing
    accuracy: Share


class PTMGradients(BaseModel):
    """How long the gradients of K PTMs were in one iteration, alphas inside, and how much they agreed."""

    model_config = ConfigDict(strict=True, extra="forbid")

    iteration: Count
    norms: list[Annotated[float, Field(ge=0, allow_inf_nan=False)]]  # [K]
    cosines: list[list[Annotated[float, Field(ge=-1, le=1)]]]  # [K, K]

    @field_validator("cosines")
    @classmethod
    def _of_all_pairs(cls, cosines: list[list[float]], about: ValidationInfo) -> list[list[float]]:
        k = len(about.data.get("norms", ()))
        if [len(row) for row in cosines] != [k] * k:
            raise ValueError(f"has {[len(row) for row in cosines]} numbers, expected those of {k} x {k} pairs")
        return cosines


ACCURACY_COLUMNS = tuple(Accuracies.model_fields)


class Record(BaseModel):
    """One run: one arm with one seed, and so one synthetic set."""

    model_config = ConfigDict(strict=True, extra="forbid")

    schema_: int = Field(alias="schema", description="version of this list of fields")
    status: Literal["ok", "failed"] = Field(description="ok, or failed: then without accuracies")
    error: str = Field("", description="why a run failed, in one line; only failed runs have it")
    created: str = Field(description="date and time of the writing, UTC")
    notebook: str = Field(description="the ablation that it was made for")
    arm: str = Field(description="the name of the arm (ddlib.study.arms.Arm.name)")
    seed: int = Field(description="of the synthetic set")
    parameters: dict[str, object] = Field(description="all that shaped the result; no folders, no device")
    parameter_hash: str = Field(description="of the parameters without the seed")
    code_hash: str = Field(description="of all code that shapes a result")
    git_commit: str | None = Field(description="of the checkout with the code; null outside of one")
    dataset_hash: str = Field(description="of all images and labels of the data set")
    class_names: list[str] = Field([], description="of the data set, in the order of class_accuracies")
    ptm_hashes: list[str] = Field(description="of all that shaped each PTM")
    ptms: list[PTMCard] = Field([], description="a card for each PTM: recipe, accuracy, seed, seconds, device, ...")
    ptm_accuracies: list[PTMAccuracy] = Field(
        [], description="of each PTM with the same classes, guide or judge: the share of the set that it recognises"
    )
    ptm_gradients: list[PTMGradients] = Field(
        [], description="of several PTMs, in at most 10 iterations: norms and cosines of their gradients"
    )
    synthetic_hash: str | None = Field(description="of the synthetic set; null if the run failed")
    device: str = Field(description="cpu or cuda:<number>")
    environment: dict[str, object] = Field(description="software and machine")
    seconds: dict[str, Seconds] = Field(description="parts of the run: ptms, distill, evaluate")
    peak_memory_bytes: Count | None = Field(
        description="on a GPU what PyTorch took, else the most that the process ever held, earlier runs in it included"
    )
    ptm_passes: Count = Field(description="forward-backward passes of a PTM over the synthetic set")
    accuracies: Accuracies = Field(description="every raw accuracy, as columns: architecture, network, augment, ...")
    history: dict[str, list[object]] = Field(description="losses and costs of some iterations, as columns")
    history_length: Count = Field(description="recorded iterations before they were thinned out")
    sha256: object = Field(None, description="checksum of all other fields")

    @field_validator("schema_")
    @classmethod
    def _readable(cls, version: int) -> int:
        if version in EARLIER:
            raise ValueError(
                f"is {version}, this ddlib reads {SCHEMA} ({EARLIER[version]}): delete the file and run again, or read "
                "it with the ddlib of its git_commit"
            )
        if version != SCHEMA:
            raise ValueError(f"is {version}, this ddlib reads {SCHEMA}: use a matching ddlib or run again")
        return version

    @field_validator("error")
    @classmethod
    def _one_line_of_a_failed_run(cls, error: str, about: ValidationInfo) -> str:
        if about.data.get("status") != "failed" or len(error.splitlines()) != 1:
            raise ValueError(f"is {shown(error)}, expected one line, and that of a failed run only")
        return error

    @field_validator("accuracies")
    @classmethod
    def _there_and_whole(cls, accuracies: Accuracies, about: ValidationInfo) -> Accuracies:
        _require_equal_lengths({name: values for name, values in accuracies if values is not None})
        if about.data.get("status") == "ok" and not accuracies.accuracy:
            raise ValueError("is empty, but the status is ok: write a run without accuracies as failed")
        if about.data.get("status") == "failed" and accuracies.accuracy:
            raise ValueError("is not empty, but the status is failed: a failed run has no accuracies")
        return accuracies

    @field_validator("history")
    @classmethod
    def _whole(cls, history: dict[str, list[object]]) -> dict[str, list[object]]:
        _require_equal_lengths(history)
        return history


def validate(record: Mapping[str, object], where: str | Path) -> None:
    """Raises ValueError naming ``where`` (the file) and the field that is missing, unknown, mistyped or impossible."""
    try:
        Record.model_validate(record)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
        raise ValueError(f"{where}: {_in_words(problems[0])}") from None


def _in_words(problem: Mapping[str, object]) -> str:
    """The first problem that pydantic found."""
    first, *path = problem["loc"] or ("",)
    field = f"{first}" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    said = {
        "missing": "is missing",
        "extra_forbidden": "is unknown",
        "value_error": problem["msg"].removeprefix("Value error, "),
    }
    other = f"is {shown(problem['input'])}, but {problem['msg'].removeprefix('Input ')}"
    return f"field {shown(field)} {said.get(problem['type'], other)}"


def _require_equal_lengths(columns: Mapping[str, Sequence[object]]) -> None:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"has columns of unequal length: {shown(lengths)}")
