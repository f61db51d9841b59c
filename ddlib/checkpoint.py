"""The state of a distillation, and the file from which a killed one goes on."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ddlib.data.dataset import Dataset
from ddlib.disk.tensors import read_tensors, write_tensors
from ddlib.families import Agreement
from ddlib.fingerprint import code_hash
from ddlib.ptms.ptm import PTM

SNAPSHOT = re.compile(r"snapshot \d{1,18}")  # name of a tensor in the file
AGREEMENT = ("norms", "cosines")  # names of tensors in the file
HISTORY = {"iteration", "base_loss", "guidance_loss", "cosine", "ptm_passes", "seconds"}


def identity(settings: dict[str, object], dataset: Dataset, ptms: Sequence[PTM]) -> dict[str, object]:
    """What a checkpoint must agree on with the run that resumes from it; a longer run may do so."""
    same = {key: value for key, value in settings.items() if key not in ("iterations", "checkpoint_every")}
    return json.loads(
        json.dumps({**same, "dataset": dataset.hash, "ptms": [ptm.hash for ptm in ptms], "code": code_hash()})
    )


class State:
    """All that changes during a run: what a checkpoint holds."""

    def __init__(self, images: Tensor, optimizer: torch.optim.SGD, num_ptms: int, identity: dict[str, object]):
        self.images, self.optimizer, self.identity = images, optimizer, identity
        self.history: list[dict[str, float]] = []
        self.snapshots: dict[int, Tensor] = {}
        self.num_ptms = num_ptms if num_ptms > 1 else 0  # of those that can agree
        self.agreement: dict[int, Agreement] = {}  # by iteration
        self.unguided = math.nan if num_ptms else 0.0  # guidance loss of an iteration without a guided update
        self.cosine = float("nan")  # mean over pairs, at the current iteration

    @property
    def iteration(self) -> int:
        """How many are done."""
        return len(self.history)

    def log_agreement(self, agreement: Agreement) -> None:
        """Norms and cosines of the PTMs' gradients at the current iteration."""
        self.agreement[self.iteration] = agreement = Agreement(*(values.cpu() for values in agreement))
        cosines, k = agreement.cosines, self.num_ptms
        self.cosine = float((cosines.sum() - cosines.diagonal().sum()) / (k * (k - 1)))

    def log(self, steps: Sequence[tuple[float, float | None, int]], seconds: float) -> None:
        """One iteration is done: base loss, guidance loss (None: not guided) and PTM passes of each of its updates."""
        base, said, passes = zip(*steps, strict=True)
        guided = [loss for loss in said if loss is not None]
        done = self.history[-1]["ptm_passes"] if self.history else 0
        self.history.append(
            {
                "iteration": self.iteration,
                "base_loss": sum(base) / len(base),
                "guidance_loss": sum(guided) / len(guided) if guided else self.unguided,
                "cosine": self.cosine,
                "ptm_passes": done + sum(passes),
                "seconds": seconds,
            }
        )
        self.cosine = float("nan")

    def mean_agreement(self) -> Agreement:
        """Over the logged iterations."""
        norms, cosines = self._agreements()
        logged = max(1, len(norms))
        return Agreement(norms.sum(0) / logged, cosines.sum(0) / logged)

    def _agreements(self) -> tuple[Tensor, Tensor]:
        """Norms ``[L, K]`` and cosines ``[L, K, K]`` of the L logged iterations."""
        k = self.num_ptms
        norms, cosines = zip(*self.agreement.values(), strict=True) if self.agreement else ((), ())
        return (
            torch.stack(norms) if norms else torch.zeros(0, k, device="cpu"),
            torch.stack(cosines) if cosines else torch.zeros(0, k, k, device="cpu"),
        )

    def save(self, path: Path) -> None:
        """Write all of it to ``path``, atomically."""
        momentum = self.optimizer.state[self.images]["momentum_buffer"]
        tensors = {"images": self.images, "momentum": momentum}
        tensors |= dict(zip(AGREEMENT, self._agreements(), strict=True))
        tensors |= {f"snapshot {iteration}": images for iteration, images in self.snapshots.items()}
        about = {"identity": self.identity, "history": self.history, "agreed_at": [*self.agreement]}
        write_tensors(path, tensors, about)

    def resume(self, path: Path, iterations: int) -> None:
        """Take over from ``path`` if it is there. Raises ValueError if it comes from another or a longer run."""
        if not path.exists():
            return
        tensors, about = read_tensors(path)
        theirs = about.get("identity")
        theirs = theirs if isinstance(theirs, dict) else {}
        different = [key for key, value in self.identity.items() if theirs.get(key) != value]
        if different:
            changes = "; ".join(f"{key}: {theirs.get(key)!r} there, {self.identity[key]!r} now" for key in different)
            raise ValueError(
                f"The checkpoint {path} is from another run ({changes}). Go back to those settings, "
                "or delete it to start from the beginning."
            )
        if not self._fits(tensors, about):
            raise ValueError(f"{path} is no whole checkpoint of this run; delete it to start from the beginning.")
        done = len(about["history"])
        if done > iterations:
            raise ValueError(
                f"The checkpoint {path} is of {done} iterations, more than the {iterations} asked for. "
                "Ask for as many, or delete it to start from the beginning."
            )
        with torch.no_grad():
            self.images.copy_(tensors["images"])
        self.optimizer.state[self.images]["momentum_buffer"] = tensors["momentum"].to(self.images.device)
        self.snapshots = {
            int(name.split()[1]): value.to(self.images.device)
            for name, value in tensors.items()
            if SNAPSHOT.fullmatch(name)
        }
        self.history = about["history"]
        logged = zip(*(tensors[name] for name in AGREEMENT), strict=True)
        self.agreement = {t: Agreement(*values) for t, values in zip(about["agreed_at"], logged, strict=True)}

    def _fits(self, tensors: dict[str, Tensor], about: dict[str, object]) -> bool:
        """Whether that is a checkpoint of this run: images of another shape would be stretched without a word."""
        images = {name: value for name, value in tensors.items() if name not in AGREEMENT}
        history, logged, k = about.get("history"), about.get("agreed_at"), self.num_ptms
        return (
            {"images", "momentum"} <= images.keys()
            and all(name in ("images", "momentum") or SNAPSHOT.fullmatch(name) for name in images)
            and all(_like(value, self.images) for value in images.values())
            and isinstance(history, list)
            and isinstance(logged, list)
            and all(type(t) is int for t in logged)
            and len(set(logged)) == len(logged)
            and _like(tensors.get("norms"), torch.empty(len(logged), k, device="cpu"))
            and _like(tensors.get("cosines"), torch.empty(len(logged), k, k, device="cpu"))
            and all(isinstance(row, dict) and row.keys() == HISTORY for row in history)
            and all(type(value) in (int, float) for row in history for value in row.values())
        )


def _like(found: Tensor | None, wanted: Tensor) -> bool:
    return (
        found is not None
        and (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
        and bool(torch.isfinite(found).all())
    )
