"""Distillation: momentum SGD on the pixels of a synthetic set, by a base loss and the guidance of PTMs."""

import math
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from ddlib.base_methods import BASE_METHODS, Task
from ddlib.checkpoint import State, identity
from ddlib.combine import Combined, Step, Strategy, accuracy_weights, get_strategy, gradient_cosines
from ddlib.data.dataset import Dataset
from ddlib.disk.progress import progress_bar
from ddlib.guidance import GUIDANCE, Alpha, PTMSignal, make_signals
from ddlib.ptms.ptm import PTM
from ddlib.selection import require_enough_images, starting_images
from ddlib.synthetic import SyntheticSet

MOMENTUM = 0.5  # of the pixels' SGD, in all three base methods
TASK_SETTINGS = ("width", "batch_real", "outer_loops", "inner_loops", "lr_net", "seed", "compile")


@dataclass(frozen=True, eq=False)
class Distilled:
    """What a distillation leaves."""

    synthetic: SyntheticSet
    history: pd.DataFrame  # a row per iteration: iteration, base_loss, guidance_loss, cosine, ptm_passes, seconds
    cosines: Tensor  # [K, K], of the PTMs' gradients, mean over the logged steps; 0 x 0 for fewer than two PTMs
    snapshots: dict[int, Tensor] = field(default_factory=dict)  # iteration: images [N, C, H, W], as asked for


def distill(
    dataset: Dataset,
    *,
    ipc: int = 10,
    base_method: str = "dm",
    guidance: str = "none",
    ptms: Sequence[PTM] = (),
    strategy: str = "single",
    alpha_clom: Alpha = 1.0,
    alpha_cclom: Alpha = 1.0,
    iterations: int = 1000,
    lr_img: float | None = None,
    start: str | None = None,
    base_network: str = "ConvNet-3",
    width: int = 128,
    batch_real: int = 256,
    outer_loops: int | None = None,
    inner_loops: int | None = None,
    lr_net: float = 0.01,
    seed: int = 0,
    compile: bool = False,
    snapshots: Iterable[int] = (),
    log_every: int = 10,
    checkpoint: str | os.PathLike | None = None,
    checkpoint_every: int = 100,
) -> Distilled:
    """Distil ``dataset.train`` into ``ipc`` images for each class, on the device of ``dataset``.

    Minimises ``L_base + alpha_clom * CLoM + alpha_cclom * CCLoM`` by SGD with momentum 0.5 on the pixels.

    Args:
        base_method: ``dm``, ``dc``, ``dsa``, or ``none`` for guidance alone.
        guidance: ``none``, ``clom``, ``cclom`` or ``both``, by ``ptms`` (order counts) combined by ``strategy``,
            a key of :data:`ddlib.combine.STRATEGIES`; added once in each update of the images.
        alpha_clom, alpha_cclom: one number, or one for each PTM architecture as a dict.
        lr_img, start (``real`` or ``noise``), outer_loops, inner_loops: by default those of the method's authors.
        base_network, width: of the random networks that the base method matches with.
        batch_real: real images per class and update, at most.
        seed: start, real batches, networks, augmentation and selection each have a generator derived from it.
        compile: ``dm`` only: its networks through ``torch.compile``, which pays in long runs, needs a C++ compiler on
            the CPU, and differs by rounding.
        snapshots: iterations after which the images are kept; 0 is the start.
        log_every: the PTMs' gradients are compared at each of these iterations; not counted as PTM passes.
        checkpoint: a file to resume from if it is there, written every ``checkpoint_every`` iterations and at
            the end; delete it when the result is safe. On the CPU a resumed run is bit-identical.

    Raises:
        ValueError: impossible settings, or a checkpoint of other settings or code or of a longer run; before any work.
        FloatingPointError: a loss or a pixel is no longer finite.
    """
    settings = {name: value for name, value in locals().items() if name not in ("dataset", "ptms", "checkpoint")}
    images, labels, task = _prepare(settings, dataset)
    combine = get_strategy(strategy, guidance)
    if combine.needs_accuracy and guidance != "none":
        accuracy_weights([ptm.train_accuracy for ptm in ptms])  # one without fails here, not in the first step
    signals = make_signals(ptms, dataset, labels, guidance, alpha_clom, alpha_cclom)
    optimizer = torch.optim.SGD([images], lr=settings["lr_img"], momentum=MOMENTUM)
    state = State(images, optimizer, len(signals), identity(settings, dataset, ptms))
    if checkpoint:
        state.resume(Path(checkpoint), iterations)
    wanted = set(settings["snapshots"])
    updates = task.outer_loops if BASE_METHODS[base_method].loops else 1  # of the images, in one iteration
    if state.iteration == 0 and 0 in wanted:
        state.snapshots[0] = images.detach().clone()
    before = (state.history[-1]["seconds"] if state.history else 0.0) - time.perf_counter()

    with progress_bar(iterations, "distillation", state.iteration) as bar:
        while (t := state.iteration) < iterations:
            if len(signals) > 1 and t % log_every == 0:
                state.log_cosines(gradient_cosines(images, signals))
            steps = [
                _update(
                    images,
                    base_loss,
                    combine,
                    signals,
                    Step(seed, t * updates + update),
                    optimizer,
                    t,
                )
                for update, base_loss in enumerate(BASE_METHODS[base_method].updates(images, task, t))
            ]
            state.log(steps, before + time.perf_counter())
            if t + 1 in wanted:
                state.snapshots[t + 1] = images.detach().clone()
            if checkpoint and ((t + 1) % checkpoint_every == 0 or t + 1 == iterations):
                state.save(Path(checkpoint))
            bar.update()

    synthetic = SyntheticSet.of(
        dataset, images.clone(), labels, **settings, ptm_hashes=[ptm.hash for ptm in ptms] if signals else []
    )
    return Distilled(synthetic, pd.DataFrame(state.history), state.mean_cosines(), state.snapshots)


def _prepare(settings: dict[str, object], dataset: Dataset) -> tuple[Tensor, Tensor, Task]:
    """Start images (a leaf), labels, and the base method's task; fills in the authors' defaults.

    Raises ValueError on impossible settings.
    """
    name, ipc = settings["base_method"], settings["ipc"]
    if name not in BASE_METHODS:
        raise ValueError(f"unknown base method {name!r}; known: {', '.join(BASE_METHODS)}.")
    if settings["guidance"] not in GUIDANCE:
        raise ValueError(f"unknown guidance {settings['guidance']!r}; known: {', '.join(GUIDANCE)}.")
    if name == "none" and settings["guidance"] == "none":
        raise ValueError("without a base method and without guidance nothing would be learned: choose one.")
    for key in ("iterations", "log_every", "checkpoint_every", "batch_real", "outer_loops", "inner_loops"):
        if settings[key] is not None and settings[key] < 1:
            raise ValueError(f"{key} must be at least 1; found {settings[key]}.")
    if settings["compile"] and name != "dm":
        raise ValueError(f"compile is for base method dm only; found {name}. Leave it out.")
    require_enough_images(dataset, ipc)
    authors = BASE_METHODS[name].defaults(ipc)
    settings |= {key: value for key, value in authors.items() if settings[key] is None}
    settings["snapshots"] = sorted(settings["snapshots"])
    images, labels = starting_images(dataset, ipc, settings["start"], settings["seed"])
    task = Task(dataset, labels, settings["base_network"], **{key: settings[key] for key in TASK_SETTINGS})
    task.fresh_network(0)  # an unknown network or an impossible width fails here
    return images.requires_grad_(True), labels, task


def _update(
    images: Tensor,
    base_loss: Tensor | None,
    combine: Strategy,
    signals: Sequence[PTMSignal],
    step: Step,
    optimizer: torch.optim.Optimizer,
    iteration: int,
) -> tuple[float, float, int]:
    """One step on the pixels; returns base loss, guidance loss and PTM passes."""
    gradient = torch.zeros_like(images) if base_loss is None else torch.autograd.grad(base_loss, images)[0]
    said = combine(images, signals, step) if signals else Combined(images.new_zeros(()), torch.zeros(()), 0)
    images.grad = gradient + said.gradient if signals else gradient
    optimizer.step()
    losses = {"base loss": 0.0 if base_loss is None else base_loss.item(), "guidance loss": said.loss.item()}
    broken = [name for name, value in losses.items() if not math.isfinite(value)]
    if broken or not torch.isfinite(images).all():
        what = f"the {broken[0]} is {losses[broken[0]]}" if broken else "a pixel is NaN or infinite"
        raise FloatingPointError(
            f"iteration {iteration}: {what}. The run diverges: lower lr_img or alpha, then start again"
            " (a checkpoint, if there is one, is from before)."
        )
    return (*losses.values(), said.passes)
