"""What a histogram of the scores by their leading bits tells: rates of independent choices, expected distinct draws.

Bins are 1/128 of an octave wide and hold count and mass, so that the work is of constant size. All sums over bins run
from the least score up.
"""

from __future__ import annotations

import struct

import numpy as np
import torch

from .reference import BINS
from .vector import NoPositiveScore, Vector, exponent


def mass_histogram(vector: Vector) -> tuple[np.ndarray, np.ndarray, int]:
    """Counts n_j and masses of the non-empty bins, ascending, and the exponent of what scores were divided by.

    Raises: BadScore, NoPositiveScore.
    """
    divisor = exponent(vector)
    total = torch.zeros(2 * BINS + 1, dtype=torch.int64, device=vector.device)  # the last: bad scores
    for part in vector.parts("zero", once=True):
        bins, bad = torch.ops.sparseprune.mass_histogram(*part.source, divisor)
        total += torch.cat([bins.view(-1), bad])
    total = vector.sum(total).cpu().numpy()
    bins = total[:-1].reshape(2, BINS)
    if total[-1]:
        vector.raise_bad(signed=False)
    used = bins[0].nonzero()[0]
    if len(used) == 0:
        raise NoPositiveScore("no positive score")
    n, low = bins[0][used], bins[1][used]
    mass = (n * ((128 + (used & 127)) * 65536) + low).astype(np.float64)
    return n, np.ldexp(mass, (used >> 7) - 1046), divisor


# ---------------------------------------------------------------- independent choices with a given expected count
def rate(n: np.ndarray, mass: np.ndarray, k: int) -> float:
    """c with sum min(1, c v) = k, to the resolution of a bin."""
    below, kept = np.cumsum(mass), 0
    if n.sum() <= k:
        return 2.0**1022  # everything
    for j in range(len(n) - 1, -1, -1):
        c = (k - kept) / below[j]
        if c * (mass[j] / n[j]) <= 1:
            return float(c)
        kept += int(n[j])
    raise AssertionError("fewer than k scores are in bins of their own")


def bernoulli(vector: Vector, k: int, seed: int, stream: int) -> None:
    """Write the result of keeping each element with probability min(1, c v), k of them on average.

    Raises: BadScore, NoPositiveScore, before anything is written.
    """
    n, mass, divisor = mass_histogram(vector)
    (bits,) = struct.unpack("q", struct.pack("d", rate(n, mass, k)))
    for part in vector.parts("zero"):
        torch.ops.sparseprune.bernoulli_tiles(
            *part.source, part.ids, divisor, bits, seed, stream, vector.output, part.weights, part.out
        )


# ---------------------------------------------------------------- how many draws keep k distinct elements
def expected_nnz(n: np.ndarray, p: np.ndarray, draws: int) -> float:
    """sum_j n_j (1 - (1 - p_j)^s) by s's binary digits: no pow, exp or log, the same on every platform."""
    y = np.zeros_like(p)
    for digit in bin(draws)[2:]:
        y = y * (2.0 - y)
        if digit == "1":
            y = y + p * (1.0 - y)
    return float(np.cumsum(n * y)[-1])


class OutOfReach(ValueError):
    """No number of draws keeps as many distinct elements."""


def expected_nnz_systematic(n: np.ndarray, p: np.ndarray, draws: int) -> float:
    """sum_j n_j min(1, s p_j): a count is floor or ceil of its mean."""
    exact = float(np.cumsum(n * np.minimum(1.0, draws * p))[-1])
    return exact * (1.0 + 2.0**-40)  # s equal scores make s, and must not round to less


def draws_for_nnz(vector: Vector, nnz: int, *, systematic: bool = False) -> int:
    """The least s that keeps `nnz` elements on average; OutOfReach where no s < 2^31 does."""
    n, mass, _ = mass_histogram(vector)
    positive, p = int(n.sum()), (mass / n) / np.cumsum(mass)[-1]
    expected = expected_nnz_systematic if systematic else expected_nnz
    low, high = nnz - 1, (1 << 31) - 1
    reach = expected(n, p, high)
    if nnz > positive or (nnz == positive > 1 and not systematic) or reach < nnz:
        raise OutOfReach(
            f"nnz must be at most what draws can reach: {positive} scores are positive and "
            f"2^31 - 1 draws keep {reach:.6g} of them on average, got {nnz}"
        )
    if nnz == 1:  # one draw keeps exactly one element; the sum says so only up to its rounding
        return 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if expected(n, p, middle) >= nnz else (middle, high)
    return high
