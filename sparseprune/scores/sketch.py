"""The sketch's optimal sampling distribution: norms of the layer's input times magnitudes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..prunable import layers
from ._graph import MaskedModel, switched
from ._registry import register


@register
@dataclass(frozen=True)
class Sketch:
    """Score by r_j |w_ij|, the distribution that minimises the error of a sketched layer.

    r_j is the norm over the data of coordinate j of the layer's input. For a convolution that is row j of the unfolded
    input: r has the shape [in/groups, kh, kw] (one for each group) and sums over samples and output positions. A shared
    weight sums over all its uses. A layer whose forward is never called has r = 0.

    Cost: one forward a batch, and kh * kw reads of each convolution's input; memory independent of the number of
    batches.

    Reference: Bar & Giryes 2023, arXiv:2305.17559, equation 2.
    """

    name: ClassVar[str] = "sketch"
    iterations: ClassVar[int] = 1
    needs: ClassVar[str] = "inputs"
    inputs: ClassVar[str] = "normal"

    def score(self, model, batches, *, loss, masks, seed, train=None) -> dict[str, torch.Tensor]:
        """Return r_j |w_ij| in float32 (float64 for float64 weights), 0 where masked."""
        squares: dict[str, Tensor] = {}
        masked = MaskedModel(model, masks)
        found = layers(model)

        def watch(name: str):
            def hook(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
                new = squared_norms(module, args[0] if args else kwargs["input"])
                squares[name] = squares[name].add_(new) if name in squares else new

            return hook

        hooks = [
            m.register_forward_pre_hook(watch(name), with_kwargs=True) for name, group in found.items() for m in group
        ]
        try:
            with switched(model, "eval", seed), torch.no_grad():
                for x, _ in batches:
                    masked(x)
        finally:
            for hook in hooks:
                hook.remove()
        return {name: self._of(name, masked, squares.get(name)) for name in found}

    @staticmethod
    def _of(name: str, masked: MaskedModel, square: Tensor | None) -> Tensor:
        w = masked.weights[name].detach()
        if square is None:
            return torch.zeros_like(w)
        score = w.abs() * square.sqrt().to(w.dtype)
        return score * masked.masks[name] if name in masked.masks else score


def squared_norms(module: nn.Module, x: Tensor) -> Tensor:
    """Return r_j^2 of one batch, in a shape that broadcasts to the weight's, accumulated in float64.

    Args:
        module: nn.Linear or nn.Conv2d.
        x: its input, [..., in] or [B, C, H, W] or [C, H, W].

    Returns:
        float64 [in] for nn.Linear, [out, in/groups, kh, kw] (equal inside a group) for nn.Conv2d.
    """
    if not isinstance(module, nn.Conv2d):
        return x.reshape(-1, x.shape[-1]).square().sum(0, dtype=torch.float64)
    square = padded(module, x if x.dim() == 4 else x[None]).square()
    (kh, kw), (sh, sw), (dh, dw) = module.kernel_size, module.stride, module.dilation
    height = (square.shape[2] - dh * (kh - 1) - 1) // sh * sh + 1
    width = (square.shape[3] - dw * (kw - 1) - 1) // sw * sw + 1
    rows = [
        square[:, :, i * dh : i * dh + height : sh, j * dw : j * dw + width : sw].sum((0, 2, 3), dtype=torch.float64)
        for i in range(kh)
        for j in range(kw)
    ]
    by_group = torch.stack(rows, dim=1).view(module.groups, module.in_channels // module.groups, kh, kw)
    return by_group.repeat_interleave(module.out_channels // module.groups, dim=0)


def padded(module: nn.Conv2d, x: Tensor) -> Tensor:
    sides: list[int] = []
    for d in (1, 0):  # F.pad counts from the last dimension
        total = module.dilation[d] * (module.kernel_size[d] - 1)
        if isinstance(module.padding, str):
            sides += [0, 0] if module.padding == "valid" else [total // 2, total - total // 2]
        else:
            sides += [module.padding[d]] * 2
    return F.pad(x, sides, mode="constant" if module.padding_mode == "zeros" else module.padding_mode)
