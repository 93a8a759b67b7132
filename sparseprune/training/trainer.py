"""The training loop as what scores that train are given: some steps of a recipe, on any net."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..data import Dataset
from .loop import Run, recipe


@dataclass(frozen=True)
class Trainer:
    """Take steps of one training recipe: `prune(..., train=Trainer(dataset, epochs=5))`.

    The steps are those of `train`; only the momentum, which begins at 0, does not tell a call from a part of one.

    Args:
        dataset: what `sparseprune.data.load` returned.
        epochs: of the whole recipe.
        batch_size, lr, momentum, weight_decay, milestones, gamma, seed, device, augment: as in `train`.
        progress: called as progress(steps of the recipe done, steps in all) after each step.

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
    progress: Callable[[int, int], None] | None = None

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
        while run.done < stop:
            run.epoch(self.progress, stop)

    def _recipe(self) -> dict[str, Any]:
        names = ("epochs", "batch_size", "lr", "momentum", "weight_decay", "milestones", "gamma", "seed", "augment")
        return recipe(self.dataset, **{name: getattr(self, name) for name in names})
