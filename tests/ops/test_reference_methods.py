"""Poisson, systematic and independent choices, races and partial trees, against the laws in Python integers."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from sparseprune import ops
from sparseprune.ops import Vector, histogram, reference
from sparseprune.ops.sketch import gains
from sparseprune.ops.threshold import wrapped

from . import integers
from .integers import TILE, wide_tile

SIZES = [(1, 3), (7, 500), (4096, 300), (4097, 1), (3 * TILE + 11, 400)]


def scores_of(size: int, spread: int = 12) -> list[float]:
    v = wide_tile(random.Random(size), spread, size)
    v[0] = 1.0
    if size > 2 * TILE:
        v[TILE : 2 * TILE] = [0.0] * TILE  # an empty tile between others
    return v


def outputs(driver: Callable[..., None], v: list[float], *args: int) -> tuple[list[int], list[float]]:
    """Counts and fp64 m that a driver writes."""
    score = torch.tensor(v, dtype=torch.float64)
    found = [torch.empty(len(v), dtype=torch.int32), torch.empty(len(v), dtype=torch.float64)]
    for output, out in zip((reference.COUNTS, reference.M), found, strict=True):
        driver(Vector([score], [], reference.GIVEN, output, [score], [out]), *args)
    return found[0].tolist(), found[1].tolist()


def signed(seed: int) -> int:
    return wrapped(seed)


# ---------------------------------------------------------------- sketches
METHODS = {
    "poisson": (ops.sketch_poisson, integers.poisson),
    "systematic": (ops.sketch_systematic, integers.systematic),
    "bernoulli": (ops.bernoulli, integers.bernoulli),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("size", "draws"), SIZES)
@pytest.mark.parametrize("seed", [0, 2**64 - 3])
def test_counts_and_m_equal_the_law(method: str, size: int, draws: int, seed: int) -> None:
    driver, law = METHODS[method]
    v = scores_of(size)
    assert outputs(driver, v, draws, signed(seed), 6) == law(v, draws, seed, 6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("spread", [300, 1000])
def test_scores_that_span_the_range_of_fp64(method: str, spread: int) -> None:
    driver, law = METHODS[method]
    v = wide_tile(random.Random(spread), spread, TILE + 900)
    v[5], v[4200] = 1.7e308, 5e-324
    assert outputs(driver, v, 250, 9, 0) == law(v, 250, 9, 0)


def test_poisson_tables_equal_eighty_digits() -> None:
    """2^64 P(X > k) rounded, but for the entry that makes the sum the mean; the first one left out rounds to 0."""
    for mean, entries in reference.poisson.ENTRIES.items():
        tails = reference.poisson.poisson_tails(mean, entries)
        assert list(tails) == integers.TAILS[mean]
        assert sum(tails) == mean << 64
        exact = integers.poisson_tails(mean, entries + 1)
        off = [abs(x - tail) for x, tail in zip(exact, tails, strict=False)]
        assert off.pop(mean) < 3
        assert max(off) <= 0.5
        assert exact[-1] < 0.5 < tails[-1]
    flat = [int(t) % 2**64 for t in reference.poisson_table(torch.device("cpu"))]
    assert flat == integers.TAILS[1] + integers.TAILS[32]


def test_poisson_counts_of_any_mean_by_tile_number() -> None:
    draw = random.Random(6)
    means = [0, 1, 2**62 - 1, 2**62, 31 << 62, 32 << 62, (32 << 62) + 1, (33 << 62) - 1, (1000 << 62) + 12345]
    means += [draw.getrandbits(70) >> draw.randrange(70) for _ in range(40)]
    ids = [draw.randrange(2**28) for _ in means]
    whole, fraction, number = (torch.tensor(x) for x in ([m >> 62 for m in means], [m % 2**62 for m in means], ids))
    tails = reference.poisson_table(torch.device("cpu"))
    found = torch.ops.sparseprune.poisson_counts(whole, fraction, number, tails, signed(2**63 + 5), 9)
    assert found.tolist() == [integers.poisson_count(m, i, 2**63 + 5, 9) for m, i in zip(means, ids, strict=True)]


# ---------------------------------------------------------------- systematic lengths
def test_gains_and_shifted_products_are_exact() -> None:
    draw = random.Random(7)
    lengths = [0, 1, 2**60 - 1, 1, 2**43] + [draw.getrandbits(60) >> draw.randrange(60) for _ in range(300)]
    masses = [5, 2**43 - 1, 1, 1, 2**43 - 1] + [1 + (draw.getrandbits(43) >> draw.randrange(43)) for _ in range(300)]
    gain, shift = gains(lengths, masses)
    for n, m, big, g in zip(lengths, masses, gain, shift, strict=True):
        assert big == (n << g) // m
        assert (2**62 <= big < 2**63 and 0 < g < 106) if n else big == 0
    q = [draw.randrange(m) for m in masses]
    a, b, s = (torch.tensor(x) for x in (q, gain, shift))
    product = reference.systematic.shift_product(a, b, s)
    assert product.tolist() == [x * big >> g for x, big, g in zip(q, gain, shift, strict=True)]
    assert all(x <= n for x, n in zip(product.tolist(), lengths, strict=True))


# ---------------------------------------------------------------- the rate of independent choices
@pytest.mark.parametrize("spread", [1, 30, 1000])
def test_histogram_and_rate_equal_the_law(spread: int) -> None:
    v = wide_tile(random.Random(spread), spread, 3000)
    score = [torch.tensor(v, dtype=torch.float64)]
    n, mass, exponent = histogram.mass_histogram(Vector(score, [], reference.GIVEN, reference.BOOL, [], []))
    assert exponent == math.frexp(max(v))[1]
    bins = integers.histogram(integers.scaled(v, exponent))
    assert list(zip(n.tolist(), mass.tolist(), strict=True)) == bins
    for k in (1, 2, 100, 1000, int(n.sum()) - 1):
        assert histogram.rate(n, mass, k) == integers.rate(bins, k)


def test_choices_below_and_above_every_rate() -> None:
    """t from 1 to 2^62: a rate so small that t is raised to 1, and one where c v is infinite."""
    v = [1.0, 0.75, 1e-300, 0.0, 5e-324] * 20
    score, out = torch.tensor(v, dtype=torch.float64), torch.empty(100, dtype=torch.float64)
    for c in (1e-30, 0.3, 1.0, 1e300, math.inf):
        (bits,) = struct.unpack("q", struct.pack("d", c))
        empty = torch.empty(0, dtype=torch.int64)
        torch.ops.sparseprune.bernoulli_tiles([score], [], 0, empty, 1, bits, 3, 4, reference.M, [], [out])
        expected = []
        for i, x in enumerate(integers.scaled(v, 1)):
            t = max(1, math.floor(Fraction(min(1.0, c * x)) * 2**62)) if x else 0
            kept = integers.random_number(i, 0, 6, 0, 3, 4) >> 2 < t
            expected.append(2.0**62 / float(t) if kept else 0.0)
        assert out.tolist() == expected


# ---------------------------------------------------------------- races
RACES = {reference.PRIORITY_RACE: 5, reference.SUCCESSIVE_RACE: 7}


@pytest.mark.parametrize("race", RACES)
def test_race_histograms_count_keys_and_sum_them(race: int) -> None:
    size = 2 * TILE + 77
    v = [0.0 if i % 7 == 0 else x for i, x in enumerate(scores_of(size))]
    exponent, ids = 1, torch.tensor([6, 3, 8])
    score = torch.tensor(v, dtype=torch.float64)
    keys = []
    for b, number in enumerate(ids.tolist()):  # each tile under its own number
        part = integers.scaled(v[b * TILE : (b + 1) * TILE], exponent)
        keys.append([integers.bits_of(x) for x in integers.race_keys(part, RACES[race], 3, 4, number)])
    middle = sorted(keys[0])[2048]
    for low, shift, bits, step in [
        (-(2**63), 52, 12, 1),
        (middle, 40, 10, 1),
        (middle - 12345, 30, 14, 2),
        (0, 0, 3, 3),
    ]:
        every = [key for number, tile in zip(ids.tolist(), keys, strict=True) if number % step == 0 for key in tile]
        place = [(key - low) >> shift for key in every if key >= low]
        inside = [p for p in place if p < 1 << bits]
        sums = [0] * (1 << bits)
        for key in every:
            if 0 <= (key - low) >> shift < 1 << bits:
                sums[(key - low) >> shift] += key - low
        found, total = torch.ops.sparseprune.key_histogram(
            [score], [], 0, race, ids, exponent, 3, 4, low, shift, bits, step
        )
        assert found.tolist() == [*np.bincount(inside, minlength=1 << bits).tolist(), len(place) - len(inside), 0]
        assert [s % 2**64 for s in total.tolist()] == [s % 2**64 for s in sums]


@pytest.mark.parametrize("race", RACES)
@pytest.mark.parametrize("k", [1, 900, 3600, 5000])
def test_winners_and_their_multipliers_equal_the_law(race: int, k: int) -> None:
    v = [0.0 if i % 7 == 0 else x for i, x in enumerate(scores_of(TILE + 300))]
    scaled = integers.scaled(v, math.frexp(max(v))[1])
    keys = integers.race_keys(scaled, RACES[race], 8, 2)
    order = sorted(range(len(v)), key=lambda i: (-keys[i], i))
    tau = keys[order[k]] if k < len(v) else 0.0
    expected = [0.0] * len(v)
    for i in order[:k]:
        if keys[i] > 0:
            expected[i] = max(1.0, tau / scaled[i]) if race == reference.PRIORITY_RACE else 1.0
    if k < len(v):
        counts, m = outputs(ops.race, v, k, race, 8, 2)
        assert m == expected
        assert counts == [int(x > 0) for x in expected]


# ---------------------------------------------------------------- parts of the tree
def wanted_patterns(tiles: int) -> list[Tensor]:
    g = torch.Generator().manual_seed(tiles)
    edges = [torch.zeros(tiles, dtype=torch.bool) for _ in range(3)]
    edges[0][0] = edges[1][-1] = True
    return [*edges, *(torch.rand(tiles, generator=g) < share for share in (0.05, 0.5, 1.0))]


@pytest.mark.parametrize("tiles", [1, 2, 5, 64, 300])
def test_wanted_tiles_have_the_draws_of_the_whole_tree(tiles: int) -> None:
    draw = random.Random(tiles)
    aligned = [draw.choice([0, 1, 1, 1]) * (draw.getrandbits(50) + 1) for _ in range(tiles - 1)] + [2**58]
    whole = integers.split(aligned, 2000, 11, 3)
    a = torch.tensor(aligned)
    assert torch.ops.sparseprune.split_draws(a, torch.empty(0, dtype=torch.bool), 2000, 11, 3).tolist() == whole
    for wanted in wanted_patterns(tiles):
        found = torch.ops.sparseprune.split_draws(a, wanted, 2000, 11, 3)
        assert found.tolist() == [n if w else 0 for n, w in zip(whole, wanted.tolist(), strict=True)]
