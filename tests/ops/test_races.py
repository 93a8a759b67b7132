"""Keys of the races: uniforms, logarithm, scaling; and which elements win."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sparseprune import sampling
from sparseprune.ops import reference


def signed(words: list[int]) -> Tensor:
    return torch.from_numpy(np.array(words, dtype=np.uint64).view(np.int64))


def test_uniforms_lie_between_two_to_minus_64_and_one() -> None:
    u = reference.uniforms(signed([0, 1, 2**32 - 1, 2**32, 2**63, 2**64 - 2**32 - 1, 2**64 - 1]))
    assert u.tolist() == [2.0**-64, 2.0**-63, 2.0**-32, 2.0**-32 + 2.0**-64, 0.5 + 2.0**-64, 1 - 2.0**-32, 1.0]


def test_negative_log_against_the_library_within_1e_13() -> None:
    """Relative error over all of [2^-64, 1]: near 1, where -log u is about 1 - u, and in every binade."""
    g = torch.Generator().manual_seed(1)
    u = torch.cat(
        [
            torch.rand(20_000, generator=g, dtype=torch.float64).clamp(min=2.0**-64),
            2.0 ** (-64 * torch.rand(20_000, generator=g, dtype=torch.float64)),
            1 - 2.0 ** (-53 * torch.rand(20_000, generator=g, dtype=torch.float64)),
            torch.tensor([2.0**-64, 2.0**-32, 0.5, math.nextafter(0.5, 0), 0.7071067811865476, 0.7071067811865475]),
        ]
    )
    u = u[u < 1]
    exact = torch.tensor([-math.log(x) for x in u.tolist()], dtype=torch.float64)
    assert float(((reference.negative_log(u) - exact).abs() / exact).max()) < 1e-13
    assert float(reference.negative_log(torch.ones(1, dtype=torch.float64))) == 2.0**-64


@pytest.mark.parametrize("digits", [2.0**-64, 1e-5, 0.3, 0.99999])
def test_negative_log_against_forty_digits(digits: float) -> None:
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(40):
        exact = -mpmath.log(mpmath.mpf(digits))
        found = float(reference.negative_log(torch.tensor([digits], dtype=torch.float64)))
        assert abs((mpmath.mpf(found) - exact) / exact) < 1e-13


def keys(scores: Tensor | list[Tensor], race: int, seed: int = 4) -> tuple[Tensor, Tensor]:
    """Values and keys of all elements, by the definition."""
    tensors = scores if isinstance(scores, list) else [scores]
    wide = any(t.dtype == torch.float64 for t in tensors)
    exponent = math.frexp(max(float(t.max()) for t in tensors if t.numel()))[1] if wide else 0
    found = [
        reference.race_values(v, race, torch.arange(first, first + len(v)), exponent, seed, 3)
        for first, v in reference.tile_blocks(tensors, [], 0)
    ]
    numel = sum(t.numel() for t in tensors)
    values, keyed = (torch.cat(x).view(-1)[:numel] for x in zip(*found, strict=True))
    return values, keyed


@pytest.mark.parametrize("race", [reference.PRIORITY_RACE, reference.SUCCESSIVE_RACE])
def test_keys_are_named_by_element_whatever_the_split(race) -> None:
    scores = torch.rand(2_200_000, generator=torch.Generator().manual_seed(1))  # more than two chunks
    whole = keys(scores, race)[1]
    assert torch.equal(whole, keys(list(scores.split([1, 1_048_575, 5, 1_151_419])), race)[1])
    index = torch.tensor([0, 4095, 4096, 1_048_576, 2_199_999])
    purpose = reference.PRIORITY if race == reference.PRIORITY_RACE else reference.SUCCESSIVE
    u = reference.uniforms(reference.random_bits(index % 4096, index // 4096, purpose, 0, 4, 3))
    time = u if race == reference.PRIORITY_RACE else reference.negative_log(u)
    assert torch.equal(whole[index], scores[index].double() / time)


def test_purposes_do_not_share_random_numbers() -> None:
    scores = torch.ones(1000)
    u = 1 / keys(scores, reference.PRIORITY_RACE)[1]
    e = 1 / keys(scores, reference.SUCCESSIVE_RACE)[1]
    assert abs(float(torch.corrcoef(torch.stack([u, torch.exp(-e)]))[0, 1])) < 0.2  # 1 if they did


@pytest.mark.parametrize("k", [1, 700, 4999])
def test_the_largest_keys_win_and_priority_pays_the_next_one(k: int) -> None:
    scores = torch.rand(6000, generator=torch.Generator().manual_seed(3))
    scores[::6] = 0.0
    won = sampling.without_replacement(scores, k, seed=4, stream=3)
    expected = keys(scores, reference.SUCCESSIVE_RACE)[1].argsort(descending=True)[:k]
    assert torch.equal(won.nonzero().view(-1), expected.sort().values)
    m = sampling.priority(scores, k, seed=4, stream=3)
    values, found = keys(scores, reference.PRIORITY_RACE)
    order = found.argsort(descending=True)
    tau = found[order[k]]
    expected = torch.zeros(6000)
    expected[order[:k]] = (tau / values[order[:k]]).clamp(min=1).float()
    assert torch.equal(m, expected)


@pytest.mark.parametrize("k", [3, 4, 6])
def test_few_positive_scores_are_all_kept(k: int) -> None:
    scores = torch.tensor([0.0, 2.0, 0.0, 1e-30, 3.0, 0.0])
    assert sampling.priority(scores, k, seed=1).tolist() == [0, 1, 0, 1, 1, 0]
    assert sampling.without_replacement(scores, k, seed=1).tolist() == [False, True, False, True, True, False]


def test_the_whole_range_of_fp64_is_kept_and_kept_finite() -> None:
    """Scores are divided by a power of two first: neither the largest overflows nor the least becomes zero."""
    for values in ([1.7e308, 5e-324, 0.0], [1e-300, 2e-300, 0.0], [5e-324, 1e-323, 0.0], [0.6, 1e-310, 0.0]):
        scores = torch.tensor(values, dtype=torch.float64)
        assert bool(keys(scores, reference.PRIORITY_RACE)[1].isfinite().all())
        assert sampling.without_replacement(scores, 2, seed=1).tolist() == [True, True, False]
        assert sampling.priority(scores, 2, seed=1).tolist() == [1.0, 1.0, 0.0]
        assert sampling.priority([scores, scores[:0]], 1, seed=1)[0].count_nonzero() == 1


def test_a_power_of_two_changes_no_key_order() -> None:
    scores = torch.rand(5000, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    m = sampling.priority(scores, 500, seed=2)
    for power in (2.0**1000, 2.0**-900, 2.0**-1):
        assert torch.equal(sampling.priority(scores * power, 500, seed=2), m)
