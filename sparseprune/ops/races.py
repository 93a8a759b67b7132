"""Weighted selection without replacement: every positive score runs a race, the k largest keys win.

Values and keys are materialised in fp64 (16 bytes an element); the exact `top_k` selects.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .reference import TILE, random_bits, rescale, score_values

PRIORITY, WITHOUT_REPLACEMENT = 5, 7  # purposes
CHUNK = 1 << 16  # elements at once: the temporaries stay in the cache
LN2 = 0.6931471805599453


def uniforms(bits: Tensor) -> Tensor:
    """u in [2^-64, 1] from 64 random bits: fp64(high 32) 2^-32 + (fp64(low 32) + 1) 2^-64."""
    high, low = (bits >> 32) & 0xFFFFFFFF, bits & 0xFFFFFFFF
    return high.to(torch.float64) * 2.0**-32 + (low.to(torch.float64) + 1.0) * 2.0**-64


def negative_log(u: Tensor) -> Tensor:
    """-log u as a fixed sequence of IEEE operations (library logarithms differ between platforms); error below 1e-13.

    u = f 2^e with f in [sqrt(1/2), sqrt 2), s = (f-1)/(f+1): log f = 2 (s + s^3/3 + s^5/5 + ...). At least 2^-64.
    """
    f, e = torch.frexp(u)
    small = f < 0.7071067811865476
    f, e = torch.where(small, f * 2.0, f), torch.where(small, e - 1, e).to(torch.float64)
    s = (f - 1.0) / (f + 1.0)
    square = s * s
    series = torch.full_like(s, 1.0 / 21.0)
    for odd in range(19, 0, -2):
        series = series * square + 1.0 / odd
    return -(e * LN2 + 2.0 * (s * series)).clamp(max=-(2.0**-64))


def race_keys(
    scores: list[Tensor], factors: list[Tensor], transform: int, seed: int, stream: int, purpose: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Values v and keys v/u (priority) or v/(-log u) (successive draws), flat fp64; zero scores have key 0."""
    values = [score_values(s, factors[i] if factors else None, transform) for i, s in enumerate(scores)]
    if any(score.dtype == torch.float64 for score in scores):  # keep v/u finite
        exponent = math.frexp(max(float(v.max()) for v in values if v.numel()))[1]
        values = [rescale(v, exponent) for v in values]
    time: Callable[[Tensor], Tensor] = uniforms if purpose == PRIORITY else lambda bits: negative_log(uniforms(bits))
    keys, offset = [], 0
    for v in values:
        key = torch.empty_like(v)
        for begin in range(0, v.numel(), CHUNK):
            piece = v[begin : begin + CHUNK]
            index = torch.arange(offset + begin, offset + begin + piece.numel(), device=v.device)
            bits = random_bits(index % TILE, index // TILE, purpose, 0, seed, stream)
            key[begin : begin + CHUNK] = piece / time(bits)
        keys.append(key)
        offset += v.numel()
    return values, keys
