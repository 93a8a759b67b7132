"""GraSP: gradient signal preservation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ._graph import MaskedModel, check_mode, mean_over_batches, switched
from ._registry import register


@register
@dataclass(frozen=True)
class GraSP:
    """Score by w * (H g): how much of the gradient's squared norm is lost with the weight; larger = keep, of any sign.

    g is the gradient of the mean loss over all samples (outputs divided by the temperature) and H its Hessian, both
    over the prunable weights. The published importance is -w * (H g) with the largest removed: the same order. A first
    pass over the batches accumulates g; a second one accumulates d/dw <g, dL_b/dw> with g constant. In eval mode this
    equals one batch of all samples.

    Args:
        temperature: what outputs are divided by before the loss.
        mode: "eval" (default) or "train", the published one: which batch-norm statistics and dropout the passes use.

    Raises:
        ValueError: another mode, or a temperature that is not positive.

    Cost: two passes over the batches, the second with a double backward; memory independent of the number of batches.

    Reference: Wang, Zhang, Grosse 2020, arXiv:2002.07376.
    """

    temperature: float = 200.0
    mode: str = "eval"
    name: ClassVar[str] = "grasp"
    iterations: ClassVar[int] = 1
    needs: ClassVar[str] = "targets"

    def __post_init__(self) -> None:
        check_mode("GraSP", self.mode)
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise ValueError(f"GraSP: temperature must be positive, got {self.temperature}")

    def score(self, model, batches, *, loss, masks, seed, train=None) -> dict[str, torch.Tensor]:
        """Return w * (H g), signed, 0 where masked."""

        def gradient(x: Any, y: Any, create_graph: bool = False) -> dict[str, Tensor]:
            return masked.gradients(loss(masked(x) / self.temperature, y), create_graph=create_graph)

        def product(x: Any, y: Any) -> dict[str, Tensor]:
            inner = [(g[name] * g_b).sum() for name, g_b in gradient(x, y, create_graph=True).items()]
            return masked.gradients(torch.stack(inner).sum())

        masked = MaskedModel(model, masks)
        with switched(model, self.mode, seed):
            g = mean_over_batches(batches, gradient)
        # seeded again: the second pass meets the dropout of the first
        with switched(model, self.mode, seed):
            hg = mean_over_batches(batches, product)
        return {name: hg[name].mul_(w.detach()) for name, w in masked.weights.items()}
