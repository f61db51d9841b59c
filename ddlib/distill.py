"""Distillation: momentum SGD on the pixels of a synthetic set, by a base loss and the guidance of PTMs."""

import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ddlib.base_methods import Task, require_at_least_one
from ddlib.checkpoint import State, identity
from ddlib.combine import get_strategy
from ddlib.compute import Compute, tf32
from ddlib.data.dataset import Dataset
from ddlib.devices import refuse_strict_determinism
from ddlib.disk.progress import progress_bar
from ddlib.families import Agreement, Combined, Step, gradient_agreement
from ddlib.guidance import GUIDANCE
from ddlib.memory import keep_freed_memory
from ddlib.ptms.ptm import PTM
from ddlib.recipe import Recipe
from ddlib.selection import require_enough_images, starting_images
from ddlib.synthetic import SyntheticSet
from ddlib.threads import threads_for

if TYPE_CHECKING:
    import pandas as pd

MOMENTUM = 0.5  # of the pixels' SGD, in all three base methods


@dataclass(frozen=True, eq=False, repr=False)
class Distilled:
    """What a distillation leaves.

    ``guidance_loss`` in the history is the mean over the guided updates of an iteration, at the weight of ``alpha``
    alone: ``guide_every`` does not multiply it, and where no update was guided it is NaN.
    """

    synthetic: SyntheticSet
    history: "pd.DataFrame"  # a row per iteration: iteration, base_loss, guidance_loss, cosine, ptm_passes, seconds
    cosines: Tensor  # [K, K], of the PTMs' gradients, mean over the logged steps; 0 x 0 for fewer than two PTMs
    norms: Tensor  # [K], of the same gradients, alphas inside; none for fewer than two PTMs
    snapshots: dict[int, Tensor] = field(default_factory=dict)  # iteration: images [N, C, H, W], as asked for
    agreement: dict[int, Agreement] = field(default_factory=dict)  # iteration: norms and cosines, of the logged steps

    def __repr__(self) -> str:
        return f"<Distilled: {self.synthetic!r} after {len(self.history)} logged iterations>"


def distill(
    dataset: Dataset,
    recipe: Recipe | None = None,
    *,
    snapshots: Iterable[int] = (),
    checkpoint: str | os.PathLike | None = None,
    checkpoint_every: int = 100,
    **settings: object,
) -> Distilled:
    """Distil ``dataset.train`` into a few images for each class, on the device of ``dataset``.

    Minimises ``L_base + alpha * L_PTM`` by SGD with momentum 0.5 on the pixels, ``L_PTM`` such as CLoM. A recipe says
    how, or the names of its settings do: ``distill(data, ipc=1, guidance="clom", ptms=ptms)``.

    Args:
        settings: ipc, seed, log_every (:class:`ddlib.recipe.Recipe`); base_method (dm, dc, dsa; none: guidance alone),
            base_network, width, batch_real, outer_loops, inner_loops, lr_net (:class:`ddlib.base_methods.Matching`);
            precision, compile (:class:`ddlib.compute.Compute`); guidance (none, clom, ce_ratio, cos_mean, cclom, both),
            ptms, strategy, alpha_clom, alpha_ce_ratio, alpha_cos_mean, alpha_cclom, guide_every
            (:class:`ddlib.guidance.Guidance`); iterations, lr_img, start (real, noise, or a SyntheticSet to continue
            from; :class:`ddlib.recipe.Optimisation`).
        snapshots: iterations after which the images are kept; 0 is the start.
        checkpoint: a file to resume from if it is there, written every ``checkpoint_every`` iterations and at the
            end; delete it when the result is safe. On the CPU a resumed run is bit-identical.

    Raises:
        TypeError: a setting that no part of a recipe has.
        ValueError: impossible settings, or a checkpoint of other settings or code or of a longer run; before any work.
        FloatingPointError: a loss or a pixel is no longer finite.

    >>> from ddlib import load_dataset
    >>> distilled = distill(load_dataset("digits"), ipc=1, iterations=2, width=4, batch_real=8)
    >>> distilled.synthetic.images.shape, len(distilled.history)
    (torch.Size([10, 1, 8, 8]), 2)
    """
    require_at_least_one("checkpoint_every", checkpoint_every)
    keep_freed_memory()
    if recipe and settings:
        raise TypeError(
            f"distill takes a recipe or settings by name, not both; found a recipe and {', '.join(settings)}."
        )
    run = Distillation(
        dataset, (recipe or Recipe.of(**settings)).complete(), set(snapshots), checkpoint, checkpoint_every
    )
    progress = progress_bar(run.iterations, "distillation", run.state.iteration)
    with threads_for(run.numbers), tf32(run.recipe.compute.precision == "tf32"), progress as bar:
        while run.state.iteration < run.iterations:
            run.iterate()
            bar.update()
    return run.result()


class Distillation:
    """One under way: its state, and what takes it one iteration further."""

    def __init__(
        self,
        dataset: Dataset,
        recipe: Recipe,
        snapshots: set[int],
        checkpoint: str | os.PathLike | None,
        checkpoint_every: int,
    ):
        start = time.perf_counter()  # class sums of features count: they are all that such a loss costs beyond a step
        require_enough_images(dataset, recipe.ipc)
        require_kernels(dataset, recipe)
        images, labels = starting_images(dataset, recipe.ipc, recipe.optimisation.start, recipe.seed)
        self.dataset, self.recipe, self.snapshots = dataset, recipe, snapshots
        self.checkpoint, self.checkpoint_every = Path(checkpoint) if checkpoint else None, checkpoint_every
        self.images, self.labels = images.requires_grad_(True), labels
        self.strategy = get_strategy(recipe.guidance.strategy, recipe.guidance.kind)
        self.iterations = recipe.optimisation.iterations
        self.task = self._task()
        self.signals = recipe.guidance.signals(dataset, labels, self._computing)
        self.settings = recipe.settings() | {"snapshots": sorted(snapshots)}
        optimizer = torch.optim.SGD([self.images], lr=recipe.optimisation.lr_img, momentum=MOMENTUM)
        about = identity(self.settings, dataset, recipe.guidance.ptms)
        self.state = State(self.images, optimizer, len(self.signals), about)
        if self.checkpoint:
            self.state.resume(self.checkpoint, self.iterations)
        if self.state.iteration == 0:
            self._snapshot()
        self.before = (self.state.history[-1]["seconds"] if self.state.history else 0.0) - start

    def _task(self) -> Task:
        """Where an unknown network or an impossible width fails."""
        base, compute = self.recipe.base, self.recipe.compute
        task = Task(self.dataset, self.labels, base, self.recipe.seed)
        real = sum(min(base.batch_real, len(members)) for members in task.members)
        passes = self.iterations * (real + 3 * len(self.labels))
        settled = compute.settled(task.fresh_network(0), self.images.detach(), passes)
        return dataclasses.replace(task, compute=settled if base.row.compiles else Compute(compute.precision))

    def _computing(self, ptm: PTM) -> PTM:
        """A PTM that guides all updates, or its share of them."""
        asked = 1 if self.strategy.one_ptm else len(self.recipe.guidance.ptms)
        return ptm.computing(self.recipe.compute, self.images.detach(), 2 * self.iterations * asked * len(self.labels))

    @property
    def numbers(self) -> int:
        """In the largest map of a step, for the number of threads: of one class's real images, or of the set."""
        base = self.recipe.base
        return max(len(self.labels), base.batch_real) * base.width * self.dataset.image_size**2

    def iterate(self) -> None:
        """One iteration: all its updates, its logs, and the checkpoint if it is due."""
        t = self.state.iteration
        if len(self.signals) > 1 and t % self.recipe.log_every == 0:
            self.state.log_agreement(gradient_agreement(self.images, self.signals))
        updates = self.recipe.base.outer_loops if self.recipe.base.row.loops else 1
        steps = [
            _update(self.images, base_loss, partial(self._guide, t * updates + update), self.state.optimizer, t)
            for update, base_loss in enumerate(self.recipe.base.row.updates(self.images, self.task, t))
        ]
        self.state.log(steps, self.before + time.perf_counter())
        self._snapshot()
        if self.checkpoint and ((t + 1) % self.checkpoint_every == 0 or t + 1 == self.iterations):
            self.state.save(self.checkpoint)

    def _guide(self, update: int) -> Combined | None:
        """What PTMs say at this update of the images, weighted; None if it is not guided."""
        guided, skipped = divmod(update, every := self.recipe.guidance.guide_every)
        if skipped or not self.signals:
            return None
        said = self.strategy(self.images, self.signals, Step(self.recipe.seed, guided))
        return said if every == 1 else said._replace(gradient=every * said.gradient)

    def _snapshot(self) -> None:
        if self.state.iteration in self.snapshots:
            self.state.snapshots[self.state.iteration] = self.images.detach().clone()

    def result(self) -> Distilled:
        """The synthetic set, and what was logged on the way."""
        import pandas as pd  # here, so that `import ddlib` is light

        hashes = [ptm.hash for ptm in self.recipe.guidance.ptms] if self.signals else []
        synthetic = SyntheticSet.of(self.dataset, self.images.clone(), self.labels, **self.settings, ptm_hashes=hashes)
        norms, cosines = self.state.mean_agreement()
        history, state = pd.DataFrame(self.state.history), self.state
        return Distilled(synthetic, history, cosines, norms, state.snapshots, state.agreement)


def require_kernels(dataset: Dataset, recipe: Recipe) -> None:
    """Raise, before any work, if the machine lacks what the recipe asks for: a compiler, or deterministic gradients."""
    recipe.compute.check(dataset.device)
    if recipe.base.row.augments:
        refuse_strict_determinism(dataset.device, "scale and rotate, two operations of DSA")
    size = dataset.image_size
    if any(ptm.expects.image_size != size for ptm in recipe.guidance.ptms if GUIDANCE[recipe.guidance.kind]):
        refuse_strict_determinism(dataset.device, f"the resizing of images of {size} pixels for its PTMs")


def _update(
    images: Tensor,
    base_loss: Tensor | None,
    guide: Callable[[], Combined | None],
    optimizer: torch.optim.Optimizer,
    iteration: int,
) -> tuple[float, float | None, int]:
    """One step on the pixels; returns base loss, guidance loss (None: not guided) and PTM passes."""
    gradient = torch.zeros_like(images) if base_loss is None else torch.autograd.grad(base_loss, images)[0]
    said = guide()
    images.grad = gradient + said.gradient if said else gradient
    optimizer.step()
    losses = {"base loss": 0.0 if base_loss is None else base_loss.item()}
    losses |= {"guidance loss": said.loss.item()} if said else {}
    broken = [name for name, value in losses.items() if not math.isfinite(value)]
    if broken or not torch.isfinite(images).all():
        what = f"the {broken[0]} is {losses[broken[0]]}" if broken else "a pixel is NaN or infinite"
        raise FloatingPointError(
            f"iteration {iteration}: {what}. The run diverges: lower lr_img or alpha, then start again"
            " (a checkpoint, if there is one, is from before)."
        )
    return losses["base loss"], losses.get("guidance loss"), said.passes if said else 0
