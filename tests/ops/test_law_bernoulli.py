"""The law of independent choices: coins of min(1, c v), c against an exact solver, m with mean 1."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sparseprune import sampling
from sparseprune.ops import Vector, histogram, reference

from .significance import LEVEL, TILE, chi_square, group_sums, groups_of_like_score, log_normal, two_sided


def exact_rate(scores: Tensor, k: int) -> float:
    """c with sum min(1, c v) = k: the i largest are kept for sure, the least i for which the next one is not."""
    v = np.sort(scores[scores > 0].double().numpy())[::-1]
    below = np.cumsum(v[::-1])[::-1]
    for i in range(len(v)):
        if (k - i) / below[i] * v[i] <= 1:
            return float((k - i) / below[i])
    raise AssertionError(k)


def rate_of(scores: Tensor, k: int) -> float:
    n, mass, exponent = histogram.mass_histogram(Vector([scores], [], reference.GIVEN, reference.BOOL, [], []))
    return math.ldexp(histogram.rate(n, mass, k), -exponent)


def chances(scores: Tensor, c: float) -> Tensor:
    return (c * scores.double()).clamp(max=1.0)


def kept_on_average(scores: Tensor, c: float, k: int) -> bool:
    """The promise: k, less at most 2^-7 of the elements in the bin of 1/c; more only by the 24 bits that bins keep."""
    near = ((c * scores.double()).log2().abs() <= 2.0**-6).sum()
    expected = float(chances(scores, c).sum())
    return k - float(near) * 2.0**-7 - 1e-9 * k <= expected <= k * (1 + 2.0**-23)


POPULATIONS = {
    "log-normal": log_normal(20_000),
    "normal": torch.randn(20_000, generator=torch.Generator().manual_seed(1)).abs(),
    "uniform, fp64": torch.rand(20_000, generator=torch.Generator().manual_seed(2), dtype=torch.float64),
    "equal": torch.ones(5000),
    "two values": torch.tensor([1.0, 1000.0]).repeat(2000),
    "fp64, wide": torch.exp(60 * torch.randn(4000, generator=torch.Generator().manual_seed(3), dtype=torch.float64)),
    "one bin": 1 + torch.rand(5000, generator=torch.Generator().manual_seed(4)) / 129,
    "zeros": log_normal(9000) * (torch.arange(9000) % 3 == 0),
}


@pytest.mark.parametrize("name", POPULATIONS)
def test_the_rate_keeps_k_on_average(name: str) -> None:
    scores = POPULATIONS[name]
    positive = int((scores > 0).sum())
    for k in (1, 2, positive // 100, positive // 10, positive // 2, positive - 1):
        c, exact = rate_of(scores, k), exact_rate(scores, k)
        assert kept_on_average(scores, exact, k)
        assert kept_on_average(scores, c, k)
        if name in ("log-normal", "normal", "uniform, fp64") and k < positive // 2:  # smooth laws, as the page says
            assert float(chances(scores, c).sum()) == pytest.approx(k, rel=2e-6)


def test_control_k_over_the_sum_is_rejected() -> None:
    """The share k v / sum v exceeds 1 for the heaviest: what is cut off there is missing from the count."""
    scores = POPULATIONS["log-normal"]
    assert not kept_on_average(scores, 2000 / float(scores.double().sum()), 2000)


def test_every_score_is_kept_as_often_as_its_chance_says() -> None:
    """60 values, 2000 elements each, kept for sure and seldom; the same test rejects chances of k / sum."""
    values = torch.exp(torch.linspace(-6, 8, 60))
    scores = values.repeat(2000)[torch.randperm(120_000, generator=torch.Generator().manual_seed(1))]
    k, runs = 12_000, 5
    which = torch.searchsorted(values, scores)
    kept = torch.zeros(60, dtype=torch.float64)
    for i in range(runs):
        kept += torch.bincount(which, weights=sampling.bernoulli(scores, k, seed=6, stream=i, output="counts").double())
    for c, passes in ((exact_rate(scores, k), True), (k / float(scores.double().sum()), False)):
        chance = chances(values, c)
        sure = chance == 1.0
        assert not passes or bool((kept[sure] == 2000 * runs).all())
        z = (kept - 2000 * runs * chance) / (2000 * runs * chance * (1 - chance)).sqrt().clamp(min=1e-9)
        p_value = min(two_sided(float(x)) for x in z[~sure])
        assert (p_value > LEVEL) == passes


def test_choices_are_independent() -> None:
    """Neighbours, tiles, seeds and streams: products of centred choices have mean 0; the number kept is binomial."""
    scores = torch.ones(40 * TILE)
    n, p = len(scores), 0.2
    a, b, c = (
        sampling.bernoulli(scores, n // 5, seed=seed, stream=stream, output="counts").double() - p
        for seed, stream in [(1, 0), (2, 0), (1, 1)]
    )
    for x, y in [(a, b), (a, c), (b, c), (a, a.roll(1)), (a, a.roll(2)), (a, a.roll(TILE))]:
        assert two_sided(float((x * y).mean()) / (p * (1 - p)) * math.sqrt(n)) > LEVEL
    few = torch.ones(60)
    kept = [int(sampling.bernoulli(few, 12, seed=3, stream=i, output="bool").sum()) for i in range(400)]
    from_binomial = torch.tensor([math.comb(60, j) * p**j * (1 - p) ** (60 - j) * 400 for j in range(61)])
    assert chi_square(torch.bincount(torch.tensor(kept), minlength=61), from_binomial) > LEVEL


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_m_is_unbiased_with_its_exact_variance(dtype: torch.dtype) -> None:
    """Group sums of m over log-normal(2) scores: mean |g|, variance sum_g 1/pi - 1, for what is not kept for sure."""
    scores, k, repeats = log_normal(30_000).to(dtype), 3000, 100
    chance = chances(scores, exact_rate(scores, k))
    members = groups_of_like_score(scores, 10)[4:-1]
    variances = [float((1 / chance[g] - 1).sum()) for g in members]
    assert group_sums(lambda i: sampling.bernoulli(scores, k, seed=21, stream=i), members, variances, repeats) > LEVEL
    m = sampling.bernoulli(scores, k, seed=1)
    assert m.dtype == dtype
    assert bool((m[chance == 1.0] == 1.0).all())
    kept = (m > 0) & (chance < 1)
    assert float((m[kept] * chance[kept] - 1).abs().max()) < 1e-6


@pytest.mark.parametrize("k", [3, 4, 6])
def test_few_positive_scores_are_all_kept(k: int) -> None:
    for dtype in (torch.float32, torch.float64):
        scores = torch.tensor([0.0, 2.0, 0.0, 1e-30, 3.0, 0.0], dtype=dtype)
        assert sampling.bernoulli(scores, k, seed=1).tolist() == [0, 1, 0, 1, 1, 0]
