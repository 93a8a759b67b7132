"""The law of Poisson sketches: variates of any mean, independent elements, m with mean 1 and variance 1/(s p)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sparseprune import sampling
from sparseprune.ops import reference

from .significance import (
    LEVEL,
    TILE,
    chi_square,
    group_sums,
    groups_of_like_score,
    law,
    log_normal,
    poisson_pmf,
    two_sided,
)

WHOLE = 1 << 62


def counts_of_mean(mean: float, tiles: int, *, thin: bool = True) -> Tensor:
    """One count a tile. thin=False: a planted fault, the variate that stands for the fraction is taken whole."""
    whole, fraction = divmod(round(mean * 2**62), WHOLE)
    ids = torch.arange(tiles)
    full = torch.ones_like(ids)
    tails = reference.poisson_table(torch.device("cpu"))
    f = (fraction if thin else WHOLE - 1) * full
    return torch.ops.sparseprune.poisson_counts(whole * full, f, ids, tails, 3, 1)


def fits(found: Tensor, mean: float) -> float:
    size = int(found.max()) + 50
    return chi_square(torch.bincount(found, minlength=size), poisson_pmf(mean, size) * len(found))


@pytest.mark.parametrize("mean", [0.002, 0.3, 0.97, 1.0, 2.5, 31.6, 32.0, 33.25, 100.5, 1000.4])
def test_a_tile_has_a_poisson_number_of_draws(mean: float) -> None:
    found = counts_of_mean(mean, 20_000 if mean < 50 else 2000)
    error = math.sqrt(mean / len(found))
    assert fits(found, mean) > LEVEL
    assert two_sided(float(found.double().mean() - mean) / error) > LEVEL
    spread = math.sqrt((2 + 1 / mean) / len(found))  # fourth moment 3 mean^2 + mean
    assert two_sided((float(((found - mean) ** 2).mean()) / mean - 1) / spread) > LEVEL


@pytest.mark.parametrize("mean", [0.002, 0.3, 2.5])
def test_control_without_thinning_is_rejected(mean: float) -> None:
    assert fits(counts_of_mean(mean, 20_000, thin=False), mean) < LEVEL


@pytest.mark.parametrize("stride", [1, TILE], ids=["in one tile", "one a tile"])
def test_joint_law_of_three_scores(stride: int) -> None:
    """Hundreds of groups of three scores 1 : 2 : 5 in one sketch: every group is a product of Poisson laws."""
    groups, mean = 900, 3.0
    room = TILE if stride == 1 else 3 * TILE
    scores = torch.zeros(groups, room)
    scores[:, : 3 * stride : stride] = torch.tensor([1.0, 2.0, 5.0])
    draws = round(groups * mean)
    count = sampling.poisson(scores.view(-1), draws, seed=1, output="counts").view(groups, room)
    assert int(count.sum()) == int(count[:, : 3 * stride : stride].sum())
    size = 16
    a, b, c = count[:, : 3 * stride : stride].clamp(max=size - 1).T.long()
    p, q, r = (poisson_pmf(mean * share, size) for share in (0.125, 0.25, 0.625))
    expected = (p.view(-1, 1, 1) * q.view(-1, 1) * r).view(-1) * groups
    assert chi_square(torch.bincount((a * size + b) * size + c, minlength=size**3), expected) > LEVEL
    shuffled = torch.bincount((c * size + b) * size + a, minlength=size**3)
    assert chi_square(shuffled, expected) < LEVEL


@pytest.mark.parametrize("method", ["poisson", "multinomial"])
def test_counts_are_independent_and_so_is_their_sum_poisson(method: str) -> None:
    """Covariance 0 between two elements, in one tile and in two; multinomial's, -s p^2, is the control."""
    runs, draws = 250, 20
    scores = torch.zeros(TILE + 1)
    scores[[0, 1, TILE]] = torch.tensor([1.0, 1.0, 2.0])
    count = torch.stack(
        [getattr(sampling, method)(scores, draws, seed=4, stream=i, output="counts") for i in range(runs)]
    )
    x, y, z = count[:, [0, 1, TILE]].double().T
    together = [(x, y, 5.0, 5.0), (x + y, z, 10.0, 10.0)]
    p_values = [
        two_sided(float(((a - m) * (b - n)).sum()) / math.sqrt(runs * m * n)) for a, b, m, n in together
    ]  # fmt: skip
    p_values.append(fits(count.sum(dim=1), draws))
    if method == "poisson":
        assert min(p_values) > LEVEL
    else:
        assert p_values[1] < LEVEL
        assert p_values[2] < LEVEL


def test_counts_follow_the_scores() -> None:
    """Given their sum, which is Poisson, the counts of all elements are multinomial."""
    scores = log_normal(5 * TILE + 17)
    scores[TILE : 2 * TILE] *= 50
    count = sampling.poisson(scores, 400_000, seed=11, output="counts")
    assert two_sided(float(count.sum() - 400_000) / math.sqrt(400_000)) > LEVEL
    expected = law(scores) * float(count.sum())
    for order in (torch.arange(len(scores)), scores.argsort()):
        assert chi_square(count[order], expected[order]) > LEVEL
    assert chi_square(count.roll(1), expected) < LEVEL


def test_m_is_unbiased_with_its_exact_variance() -> None:
    """Group sums of m over log-normal(2) scores: mean |g|, variance sum_g 1/(s p~)."""
    scores, draws, repeats = log_normal(30_000), 3000, 200
    p = law(scores)
    members = groups_of_like_score(scores, 10)[4:]  # the lower ones expect too few draws for a normal law
    variances = [float((1 / p[g]).sum()) / draws for g in members]
    assert group_sums(lambda i: sampling.poisson(scores, draws, seed=21, stream=i), members, variances, repeats) > LEVEL
    whole = [torch.cat(members)]
    total = [sum(variances)]
    assert group_sums(lambda i: sampling.poisson(scores, draws, seed=22, stream=i), whole, total, repeats) > LEVEL


def test_the_variance_of_group_sums_is_that_of_independent_counts() -> None:
    """Three quarters of the elements vary by sum 1/(s p~) together; where the number of draws is fixed, far less."""
    scores, draws, repeats = log_normal(4000, 0.3), 2000, 400
    p = law(scores)
    g = torch.cat(groups_of_like_score(scores, 4)[1:])
    variance = float((1 / p[g]).sum()) / draws
    for method, passes in (("poisson", True), ("multinomial", False)):
        sums = torch.stack(
            [getattr(sampling, method)(scores, draws, seed=5, stream=i)[g].double().sum() for i in range(repeats)]
        )
        p_value = two_sided((float(sums.var()) / variance - 1) * math.sqrt(repeats / 2))
        assert (p_value > LEVEL) == passes
