"""How tests of laws judge: p-values by closed forms, and the populations of scores on which they are taken.

Every statistical test compares a p-value with LEVEL: fewer than 1000 of them, so that one run in a million would fail
by chance if the seeds were not fixed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from sparseprune import ops
from sparseprune.ops import reference
from sparseprune.ops.sketch import align

LEVEL = 1e-9
TILE = reference.TILE
large = pytest.mark.skipif(ops.extension_error() is not None, reason="slow without the compiled extension")


# ---------------------------------------------------------------- p-values
def chi_square(count: Tensor, expected: Tensor) -> float:
    """p-value of Pearson's statistic; cells are merged in order until each expects at least 10."""
    cells: list[list[float]] = [[0.0, 0.0]]
    for c, e in zip(count.double().tolist(), expected.double().tolist(), strict=True):
        cells[-1] = [cells[-1][0] + c, cells[-1][1] + e]
        if cells[-1][1] >= 10:
            cells.append([0.0, 0.0])
    rest = cells.pop()
    cells[-1] = [cells[-1][0] + rest[0], cells[-1][1] + rest[1]]
    statistic = sum((c - e) ** 2 / e for c, e in cells)
    half = torch.tensor([(len(cells) - 1) / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))


def two_sided(z: float) -> float:
    return math.erfc(abs(z) / math.sqrt(2))


def bias_of(draw_m: Callable[[int], Tensor], scores: Tensor, groups: int, repeats: int) -> float:
    """Least p-value, over groups of like score, of "m has mean 1", by the spread of the group means over repeats."""
    members = groups_of_like_score(scores, groups)
    means = torch.stack(
        [torch.stack([m[g].double().mean() for g in members]) for m in (draw_m(i) for i in range(repeats))]
    )
    error = means.std(dim=0).clamp(min=1e-12) / math.sqrt(repeats)
    return min(two_sided(z) for z in ((means.mean(dim=0) - 1) / error).tolist())


def group_sums(
    draw_m: Callable[[int], Tensor], members: Sequence[Tensor], variances: Sequence[float], repeats: int
) -> float:
    """Least p-value of "the sum of m over a group has the mean |group| and this variance", from the mean of repeats."""
    total = sum(draw_m(i).double() for i in range(repeats))
    assert isinstance(total, Tensor)
    z = [
        float(total[g].sum() - len(g) * repeats) / math.sqrt(variance * repeats)
        for g, variance in zip(members, variances, strict=True)
    ]
    return min(two_sided(x) for x in z)


# ---------------------------------------------------------------- closed forms
def binomial_pmf(n: int, p: float) -> Tensor:
    k = torch.arange(n + 1, dtype=torch.float64)
    choose = math.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    return torch.exp(choose + k * math.log(p) + (n - k) * math.log1p(-p))


def poisson_pmf(mean: float, size: int) -> Tensor:
    k = torch.arange(size, dtype=torch.float64)
    return torch.exp(k * math.log(mean) - mean - torch.lgamma(k + 1))


def tile_law(scores: list[Tensor], transform: int, factors: list[Tensor]) -> tuple[Tensor, Tensor]:
    """The quantised law itself: A_b (int64 [T]) and p~ (fp64 [T, TILE])."""
    exponents, masses, _, _ = reference.score_tiles(scores, factors, transform)
    aligned = align(exponents, masses)
    blocks = reference.tile_blocks(scores, factors, transform)
    q = torch.cat([reference.quantize(v, exponents[first : first + len(v)]) for first, v in blocks])
    share = aligned.double() / aligned.sum().double() / masses.clamp(min=1).double()
    return aligned, (q.double() * share.unsqueeze(1)).view(-1, TILE)


def law(scores: Tensor) -> Tensor:
    return tile_law([scores], reference.GIVEN, [])[1].view(-1)[: scores.numel()]


# ---------------------------------------------------------------- populations
def groups_of_like_score(scores: Tensor, groups: int) -> list[Tensor]:
    return list(scores.argsort().tensor_split(groups))


def log_normal(size: int, sigma: float = 2.0) -> Tensor:
    return torch.exp(sigma * torch.randn(size, generator=torch.Generator().manual_seed(5)))
