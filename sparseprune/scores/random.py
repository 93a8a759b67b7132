"""Random scores: the baseline that knows nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..prunable import prunable
from ..shards import like
from ._registry import register


@register
@dataclass(frozen=True)
class Random:
    """Score every weight by an independent uniform number in (0, 1], drawn on the CPU: the same on every device.

    Cost: one random number a weight.
    """

    name: ClassVar[str] = "random"
    iterations: ClassVar[int] = 1
    needs: ClassVar[str] = "nothing"
    elementwise: ClassVar[bool] = True

    def score(self, model, batches, *, loss, masks, seed, train=None) -> dict[str, torch.Tensor]:
        """Return uniform scores, 0 where masked."""
        generator = torch.Generator().manual_seed(seed)
        scores = {}
        for name, w in prunable(model).items():
            # 1 - [0, 1): never zero, so that every weight can be drawn
            uniform = like((1 - torch.rand(w.shape, generator=generator)).to(w.device), w)
            scores[name] = uniform * masks[name] if masks and name in masks else uniform
        return scores
