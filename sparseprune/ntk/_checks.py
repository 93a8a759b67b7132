"""The arguments of the limit kernel and of its Monte-Carlo."""

from __future__ import annotations

import torch
from torch import Tensor


def check_inputs(who: str, x1: Tensor, x2: Tensor | None, dimensions: tuple[int, ...] = (2,)) -> None:
    """Refuse inputs that are not finite floats, `[N, d0]` (or `[d0]` where allowed) of one d0, on one device."""
    shapes = " or ".join({1: "[d0]", 2: "[N, d0]"}[n] for n in dimensions)
    for name, x in (("x1", x1), ("x2", x1 if x2 is None else x2)):
        if not isinstance(x, Tensor) or x.ndim not in dimensions or not x.is_floating_point() or x.shape[-1] == 0:
            got = f"{x.dtype} {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"{who}: {name} must be a float tensor {shapes}, got {got}")
        if (x.ndim, x.shape[-1], x.device) != (x1.ndim, x1.shape[-1], x1.device):
            raise ValueError(
                f"{who}: {name} must be like x1, {list(x1.shape)} on {x1.device} but for N, "
                f"got {list(x.shape)} on {x.device}"
            )
        if not torch.isfinite(x).all():
            raise ValueError(f"{who}: {name} must be finite, got infinite or NaN numbers")


def check_whole(who: str, name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{who}: {name} must be a whole number of at least {least}, got {value!r}")


def check_density(who: str, density: float) -> None:
    if not 0 < density <= 1:
        raise ValueError(f"{who}: density must be in (0, 1], got {density}")
