"""Trainings inside a scoring, kept on the disk, so that an interrupted scoring goes on where it was."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import nn

from ..files import write_whole
from ..training import Trainer


class Remembered:
    """Call a trainer, and keep the net that each call ends with.

    A score is deterministic: started again, its n-th call is the one that the file of number n answers.

    Args:
        trainer: trains.
        folder: of the files; one scoring's own.
    """

    def __init__(self, trainer: Trainer, folder: Path) -> None:
        self._trainer, self._folder, self._calls = trainer, folder, 0
        self.saved_ms = 0.0  # what the calls took that were answered from the disk

    def __call__(self, model: nn.Module, steps: int | None = None, start: int = 0) -> None:
        """Train `model` in place, or load what the same call left before."""
        self._calls += 1
        path = self._folder / f"{self._calls}.pt"
        if path.exists():
            found = torch.load(path, map_location=self._trainer.device, weights_only=True)
            model.to(self._trainer.device).train().load_state_dict(found["model"])
            self.saved_ms += found["milliseconds"]
            return
        begin = time.perf_counter()
        self._trainer(model, steps, start)
        state = {"model": model.state_dict(), "milliseconds": 1000 * (time.perf_counter() - begin)}
        write_whole(path, lambda stream: torch.save(state, stream))
