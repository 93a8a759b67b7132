"""Philox4x32-10 (Salmon et al. 2011): random words from counters; unsigned arithmetic in int64."""

from __future__ import annotations

import torch
from torch import Tensor

MASK32 = 0xFFFFFFFF
# purposes: low byte of the last counter
NODE, DRAW, POISSON, SYSTEMATIC, PRIORITY, BERNOULLI, SUCCESSIVE, NORMAL = range(1, 9)


def philox(
    c0: Tensor, c1: Tensor, c2: Tensor | int, c3: Tensor | int, seed: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10 (Salmon et al. 2011) on int64 tensors that hold 32-bit words."""
    k0, k1 = seed & MASK32, (seed >> 32) & MASK32
    c2, c3 = torch.as_tensor(c2, device=c0.device), torch.as_tensor(c3, device=c0.device)
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57  # the signed product wraps; its bits are the unsigned ones
        c0, c1, c2, c3 = ((p1 >> 32) & MASK32) ^ c1 ^ k0, p1 & MASK32, ((p0 >> 32) & MASK32) ^ c3 ^ k1, p0 & MASK32
        k0, k1 = (k0 + 0x9E3779B9) & MASK32, (k1 + 0xBB67AE85) & MASK32
    return c0, c1, c2, c3


def random_bits(x: Tensor, y: Tensor, purpose: int, attempt: int, seed: int, stream: int) -> Tensor:
    """R(x, y, purpose, attempt): 64 random bits in an int64."""
    w0, w1, w2, w3 = philox(x >> 1, y, stream, purpose + 256 * attempt, seed)
    odd = (x & 1).bool()
    return torch.where(odd, w2, w0) | (torch.where(odd, w3, w1) << 32)


def popcount32(x: Tensor) -> Tensor:
    x = x - ((x >> 1) & 0x55555555)
    x = (x & 0x33333333) + ((x >> 2) & 0x33333333)
    return ((((x + (x >> 4)) & 0x0F0F0F0F) * 0x01010101) >> 24) & 0xFF


def unsigned_less(a: Tensor, b: Tensor) -> Tensor:
    return (a ^ torch.iinfo(torch.int64).min) < (b ^ torch.iinfo(torch.int64).min)


def mulhi64(u: Tensor, m: Tensor) -> Tensor:
    """floor(u m / 2^64) for unsigned u < 2^64 and 0 <= m < 2^63."""
    u0, u1, m0, m1 = u & MASK32, (u >> 32) & MASK32, m & MASK32, m >> 32
    low, mid, cross = u0 * m0, u1 * m0, u0 * m1
    carry = ((low >> 32) & MASK32) + (mid & MASK32) + (cross & MASK32)
    return u1 * m1 + ((mid >> 32) & MASK32) + ((cross >> 32) & MASK32) + (carry >> 32)
