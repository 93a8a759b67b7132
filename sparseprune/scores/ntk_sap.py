"""NTK-SAP: the trace of the tangent kernel, over random weights and inputs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ._graph import MaskedModel, switched
from ._registry import register


@register
@dataclass(frozen=True)
class NTKSAP:
    """Score by |dR/dm|, R = sum_x ||f(x; m * w) - f(x; m * (w + epsilon z))||^2, z ~ N(0, 1): larger = keep.

    R / epsilon^2 estimates the trace of the tangent kernel. Weights and inputs are random: for each of `samples`
    rounds and each batch, inputs are drawn from N(0, 1) in the batch's shape, weights from N(0, 2/fan_in), batch
    norms' gamma and beta are 1 and 0, and their statistics those of that batch under w. Gradients add up before the
    absolute value. The model's own weights play no part.

    Args:
        epsilon: of the finite difference.
        samples: draws of weights and inputs a batch (R in the paper).
        new_weights: False scores the model's own weights.
        new_inputs: False takes the batches as they are; inputs that are not floating-point (tokens) always are.

    Raises:
        ValueError: epsilon that is not positive, samples below 1.

    Cost: for each sample and batch three forwards and one backward; memory independent of their number.

    Reference: Wang, Li, Sun 2023, arXiv:2304.02840.
    """

    epsilon: float = 0.01
    samples: int = 5
    new_weights: bool = True
    new_inputs: bool = True
    name: ClassVar[str] = "ntk_sap"
    iterations: ClassVar[int] = 20
    needs: ClassVar[str] = "inputs"
    inputs: ClassVar[str] = "normal"
    data_free: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < float("inf"):
            raise ValueError(f"NTKSAP: epsilon must be positive, got {self.epsilon}")
        if self.samples < 1:
            raise ValueError(f"NTKSAP: samples must be at least 1, got {self.samples}")

    def score(self, model, batches, *, loss, masks, seed, train=None) -> dict[str, Tensor]:
        """Return |dR/dm|, 0 where masked."""
        generator = torch.Generator().manual_seed(seed)
        net = _Net(model, masks, generator)
        total: list[Tensor] = []
        with switched(model, "eval", seed):
            for _ in range(self.samples):
                for x, _ in batches:
                    if self.new_inputs and x.is_floating_point():
                        x = torch.randn(x.shape, generator=generator).to(x)
                    if self.new_weights:
                        net.redraw()
                    grads = net.sensitivity(x, self.epsilon)
                    total = [a.add_(g) for a, g in zip(total, grads, strict=True)] if total else grads
        if not total:
            raise ValueError("ntk_sap: batches must hold at least one sample, got none")
        return {n: g.abs_() * (m.detach() != 0) for (n, m), g in zip(net.masks.items(), total, strict=True)}


class _Net(MaskedModel):
    """A masked model whose masks are the leaves of the graph and whose weights are moved."""

    def __init__(self, model: nn.Module, masks: Any, generator: torch.Generator) -> None:
        super().__init__(model, masks)
        self.generator = generator
        self.weights = {n: w.detach() for n, w in self.weights.items()}
        self.masks = {
            n: (self.masks[n].to(w, copy=True) if n in self.masks else torch.ones_like(w)).requires_grad_()
            for n, w in self.weights.items()
        }
        self.norms = {n: m for n, m in model.named_modules() if isinstance(m, _BatchNorm)}

    def normal(self, like: Tensor) -> Tensor:
        """N(0, 1), drawn on the CPU: the same on every device."""
        return torch.randn(like.shape, generator=self.generator).to(like)

    def redraw(self) -> None:
        """Initialize: weights from N(0, 2/fan_in), batch norms 1 and 0."""
        self.weights = {n: self.normal(w) * (2 / w[0].numel()) ** 0.5 for n, w in self.weights.items()}
        for name, norm in self.norms.items():
            if norm.affine:
                self._others[f"{name}.weight"] = torch.ones_like(self._others[f"{name}.weight"])
                self._others[f"{name}.bias"] = torch.zeros_like(self._others[f"{name}.bias"])

    def sensitivity(self, x: Tensor, epsilon: float) -> list[Tensor]:
        """Return dR/dm of each weight."""
        with _taking_statistics(self.norms.values()), torch.no_grad():
            self(x)
        own, weights = self(x), self.weights
        self.weights = {n: w + epsilon * self.normal(w) for n, w in weights.items()}
        moved = self(x)
        self.weights = weights
        return list(
            torch.autograd.grad((own - moved).square().sum(), list(self.masks.values()), materialize_grads=True)
        )


@contextmanager
def _taking_statistics(norms: Any) -> Iterator[None]:
    """In this context a forward pass sets the running statistics of batch norms to those of its batch."""
    before = [(norm, norm.momentum) for norm in norms]
    try:
        for norm, _ in before:
            norm.momentum, norm.training = 1.0, True
        yield
    finally:
        for norm, momentum in before:
            norm.momentum, norm.training = momentum, False
