"""SGD with the papers' recipe: seeded, resumable, on CPU and CUDA."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data import Batches, Dataset
from . import checkpoint as checkpoints
from . import usage

Progress = Callable[[int, int], None] | None


@dataclass(frozen=True)
class History:
    """Hold what a run ended with.

    Args:
        losses: the mean training loss of each epoch.
        accuracy: on the test set at the end, in [0, 1].
        step_ms: the median duration of a step, without making its batch; None without a step.
        peak_bytes: the most memory in use while it trained: resident in the process, on CUDA allocated; None where the
            system does not tell.
    """

    losses: tuple[float, ...]
    accuracy: float
    step_ms: float | None = field(default=None, compare=False)
    peak_bytes: int | None = field(default=None, compare=False)

    @property
    def diverged(self) -> bool:
        """Return whether the last epoch's loss is not finite."""
        return bool(self.losses) and not math.isfinite(self.losses[-1])


def evaluate(model: nn.Module, inputs: Tensor, targets: Tensor, *, batch_size: int = 1024) -> float:
    """Return the share of examples whose largest output is at their target, in eval mode.

    Args:
        model: maps [B, ...] to [B, classes]; the mode of every module is left as found.
        inputs: [N, ...], normalised, on the device of the model.
        targets: [N], int64.
        batch_size: examples at once.

    Returns:
        A number in [0, 1]; an output that is not finite counts as wrong.

    Raises:
        ValueError: no example, or unequal lengths.
    """
    before = [(module, module.training) for module in model.modules()]  # one by one: some may be frozen
    model.eval()
    try:
        correct = torch.zeros((), dtype=torch.int64, device=targets.device)
        with torch.inference_mode():
            for batch, target in Batches(inputs, targets, batch_size):
                output = model(batch)
                correct += ((output.argmax(1) == target) & output.isfinite().all(1)).sum()
    finally:
        for module, training in before:
            module.training = training
    return correct.item() / len(targets)


def train(
    model: nn.Module,
    dataset: Dataset,
    *,
    epochs: int,
    batch_size: int = 128,
    lr: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    milestones: Sequence[int] | None = None,
    gamma: float = 0.1,
    seed: int = 0,
    device: str | torch.device = "cpu",
    progress: Progress = None,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 0.0,
    augment: bool = False,
    schedule: str = "steps",
    start: int = 0,
) -> History:
    """Train with SGD on cross-entropy, in place, and measure the test accuracy at the end.

    `v <- momentum v + dL/dw + weight_decay w;  w <- w - lr gamma^(milestones passed) v`

    Args:
        model: moved to `device` and left there, in train mode. Sparse layers keep their pattern.
        dataset: what `sparseprune.data.load` returned.
        epochs: passes over the training set; 0 only measures.
        batch_size, lr, momentum, weight_decay, gamma, augment: the recipe; the defaults are the papers'.
        milestones: epochs after which lr is multiplied by gamma; None: half and three quarters (80, 120 of 160).
        seed: of the data order, the augmentation and the model's own noise (dropout), drawn anew for each epoch.
        device: "cpu", "cuda", ...
        progress: called as progress(steps done, steps in all) after each step.
        checkpoint: a file to resume from where it exists, and to write after an epoch, whole or not at all, where
            `checkpoint_seconds` have passed since the last. A resumed run on a CPU gives an uninterrupted one's bits.
        schedule: "steps" (milestones and gamma), or "cosine": in epoch e, lr (1 + cos(pi e/epochs))/2.
        start: the step to begin as at: data order and lr are those of steps start + 1, start + 2, ...; momentum is 0.

    Returns:
        `History`; its first loss is that of what is left of the epoch of `start`.

    Raises:
        ValueError: a bad argument, or a checkpoint of another recipe or model.

    Reference: Bar & Giryes 2023, section 5: lr 0.1, x 0.1 after epochs 80 and 120 of 160, batch 128, decay 1e-4.
    """
    plan = recipe(
        dataset, seed=seed, epochs=epochs, batch_size=batch_size, lr=lr, momentum=momentum, weight_decay=weight_decay,
        milestones=milestones, gamma=gamma, augment=augment, schedule=schedule,
    )  # fmt: skip
    run = Run(model, dataset, plan, torch.device(device), start)
    path = Path(checkpoint) if checkpoint is not None else None
    if path is not None:
        run.resume(path)
    usage.reset_peak(run.device)
    run.advance(run.total, progress, path, checkpoint_seconds)
    peak = usage.peak(run.device)
    accuracy = evaluate(model, run.dataset.test_inputs, run.dataset.test_targets)
    return History(tuple(run.losses), accuracy, run.steps.median_ms(), peak)


def recipe(
    dataset: Dataset,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    momentum: float,
    weight_decay: float,
    milestones: Sequence[int] | None,
    gamma: float,
    seed: int,
    augment: bool,
    schedule: str,
) -> dict[str, Any]:
    """Return what decides a training, as a checkpoint carries it; arguments and errors are those of `train`."""
    if milestones is None:
        milestones = (-(-epochs // 2), -(-3 * epochs // 4))  # rounded up: a single epoch keeps the full lr
    _check(epochs=epochs, lr=lr, momentum=momentum, weight_decay=weight_decay, gamma=gamma)
    steps = {"epochs": epochs, "batch_size": batch_size, "milestones": list(milestones), "augment": augment}
    rates = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "gamma": gamma}
    if schedule not in ("steps", "cosine"):
        raise ValueError(f"train: schedule must be 'steps' or 'cosine', got {schedule!r}")
    other = {} if schedule == "steps" else {"schedule": schedule}  # no key where older checkpoints have none
    return {"data": dataset.name, "seed": seed, **steps, **rates, **other}


class Run:
    """A training run: the steps of a recipe from `start` on, and between two epochs all that a checkpoint must hold."""

    def __init__(
        self, model: nn.Module, dataset: Dataset, recipe: dict[str, Any], device: torch.device, start: int = 0
    ) -> None:
        self.model, self.recipe, self.device = model.to(device).train(), recipe, device
        self.dataset = dataset.to(device)
        self.batches = self._batches()
        self.total = recipe["epochs"] * len(self.batches)
        if not 0 <= start <= self.total:
            raise ValueError(f"train: start must be in [0, {self.total}], the steps of the recipe, got {start}")
        if start:
            self.recipe = {**recipe, "start": start}
        rates = {key: recipe[key] for key in ("lr", "momentum", "weight_decay")}
        self.optimizer = torch.optim.SGD(model.parameters(), **rates)
        self.done = start
        self.losses: list[Any] = []
        self.steps = usage.Steps(self.device)

    def rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch."""
        if "schedule" in self.recipe:
            return self.recipe["lr"] * (1 + math.cos(math.pi * epoch / self.recipe["epochs"])) / 2
        passed = sum(epoch >= milestone for milestone in self.recipe["milestones"])
        return self.recipe["lr"] * self.recipe["gamma"] ** passed

    def advance(self, stop: int, progress: Progress, path: Path | None, seconds: float) -> None:
        """Go on to step `stop`; write a checkpoint after an epoch where `seconds` have passed since the last."""
        saved = time.monotonic()
        while self.done < stop:
            self.epoch(progress, stop)
            if path is not None and time.monotonic() - saved >= seconds:
                self.save(path)
                saved = time.monotonic()

    def epoch(self, progress: Progress, stop: int) -> None:
        """Take what is left of an epoch, at most up to step `stop`.

        The mean loss is fetched once, so that a GPU is not waited for at every step.
        """
        index, first = divmod(self.done, len(self.batches))
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(index)
        last = min(len(self.batches), first + stop - self.done)
        total, seen = torch.zeros((), device=self.device), 0
        batches = self.batches.at(index)
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed((batches.seed * 1_000_003 + index) % 2**63)
            for inputs, targets in islice(batches, first, last):
                self.steps.start()
                self.optimizer.zero_grad(set_to_none=True)
                loss = self._loss(inputs, targets)
                loss.sum().backward()
                self.optimizer.step()
                self.steps.stop()
                total = total + loss.detach() * targets.shape[-1]
                seen += targets.shape[-1]
                self.done += 1
                if progress is not None:
                    progress(self.done, self.total)
        self.losses.append((total / seen).tolist() if total.ndim else total.item() / seen)

    def _batches(self) -> Any:
        return self.dataset.batches(self.recipe["batch_size"], seed=self.recipe["seed"], augment=self.recipe["augment"])

    def _loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self.model(inputs), targets)

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        checkpoints.save(path, {"recipe": self.recipe, "losses": self.losses, **state})

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint where there is one."""
        state = checkpoints.load(path, self.recipe, self.device)
        if state is None:
            return
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"train: checkpoint {path} is of another model ({reason})") from None
        self.optimizer.load_state_dict(state["optimizer"])
        self.losses = list(state["losses"])
        if self.losses:
            self.done = (self.done // len(self.batches) + len(self.losses)) * len(self.batches)


def _check(*, epochs: int, **numbers: float) -> None:
    if epochs < 0:
        raise ValueError(f"train: epochs must be at least 0, got {epochs}")
    for name, value in numbers.items():
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"train: {name} must be a finite number >= 0, got {value}")
