"""The law of systematic counts, over all starts: each with its length in units of 1/2^F of a draw, nothing else."""

from __future__ import annotations

import itertools
import math
import random
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from sparseprune import sampling
from sparseprune.ops import reference, sketch
from sparseprune.ops.threshold import wrapped

from . import integers
from .significance import LEVEL, TILE, bias_of, chi_square, law, log_normal

SMALL = {
    "three": [1.0, 2.0, 5.0],
    "zeros between": [0.0, 3.0, 0.0, 0.0, 1e-30, 0.25, 0.0],
    "equal": [1.0] * 7,
    "one": [0.125],
    "heavy and floored": [1e-200, 1.0, 5e-324, 1e-9],
    "two tiles": [0.5, 2.0] + [0.0] * TILE + [1.0, 0.75],
}


def intervals(ends: list[int], bits: int) -> list[tuple[int, int]]:
    """Starts (first, how many) between which no count changes: marks pass an end y where start + y = 0 mod 2^bits."""
    step = 1 << bits
    first = sorted({0, *(-y % step for y in ends)})
    return [(a, b - a) for a, b in itertools.pairwise([*first, step])]


def from_start(monkeypatch: pytest.MonkeyPatch, start: int, bits: int) -> None:
    number = torch.tensor(wrapped(start << (64 - bits)))
    monkeypatch.setattr(sketch, "random_bits", lambda *args: number)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("draws", [1, 2, 5, 1000])
def test_law_over_all_starts_is_exactly_the_lengths(name: str, draws: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums over every one of the 2^F starts: counts are floor or ceil of l/2^F with mean l/2^F, m has mean 1."""
    v = SMALL[name]
    scores, share = torch.tensor(v, dtype=torch.float64), law(torch.tensor(v, dtype=torch.float64))
    ends, bits = integers.systematic_ends(v, draws)
    lengths = [b - a for a, b in itertools.pairwise([0, *ends])]
    assert sum(lengths) == draws << bits
    assert all((n > 0) == (x > 0) for n, x in zip(lengths, v, strict=True))
    for n, p in zip(lengths, share.tolist(), strict=True):
        assert abs(n / (draws << bits) - p) < 2.0**-50
    positive = [i for i, x in enumerate(v) if x > 0]
    total, mean = dict.fromkeys(positive, 0), dict.fromkeys(positive, Fraction(0))
    for start, starts in intervals(ends, bits):
        for u in {start, start + starts - 1}:
            from_start(monkeypatch, u, bits)
            counts = sampling.systematic(scores, draws, seed=0, output="counts")
            assert int(counts.sum()) == draws
        m = sampling.systematic(scores, draws, seed=0)
        for i in positive:
            c = int(counts[i])
            assert lengths[i] >> bits <= c <= -(-lengths[i] >> bits)
            total[i] += c * starts
            mean[i] += Fraction(float(m[i])) * starts / 2**bits
    assert [total[i] for i in positive] == [lengths[i] for i in positive]
    assert all(abs(x - 1) < Fraction(1, 2**50) for x in mean.values())


@pytest.mark.parametrize("bits", [3, 6])
def test_every_start_one_by_one(bits: int) -> None:
    """The raw operation on lines so short that all starts can be tried: element i gets l_i marks in 2^bits starts."""
    lengths, gaps = torch.tensor([37, 0, 91]), torch.tensor([3, 0, 4])
    v = torch.zeros(3 * TILE, dtype=torch.float64)
    v[[0, 1, 7, 2 * TILE, 2 * TILE + 5, 2 * TILE + 6, 3 * TILE - 1]] = torch.tensor(
        [1.0, 2.0, 4.0, 1.0, 1e-9, 3.0, 3.0], dtype=torch.float64
    )
    exponents, masses, positives, _ = reference.score_tiles([v], [], 0)
    assert torch.equal(positives.long(), gaps)
    gain, shift = (torch.tensor(x) for x in sketch.gains(lengths.tolist(), masses.tolist()))
    begins = (lengths + gaps).cumsum(0) - lengths - gaps
    table = exponents, begins, lengths, gain, shift
    total, marks = torch.zeros(3 * TILE, dtype=torch.int64), []
    for start in range(1 << bits):
        out = torch.empty(3 * TILE, dtype=torch.int32)
        torch.ops.sparseprune.systematic_tiles([v], [], 0, *table, start, bits, reference.COUNTS, [], [out])
        total += out
        marks.append(int(out.sum()))
    found = total[v > 0].tolist()
    q = [(1, 7), (3, 7), (7, 7), (1, 7), (1, 7), (4, 7), (7, 7)]  # inclusive shares, the 1e-9 aside
    ends = [37 * a // b for a, b in q[:3]] + [91 * a // b for a, b in q[3:]]
    inner = [b - a + 1 for a, b in itertools.pairwise([0, *ends[:3]])] + [
        b - a + 1 for a, b in itertools.pairwise([0, *ends[3:]])
    ]
    assert all(abs(a - b) <= 1 for a, b in zip(found, inner, strict=True))  # q is cut, so an end may move by one
    assert sum(found) == int(lengths.sum() + gaps.sum()) == 135
    assert min(found) >= 1
    assert set(marks) <= {135 >> bits, (135 >> bits) + 1}


def fair(lengths: list[int], v: list[float], line: int) -> bool:
    """The law of what is marked with these lengths: nothing that is not zero is out of reach, and E[c/(s p)] = 1."""
    total = math.fsum(v)
    reached = all((n > 0) == (x > 0) for n, x in zip(lengths, v, strict=True))
    mean = [n / line * total / x for n, x in zip(lengths, v, strict=True) if x > 1e-4 * max(v)]
    return reached and max(abs(x - 1) for x in mean) < 2.0**-12


def test_lengths_are_fair_and_those_of_fp32_running_sums_are_not() -> None:
    """The heavier scores have p~ within 2^-17 of p; a running sum in fp32 loses small scores and bends large ones."""
    draw = random.Random(1)
    v = [float(np.float32(math.exp(draw.gauss(0, 3)))) for _ in range(2 * TILE + 100)]
    v[::9] = [0.0] * len(v[::9])
    ends, bits = integers.systematic_ends(v, 700)
    assert fair([b - a for a, b in itertools.pairwise([0, *ends])], v, 700 << bits)
    sums = np.cumsum(np.array(v, dtype=np.float32), dtype=np.float32).tolist()
    control = [int(x / sums[-1] * (700 << bits)) for x in [0.0, *sums]]
    assert not fair([b - a for a, b in itertools.pairwise(control)], v, 700 << bits)


def test_counts_of_a_long_vector() -> None:
    """Exactly s, each within 1 of its mean, zeros never: 300,000 log-normal scores in a list."""
    scores = log_normal(300_000)
    scores[::5] = 0.0
    for draws in (1, 3000, 10_000_000):
        count = sampling.systematic(scores, draws, seed=2, output="counts")
        assert int(count.sum()) == draws
        assert not bool(count[::5].any())
        mean = law(scores) * draws
        assert bool(((count - mean).abs() < 1 + 1e-9 * mean + 1e-6).all())
        parts = sampling.systematic(list(scores.split([5, 99_995, 0, 200_000])), draws, seed=2, output="counts")
        assert torch.equal(torch.cat(list(parts)), count)


def test_starts_are_uniform() -> None:
    """The lot falls in each of 64 equal scores as often, by seed and by stream."""
    scores = torch.ones(64)
    for name in ("seed", "stream"):
        options = [{"seed": 5, "stream": 5} | {name: i} for i in range(800)]
        drawn: list[Tensor] = [sampling.systematic(scores, 1, output="counts", **o) for o in options]
        assert chi_square(sum(drawn, torch.zeros(64)), torch.full((64,), 800 / 64)) > LEVEL


def test_systematic_is_unbiased() -> None:
    scores = log_normal(20_000)
    assert bias_of(lambda i: sampling.systematic(scores, 2000, seed=31, stream=i), scores, 12, 100) > LEVEL
