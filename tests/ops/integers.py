"""The laws in Python integers, fractions and floats: a second derivation that shares no code with the library."""

from __future__ import annotations

import itertools
import math
import random
import struct
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from fractions import Fraction

TILE, WORD = 4096, 1 << 32


# ---------------------------------------------------------------- random numbers
def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 as published: two 32 x 32 products a round, key bumped by the Weyl constants between rounds."""
    (a, b, c, d), (k, l) = counter, key  # noqa: E741
    for _ in range(10):
        x, y = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, d = y // WORD ^ b ^ k, y % WORD, x // WORD ^ d ^ l, x % WORD
        k, l = (k + 0x9E3779B9) % WORD, (l + 0xBB67AE85) % WORD  # noqa: E741
    return [a, b, c, d]


def words(c0: int, c1: int, purpose: int, attempt: int, seed: int, stream: int) -> list[int]:
    return philox([c0, c1, stream, purpose + 256 * attempt], [seed % WORD, seed // WORD % WORD])


def random_number(x: int, y: int, purpose: int, attempt: int, seed: int, stream: int) -> int:
    low, high = words(x // 2, y, purpose, attempt, seed, stream)[2 * (x % 2) :][:2]
    return low + WORD * high


# ---------------------------------------------------------------- tiles
def wide_tile(draw: random.Random, spread: int, size: int = TILE) -> list[float]:
    return [draw.choice([0.0, 1.0, 1.0]) * math.ldexp(draw.random(), draw.randrange(-spread, 1)) for _ in range(size)]


def quantized(v: list[float]) -> tuple[int, list[int]]:
    e = math.frexp(max(v))[1]
    return e, [max(1, math.floor(Fraction(x) * Fraction(2) ** (31 - e))) if x > 0 else 0 for x in v]


def aligned(table: list[tuple[int, int]]) -> list[int]:
    """A_b from (e_b, M_b), by exact fractions."""
    top = max(e + m.bit_length() for e, m in table if m)
    h = len(table) + sum(math.floor(m * Fraction(2) ** (32 - top + e)) for e, m in table if m)
    shift = 92 - h.bit_length() - top
    return [max(1, math.floor(m * Fraction(2) ** (shift + e))) if m else 0 for e, m in table]


def tiles(v: list[float]) -> tuple[list[list[int]], list[int], list[int]]:
    """q and mass of every tile, and the aligned masses."""
    found = [quantized(v[i : i + TILE]) for i in range(0, len(v), TILE)]
    masses = [sum(q) for _, q in found]
    return [q for _, q in found], masses, aligned([(e, mass) for (e, _), mass in zip(found, masses, strict=True)])


# ---------------------------------------------------------------- multinomial
def binomial(node: int, n: int, part: int, whole: int, seed: int, stream: int) -> int:
    if part == whole:
        return n
    result = 0
    for h in range(-(-n // 16384)):
        left, a, plane = min(16384, n - 16384 * h), part, 0
        while left > 0 and a > 0:
            a, bit = (2 * a) % whole, 2 * a >= whole
            calls = [words(128 * h + i, node, 1, plane, seed, stream) for i in range(-(-left // 128))]
            stream_of_bits = sum(word << (32 * i) for i, word in enumerate(w for call in calls for w in call))
            ones = (stream_of_bits & ((1 << left) - 1)).bit_count()
            result, left = (result + ones, left - ones) if bit else (result, ones)
            plane += 1
    return result


def split(masses: list[int], draws: int, seed: int, stream: int) -> list[int]:
    leaves = 1 << (len(masses) - 1).bit_length()
    heap = [0] * leaves + masses + [0] * (leaves - len(masses))
    for i in range(leaves - 1, 0, -1):
        heap[i] = heap[2 * i] + heap[2 * i + 1]
    count = [0, draws] + [0] * (2 * leaves - 2)
    for i in range(1, leaves):
        count[2 * i] = binomial(i, count[i], heap[2 * i], heap[i], seed, stream) if count[i] else 0
        count[2 * i + 1] = count[i] - count[2 * i]
    return count[leaves : leaves + len(masses)]


def draws_in_tile(q: list[int], n: int, tile: int, seed: int, stream: int) -> list[int]:
    counts, mass = [0] * len(q), sum(q)
    for j in range(n):
        attempt = 0
        while (u := random_number(j, tile, 2, attempt, seed, stream)) * mass % 2**64 < 2**64 % mass:
            attempt += 1
        r = u * mass >> 64
        element = 0
        while r >= q[element]:
            r -= q[element]
            element += 1
        counts[element] += 1
    return counts


def multinomial(v: list[float], draws: int, seed: int, stream: int) -> tuple[list[int], list[float]]:
    """Counts and m = fp64 count / (s p~) of the whole vector, draw by draw."""
    qs, masses, a = tiles(v)
    counts, m = [], []
    for b, n in enumerate(split(a, draws, seed, stream)):
        counts += draws_in_tile(qs[b], n, b, seed, stream)
        scale = float(sum(a)) / float(a[b]) * float(masses[b]) / float(draws) if masses[b] else 0.0
        m += [float(c) * scale / float(x) if c else 0.0 for c, x in zip(counts[b * TILE :], qs[b], strict=True)]
    return counts, m


# ---------------------------------------------------------------- poisson
def poisson_tails(mean: int, entries: int) -> list[Decimal]:
    """2^64 P(X > k) to 80 decimal digits."""
    with localcontext(Context(prec=80)):
        term, tail, tails = (-Decimal(mean)).exp(), Decimal(1), []
        for k in range(entries):
            tail -= term
            term *= Decimal(mean) / (k + 1)
            tails.append(tail * 2**64)
    return tails


def poisson_table(mean: int, entries: int) -> list[int]:
    """The tails rounded; entry k = mean makes their sum exact."""
    table = [int(tail.to_integral_value(ROUND_HALF_EVEN)) for tail in poisson_tails(mean, entries)]
    table[mean] += mean * 2**64 - sum(table)
    return table


TAILS = {1: poisson_table(1, 20), 32: poisson_table(32, 96)}


def poisson_count(mean: int, tile: int, seed: int, stream: int) -> int:
    """Poisson(mean / 2^62): whole parts of 32 and of 1, and one more of 1 that is thinned."""
    if mean == 0:
        return 0
    whole, fraction = divmod(mean, 2**62)
    laws = [32] * (whole // 32) + [1] * (whole % 32 + 1)
    variates = [
        sum(random_number(x, tile, 3, 0, seed, stream) < tail for tail in TAILS[law]) for x, law in enumerate(laws)
    ]
    kept = sum(random_number(x, tile, 3, 1, seed, stream) >> 2 < fraction for x in range(variates[-1]))
    return sum(variates[:-1]) + kept


def poisson(v: list[float], draws: int, seed: int, stream: int) -> tuple[list[int], list[float]]:
    qs, masses, a = tiles(v)
    counts, m = [], []
    for b, (q, mass, share) in enumerate(zip(qs, masses, a, strict=True)):
        mean = max(draws * share * 2**62 // sum(a), 1) if share else 0
        counts += draws_in_tile(q, poisson_count(mean, b, seed, stream), b, seed, stream)
        scale = float(mass) / (float(mean >> 62) + float(mean % 2**62) * 2.0**-62) if mass else 0.0
        m += [float(c) * scale / float(x) if c else 0.0 for c, x in zip(counts[b * TILE :], q, strict=True)]
    return counts, m


# ---------------------------------------------------------------- systematic
def systematic_ends(v: list[float], draws: int) -> tuple[list[int], int]:
    """Where every element ends on a line of `draws` steps of 2^bits; each positive one is at least 1 long."""
    qs, masses, a = tiles(v)
    bits = 60 - draws.bit_length()
    shared = draws * 2**bits - sum(x > 0 for x in v)
    ends, positives, begin = [], 0, 0
    for q, mass, inclusive in zip(qs, masses, itertools.accumulate(a), strict=True):
        end = shared * inclusive // sum(a)
        g, gain = 0, Fraction(end - begin, max(mass, 1))
        while gain and gain < 2**62:
            g, gain = g + 1, gain * 2
        for x, total in zip(q, itertools.accumulate(q), strict=True):
            positives += x > 0
            share = end - begin if total == mass and mass else total * math.floor(gain) >> g
            ends.append(begin + share + positives)
        begin = end
    return ends, bits


def systematic(v: list[float], draws: int, seed: int, stream: int) -> tuple[list[int], list[float]]:
    ends, bits = systematic_ends(v, draws)
    start = random_number(0, 0, 4, 0, seed, stream) >> (64 - bits)
    marks = [(y + start) // 2**bits for y in [0, *ends]]
    counts = [b - a for a, b in itertools.pairwise(marks)]
    lengths = [b - a for a, b in itertools.pairwise([0, *ends])]
    return counts, [float(c) * 2.0**bits / float(x) if c else 0.0 for c, x in zip(counts, lengths, strict=True)]


# ---------------------------------------------------------------- bernoulli
def scaled(v: list[float], exponent: int) -> list[float]:
    return [max(math.ldexp(x, -exponent), 2.0**-1022) if x > 0 else 0.0 for x in v]


def bits_of(x: float) -> int:
    return struct.unpack("q", struct.pack("d", x))[0]


def histogram(v: list[float]) -> list[tuple[int, float]]:
    """Count and mass of the scores that share sign, exponent and 7 bits of the mantissa, ascending."""
    bins: dict[int, list[int]] = {}
    for x in v:
        if x > 0:
            bins.setdefault(bits_of(x) >> 45, []).append(bits_of(x) >> 29 & 65535)
    return [
        (len(low), math.ldexp(float(len(low) * (128 + i % 128) * 65536 + sum(low)), i // 128 - 1046))
        for i, low in sorted(bins.items())
    ]


def rate(bins: list[tuple[int, float]], k: int) -> float:
    below = list(itertools.accumulate(mass for _, mass in bins))
    for (n, mass), total in zip(reversed(bins), reversed(below), strict=True):
        c = k / total
        if c * (mass / n) <= 1:
            return c
        k -= n
    raise AssertionError(k)


def bernoulli(v: list[float], k: int, seed: int, stream: int) -> tuple[list[int], list[float]]:
    v = scaled(v, math.frexp(max(v))[1])
    c = rate(histogram(v), k) if sum(x > 0 for x in v) > k else math.inf
    counts, m = [], []
    for i, x in enumerate(v):
        t = max(1, math.floor(Fraction(min(1.0, c * x)) * 2**62)) if x > 0 else 0
        counts.append(int(random_number(i % TILE, i // TILE, 6, 0, seed, stream) >> 2 < t))
        m.append(2.0**62 / float(t) if counts[-1] else 0.0)
    return counts, m


# ---------------------------------------------------------------- races
def minus_log(u: float) -> float:
    f, e = math.frexp(u)
    if f < 0.7071067811865476:
        f, e = f * 2.0, e - 1
    s = (f - 1.0) / (f + 1.0)
    series = 1.0 / 21.0
    for odd in range(19, 0, -2):
        series = series * (s * s) + 1.0 / odd
    return max(-(float(e) * 0.6931471805599453 + 2.0 * (s * series)), 2.0**-64)


def race_keys(v: list[float], purpose: int, seed: int, stream: int, first: int = 0) -> list[float]:
    """v/u (purpose 5) or v/(-log u) (purpose 7), by the elements' own random numbers; `first`: number of the tile."""
    keys = []
    for i, x in enumerate(v, first * TILE):
        high, low = divmod(random_number(i % TILE, i // TILE, purpose, 0, seed, stream), WORD)
        u = float(high) * 2.0**-32 + (float(low) + 1.0) * 2.0**-64
        keys.append(x / (u if purpose == 5 else minus_log(u)))
    return keys
