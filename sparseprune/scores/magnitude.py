"""Magnitude scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..prunable import prunable
from ._registry import register


@register
@dataclass(frozen=True)
class Magnitude:
    """Score by |w|.

    Cost: one pass over the weights.

    Reference: Han et al. 2015, arXiv:1506.02626.
    """

    name: ClassVar[str] = "magnitude"
    iterations: ClassVar[int] = 1
    needs: ClassVar[str] = "nothing"
    elementwise: ClassVar[bool] = True

    def score(self, model, batches, *, loss, masks, seed, train=None) -> dict[str, torch.Tensor]:
        """Return |w|, 0 where masked."""
        weights = {name: w.detach().abs() for name, w in prunable(model).items()}
        return {n: w * masks[n] if masks and n in masks else w for n, w in weights.items()}
