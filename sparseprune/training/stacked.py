"""Several nets of one architecture trained at once: parameters stacked, one step for all of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from ..data import Batches, Dataset
from .loop import History, Progress, Run, evaluate, recipe

_TRIED_STEPS = 12


def train_stacked(
    models: Sequence[nn.Module],
    dataset: Dataset,
    *,
    epochs: int,
    seeds: Sequence[int],
    batch_size: int = 128,
    lr: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    milestones: Sequence[int] | None = None,
    gamma: float = 0.1,
    augment: bool = False,
    device: str | torch.device = "cpu",
    progress: Progress = None,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 0.0,
    start: int = 0,
    schedule: str = "steps",
) -> list[History]:
    """Train several nets in place as `train` would each of them, to rounding: net i on the batches of seeds[i].

    Args:
        models: of one architecture; layers in the masked layout or dense; without random numbers (dropout).
        seeds: of the data orders, one a net.
        epochs, ..., schedule: as in `train`.

    Returns:
        One `History` a net: `step_ms` is the net's share of a step, `peak_bytes` None.

    Raises:
        ValueError: another number of seeds than of nets, several architectures, and what `train` raises.
        RuntimeError: nets that draw random numbers.

    Cost: the work of the nets one by one, in as many operations as one net takes: faster where operations are too small
        for the device.
    """
    if not models or len(models) != len(seeds):
        raise ValueError(f"train_stacked: seeds must be one a net, {len(models)} (at least 1), got {len(seeds)}")
    states = [{name: value.shape for name, value in model.state_dict().items()} for model in models]
    if any(state != states[0] for state in states):
        raise ValueError("train_stacked: models must be of one architecture, got other names or shapes of parameters")
    plan = recipe(
        dataset, seed=seeds[0], epochs=epochs, batch_size=batch_size, lr=lr, momentum=momentum,
        weight_decay=weight_decay, milestones=milestones, gamma=gamma, augment=augment, schedule=schedule,
    )  # fmt: skip
    run = StackedRun(models, dataset, {**plan, "seeds": list(seeds)}, torch.device(device), start)
    path = Path(checkpoint) if checkpoint is not None else None
    if path is not None:
        run.resume(path)
    run.advance(run.total, progress, path, checkpoint_seconds)
    run.unstack(models)
    share = run.steps.median_ms()
    share = None if share is None else share / len(models)
    accuracies = [evaluate(model, run.dataset.test_inputs, run.dataset.test_targets) for model in models]
    return [
        History(tuple(losses[i] for losses in run.losses), accuracy, share) for i, accuracy in enumerate(accuracies)
    ]


def gain(
    models: Sequence[nn.Module], dataset: Dataset, *, batch_size: int, device: str | torch.device = "cpu"
) -> float:
    """Return how many times faster the nets, which are spent by this, train stacked than one by one on this device.

    Cost: a dozen steps of either kind.
    """
    plan = recipe(
        dataset, seed=0, epochs=1, batch_size=batch_size, lr=0.0, momentum=0.9, weight_decay=0.0,
        milestones=None, gamma=1.0, augment=False, schedule="steps",
    )  # fmt: skip
    on = torch.device(device)
    alone = Run(copy.deepcopy(models[0]), dataset, plan, on)
    together = StackedRun(models, dataset, {**plan, "seeds": [0] * len(models)}, on, 0)
    times = []
    for run in (alone, together):
        run.epoch(None, _TRIED_STEPS)
        times.append(cast(float, run.steps.median_ms()))
    return len(models) * times[0] / times[1]


@dataclass(frozen=True)
class _Together:
    """Batches of several seeds side by side: [nets, B, ...]."""

    each: list[Batches]

    @property
    def seed(self) -> int:
        return self.each[0].seed

    def __len__(self) -> int:
        return len(self.each[0])

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batches in zip(*self.each, strict=True):
            inputs, targets = zip(*batches, strict=True)
            yield torch.stack(inputs), torch.stack(targets)

    def at(self, epoch: int) -> _Together:
        return _Together([batches.at(epoch) for batches in self.each])


class _Stack(nn.Module):
    """Nets of one architecture as one: [nets, B, ...] -> [nets, B, classes]."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        parameters, buffers = stack_module_state(list(models))
        self.names = [*parameters, *buffers]
        self.weights = nn.ParameterList(parameters.values())
        for number, buffer in enumerate(buffers.values()):
            self.register_buffer(f"buffer{number}", buffer)
        self._template = (copy.deepcopy(models[0]).to("meta"),)  # in a tuple: no child, its parameters are no one's

    def state(self) -> dict[str, Tensor]:
        """Return the stacked tensors by their names in a net."""
        return dict(zip(self.names, [*self.weights, *self.buffers()], strict=True))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs of each net on its own inputs."""
        net = self._template[0].train(self.training)
        return vmap(lambda state, x: functional_call(net, state, (x,)))(self.state(), inputs)


class StackedRun(Run):
    """A `Run` of several nets; `recipe["seeds"]` are those of their batches."""

    model: _Stack

    def __init__(
        self, models: Sequence[nn.Module], dataset: Dataset, plan: dict[str, Any], device: torch.device, start: int
    ) -> None:
        for model in models:
            model.to(device).train()
        super().__init__(_Stack(models), dataset, plan, device, start)

    @torch.no_grad()
    def unstack(self, models: Sequence[nn.Module]) -> None:
        """Write parameters and buffers back into the nets."""
        state = self.model.state()
        for index, model in enumerate(models):
            for name, own in [*model.named_parameters(), *model.named_buffers()]:
                own.copy_(state[name][index])

    def _batches(self) -> _Together:
        options = {"augment": self.recipe["augment"]}
        return _Together(
            [self.dataset.batches(self.recipe["batch_size"], seed=s, **options) for s in self.recipe["seeds"]]
        )

    def _loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        losses = F.cross_entropy(self.model(inputs).flatten(0, 1), targets.flatten(), reduction="none")
        return losses.view(targets.shape).mean(1)
