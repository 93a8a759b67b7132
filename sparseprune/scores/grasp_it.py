"""GRASP-It: squared gradients of the net pruned so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ._graph import MaskedModel, check_mode, mean_over_batches, switched
from ._registry import register


@register
@dataclass(frozen=True)
class GRASPIt:
    """Score by (dL/dw)^2 of the masked net, step after step: the weight's part of the gradient's squared norm.

    What is pruned stays pruned. Steps and batches as for `IterSNIP`, from the same code.

    Args:
        mode: "train" (as published) or "eval": which batch-norm statistics and dropout the pass uses.

    Raises:
        ValueError: another mode.

    Cost: that of SNIP, each step.

    Reference: de Jorge et al. 2021, arXiv:2006.09081, and the code published with it.
    """

    mode: str = "train"
    name: ClassVar[str] = "grasp_it"
    iterations: ClassVar[int] = 60
    needs: ClassVar[str] = "targets"

    def __post_init__(self) -> None:
        check_mode("GRASPIt", self.mode)

    def score(self, model, batches, *, loss, masks, seed, train=None) -> dict[str, torch.Tensor]:
        """Return (dL/dw)^2, 0 where masked."""
        masked = MaskedModel(model, masks)
        with switched(model, self.mode, seed):
            g = mean_over_batches(batches, lambda x, y: masked.gradients(loss(masked(x), y)))
        return {name: value.square_() for name, value in g.items()}
