"""SynFlow: the synaptic flow through every weight, without data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..prunable import prunable
from ._registry import Loss, register


@register
@dataclass(frozen=True)
class SynFlow:
    """Score by synaptic flow: |dR/dw * w| with R = the sum of the outputs of the network of absolute values."""

    name: ClassVar[str] = "synflow"
    iterations: ClassVar[int] = 100
    needs: ClassVar[str] = "inputs"
    inputs: ClassVar[str] = "ones"
    data_free: ClassVar[bool] = True

    def score(
        self,
        model: nn.Module,
        batches: Iterable[tuple[Any, Any]],
        *,
        loss: Loss | None = None,
        masks: Mapping[str, Tensor] | None = None,
        seed: int = 0,
        train: Callable[[nn.Module, int], Any] | None = None,
    ) -> dict[str, Tensor]:
        """Return the synaptic flow through every prunable weight."""
        weights = {}
        state = {name: t.detach().abs() for name, t in model.state_dict(keep_vars=True).items() if t.is_floating_point()}
        for name in prunable(model):
            mask = None if masks is None else masks.get(name)
            weights[name] = (state[name] if mask is None else state[name] * mask).requires_grad_()
        modes = {module: module.training for module in model.modules()}
        model.eval()
        try:
            with torch.enable_grad():
                flow = sum(torch.func.functional_call(model, {**state, **weights}, (x,)).sum() for x, _ in batches)
                grads = torch.autograd.grad(flow, list(weights.values()))
        finally:
            for module, mode in modes.items():
                module.training = mode
        return {name: g.mul_(w.detach()).abs_() for (name, w), g in zip(weights.items(), grads, strict=True)}
