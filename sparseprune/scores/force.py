"""FORCE: foresight connection sensitivity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..prunable import prunable
from ._graph import MaskedModel, check_mode, mean_over_batches, switched
from ._registry import register


@register
@dataclass(frozen=True)
class FORCE:
    """Score by |w * g|, g the gradient of the pruned net's loss with respect to its weights w * m, zeros included.

    A pruned weight has a score of its own, by its dense value, and may come back at the next step. The published runs
    take 60 steps with the exponential schedule (the code's default is 10) and one batch of 128, or up to 40 of them,
    whose gradients are averaged.

    Args:
        mode: "train" (as published) or "eval": which batch-norm statistics and dropout the pass uses.

    Raises:
        ValueError: another mode.

    Cost: that of SNIP, each step.

    Reference: de Jorge et al. 2021, arXiv:2006.09081.
    """

    mode: str = "train"
    name: ClassVar[str] = "force"
    iterations: ClassVar[int] = 60
    needs: ClassVar[str] = "targets"

    def __post_init__(self) -> None:
        check_mode("FORCE", self.mode)

    def score(self, model, batches, *, loss, masks, seed, train=None) -> dict[str, torch.Tensor]:
        """Return |w * g|, which need not be 0 where masked."""
        dense = {name: w.detach() for name, w in prunable(model).items()}
        pruned = MaskedModel(model, None, start={name: dense[name] * m for name, m in (masks or {}).items()})
        with switched(model, self.mode, seed):
            g = mean_over_batches(batches, lambda x, y: pruned.gradients(loss(pruned(x), y)))
        return {name: g[name].mul_(w).abs_() for name, w in dense.items()}
