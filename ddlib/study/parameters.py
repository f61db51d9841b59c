"""The parameters of an experiment: what each may be, and the guard that a notebook runs before any work.

papermill only logs a misspelt parameter and goes on with the default, so a night's run may answer another
question than the one asked. :func:`check_parameters` turns this, wrong types and impossible values into one error.
"""

import ast
import difflib
import math
import re
from collections.abc import Callable, Collection, Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

from ddlib.base_methods import BASE_METHODS
from ddlib.combine import STRATEGIES
from ddlib.guidance import GUIDANCE
from ddlib.networks import NETWORKS
from ddlib.selection import SELECTIONS
from ddlib.study.arms import is_selection

INJECTED = "# Parameters"  # papermill's first line of the cell it adds
IMAGENET = "imagenet"  # as source_dataset: torchvision's weights
MOST = 10**9  # of whole numbers: no run could be larger, and a number with hundreds of digits is no slip of a finger
LONGEST = 1000  # characters of a text, such as a path


class ParameterError(ValueError):
    """Parameters that make no run. In a notebook it shows its message alone, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"ParameterError: {self}"]


@dataclass(frozen=True)
class Parameter:
    """What one parameter may be."""

    kind: type
    allowed: str  # in words, for the error message
    fits: Callable[[object], bool] = lambda value: True


def whole(least: int) -> Parameter:
    """A whole number from ``least`` to ``MOST``."""
    return Parameter(int, f"a whole number from {least} on, at most {MOST}", lambda value: least <= value <= MOST)


def number(above: float | None = None, least: float = 0.0) -> Parameter:
    """A finite number: larger than ``above``, or else of ``least`` or more."""
    if above is None:
        return Parameter(float, f"a number of {least:g} or more", lambda v: math.isfinite(v) and v >= least)
    return Parameter(float, f"a number above {above:g}", lambda v: math.isfinite(v) and v > above)


def one_of(*choices: str | Mapping[str, object]) -> Parameter:
    """One of some words and of the rows of some tables, which are read when a value is checked."""
    tables = [choice if isinstance(choice, Mapping) else {choice: None} for choice in choices]
    words = ", ".join(word for table in tables for word in table)
    return Parameter(str, f"one of {words}", lambda value: any(value in table for table in tables))


def some_of(choices: Collection[str]) -> Parameter:
    """Words joined by commas."""
    return Parameter(
        str,
        "one or more, joined by commas, of " + ", ".join(choices),
        lambda value: (
            bool(names(value)) and set(names(value)) <= set(choices) and len(set(names(value))) == len(names(value))
        ),
    )


def names(text: str) -> list[str]:
    """``"ConvNet-3, VGG-11"`` as a list of names."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _is_line(text: object) -> bool:
    return len(text) <= LONGEST and text.isprintable()  # no line ends, no NUL, which no path may hold


ANY_TEXT = Parameter(str, f"one line of text, at most {LONGEST} characters", _is_line)
FLAG = Parameter(bool, "True or False")
ZERO_OR_SIZE = Parameter(int, "0 (as it is) or a whole number from 8 to 256", lambda v: v == 0 or 8 <= v <= 256)

PARAMETERS: dict[str, Parameter] = {
    # data
    "dataset": Parameter(
        str, "a name of a data set or the path of an image folder", lambda v: bool(v.strip()) and _is_line(v)
    ),
    "image_size": ZERO_OR_SIZE,
    "evaluate_on": one_of("test", "holdout"),
    # distillation
    "ipc": whole(1),
    "base_method": one_of(BASE_METHODS, SELECTIONS, "full"),
    "iterations": whole(1),
    "lr_img": number(),
    "batch_real": whole(1),
    "start": one_of("default", "real", "noise"),
    "outer_loops": whole(0),
    "inner_loops": whole(0),
    "lr_net": number(above=0),
    "base_network": one_of(NETWORKS),
    "width": whole(2),
    "compile": FLAG,
    # guidance
    "guidance": one_of(GUIDANCE),
    "alpha_clom": number(),
    "alpha_cclom": number(),
    "strategy": one_of(STRATEGIES),
    "equal_passes": FLAG,
    # pre-trained models
    "num_ptms": whole(1),
    "ptm_architectures": ANY_TEXT,  # which names are allowed depends on source_dataset
    "ptm_epochs": whole(1),
    "ptm_epoch": whole(0),
    "ptm_seed": whole(0),
    "source_dataset": ANY_TEXT,
    "ptm_image_size": ZERO_OR_SIZE,
    # evaluation
    "architectures": some_of(NETWORKS),
    "num_eval": whole(1),
    "eval_epochs": whole(1),
    "eval_epochs_plain": whole(0),
    "full_epochs": whole(1),
    # replication and place
    "seed": whole(0),
    "num_sets": whole(1),
    "setting": whole(0),
    "device": Parameter(
        str, "auto, cpu, cuda or cuda:<number>", lambda v: bool(re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,3})?", v))
    ),
    "runs_folder": ANY_TEXT,
    "results_folder": ANY_TEXT,
}
"""Every parameter that a notebook may declare."""


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
    declared, given = _cells(history) if history else ([name for name in PARAMETERS if name in namespace], [])
    if not declared:
        raise ParameterError("no parameters were found: run the cell with the parameters first, then this one.")
    problems = [_unknown(name, declared) for name in given if name not in declared]
    unknown = [name for name in declared if name not in PARAMETERS]
    problems += [f"the parameters cell declares {name!r:.80}, which is no parameter of ddlib" for name in unknown]
    values = {}
    for name in (name for name in declared if name in PARAMETERS):
        parameter, value = PARAMETERS[name], namespace.get(name)
        if parameter.kind is float and type(value) is int and abs(value) <= MOST:
            value = float(value)
        if type(value) is not parameter.kind or not parameter.fits(value):
            problems.append(f"{name} is {_shown(value)}; expected {parameter.allowed}")
        values[name] = value
    found = SimpleNamespace(**values)
    if not problems:
        problems = [*_contradictions(found)]
    if problems:
        raise ParameterError("\n  ".join(["nothing was run, because", *problems]))
    return found


def _shown(value: object) -> str:
    """A value in an error: 80 characters of it."""
    if isinstance(value, int) and abs(value) > 10**80:
        return "a number of more than 80 digits"  # Python refuses to print some of these
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        text = f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= 80 else f"{text[:80]}..."


def _unknown(name: str, declared: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, declared, 1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"unknown parameter {name!r}{hint}; this notebook has {', '.join(declared)}"


def _contradictions(p: SimpleNamespace) -> list[str]:
    """What makes no sense together, although each value alone would do."""
    problems = []

    def has(*wanted: str) -> bool:
        return all(hasattr(p, name) for name in wanted)

    if has("ptm_epoch", "ptm_epochs") and p.ptm_epoch > p.ptm_epochs:
        problems.append(f"ptm_epoch is {p.ptm_epoch}, but PTMs train for ptm_epochs = {p.ptm_epochs} only")
    if has("base_method", "guidance") and p.guidance == "none" and p.base_method == "none":
        problems.append("base_method none needs guidance: without either nothing would be learned")
    if has("base_method", "guidance") and p.guidance != "none" and is_selection(p.base_method):
        problems.append(f"base_method {p.base_method} chooses real images, nothing to guide: set guidance none")
    if has("base_method", "compile") and p.compile and p.base_method != "dm":
        problems.append(f"compile is for base_method dm, not {p.base_method}")
    if has("strategy", "guidance") and p.guidance not in ("none", *STRATEGIES[p.strategy].guidance):
        fitting = [name for name, row in STRATEGIES.items() if p.guidance in row.guidance]
        problems.append(f"strategy {p.strategy} is not defined for guidance {p.guidance}; use {', '.join(fitting)}")
    if has("strategy", "equal_passes") and p.equal_passes and not STRATEGIES[p.strategy].one_ptm:
        one = [name for name, row in STRATEGIES.items() if row.one_ptm]
        problems.append(f"equal_passes lengthens strategies of one PTM a step ({', '.join(one)}), not {p.strategy}")
    if has("source_dataset", "guidance") and p.source_dataset and p.guidance in ("clom", "both"):
        problems.append(
            f"guidance {p.guidance} needs PTMs with the labels of the data set itself, and source_dataset is "
            f"{p.source_dataset!r}: use guidance cclom, or source_dataset ''"
        )
    guided = has("source_dataset", "strategy", "guidance") and p.guidance != "none"
    if guided and p.source_dataset == IMAGENET and STRATEGIES[p.strategy].needs_accuracy:
        problems.append(f"strategy {p.strategy} needs accuracies on train splits, and those of {IMAGENET} are unknown")
    if has("source_dataset", "ptm_architectures") and p.source_dataset != IMAGENET:
        allowed = some_of(NETWORKS)
        if not allowed.fits(p.ptm_architectures):
            problems.append(f"ptm_architectures is {p.ptm_architectures!r}; expected {allowed.allowed}")
    return problems


def _cells(history: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names declared in the latest parameters cell, and names that papermill gave after it."""
    declared, given = [], []
    for source in history:
        statements = _statements(source)
        if source.startswith(INJECTED) and declared:
            assignments = [line for line in statements if isinstance(line, ast.Assign)]
            given = [ast.unparse(target) for line in assignments for target in line.targets]
        elif statements and all(isinstance(line, ast.AnnAssign) for line in statements):
            found = [ast.unparse(line.target) for line in statements]
            if set(found) & set(PARAMETERS):  # else a cell of the user's own
                declared, given = found, []
    return declared, given


def _statements(source: str) -> MutableSequence[ast.stmt]:
    try:
        return ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # a cell with magics or a typo: not ours
        return []
