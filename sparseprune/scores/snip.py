"""SNIP: connection sensitivity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ._graph import MaskedModel, check_mode, mean_over_batches, switched
from ._registry import register


@register
@dataclass(frozen=True)
class SNIP:
    """Score by the effect on the loss of the weight's mask: |dL/dm| at m = 1, which is |w * dL/dw|.

    The gradient is averaged over all samples before the absolute value, so micro-batches give the scores of one batch
    (in eval mode; batch norm of a train-mode pass sees micro-batches). The published division by the sum of the scores
    changes neither order nor probabilities and is left out.

    Args:
        mode: "eval" (default) or "train", the published one: which batch-norm statistics and dropout the pass uses.

    Raises:
        ValueError: another mode.

    Cost: one forward and one backward a batch; memory independent of the number of batches.

    Reference: Lee, Ajanthan, Torr 2019, arXiv:1810.02340.
    """

    mode: str = "eval"
    name: ClassVar[str] = "snip"
    iterations: ClassVar[int] = 1
    needs: ClassVar[str] = "targets"

    def __post_init__(self) -> None:
        check_mode("SNIP", self.mode)

    def score(self, model, batches, *, loss, masks, seed, train=None) -> dict[str, torch.Tensor]:
        """Return |w * dL/dw|, 0 where masked."""
        masked = MaskedModel(model, masks)
        with switched(model, self.mode, seed):
            g = mean_over_batches(batches, lambda x, y: masked.gradients(loss(masked(x), y)))
        return {name: g[name].mul_(w.detach()).abs_() for name, w in masked.weights.items()}
