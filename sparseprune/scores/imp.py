"""IMP: iterative magnitude pruning with rewinding, the lottery tickets."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from ..prunable import prunable
from ._registry import Train, register
from ._through import Times, given, through


@register
@dataclass(frozen=True)
class IMP:
    """Score by the magnitude after training: |w_T|, w trained from step r with the masks of the level before.

    A level (an iteration of `prune`): take the dense net to step r, mask it, train it to the end, score. The masks
    belong on the weights of step r: put them on `prepared(model, train=train)` and train that from step r on.

    Args:
        rewind: r; 0 is the original ticket, at initialization. The sketching paper's: 1000 for VGG-19, 2000 and 6000
            for ResNet-20 on CIFAR-10 and CIFAR-100.
        reference: "even": T levels of one rate, density^(1/T) >= 0.8, which end at the density. "open_lth": each takes
            ceil(0.2 n) + 1 of the n that are left, as its comparison with the sorted magnitudes does, and the last what
            remains to the density.

    Raises:
        ValueError: a rewind below 0, or another reference.

    Cost: ceil(log density / log 0.8) trainings of what follows step r, and as often the r steps before it.

    Reference: Frankle et al. 2020, arXiv:1912.05671, the iterative magnitude pruning with rewinding of open_lth.
    """

    rewind: int = 0
    reference: str = "even"
    name: ClassVar[str] = "imp"
    iterations: ClassVar[int] = 1
    needs: ClassVar[str] = "nothing"
    trains: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.rewind < 0:
            raise ValueError(f"IMP: rewind must be at least 0, got {self.rewind}")
        if self.reference not in ("even", "open_lth"):
            raise ValueError(f"IMP: reference must be 'even' or 'open_lth', got {self.reference!r}")

    def steps(self, density: float) -> int:
        """Return the levels T = ceil(log density / log 0.8)."""
        return max(1, math.ceil(math.log(density) / math.log(0.8) - 1e-9))  # .8^3 is three levels in floating point too

    def share(self, density: float, t: int, total: int) -> float | None:
        """Return what is kept after level t of `total` weights; None: density^(t/T)."""
        if self.reference == "even":
            return None
        left = total
        for _ in range(t):
            left -= math.ceil(0.2 * left) + 1
        return max(density, left / total)

    def prepared(self, model: nn.Module, *, train: Train, density: float | None = None) -> nn.Module:
        """Return a copy of the dense net at step r; `train` must give the same each time."""
        net = copy.deepcopy(model)
        if self.rewind:
            train(net, self.rewind)
        return net

    def score(self, model, batches, *, loss, masks, seed, train=None) -> dict[str, torch.Tensor]:
        """Return |w| of the trained net, 0 where masked; a float mask is folded into the weights of step r."""
        train = given("IMP", train)
        net = self.prepared(model, train=train)
        weights, kept = prunable(net), {name: mask != 0 for name, mask in (masks or {}).items()}
        with torch.no_grad():
            for name in kept:
                weights[name].mul_(masks[name])
        through(net, {name: Times(mask) for name, mask in kept.items()})
        train(net, None, *([self.rewind] if self.rewind else []))
        trained = {name: weights[name].detach().abs().to(w.device) for name, w in prunable(model).items()}
        return {name: w * kept[name] if name in kept else w for name, w in trained.items()}
