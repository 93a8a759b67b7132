"""The reference against the law in Python integers and fractions: numbers, tiles, binomials and whole sketches."""

from __future__ import annotations

import math
import random
from fractions import Fraction

import numpy as np
import pytest
import torch

from sparseprune.ops import Vector, reference, sketch_multinomial
from sparseprune.ops.sketch import align

from .integers import TILE, WORD, aligned, binomial, multinomial, philox, quantized, random_number, wide_tile

# ---------------------------------------------------------------- known answers
# Random123's kat_vectors for philox 4x32 with 10 rounds: counter, key, output.
KNOWN = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([WORD - 1] * 4, [WORD - 1] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_philox_known_answers(counter, key, answer) -> None:
    c0, c1, c2, c3 = (torch.tensor([c]) for c in counter)
    found = reference.philox(c0, c1, c2, c3, key[0] | key[1] << 32)
    assert [int(word) for word in found] == answer == philox(counter, key)


def test_random_bits_name_an_element_not_a_lane() -> None:
    x, y = torch.tensor([0, 1, 2, 2**31 - 2, 7]), torch.tensor([0, 5, 2**28 - 1, 3, 9])
    for seed, stream, purpose, attempt in [(0, 0, 2, 0), (-1, 2**32 - 1, 7, 3), (0x123456789ABCDEF, 77, 1, 2**24 - 1)]:
        found = reference.random_bits(x, y, purpose, attempt, seed, stream)
        expected = [
            random_number(i, j, purpose, attempt, seed % 2**64, stream)
            for i, j in zip(x.tolist(), y.tolist(), strict=True)
        ]
        assert [int(n) % 2**64 for n in found] == expected


def test_popcount_mulhi_and_unsigned_order_are_exact() -> None:
    draw = random.Random(1)
    u = [0, 1, 2**63 - 1, 2**63, 2**64 - 1] + [draw.getrandbits(64) for _ in range(300)]
    m = [1, 2**63 - 1, 2**43 - 1, 2, 2**62 + 1] + [draw.randrange(1, 2**63) >> draw.randrange(63) for _ in range(300)]
    signed = torch.from_numpy(np.array(u, dtype=np.uint64).view(np.int64))
    assert reference.mulhi64(signed, torch.tensor(m)).tolist() == [x * y >> 64 for x, y in zip(u, m, strict=True)]
    low = [x % WORD for x in u]
    assert reference.popcount32(torch.tensor(low)).tolist() == [x.bit_count() for x in low]
    less = reference.unsigned_less(signed, signed.flip(0)).tolist()
    assert less == [x < y for x, y in zip(u, reversed(u), strict=True)]


# ---------------------------------------------------------------- tiles
@pytest.mark.parametrize(
    "top", [1.0, 0.5, math.nextafter(1.0, 0.0), 3.0e38, 1.4e-45, 1.7e308, 5e-324, 2.3e-308], ids=str
)
def test_quantised_scores_equal_exact_fractions(top: float) -> None:
    v = [x * top for x in wide_tile(random.Random(2), 40)]
    v[17] = top
    exponent, q = quantized(v)
    score = torch.tensor(v, dtype=torch.float64)
    exponents, masses, positives, bad = reference.score_tiles([score], [], reference.GIVEN)
    assert (exponents.tolist(), masses.tolist(), bad.tolist()) == ([exponent], [sum(q)], [-1])
    assert positives.tolist() == [sum(x > 0 for x in v)]
    assert reference.quantize(score.view(1, -1), exponents).view(-1).tolist() == q
    assert all((x > 0) == (n > 0) for x, n in zip(v, q, strict=True))  # a positive score can always be drawn


def test_rescaled_values_are_exact_or_the_least_normal_number() -> None:
    v = torch.tensor([1.7e308, 1.0, 5e-324, 1e-310, 0.0], dtype=torch.float64)
    for exponent in (1024, -1073, 0, 333):
        expected = [
            max(float(Fraction(x) / Fraction(2) ** exponent), 2.0**-1022) if x > 0 else 0.0
            for x in v.tolist()
            if math.frexp(x)[1] <= exponent or x == 0
        ]
        keep = torch.tensor([math.frexp(x)[1] <= exponent or x == 0 for x in v.tolist()])
        assert reference.rescale(v[keep], exponent).tolist() == expected


def tables() -> list[list[tuple[int, int]]]:
    draw = random.Random(3)
    fixed = [
        [(1024, 1)],
        [(-1073, 2**43 - 1)],
        [(1024, 2**43 - 1), (-1073, 1), (0, 0)],
        [(0, 0), (5, 2**31), (5, 2**31)],
        [(7, 2**43 - 2048)] * 300,
        [(0, 1)] * 1000 + [(40, 2**40)],
    ]
    return fixed + [
        [(draw.randrange(-60, 60), draw.randrange(2**43) >> draw.randrange(44)) for _ in range(draw.randrange(2, 400))]
        + [(0, 1)]
        for _ in range(60)
    ]


def test_aligned_masses_equal_exact_fractions_and_keep_their_bounds() -> None:
    for table in tables():
        e, m = (torch.tensor(column) for column in zip(*table, strict=True))
        found = align(e.to(torch.int32), m)
        assert found.tolist() == aligned(table)
        assert 2**58 <= int(found.sum()) < 2**60 + len(table)
        assert torch.equal(found > 0, m > 0)


def test_align_with_one_heavy_tile_among_a_million_floored_ones() -> None:
    tiles = 1 << 20
    exponents = torch.full((tiles,), -900, dtype=torch.int32)
    masses = torch.full((tiles,), 4096 << 30)
    exponents[12345] = 900
    found = align(exponents, masses)
    assert int((found == 1).sum()) == tiles - 1
    assert 2**58 <= int(found.sum()) < 2**60 + tiles
    per_tile = torch.ops.sparseprune.split_draws(found, torch.empty(0, dtype=torch.bool), 1_000_000, 3, 0)
    assert int(per_tile.sum()) == int(per_tile[12345]) == 1_000_000
    assert int(per_tile.min()) == 0


# ---------------------------------------------------------------- the whole law
def test_binomials_equal_the_law_bit_by_bit() -> None:
    draw = random.Random(4)
    cases = [
        (1, 40_000, 1, 3),
        (2, 16384, 2**60 - 1, 2**60),
        (3, 16385, 1, 2),
        (4, 0, 1, 2),
        (5, 9, 0, 7),
        (6, 9, 7, 7),
    ]
    cases += [
        (draw.randrange(2**28), draw.randrange(3000), n // 3, n) for n in (draw.getrandbits(60) for _ in range(60))
    ]
    node, n, part, whole = (torch.tensor(column) for column in zip(*cases, strict=True))
    found = reference.binomial(node, n, part, whole, 2**63 + 5 - 2**64, 9)
    assert found.tolist() == [binomial(*case, 2**63 + 5, 9) for case in cases]


@pytest.mark.parametrize(("size", "draws"), [(1, 3), (7, 500), (4096, 300), (4097, 1), (3 * 4096 + 11, 400)])
@pytest.mark.parametrize("seed", [0, 2**64 - 3])
def test_sketch_equals_the_law_draw_by_draw(size: int, draws: int, seed: int) -> None:
    v = wide_tile(random.Random(size), 12, size)
    v[0] = 1.0
    if size > 2 * TILE:
        v[TILE : 2 * TILE] = [0.0] * TILE  # an empty tile between others
    counts, m = multinomial(v, draws, seed, 6)
    score = torch.tensor(v, dtype=torch.float64)
    found = [torch.empty(size, dtype=torch.int32), torch.empty(size, dtype=torch.float64)]
    for output, out in zip((reference.COUNTS, reference.M), found, strict=True):
        signed = seed - (2**64 if seed >= 2**63 else 0)
        sketch_multinomial(Vector([score], [], reference.GIVEN, output, [score], [out]), draws, signed, 6)
    assert found[0].tolist() == counts
    assert sum(counts) == draws
    assert found[1].tolist() == m


def test_mean_of_m_is_one_by_the_integers_alone() -> None:
    """E[m_i] = s p~_i / (s p~_i): t_b / q_i is 1/(s p~_i) to 2^-50, whatever the quantisation did to p."""
    v = wide_tile(random.Random(8), 60, 2 * TILE + 5)
    tiles = [quantized(v[i : i + TILE]) for i in range(0, len(v), TILE)]
    masses = [sum(q) for _, q in tiles]
    a = aligned([(e, mass) for (e, _), mass in zip(tiles, masses, strict=True)])
    for (_, q), mass, share in zip(tiles, masses, a, strict=True):
        scale = float(sum(a)) / float(share) * float(mass) / 1000.0
        for x in {x for x in q if x}:
            p = Fraction(share, sum(a)) * Fraction(x, mass)
            assert abs(Fraction(1.0 * scale / float(x)) * 1000 * p - 1) < Fraction(1, 2**50)


def test_a_rejected_number_is_drawn_again() -> None:
    """Draw 516 of this seed is one of the few (one in 2^22) whose first 64 bits fall in the rejected remainder."""
    q, seed = 2**30 + 1, 120
    assert random_number(516, 0, 2, 0, seed, 0) * (q * TILE) % 2**64 < 2**64 % (q * TILE)
    out = torch.empty(TILE, dtype=torch.int32)
    score = torch.full((TILE,), q / 2**31, dtype=torch.float64)
    sketch_multinomial(Vector([score], [], reference.GIVEN, reference.COUNTS, [], [out]), 517, seed, 0)
    expected = [random_number(j, 0, 2, int(j == 516), seed, 0) * q * TILE // 2**64 // q for j in range(517)]
    assert torch.equal(out, torch.bincount(torch.tensor(expected), minlength=TILE).to(torch.int32))


def test_small_masses_draw_no_zero_at_their_edges() -> None:
    """With M = 7 every r is an edge: r equal to an inclusive sum belongs to the next positive element."""
    q = torch.zeros(2, TILE, dtype=torch.int64)
    q[:, [3, 4, 9, 4095]] = torch.tensor([1, 3, 2, 1])
    found = reference.draw_in_tiles(q, torch.tensor([400, 300]), torch.tensor([5, 6]), 3, 1)
    for tile, n, row in zip((5, 6), (400, 300), found, strict=True):
        r = [random_number(j, tile, 2, 0, 3, 1) * 7 >> 64 for j in range(n)]
        expected = torch.bincount(torch.tensor([(3, 4, 4, 4, 9, 9, 4095)[x] for x in r]), minlength=TILE)
        assert torch.equal(row, expected)
