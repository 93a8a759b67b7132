"""More than 2^31 scores in one logical vector: the same tensor many times over, so that they fit in memory.

One tensor repeated makes the answer known: its own, once for every time it stands in the list.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sparseprune import sampling

from .significance import LEVEL, chi_square, large, two_sided

PIECE, TIMES, LEVELS = 1 << 24, 129, 1024


@pytest.fixture(scope="module")
def piece() -> Tensor:
    """Scores 0 ... 1023 in float16."""
    x = torch.randint(0, LEVELS, (PIECE,), generator=torch.Generator().manual_seed(1), dtype=torch.int16)
    return x.to(torch.float16)


@pytest.fixture(scope="module")
def out() -> list[Tensor]:
    """2.2 GB, once for all tests."""
    return [torch.empty(PIECE, dtype=torch.bool) for _ in range(TIMES)]


@large
@pytest.mark.parametrize("method", ["multinomial", "poisson", "systematic", "bernoulli", "priority"])
def test_more_than_two_to_the_31_scores_share_the_draws(method: str, piece: Tensor, out: list[Tensor]) -> None:
    """Every tensor and every level gets its share of the draws, of which few meet in one element."""
    draws = 299_993  # no divisor in common with TIMES: systematic marks do not fall on the same elements again
    kept = getattr(sampling, method)([piece] * TIMES, draws, seed=1, output="bool", out=out)
    count = torch.tensor([int(t.count_nonzero()) for t in kept])
    total = int(count.sum())
    assert total <= draws or method in ("poisson", "bernoulli")
    assert total == draws or method not in ("systematic", "priority")
    assert two_sided((total - draws) / math.sqrt(draws)) > LEVEL
    assert chi_square(count, torch.full((TIMES,), total / TIMES)) > LEVEL
    times = torch.zeros(PIECE, dtype=torch.uint8)
    for t in kept:
        times += t
    level = piece.to(torch.int64)
    shares = torch.bincount(level, minlength=LEVELS) * torch.arange(LEVELS)
    found = torch.bincount(level, weights=times.double(), minlength=LEVELS)
    assert found[0] == 0
    assert chi_square(found, shares / shares.sum() * total) > LEVEL


@large
def test_the_largest_of_more_than_two_to_the_31_scores(piece: Tensor, out: list[Tensor]) -> None:
    """Every tensor keeps its larger scores; ties at the threshold go to the first, up to inside tensor 128."""
    above, tie, last = piece > 1000, piece == 1000, 10
    k = int(above.sum()) * TIMES + int(tie.sum()) * (TIMES - 1) + last
    *most, end = sampling.top_k([piece] * TIMES, k, output="bool", out=out)
    assert all(torch.equal(t, above | tie) for t in most)
    above[tie.nonzero().view(-1)[:last]] = True
    assert torch.equal(end, above)
