"""SynFlow's hundred iterations beside the plain loop that was published."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparseprune.measure import Row, side_by_side
from sparseprune.models import build
from sparseprune.prune import prune

ITERATIONS = 100
CASES = {"resnet20": 0.05, "vgg19": 0.05}
# Least share of the kept weights that both must keep. Rounding moves weights at the thresholds, and over a hundred
# iterations a moved weight moves others, so the share itself is part of the result.
OVERLAP = 0.98


class MaskedLinear(nn.Linear):
    """Multiply by the mask in the forward."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.mask * self.weight, self.bias)


class MaskedConv2d(nn.Conv2d):
    """Multiply by the mask in the forward."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.mask * self.weight, self.bias)


def with_masks(model: nn.Module) -> nn.Module:
    """A copy of the model whose prunable layers hold a float mask of ones."""
    net = copy.deepcopy(model).eval()
    for module in net.modules():
        for plain, masked in ((nn.Linear, MaskedLinear), (nn.Conv2d, MaskedConv2d)):
            if type(module) is plain:
                module.__class__ = masked
                module.register_buffer("mask", torch.ones_like(module.weight))
    return net


def published(model: nn.Module, density: float) -> dict[str, Tensor]:
    """The loop of Tanaka et al.'s code, from its description: absolute state, ones, backward, signs back, kthvalue."""
    net = with_masks(model)
    layers = {n: m for n, m in net.named_modules() if isinstance(m, (MaskedLinear, MaskedConv2d))}
    ones = torch.ones(1, *model.input_shape, device=next(net.parameters()).device)
    for t in range(1, ITERATIONS + 1):
        signs = {}
        with torch.no_grad():
            for name, entry in net.state_dict().items():
                signs[name] = torch.sign(entry)
                entry.abs_()
        net(ones).sum().backward()
        scores = {}
        for name, layer in layers.items():
            scores[name] = torch.clone(layer.weight.grad * layer.weight).detach().abs_()
        for p in net.parameters():
            p.grad.zero_()
        with torch.no_grad():
            for name, entry in net.state_dict().items():
                entry.mul_(signs[name])
        flat = torch.cat([s.flatten() for s in scores.values()])
        # The published count is int((1 - d) N), at times one weight off ours, and over the iterations one weight can
        # decide the fate of a channel: equal counts, so that equal masks mean equal scores.
        k = flat.numel() - round(density ** (t / ITERATIONS) * flat.numel())
        if k >= 1:
            threshold = torch.kthvalue(flat, k).values
            for name, layer in layers.items():
                layer.mask.copy_(torch.where(scores[name] <= threshold, 0.0, 1.0))
    return {f"{name}.weight": layer.mask > 0 for name, layer in layers.items()}


def case(name: str, density: float, repeats: int, device: str) -> list[Row]:
    model = build(name, seed=0).to(device)
    masks: dict[str, dict[str, Tensor]] = {}

    def ours() -> None:
        masks["ours"] = dict(prune(model, density, score="synflow"))

    def peer() -> None:
        masks["peer"] = published(model, density)

    def overlap() -> float:
        both = sum(int((masks["ours"][n] & m).sum()) for n, m in masks["peer"].items())
        return both / max(sum(int(m.sum()) for m in side.values()) for side in masks.values())

    about = f"{name} for CIFAR, density {density}, {ITERATIONS} iterations, copy to masks, {device}"
    peers = {"published loop (kthvalue)": peer}
    rows = side_by_side("synflow", about, ours, peers, lambda: overlap() >= OVERLAP, repeats)
    return [{**row, "overlap": round(overlap(), 5)} for row in rows]


def rows(repeats: int = 3, device: str = "cpu") -> list[Row]:
    return [row for name, density in CASES.items() for row in case(name, density, max(1, repeats // 2), device)]
