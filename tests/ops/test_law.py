"""The law of multinomial sketches, by statistics, and planted faults that the same tests must reject."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from sparseprune import sampling
from sparseprune.ops import reference

from .significance import (
    LEVEL,
    TILE,
    bias_of,
    binomial_pmf,
    chi_square,
    group_sums,
    groups_of_like_score,
    large,
    law,
    log_normal,
    tile_law,
    two_sided,
)


def counts_of(scores: Tensor | list[Tensor], draws: int, seed: int, stream: int = 0) -> Tensor:
    result = sampling.multinomial(scores, draws, seed=seed, stream=stream, output="counts")
    return torch.cat([r.view(-1) for r in result]) if isinstance(result, list) else result


# ---------------------------------------------------------------- binomials and the tree
@pytest.mark.parametrize(
    ("n", "part", "whole"),
    [(1, 1, 3), (10, 3, 7), (40, 1, 2), (130, 2**59 + 12345, 2**60 + 1), (300, 1, 100), (257, 2**43 - 2**38, 2**43)],
)
def test_binomial_has_the_exact_distribution(n: int, part: int, whole: int) -> None:
    node = torch.arange(1, 8001)
    full = torch.ones_like(node)
    found = reference.binomial(node, n * full, part * full, whole * full, 7, 0)
    expected = binomial_pmf(n, part / whole) * len(node)
    assert chi_square(torch.bincount(found, minlength=n + 1), expected) > LEVEL
    assert chi_square(torch.bincount(found, minlength=n + 1), binomial_pmf(n, part / whole * 0.8) * len(node)) < LEVEL


def test_binomials_over_several_chunks_of_trials() -> None:
    n, node = 40_000, torch.arange(1, 301)
    full = torch.ones_like(node)
    found = reference.binomial(node, n * full, 2 * full, 5 * full, 8, 0).double()
    mean, deviation = n * 0.4, math.sqrt(n * 0.24)
    assert two_sided(float(found.mean() - mean) / deviation * math.sqrt(len(node))) > LEVEL
    assert two_sided(float(found.var() / deviation**2 - 1) * math.sqrt(len(node) / 2)) > LEVEL


def test_every_node_of_the_tree_splits_by_its_binomial() -> None:
    """2^14 sibling pairs with shares 3 : 4 under one tree: given their number of draws, the left ones are binomial."""
    aligned = torch.tensor([3 << 40, 4 << 40]).repeat(1 << 14)
    pairs = torch.ops.sparseprune.split_draws(aligned, torch.empty(0, dtype=torch.bool), 20 << 14, 3, 0).view(-1, 2)
    total = pairs.sum(dim=1)
    assert int(total.sum()) == 20 << 14
    found, expected = [], []
    for n in total.bincount().topk(8).indices.tolist():
        left = pairs[total == n, 0]
        found.append(torch.bincount(left, minlength=n + 1))
        expected.append(binomial_pmf(n, 3 / 7) * len(left))
    assert min(chi_square(c, e) for c, e in zip(found, expected, strict=True)) > LEVEL
    assert chi_square(torch.bincount(total), binomial_pmf(20 << 14, 2.0**-14)[: int(total.max()) + 1] * 2**14) > LEVEL


# ---------------------------------------------------------------- multinomial against the closed form
def outcomes(n: int, draws: int) -> list[tuple[int, ...]]:
    return [c for c in itertools.product(range(draws + 1), repeat=n) if sum(c) == draws]


@pytest.mark.parametrize("stride", [1, TILE], ids=["in one tile", "one a tile"])
def test_joint_law_of_three_scores(stride: int) -> None:
    """All outcomes of 3 draws over scores 1 : 2 : 5, in one tile and in three: the joint law, not its margins."""
    scores = torch.zeros(2 * stride + 1)
    scores[::stride] = torch.tensor([1.0, 2.0, 5.0])
    seen = dict.fromkeys(outcomes(3, 3), 0)
    for stream in range(1500):
        seen[tuple(counts_of(scores, 3, 1, stream)[::stride].tolist())] += 1
    expected = [
        1500
        * math.factorial(3)
        * math.prod(p**k / math.factorial(k) for p, k in zip((0.125, 0.25, 0.625), c, strict=True))
        for c in seen
    ]
    assert chi_square(torch.tensor(list(seen.values())), torch.tensor(expected)) > LEVEL


def faithful(scores: Tensor, count: Tensor) -> float:
    """p-value of the counts of all elements in index order (neighbours merged): what every sampler must pass."""
    return chi_square(count, scores.double() / scores.double().sum() * float(count.sum()))


@pytest.mark.parametrize("sigma", [0.0, 0.5, 2.0])
def test_counts_follow_the_scores(sigma: float) -> None:
    scores = log_normal(5 * TILE + 17, sigma)
    scores[TILE : 2 * TILE] *= 50
    count = counts_of(scores, 400_000, 11)
    assert faithful(scores, count) > LEVEL
    by_score = scores.argsort()
    assert faithful(scores[by_score], count[by_score]) > LEVEL


def test_control_a_shifted_tile_is_rejected() -> None:
    scores = log_normal(5 * TILE, 0.5)
    scores[TILE : 2 * TILE] *= 1.2
    assert faithful(scores, counts_of(scores, 400_000, 11).roll(TILE)) < LEVEL
    assert faithful(scores, counts_of(scores, 400_000, 11).view(5, TILE).roll(1, dims=1).view(-1)) < LEVEL


def test_draws_of_different_seeds_streams_and_tiles_are_independent() -> None:
    """Correlation of the counts of equal scores between runs and between neighbouring tiles is 0 within 1/sqrt(n)."""
    scores = torch.ones(64 * TILE)
    a, b, c = (
        counts_of(scores, scores.numel(), seed, stream).double() - 1 for seed, stream in [(1, 0), (2, 0), (1, 1)]
    )
    for x, y in [(a, b), (a, c), (b, c), (a, a.roll(TILE)), (a, a.roll(1)), (a, a.roll(2))]:
        assert two_sided(float((x * y).mean()) * math.sqrt(scores.numel())) > LEVEL
    assert two_sided(float((a * a).mean() - 1) * math.sqrt(scores.numel() / 2)) > LEVEL  # Poisson(1): fourth moment 4


# ---------------------------------------------------------------- unbiasedness
def test_multinomial_is_unbiased_with_its_exact_variance() -> None:
    """Group sums of m over log-normal(2) scores; Var sum_g m = (sum_g 1/p~ - |g|^2) / s."""
    scores, draws, repeats = log_normal(30_000), 3000, 200
    p = law(scores)
    members = groups_of_like_score(scores, 10)[4:]  # the lower ones expect too few draws for a normal law
    assert min(draws * repeats * float(p[g].sum()) for g in members) > 300
    variances = [(float((1 / p[g]).sum()) - len(g) ** 2) / draws for g in members]
    draw: Callable[[int], Tensor] = lambda i: sampling.multinomial(scores, draws, seed=21, stream=i)  # noqa: E731
    assert group_sums(draw, members, variances, repeats) > LEVEL


def uniform_draws(size: int, draws: int, cumulative: np.ndarray, seed: int) -> Tensor:
    """Counts of draws by inversion of a table of running sums: how a sampler without care does it."""
    u = np.random.default_rng(seed).random(draws) * cumulative[-1]
    return torch.from_numpy(np.bincount(np.searchsorted(cumulative, u, side="right"), minlength=size)[:size])


def test_control_top_k_of_p_is_rejected() -> None:
    scores = log_normal(20_000)
    p = scores / scores.sum()
    keep = sampling.top_k(scores, 2000)
    assert bias_of(lambda i: keep / (2000 * p), scores, 12, 100) < LEVEL


# ---------------------------------------------------------------- sizes at which other samplers break
@large
def test_two_to_the_25_equal_scores_share_the_draws() -> None:
    """torch.multinomial refuses this; fp32 running sums stop growing at 2^24."""
    size, draws = 1 << 25, 500_000
    count = counts_of(torch.ones(size), draws, 1)
    assert int(count.sum()) == draws
    upper = int(count[size // 2 :].sum())
    assert abs(upper - draws / 2) < 4 * math.sqrt(draws / 4)
    eighths = count.view(8, -1).sum(dim=1)
    assert chi_square(eighths, torch.full((8,), draws / 8)) > LEVEL

    cumulative = np.cumsum(np.ones(size, dtype=np.float32), dtype=np.float32)
    control = uniform_draws(size, draws, cumulative, 1)
    assert abs(int(control[size // 2 :].sum()) - draws / 2) > 4 * math.sqrt(draws / 4)


@large
def test_control_fp32_running_sums_of_log_normal_scores_are_rejected() -> None:
    """Many elements of a long vector are never drawn by fp32 running sums; all of them can be by ours."""
    scores = log_normal(1 << 22)
    cumulative = np.cumsum(scores.numpy(), dtype=np.float32)
    unreachable = float((np.diff(cumulative) == 0).mean())
    assert unreachable > 0.05
    draws, small = 10_000_000, groups_of_like_score(scores, 4)[0]  # below the fp32 spacing of the total
    expected = float(scores[small].double().sum() / scores.double().sum()) * draws
    ours = counts_of(scores, draws, 3)[small].sum()
    assert two_sided((float(ours) - expected) / math.sqrt(expected)) > LEVEL
    reach = torch.from_numpy(np.diff(cumulative, prepend=np.float32(0)))[small].double().sum() / float(cumulative[-1])
    assert two_sided((float(reach) * draws - expected) / math.sqrt(expected)) < LEVEL


@large
def test_vgg19_sized_vector_of_twenty_million_scores() -> None:
    """20,024,000 scores in 16 tensors: more than torch.multinomial's 2^24 categories."""
    size, draws = 20_024_000, 1_000_000
    scores = log_normal(size, 1.0)
    scores[::7] = 0.0
    parts = list(scores.tensor_split(16))
    count = counts_of(parts, draws, 3)
    assert int(count.sum()) == draws
    assert not bool(count[::7].any())
    chunks = [t.double().sum() for t in scores.tensor_split(1000)]
    found = torch.stack([t.sum() for t in count.tensor_split(1000)])
    assert chi_square(found, torch.stack(chunks) / scores.double().sum() * draws) > LEVEL


def test_one_heavy_tile_among_floored_tiles() -> None:
    """Shares below 2^-60 are floored to one unit: the heavy tile takes the draws, the law stays exact and m finite."""
    scores = torch.full((40 * TILE,), 1e-38, dtype=torch.float64) * 1e-38
    scores[17 * TILE + 5] = 1.0
    count = counts_of(scores, 100_000, 1)
    assert int(count[17 * TILE + 5]) == 100_000
    aligned, p = tile_law([scores], reference.GIVEN, [])
    assert sorted(aligned.tolist())[:39] == [1] * 39
    assert bool((p.view(-1) > 0).all())
    m = sampling.multinomial(scores, 100_000, seed=1)
    assert bool(m.isfinite().all())
    assert 1 < float(m[17 * TILE + 5]) < 1 + 2**-18 + 2**-30  # the floored scores of its own tile
