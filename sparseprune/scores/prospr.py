"""ProsPr: prospect pruning by first-order meta-gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from numbers import Integral
from typing import Any, ClassVar

import torch

from ..prunable import prunable
from ._graph import MaskedModel, check_mode, mean_over_batches, switched
from ._registry import register


@register
@dataclass(frozen=True)
class ProsPr:
    """Score by the effect of the weight's mask on the loss after M steps of training: |w_0 * dL_M/dw_M|.

    From w_0 the whole net takes M steps of SGD with momentum, each on the next batch, and L_M is the loss on the batch
    after them; batches begin again where they end. First order: the steps' gradients count as constants, so that
    dw_M/dm = w_0. Memory then depends neither on M nor on the number of batches.

    Args:
        inner_steps: M; 0 gives SNIP of the first batch.
        lr: learning rate.
        momentum: without dampening; the first step has none.
        accumulate: batches that make up one step, their gradients averaged over samples.
        mode: "train" (as published) or "eval": which batch-norm statistics and dropout the passes use.

    Raises:
        ValueError: an option outside its range.

    Cost: M + 1 times `accumulate` forwards and backwards; four copies of the parameters.

    Reference: Alizadeh et al. 2022, arXiv:2202.08132. Its code differentiates through the steps unless told not to.
    """

    inner_steps: int = 3
    lr: float = 0.5
    momentum: float = 0.9
    accumulate: int = 1
    mode: str = "train"
    name: ClassVar[str] = "prospr"
    iterations: ClassVar[int] = 1
    needs: ClassVar[str] = "targets"

    def __post_init__(self) -> None:
        check_mode("ProsPr", self.mode)
        for option, least in (("inner_steps", 0), ("accumulate", 1)):
            value = getattr(self, option)
            if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
                raise ValueError(f"ProsPr: {option} must be an integer >= {least}, got {value!r}")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ValueError(f"ProsPr: lr must be positive, got {self.lr}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"ProsPr: momentum must be in [0, 1), got {self.momentum}")

    def score(self, model, batches, *, loss, masks, seed, train=None) -> dict[str, torch.Tensor]:
        """Return |w_0 * dL_M/dw_M|, 0 where masked."""
        trained = [name for name, p in model.named_parameters() if p.requires_grad]
        masked = MaskedModel(model, masks, also=trained)
        start, stream = masked.weights, _endless(batches)

        def gradient() -> dict[str, torch.Tensor]:
            step = islice(stream, self.accumulate)
            return mean_over_batches(step, lambda x, y: masked.gradients(loss(masked(x), y)))

        velocity: dict[str, torch.Tensor] = {}
        with switched(model, self.mode, seed):
            for _ in range(self.inner_steps):
                g = gradient()
                velocity = {n: velocity[n].mul_(self.momentum).add_(g[n]) if velocity else g[n] for n in g}
                masked.weights = {
                    n: w.detach().sub(velocity[n], alpha=self.lr).requires_grad_() for n, w in masked.weights.items()
                }
            g = gradient()
        return {name: g[name].mul_(start[name].detach()).abs_() for name in prunable(model)}


def _endless(batches: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    """Yield the batches for ever, holding one at a time; nothing where there is none."""
    found = True
    while found:
        found = False
        for batch in batches:
            found = True
            yield batch
