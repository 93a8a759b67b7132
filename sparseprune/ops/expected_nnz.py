"""How many draws keep k distinct elements on average: sum_i 1 - (1 - p_i)^s = k, from a histogram of the scores."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from .reference import rescale, tile_blocks

BINS = 1 << 18


def mass_histogram(scores: list[Tensor], factors: list[Tensor], transform: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts n_i and masses of the positive values in the bins bits(v) >> 45, ascending, empty bins left out."""
    count = torch.zeros(BINS, dtype=torch.int64)
    low = torch.zeros(BINS, dtype=torch.int64)
    exponent = None
    if any(score.dtype == torch.float64 for score in scores):
        exponent = math.frexp(max(float(v.max()) for _, v in tile_blocks(scores, factors, transform)))[1]
    for _, block in tile_blocks(scores, factors, transform):
        v = block[block > 0].cpu()
        bits = (v if exponent is None else rescale(v, exponent)).view(torch.int64)
        count += torch.bincount(bits >> 45, minlength=BINS)
        low.index_add_(0, bits >> 45, (bits >> 29) & 65535)
    used = count.nonzero().view(-1).numpy()
    n = count.numpy()[used]
    mass = (n * ((128 + (used & 127)) * 65536) + low.numpy()[used]).astype(np.float64)
    return n, np.ldexp(mass, (used >> 7) - 1046)


def expected_nnz(n: np.ndarray, p: np.ndarray, draws: int) -> float:
    """sum_j n_j (1 - (1 - p_j)^s) by s's binary digits: no pow, exp or log, the same on every platform."""
    y = np.zeros_like(p)
    for digit in bin(draws)[2:]:
        y = y * (2.0 - y)
        if digit == "1":
            y = y + p * (1.0 - y)
    return float(np.cumsum(n * y)[-1])


def draws_for_nnz(scores: list[Tensor], factors: list[Tensor], transform: int, nnz: int) -> int:
    """The least s with expected_nnz(s) >= nnz; ValueError where no s < 2^31 reaches it."""
    n, mass = mass_histogram(scores, factors, transform)
    positive = int(n.sum())
    p = (mass / n) / np.cumsum(mass)[-1] if positive else mass
    low, high = nnz - 1, (1 << 31) - 1
    reach = expected_nnz(n, p, high) if positive else 0.0
    if nnz > positive or (nnz == positive and positive > 1) or reach < nnz:
        raise ValueError(
            f"nnz must be at most what draws with replacement can reach: {positive} scores are positive and "
            f"2^31 - 1 draws keep {reach:.6g} of them on average, got {nnz}"
        )
    if nnz == 1:  # one draw keeps exactly one element; the sum says so only up to its rounding
        return 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if expected_nnz(n, p, middle) >= nnz else (middle, high)
    return high
