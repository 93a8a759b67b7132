"""How many draws keep k distinct elements: the histogram, the sum and its inverse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sparseprune import ops, sampling
from sparseprune.ops import histogram, reference


def log_normal(size: int) -> torch.Tensor:
    return torch.exp(2 * torch.randn(size, generator=torch.Generator().manual_seed(7)))


def masses(scores: list[torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    return histogram.mass_histogram(ops.Vector(scores, [], reference.GIVEN, reference.BOOL, [], []))[:2]


@pytest.mark.parametrize("scale", [1.0, 2.0**1000, 2.0**-1000, 0.75])
def test_histogram_holds_every_score_and_its_mass(scale: float) -> None:
    scores = log_normal(20_000).double() * scale
    scores[::5] = 0.0
    n, mass = masses([scores[:7], scores[7:]])
    unit = 2.0 ** -math.frexp(float(scores.max()))[1]
    assert n.sum() == 16_000
    assert (n > 0).all()
    exact = float((scores * unit).sum())
    assert exact * (1 - 2.0**-23) <= mass.sum() <= exact  # each score is cut to 24 bits
    assert (np.diff(mass / n) > 0).all()


def test_subnormal_scores_count_as_the_least_normal_number() -> None:
    n, mass = masses([torch.tensor([0.75, 1e-310, 5e-324], dtype=torch.float64)])
    assert n.tolist() == [2, 1]
    assert mass.tolist() == [2 * 2.0**-1022, 0.75]


@pytest.mark.parametrize("draws", [1, 2, 3, 1000, 12_345, 2**31 - 1])
def test_expected_nnz_equals_the_closed_form(draws: int) -> None:
    p = np.array([0.5, 0.3, 0.1999, 1e-4, 1e-12])
    n = np.array([1, 1, 1, 1, 1])
    exact = sum(-math.expm1(draws * math.log1p(-x)) for x in p)
    assert histogram.expected_nnz(n, p, draws) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("nnz", [1, 50, 2000, 8000])
def test_it_is_the_least_number_of_draws(nnz: int) -> None:
    scores = log_normal(10_000)
    draws = sampling.draws_for_nnz(scores, nnz)
    p = (scores.double() / scores.double().sum()).numpy()
    assert -np.expm1(draws * np.log1p(-p)).sum() == pytest.approx(nnz, rel=2e-3, abs=1.0)
    n, mass = masses([scores])
    share = mass / n / mass.sum()
    assert histogram.expected_nnz(n, share, draws) >= nnz * (1 - 1e-12)
    assert draws == nnz or histogram.expected_nnz(n, share, draws - 1) < nnz


def test_draws_give_the_asked_density_on_average() -> None:
    """z-test of the kept count over 40 sketches of log-normal(2) scores, where s draws keep far fewer than s."""
    scores, nnz = log_normal(30_000), 3000
    draws = sampling.draws_for_nnz(scores, nnz)
    assert draws > 1.5 * nnz
    kept = [int(sampling.multinomial(scores, draws, seed=1, stream=i, output="bool").sum()) for i in range(40)]
    mean, error = float(np.mean(kept)), float(np.std(kept, ddof=1)) / math.sqrt(40)
    assert abs(mean - nnz) < 6.5 * error
    assert error < 10
    naive = [int(sampling.multinomial(scores, nnz, seed=1, stream=i, output="bool").sum()) for i in range(40)]
    assert abs(float(np.mean(naive)) - nnz) > 6.5 * error  # s = k draws fail the same test


def test_edges() -> None:
    one = torch.tensor([0.0, 3.0, 0.0])
    assert sampling.draws_for_nnz(one, 1) == 1
    assert sampling.draws_for_nnz(torch.ones(1000), 1) == 1
    parts = [log_normal(10), log_normal(0), log_normal(90)]
    assert sampling.draws_for_nnz(parts, 50) == sampling.draws_for_nnz(torch.cat(parts), 50)
    for size in range(2, 40):  # sum p rounds to either side of 1
        assert sampling.draws_for_nnz(log_normal(size), 1) == 1
    assert sampling.draws_for_nnz(torch.tensor([1.0, -2.0]), 1, transform="abs", factor=torch.tensor([2.0, 1.0])) == 1


@pytest.mark.parametrize(
    ("scores", "nnz", "reach"),
    [
        ([1.0, 0.0, 1.0, 0.0], 3, "2 scores are positive and 2^31 - 1 draws keep 2 of them on average, got 3"),
        ([1.0, 1.0, 1.0], 3, "3 scores are positive and 2^31 - 1 draws keep 3 of them on average, got 3"),
        ([1.0, 1e-12, 1e-12, 1e-12], 3, "4 scores are positive and 2^31 - 1 draws keep 1.00644 of them"),
    ],
)
def test_out_of_reach(scores, nnz, reach) -> None:
    with pytest.raises(ValueError, match="draws_for_nnz: nnz must be at most what draws can reach") as error:
        sampling.draws_for_nnz(torch.tensor(scores, dtype=torch.float64), nnz)
    assert reach in str(error.value)


@pytest.mark.parametrize("size", [10, 100, 777])
def test_equal_scores_need_as_many_systematic_draws_as_elements(size: int) -> None:
    for nnz in range(1, size + 1):
        assert sampling.draws_for_nnz(torch.ones(size), nnz, law="systematic") == nnz


def test_systematic_draws_keep_the_asked_number_on_average() -> None:
    scores = log_normal(10_000)
    draws = sampling.draws_for_nnz(scores, 1000, law="systematic")
    p = (scores.double() / scores.double().sum()).numpy()
    assert np.minimum(1.0, draws * p).sum() == pytest.approx(1000, rel=1e-3)
    kept = [int(sampling.systematic(scores, draws, seed=1, stream=i, output="bool").sum()) for i in range(40)]
    assert abs(float(np.mean(kept)) - 1000) < 6.5 * max(float(np.std(kept)), 1.0) / math.sqrt(40)
