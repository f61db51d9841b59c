"""Arms of the study: their names, and the words and the order in which tables and figures show them."""

from collections.abc import Iterable, Mapping
from types import SimpleNamespace

from ddlib.combine import STRATEGIES
from ddlib.networks import NETWORKS
from ddlib.study.parameters import BASELINES


def default_arm(parameters: Mapping[str, object]) -> str:
    """The name of an arm when none is given: its guidance, and the strategy if that combines several PTMs."""
    guidance, strategy = parameters.get("guidance", "none"), parameters.get("strategy", "single")
    return str(guidance) if guidance == "none" or strategy == "single" else f"{guidance} {strategy}"


LABELS = {  # words of arms as the text spells them, in the order of figures
    "random_real": "random real images",
    "herding": "herding",
    "k_center": "K-Center",
    "none": "no guidance",
    "clom": "CLoM",
    "cclom": "CCLoM",
    "both": "CLoM + CCLoM",
    "alone": "alone",  # without a base loss
    "equal_passes": "(equal passes)",
    "full_data": "full data",
}


def arm_label(name: object) -> str:
    """The name of an arm as the text spells it: ``"cclom random"`` becomes "CCLoM random"."""
    return " ".join(LABELS.get(word, word) for word in str(name).split(" "))


def pair_label(a: str, b: str) -> str:
    """Two arms that are compared; a guidance they share stands in front: "CLoM: loss_avg − random"."""
    first, second = a.split(" "), b.split(" ")
    if len(first) > 1 and len(second) > 1 and first[0] == second[0]:
        return f"{arm_label(first[0])}: {arm_label(' '.join(first[1:]))} − {arm_label(' '.join(second[1:]))}"
    return f"{arm_label(a)} − {arm_label(b)}"


def ordered(names: Iterable[str]) -> list[str]:
    """Names of arms or networks in the order of their tables."""
    return sorted(names, key=_order)


def _order(*names: str) -> list[tuple[int, str]]:
    """A sort key: guidances, strategies, networks in the order of their tables, all else after, by name."""
    known = [*list(LABELS)[:-1], *STRATEGIES, *NETWORKS, "full_data"]
    words = " ".join(map(str, names)).split(" ")
    return [(known.index(word) if word in known else len(known), word) for word in words]


BASELINE_ARMS = {"random": "random_real", "herding": "herding", "k_center": "k_center", "full": "full_data"}


def arm_name(p: SimpleNamespace, num_ptms: int) -> str:
    """The name of an arm in tables: what distinguishes it in its ablation."""
    if p.base_method in BASELINES or p.guidance == "none":
        return BASELINE_ARMS.get(p.base_method, "none")
    name = p.guidance if num_ptms == 1 else f"{p.guidance} {p.strategy}"
    name = f"{name} alone" if p.base_method == "none" else name
    return f"{name} equal_passes" if p.equal_passes else name
