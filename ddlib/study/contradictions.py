"""What makes no sense together, although each parameter alone would do.

A rule is a function of the parameters that it names; it returns what is wrong in words, or None. It is asked whenever
all of them are declared. A new one is one more function in :data:`CONTRADICTIONS`.
"""

import torch

from ddlib.base_methods import BASE_METHODS
from ddlib.combine import STRATEGIES
from ddlib.devices import missing_compiler
from ddlib.guidance import GUIDANCE, OF_LOGITS
from ddlib.networks import NETWORKS
from ddlib.study.allowed import names
from ddlib.study.arms import is_selection

IMAGENET = "imagenet"  # as source_dataset: torchvision's weights


def epoch_after_the_last(ptm_epoch: int | None, ptm_epochs: int) -> str | None:
    """PTMs have no checkpoint beyond their training."""
    if ptm_epoch and ptm_epoch > ptm_epochs:
        return f"ptm_epoch is {ptm_epoch}, but PTMs train for ptm_epochs = {ptm_epochs} only"
    return None


def nothing_to_learn(base_method: str, guidance: str) -> str | None:
    """No loss at all."""
    if guidance == base_method == "none":
        return "base_method none needs guidance: without either nothing would be learned"
    return None


def nothing_to_guide(base_method: str, guidance: str) -> str | None:
    """Real images are chosen, not learned."""
    if guidance != "none" and is_selection(base_method):
        return f"base_method {base_method} chooses real images, nothing to guide: set guidance none"
    return None


def nothing_to_compile(base_method: str, compile: str) -> str | None:
    """Only some base methods can be compiled."""
    able = [name for name, row in BASE_METHODS.items() if row.compiles]
    if compile == "always" and base_method not in able:
        return f"compile always is for base_method {', '.join(able)}, not {base_method}; auto goes with all"
    return None


def nothing_to_compile_with(compile: str, device: str) -> str | None:
    """PyTorch calls the system's compiler, for a GPU too."""
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    missing = missing_compiler("cuda" if on_gpu else "cpu") if compile == "always" else None
    return f"compile needs {missing}, which is not here: install it, or leave compile out" if missing else None


def no_such_precision(precision: str, device: str) -> str | None:
    """TF32 is a matter of GPUs."""
    if precision == "tf32" and (device == "cpu" or (device == "auto" and not torch.cuda.is_available())):
        return "precision tf32 is of NVIDIA's GPUs, and this run is on the CPU: use float32"
    return None


def strategy_without_this_guidance(strategy: str, guidance: str) -> str | None:
    """Some strategies are made for one loss."""
    if guidance != "none" and guidance not in STRATEGIES[strategy].guidance:
        fitting = [name for name, row in STRATEGIES.items() if guidance in row.guidance]
        return f"strategy {strategy} is not defined for guidance {guidance}; use {', '.join(fitting)}"
    return None


def passes_already_equal(strategy: str, equal_passes: bool) -> str | None:
    """A strategy that asks all PTMs is the one that others are made equal to."""
    if equal_passes and not STRATEGIES[strategy].one_ptm:
        one = [name for name, row in STRATEGIES.items() if row.one_ptm]
        return f"equal_passes lengthens strategies of one PTM a step ({', '.join(one)}), not {strategy}"
    return None


def guidance_that_never_comes(guide_every: int, guidance: str) -> str | None:
    """Nothing is there to be left out."""
    if guide_every > 1 and guidance == "none":
        return f"guide_every is {guide_every}, and guidance none guides no update: set guide_every 1"
    return None


def updates_without_a_loss(guide_every: int, base_method: str) -> str | None:
    """Guidance alone, left out, leaves nothing to follow."""
    if guide_every > 1 and base_method == "none":
        return f"guide_every is {guide_every}: with base_method none the updates between would follow no loss at all"
    return None


def two_ways_to_equal_passes(guide_every: int, equal_passes: bool) -> str | None:
    """Either the strategies of one PTM run longer, or the others guide less often."""
    if guide_every > 1 and equal_passes:
        return f"equal_passes and guide_every = {guide_every} are two ways to equal PTM passes: choose one"
    return None


def guided_once(guide_every: int, iterations: int, base_method: str) -> str | None:
    """An iteration of dm is one update, one of dc or dsa may be several."""
    if guide_every > iterations and base_method in BASE_METHODS and not BASE_METHODS[base_method].loops:
        return f"guide_every is {guide_every}, but there are iterations = {iterations} updates only"
    return None


def labels_of_another_dataset(source_dataset: str | None, guidance: str) -> str | None:
    """CLoM and the CE ratio ask the PTM for the label."""
    if source_dataset and OF_LOGITS & set(GUIDANCE[guidance]):
        return (
            f"guidance {guidance} needs PTMs with the labels of the data set itself, and source_dataset is "
            f"{source_dataset!r}: use guidance cclom or cos_mean, or source_dataset None"
        )
    return None


def judges_of_another_dataset(source_dataset: str | None, judges: int) -> str | None:
    """A judge says whether it recognises the class."""
    if source_dataset and judges:
        return (
            f"judges is {judges}, and source_dataset is {source_dataset!r}: judges are trained on the data set itself, "
            "as PTMs with its classes; set judges 0, or source_dataset None"
        )
    return None


def pools_that_are_one(source_dataset: str | None, ptm_seed: int | None) -> str | None:
    """Torchvision's weights know no seed."""
    if source_dataset == IMAGENET and ptm_seed is None:
        return f"ptm_seed None gives each set a pool of its own, and PTMs of {IMAGENET} are one pool: set ptm_seed 0"
    return None


def initialisations_of_one_file(source_dataset: str | None, num_ptms: int) -> str | None:
    """Torchvision has one file of weights for each architecture."""
    if source_dataset == IMAGENET and num_ptms > 1:
        return f"num_ptms is {num_ptms}, and {IMAGENET} has one network of each architecture: set num_ptms 1"
    return None


def accuracy_unknown(source_dataset: str | None, strategy: str, guidance: str) -> str | None:
    """Torchvision tells accuracies on test images only."""
    if guidance != "none" and source_dataset == IMAGENET and STRATEGIES[strategy].needs_accuracy:
        return f"strategy {strategy} needs accuracies on train splits, and those of {IMAGENET} are unknown"
    return None


def architecture_unknown(source_dataset: str | None, ptm_architectures: str) -> str | None:
    """ImageNet's PTMs have torchvision's names, all others are trained here."""
    words = names(ptm_architectures)
    if source_dataset != IMAGENET and (not words or len({*words} & {*NETWORKS}) < len(words)):
        known = ", ".join(NETWORKS)
        return (
            f"ptm_architectures is {ptm_architectures!r}; expected one or more, each once, joined by commas, of {known}"
        )
    return None


CONTRADICTIONS = [
    epoch_after_the_last,
    nothing_to_learn,
    nothing_to_guide,
    nothing_to_compile,
    nothing_to_compile_with,
    no_such_precision,
    strategy_without_this_guidance,
    passes_already_equal,
    guidance_that_never_comes,
    updates_without_a_loss,
    two_ways_to_equal_passes,
    guided_once,
    labels_of_another_dataset,
    judges_of_another_dataset,
    pools_that_are_one,
    initialisations_of_one_file,
    accuracy_unknown,
    architecture_unknown,
]
"""All rules, in the order in which they are told."""
