"""Iterative SNIP: connection sensitivity of the net pruned so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ._graph import MaskedModel, check_mode, mean_over_batches, switched
from ._registry import register


@register
@dataclass(frozen=True)
class IterSNIP:
    """Score by |w * dL/dw| of the masked net, step after step; what is pruned stays pruned.

    The published runs take 60 steps with the exponential schedule (the code's default is 10) and one batch of 128, or
    up to 40 of them, whose gradients are averaged.

    Args:
        mode: "train" (as published) or "eval": which batch-norm statistics and dropout the pass uses.

    Raises:
        ValueError: another mode.

    Cost: that of SNIP, each step.

    Reference: de Jorge et al. 2021, arXiv:2006.09081.
    """

    mode: str = "train"
    name: ClassVar[str] = "iter_snip"
    iterations: ClassVar[int] = 60
    needs: ClassVar[str] = "targets"

    def __post_init__(self) -> None:
        check_mode("IterSNIP", self.mode)

    def score(self, model, batches, *, loss, masks, seed, train=None) -> dict[str, torch.Tensor]:
        """Return |w * dL/dw|, 0 where masked."""
        masked = MaskedModel(model, masks)
        with switched(model, self.mode, seed):
            g = mean_over_batches(batches, lambda x, y: masked.gradients(loss(masked(x), y)))
        return {name: g[name].mul_(w.detach()).abs_() for name, w in masked.weights.items()}
