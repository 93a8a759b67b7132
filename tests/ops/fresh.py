"""Fresh random inputs for comparing an operation with its definition, and the comparison: byte for byte."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sparseprune.ops import reference

SEED = int.from_bytes(os.urandom(4), "little")  # a failure prints the one that repeats it
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
OUTPUTS = (reference.M, reference.COUNTS, reference.WEIGHTS, reference.BOOL)


def integer(rng: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high, (), generator=rng))


def chance(rng: torch.Generator, size: int, p: float) -> Tensor:
    return torch.rand(size, generator=rng) < p


def factors(rng: torch.Generator, scores: list[Tensor]) -> list[Tensor]:
    """None, one number each, or a factor that repeats along the leading dimension.

    Some are 0 or -0, some negative where all the scores are 0: no score that is not negative becomes so.
    """
    kind = integer(rng, 0, 3)
    if kind == 0:
        return []
    result = []
    for score in scores:
        n = score.numel()
        periods = [1] if kind == 1 else [p for p in (1, 2, 3, 4, 7, n) if p > 0 and n % p == 0]
        period = periods[integer(rng, 0, len(periods))]
        factor = torch.rand(period, generator=rng) * 3
        factor[chance(rng, period, 0.1)] = 0.0
        negative = (score.view(n // period, period) == 0).all(dim=0) | (factor == 0) & chance(rng, period, 0.5)
        result.append(torch.where(negative, -factor, factor).to(FLOATS[integer(rng, 1, 4)]))
    return result


def same_bytes(a: Tensor, b: Tensor) -> bool:
    """Equal dtype, shape and bytes: unlike torch.equal, -0 differs from 0 and NaN equals itself."""
    view: Callable[[Tensor], Tensor] = lambda t: t.contiguous().reshape(-1).view(torch.uint8)  # noqa: E731
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(view(a), view(b))


def all_same(a: Any, b: Any) -> bool:
    return len(a) == len(b) and all(same_bytes(x, y) for x, y in zip(a, b, strict=True))


def outputs(rng: torch.Generator, scores: list[Tensor], output: int) -> list[Tensor]:
    """Poisoned outputs of random floating types (float16 only for w m, which need not overflow)."""
    if output in (reference.COUNTS, reference.BOOL):
        dtype = torch.int32 if output == reference.COUNTS else torch.bool
        return [torch.ones(s.shape, dtype=dtype) for s in scores]
    low = 0 if output == reference.WEIGHTS else 1
    return [torch.full(s.shape, torch.nan, dtype=FLOATS[integer(rng, low, 4)]) for s in scores]


def weights_like(rng: torch.Generator, scores: list[Tensor]) -> list[Tensor]:
    return [torch.randn(s.shape, generator=rng).to(FLOATS[integer(rng, 0, 4)]) for s in scores]


def numbers(rng: torch.Generator, tiles: int) -> Tensor:
    """Tile numbers: empty, or with gaps and up to 2^28."""
    gaps = torch.randint(1, 1 << 20, (tiles,), generator=rng)
    return (gaps.cumsum(0), torch.full((tiles,), (1 << 28) - 16), gaps[:0])[integer(rng, 0, 3)]
