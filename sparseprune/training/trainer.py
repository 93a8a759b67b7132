"""The training loop as what scores that train are given: some steps of a recipe, on any net."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data import Dataset
from .loop import Progress, Run, recipe


@dataclass(frozen=True)
class Trainer:
    """Take steps of one training recipe: `prune(..., train=Trainer(dataset, epochs=5))`.

    The steps are those of `train`; only the momentum, which begins at 0, does not tell a call from a part of one.

    Args:
        dataset: what `sparseprune.data.load` returned.
        epochs: of the whole recipe.
        batch_size, lr, momentum, weight_decay, milestones, gamma, seed, device, augment, schedule: as in `train`.
        progress: called as progress(steps of the recipe done, steps in all) after each step.
        checkpoints: a folder for what each call ended with, by a digest of what it began with: an interrupted `prune`
            goes on where it was when called again. Each file holds twice the model; delete the folder at the end.
        checkpoint_seconds: a call that takes longer is kept at the end of an epoch, too.

    Raises:
        ValueError: a bad argument, in the words of `train`.
    """

    dataset: Dataset
    epochs: int
    batch_size: int = 128
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    milestones: Sequence[int] | None = None
    gamma: float = 0.1
    seed: int = 0
    device: str | torch.device = "cpu"
    augment: bool = False
    schedule: str = "steps"
    progress: Progress = None
    checkpoints: str | Path | None = None
    checkpoint_seconds: float = 30.0

    def __post_init__(self) -> None:
        self._recipe()

    def __call__(self, model: nn.Module, steps: int | None = None, start: int = 0) -> None:
        """Train `model` in place.

        Args:
            model: moved to the device of the trainer and left there, in train mode.
            steps: how many; None: all that are left.
            start: the step of the recipe to begin as at (data order, lr).

        Raises:
            ValueError: steps or start that the recipe does not have.
        """
        run = Run(model, self.dataset, self._recipe(), torch.device(self.device), start)
        if steps is not None and not 0 <= steps <= run.total - start:
            raise ValueError(f"train: steps must be in [0, {run.total - start}], those left of the recipe, got {steps}")
        stop = run.total if steps is None else start + steps
        path = None if self.checkpoints is None else Path(self.checkpoints) / f"{_digest(model, run.recipe, stop)}.pt"
        if path is not None:
            run.resume(path)
        if run.done < stop:
            run.advance(stop, self.progress, path, self.checkpoint_seconds)
            if path is not None:
                run.save(path)

    def _recipe(self) -> dict[str, Any]:
        others = ("dataset", "device", "progress", "checkpoints", "checkpoint_seconds")
        return recipe(self.dataset, **{f.name: getattr(self, f.name) for f in fields(self) if f.name not in others})


def _digest(model: nn.Module, recipe: dict[str, Any], stop: int) -> str:
    """Return what tells one call from another: the model as it prints, its state, the recipe and the steps."""
    digest = hashlib.sha256(repr((model, sorted(recipe.items()), stop)).encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
