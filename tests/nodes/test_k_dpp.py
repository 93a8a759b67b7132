"""k-DPPs against enumeration, the block kernel of the theorems, and the sizes that layers have."""

import itertools
import math

import pytest
import torch

from sparseprune.nodes import k_dpp

SIGMAS = 5.5  # two-sided 4e-8 a number: 1e-6 for the worst of some tens


def kernel(n: int, rank: int, seed: int = 0) -> torch.Tensor:
    features = torch.randn(rank, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return features.T @ features


def law(L: torch.Tensor, k: int) -> dict[tuple[int, ...], float]:
    """P(Y) of every set, by its determinant."""
    sets = list(itertools.combinations(range(len(L)), k))
    weights = [float(torch.linalg.det(L[list(some)][:, list(some)])) for some in sets]
    return {some: max(weight, 0.0) / sum(weights) for some, weight in zip(sets, weights, strict=True)}


def frequencies(draws: torch.Tensor) -> dict[tuple[int, ...], float]:
    sets, counts = draws.unique(dim=0, return_counts=True)
    return {tuple(some.tolist()): float(count) / len(draws) for some, count in zip(sets, counts, strict=True)}


@pytest.mark.parametrize(("n", "rank", "k"), [(5, 5, 1), (6, 6, 3), (6, 4, 4), (7, 9, 6), (12, 12, 5), (4, 4, 4)])
def test_sets_and_inclusions_come_as_enumeration_says(n, rank, k):
    L, samples = kernel(n, rank), 20000
    draws = k_dpp(L, k, seed=1, samples=samples)
    expected, found = law(L, k), frequencies(draws)
    for some, p in expected.items():
        assert abs(found.get(some, 0.0) - p) <= SIGMAS * math.sqrt(p * (1 - p) / samples) + 12 / samples, some
    for i in range(n):
        p = sum(chance for some, chance in expected.items() if i in some)
        share = float((draws == i).any(1).double().mean())
        assert abs(share - p) <= SIGMAS * math.sqrt(max(p * (1 - p), 0.0) / samples) + 1e-9, i


def test_uniform_draws_would_fail_the_enumeration_test():
    expected = law(kernel(6, 6), 3)
    assert max(abs(p - 1 / 20) for p in expected.values()) > SIGMAS * math.sqrt(0.05 / 20000) + 12 / 20000


def test_block_diagonal_kernel_picks_one_unit_a_block():
    blocks, size = 5, 4
    L = torch.block_diag(*[torch.ones(size, size)] * blocks).double()
    draws = k_dpp(L, blocks, seed=0, samples=200)
    assert (draws // size == torch.arange(blocks)).all()
    within = torch.bincount((draws % size).flatten(), minlength=size) / draws.numel()
    assert (within - 1 / size).abs().max() < 0.08  # 5.5 standard errors
    fewer = k_dpp(L, 3, seed=0, samples=200) // size
    assert all(len(set(some)) == 3 for some in fewer.tolist())


def test_lemma_2_and_theorem_1_beyond_k_equals_M_with_the_linear_block_kernel():
    """M = 2, Z = 3, v* = 4, epsilon = .01: GE = (v*^2 / 6) sum_m (1 - l_m / Z)^2, at k = 1 ... 6."""
    L = torch.block_diag(*[torch.ones(3, 3)] * 2).double() + 0.01 * torch.eye(6)
    for k, printed in enumerate((3.851852, 2.378054, 1.483431, 0.790559, 0.296296, 0.0), start=1):
        units = k_dpp(L, k, seed=k, samples=5000)
        per_block = torch.stack([(units < 3).sum(1), (units >= 3).sum(1)], dim=1)
        errors = 16 / 6 * (1 - per_block / 3).square().sum(1)
        assert abs(float(errors.mean()) - printed) <= SIGMAS * float(errors.std()) / math.sqrt(5000) + 1e-6


def test_any_scale_and_dtype():
    L = kernel(8, 8)
    first = k_dpp(L, 4, seed=3, samples=50)
    for other in (L * 1e-200, L * 1e200, L * 2.0**-1000):
        assert torch.equal(k_dpp(other, 4, seed=3, samples=50), first)
    assert k_dpp(L.float(), 4, seed=3).shape == (1, 4)


def test_a_batch_of_kernels_has_the_law_of_each():
    kernels = torch.stack([kernel(5, 5, seed) for seed in range(4)]).unflatten(0, (2, 2))
    draws = k_dpp(kernels, 2, seed=0, samples=8000)
    assert draws.shape == (2, 2, 8000, 2)
    for i, j in itertools.product(range(2), range(2)):
        found = frequencies(draws[i, j])
        for some, p in law(kernels[i, j], 2).items():
            assert abs(found.get(some, 0.0) - p) <= SIGMAS * math.sqrt(p * (1 - p) / 8000) + 12 / 8000


def test_a_seed_says_all_and_sets_ascend():
    L = kernel(10, 10)
    draws = k_dpp(L, 6, seed=5, samples=30)
    assert torch.equal(draws, k_dpp(L, 6, seed=5, samples=30)) and draws.dtype == torch.int64
    assert (draws.diff(dim=1) > 0).all() and not torch.equal(draws, k_dpp(L, 6, seed=6, samples=30))


def test_500_units_sampled_100_times_are_sets_of_k():
    """In seconds (a test does not time); memory for all samples at once would be 100 x 250 x 500 numbers."""
    L = kernel(500, 600) / 600 + 0.01 * torch.eye(500)
    draws = k_dpp(L, 250, seed=0, samples=100)
    assert draws.shape == (100, 250) and (draws.diff(dim=1) > 0).all()
    assert draws.min() >= 0 and draws.max() < 500


@pytest.mark.parametrize(
    ("L", "k", "samples", "message"),
    [
        (torch.eye(3), 4, 1, "k must be from 1 to the rank of L, 3, got 4"),
        (torch.eye(3), 0, 1, "k must be from 1"),
        (torch.ones(3, 3), 2, 1, "the rank of L, 1, got 2"),
        (torch.eye(3), 2, 0, "samples must be at least 1, got 0"),
        (torch.ones(3, 2), 1, 1, r"L must be floating \[..., n, n\]"),
        (torch.eye(3).long(), 1, 1, r"L must be floating"),
        (torch.tensor([[1.0, 2.0], [0.0, 1.0]]), 1, 1, "symmetric"),
        (torch.tensor([[1.0, 2.0], [2.0, 1.0]]), 1, 1, "positive semi-definite, got an eigenvalue -1"),
        (torch.full((2, 2), math.nan), 1, 1, "finite"),
    ],
)
def test_bad_kernels_and_counts_are_named(L, k, samples, message):
    with pytest.raises(ValueError, match=f"k_dpp: .*{message}"):
        k_dpp(L, k, seed=0, samples=samples)
