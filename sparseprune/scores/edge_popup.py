"""Edge-popup: scores that are trained, on weights that are not."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from ..prunable import prunable
from ..sampling import top_k
from ._registry import Train, register
from ._through import given, through

WEIGHTS = ("given", "signed_constant")


@register
@dataclass(frozen=True)
class EdgePopup:
    """Train a score s a weight, w * h(|s|) in every forward, h = 1 for the largest |s| of each layer; score by |s|.

    The gradient goes straight through h: dL/ds = dL/dh sign(s). All parameters of the net stay as they are, batch
    norms' included. s ~ U(-1/sqrt(fan_in), 1/sqrt(fan_in)) at the start. Published training of s: 100 epochs of batch
    128, lr 0.1 and cosine, momentum 0.9, weight decay 1e-4.

    Layers outside `prune(modules=...)` are trained as subnetworks too: a score does not know of them.

    Args:
        weights: "given" (published: Kaiming normal, as the nets of `sparseprune.models` are drawn), or
            "signed_constant": sign(w) sqrt(2/fan_in); the masks then belong on `prepared(model, density=density)`.
        scale_fan: divide the square of the constant by the density, too.

    Raises:
        ValueError: other weights, or a scaled fan without the constant.

    Cost: one training, and in each of its steps one selection a layer.

    Reference: Ramanujan et al. 2020, arXiv:1911.13299.
    """

    weights: str = "given"
    scale_fan: bool = False
    name: ClassVar[str] = "edge_popup"
    iterations: ClassVar[int] = 1
    needs: ClassVar[str] = "nothing"
    trains: ClassVar[bool] = True
    needs_density: ClassVar[bool] = True
    scope: ClassVar[str] = "layer"

    def __post_init__(self) -> None:
        if self.weights not in WEIGHTS:
            raise ValueError(f"EdgePopup: weights must be 'given' or 'signed_constant', got {self.weights!r}")
        if self.scale_fan and self.weights == "given":
            raise ValueError("EdgePopup: scale_fan must be False unless weights is 'signed_constant', got True")

    @torch.no_grad()
    def prepared(self, model: nn.Module, *, train: Train | None = None, density: float) -> nn.Module:
        """Return a copy of the model with the weights that the scores are trained for."""
        net = copy.deepcopy(model)
        if self.weights == "signed_constant":
            for w in prunable(net).values():
                fan = w[0].numel() * (density if self.scale_fan else 1)
                w.sign_().mul_(math.sqrt(2 / fan))
        return net

    def score(self, model, batches, *, loss, masks, seed, train=None, density=1.0) -> dict[str, Tensor]:
        """Return |s| after the training, 0 where masked."""
        train = given("EdgePopup", train)
        net = self.prepared(model, density=density).requires_grad_(False)
        generator = torch.Generator().manual_seed(seed)
        popups = {n: Popup(w, density, (masks or {}).get(n), generator) for n, w in prunable(net).items()}
        through(net, popups)
        train(net, None)
        return {name: popups[name].rank().detach().to(w.device) for name, w in prunable(model).items()}


class Popup(nn.Module):
    """w -> w * mask * h(|s|), with h = 1 for numel - int((1 - density) numel) of them, as published."""

    mask: Tensor | None

    def __init__(self, weight: Tensor, density: float, mask: Tensor | None, generator: torch.Generator) -> None:
        super().__init__()
        drawn = nn.init.kaiming_uniform_(torch.empty(weight.shape), a=math.sqrt(5), generator=generator)
        self.scores = nn.Parameter(drawn.to(weight))
        self.kept = weight.numel() - int((1 - density) * weight.numel())
        self.register_buffer("mask", mask)

    def extra_repr(self) -> str:
        """Return what the state does not hold."""
        return f"kept={self.kept}"

    def rank(self) -> Tensor:
        """Return |s|, 0 where masked."""
        return self.scores.abs() if self.mask is None else self.scores.abs() * (self.mask != 0)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weights of the subnetwork; in the graph h is |s|, of gradient 1."""
        s = self.rank()
        h = cast(Tensor, top_k(s.detach(), self.kept)) + (s - s.detach())
        return weight * h if self.mask is None else weight * self.mask * h
