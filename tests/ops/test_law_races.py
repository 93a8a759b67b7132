"""The laws of the races: successive draws in every order, priority with mean 1 and exactly k; faults that must fail."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from sparseprune import sampling
from sparseprune.ops import reference
from sparseprune.ops.threshold import wrapped

from .significance import LEVEL, TILE, bias_of, chi_square, groups_of_like_score, log_normal, two_sided


# ---------------------------------------------------------------- successive draws
def test_successive_draws_have_the_law_of_drawing_one_by_one() -> None:
    """All 24 orders of 4 scores against prod p_i / (what is left): 40,000 races of four, side by side in one vector."""
    weights, races_run = [0.5, 1.0, 2.0, 4.5], 40_000
    v = torch.tensor(weights, dtype=torch.float64).repeat(races_run)
    v = torch.nn.functional.pad(v, (0, -len(v) % TILE)).view(-1, TILE)
    keys = reference.race_values(v, reference.SUCCESSIVE_RACE, torch.arange(len(v)), 0, 5, 0)[1]
    order = keys.view(-1)[: 4 * races_run].view(-1, 4).argsort(dim=1, descending=True)
    code = (order * torch.tensor([64, 16, 4, 1])).sum(dim=1)
    count, expected = [], []
    for permutation in itertools.permutations(range(4)):
        left, probability = sum(weights), 1.0
        for i in permutation:
            probability *= weights[i] / left
            left -= weights[i]
        count.append(int((code == sum(i << (6 - 2 * j) for j, i in enumerate(permutation))).sum()))
        expected.append(races_run * probability)
    assert sum(count) == races_run
    assert chi_square(torch.tensor(count), torch.tensor(expected)) > LEVEL
    p = sorted(expected)
    assert chi_square(torch.tensor(count), torch.tensor(p)) < LEVEL  # another law over the same 24 orders


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_kept_sets_against_exact_enumeration(k: int) -> None:
    weights = torch.tensor([0.5, 1.0, 2.0, 4.5])
    probability = dict.fromkeys(itertools.combinations(range(4), k), 0.0)
    for permutation in itertools.permutations(range(4), k):
        left, p = 8.0, 1.0
        for i in permutation:
            p *= float(weights[i]) / left
            left -= float(weights[i])
        probability[tuple(sorted(permutation))] += p
    seen = dict.fromkeys(probability, 0)
    for stream in range(600):
        kept = sampling.without_replacement(weights, k, seed=9, stream=stream, output="indices")
        seen[tuple(kept.tolist())] += 1
    expected = torch.tensor(list(probability.values())) * 600
    assert k == 4 or chi_square(torch.tensor(list(seen.values())), expected) > LEVEL
    assert sum(seen.values()) == 600


# ---------------------------------------------------------------- priority is unbiased, by statistics
SCORES = log_normal(20_000)
P = SCORES / SCORES.sum()


@pytest.mark.parametrize("k", [200, 2000], ids=["1 %", "10 %"])
def test_priority_is_unbiased(k: int) -> None:
    """Groups of log-normal(2) scores; the lightest third expects too few at 1 % for a normal law and is one group."""
    assert (
        bias_of(lambda i: sampling.priority(SCORES, k, seed=31, stream=i), SCORES, 12 if k == 2000 else 4, 200) > LEVEL
    )


@pytest.mark.parametrize(
    ("method", "k"), [("without_replacement", 200), ("without_replacement", 2000), ("priority", 2000)]
)
def test_control_exactly_k_with_multinomial_weights_is_rejected(method: str, k: int) -> None:
    """What wins a race (of Gumbel numbers, or of v/u) under m = 1/(k p): the heavy scores come out too small."""
    wins: Callable[[int], Tensor] = lambda i: (  # noqa: E731
        getattr(sampling, method)(SCORES, k, seed=31, stream=i, output="bool") / (k * P)
    )
    assert bias_of(wins, SCORES, 12 if k == 2000 else 4, 100) < LEVEL


def test_priority_of_like_scores_keeps_them_alike() -> None:
    keep = sum(sampling.priority(torch.ones(5000), 500, seed=2, stream=i, output="bool").double() for i in range(100))
    variance = 100 * 0.1 * 0.9
    assert two_sided(float(((keep - 10) ** 2).mean() / variance - 1) * (5000 / 2) ** 0.5) > LEVEL


def test_elements_of_priority_do_not_correlate() -> None:
    """Sums over a group vary by the sum of Var m_i = E[max(0, tau_i/v_i - 1)], of which m (m - 1) is the mean."""
    repeats, g = 300, torch.cat(groups_of_like_score(SCORES, 4)[2:])
    drawn = [sampling.priority(SCORES, 2000, seed=8, stream=i)[g].double() for i in range(repeats)]
    expected = sum(float((m * (m - 1)).sum()) for m in drawn) / repeats
    found = float(torch.stack([m.sum() for m in drawn]).var())
    assert two_sided((found / expected - 1) * (repeats / 2) ** 0.5) > LEVEL


# ---------------------------------------------------------------- priority is unbiased, by its numbers
def key_of(v: float, word: int) -> float:
    """The key of a score whose 64 random bits are `word`."""
    u = reference.uniforms(torch.tensor([wrapped(word)]))
    return float(torch.tensor([v], dtype=torch.float64) / u)


def key_24_bits(v: float, word: int) -> float:
    return v / ((word >> 40) + 1) * 2.0**24


def key_fp32(v: float, word: int) -> float:
    return float(torch.tensor(key_of(v, word)).float())


def mean_of_m(key: Callable[[float, int], float], v: float, tau: float) -> Fraction:
    """E[max(1, tau/v) | tau], summed over all 2^64 words: keys fall with the word, so that a search counts the kept."""
    low, high = -1, 2**64
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if key(v, middle) > tau else (low, middle)
    return Fraction(high, 2**64) * max(Fraction(1), Fraction(tau) / Fraction(v))


RATIOS = [2.0, 1.0, 0.7, 1e-3, 3e-7, 1.1e-8, 1e-10, 2.0**-40 / 3, 1e-16, 2.0**-62]


def biased(key: Callable[[float, int], float]) -> bool:
    """Whether the bias of some score exceeds 2^-64 tau/v + 2^-50."""
    tau = 1.2345678
    errors = [(abs(mean_of_m(key, tau * r, tau) - 1), Fraction(1 / r) / 2**64 + Fraction(1, 2**50)) for r in RATIOS]
    return any(error > bound for error, bound in errors)


def test_m_has_mean_one_over_all_numbers_that_can_be_drawn() -> None:
    assert not biased(key_of)


@pytest.mark.parametrize("key", [key_24_bits, key_fp32], ids=["24 random bits", "fp32 keys"])
def test_control_coarser_numbers_and_keys_are_rejected(key: Callable[[float, int], float]) -> None:
    assert biased(key)


# ---------------------------------------------------------------- exactly k
@pytest.mark.parametrize("method", ["priority", "without_replacement"])
@pytest.mark.parametrize("name", ["equal", "few values", "duplicated", "wide", "subnormal"])
def test_exactly_k_are_kept(method: str, name: str) -> None:
    g = torch.Generator().manual_seed(1)
    scores = {
        "equal": torch.ones(9001),
        "few values": torch.randint(0, 3, (9001,), generator=g).float(),
        "duplicated": torch.rand(11, generator=g).repeat(900),
        "wide": torch.exp(200 * torch.randn(9001, generator=g, dtype=torch.float64)),
        "subnormal": torch.randint(1, 9, (9001,), generator=g) * 2.0**-149,
    }[name]
    positive = int((scores > 0).sum())
    for k in (1, 2, 900, positive - 1, positive, len(scores)):
        kept = getattr(sampling, method)(scores, k, seed=3, stream=k, output="bool")
        assert int(kept.sum()) == min(k, positive)
        assert not bool(kept[scores == 0].any())


def test_equal_keys_are_kept_by_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of one random number for all elements: equal scores tie, and so do all keys at tau."""
    monkeypatch.setattr(reference.keys, "random_bits", lambda x, *rest: x * 0 + (1 << 62))
    scores = torch.tensor([1.0, 2.0]).repeat(3000)
    v = reference.race_values(
        scores[:TILE].double().view(1, -1), reference.PRIORITY_RACE, torch.zeros(1).long(), 0, 0, 0
    )
    assert v[1].unique().numel() == 2
    empty, out = torch.empty(0, dtype=torch.int64), torch.empty(6000, dtype=torch.bool)
    tau = int(v[1].max().view(torch.int64))
    quota = torch.tensor([300, 0])
    ties = reference.key_mark([scores], [], 0, 1, empty, 0, 0, 0, tau, 0, tau, quota, reference.BOOL, [], [out])
    assert ties.tolist() == [2048, 952]
    assert out.nonzero().view(-1).tolist() == list(range(1, 600, 2))
