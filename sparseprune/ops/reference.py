"""The definition of every operation, in torch: what C++ and Triton must reproduce bit for bit.

`scores` is a list of contiguous tensors seen as one logical vector in tiles of TILE elements; `factors` is empty or
holds one contiguous tensor per score tensor, repeated along its leading dimensions. Integers are exact, fp64 steps are
single IEEE operations in the order written. Law and proofs: docs/sampler.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

TILE = 4096
BLOCK = 1024  # tiles held in memory at once
MASK32 = 0xFFFFFFFF
GIVEN, ABS, SQUARE = range(3)
M, COUNTS, WEIGHTS, BOOL = range(4)
NODE, DRAW = 1, 2  # purposes: the low byte of Philox's fourth counter word


# ---------------------------------------------------------------- scores
def score_values(score: Tensor, factor: Tensor | None, transform: int) -> Tensor:
    """v = score f, |score f| or score^2 f, flat fp64: one product of exactly converted inputs (square: two)."""
    v = score.reshape(-1).to(torch.float64)
    if transform == SQUARE:
        v = v * v
    if factor is not None and v.numel() > 0:
        v = (v.view(-1, factor.numel()) * factor.reshape(1, -1).to(torch.float64)).view(-1)
    return v.abs() if transform == ABS else v + 0.0  # -0 becomes 0


def tile_blocks(scores: list[Tensor], factors: list[Tensor], transform: int) -> Iterator[tuple[int, Tensor]]:
    """Yield (first tile, v [tiles, TILE]) of the logical vector; absent elements are 0."""
    parts: list[Tensor] = []
    held = first = 0
    for i, score in enumerate(scores):
        v = score_values(score, factors[i] if factors else None, transform)
        while held + v.numel() >= BLOCK * TILE:
            take = BLOCK * TILE - held
            yield first, torch.cat([*parts, v[:take]]).view(-1, TILE)
            parts, held, first, v = [], 0, first + BLOCK, v[take:]
        parts.append(v)
        held += v.numel()
    if held:
        pad = parts[0].new_zeros(-held % TILE)
        yield first, torch.cat([*parts, pad]).view(-1, TILE)


def power_of_two(exponent: Tensor) -> Tensor:
    """2^exponent as fp64, exactly, for -1022 <= exponent <= 1023."""
    return ((exponent.to(torch.int64) + 1023) << 52).view(torch.float64)


def rescale(v: Tensor, exponent: int) -> Tensor:
    """v 2^-exponent, but not below 2^-1022 where v > 0. In two steps, as 2^-exponent itself may not be finite."""
    half, rest = (power_of_two(torch.tensor(n)) for n in (-exponent >> 1, -exponent - (-exponent >> 1)))
    return torch.where(v > 0, ((v * half) * rest).clamp(min=2.0**-1022), 0.0)


def quantize(v: Tensor, exponent: Tensor) -> Tensor:
    """q = max(1, trunc(v 2^(31-e))) where v > 0, else 0. In two exact steps, as 2^(31-e) itself may not be finite."""
    shift = 31 - exponent.to(torch.int64).unsqueeze(1)
    half = shift >> 1
    q = ((v * power_of_two(half)) * power_of_two(shift - half)).to(torch.int64)
    return torch.where(v > 0, q.clamp(min=1), 0)


def score_tiles(scores: list[Tensor], factors: list[Tensor], transform: int) -> tuple[Tensor, Tensor, Tensor]:
    """Exponent e_b (int32 [T]) and mass M_b (int64 [T]) of each tile; the first bad flat index (int64 [1]) or -1."""
    exponents, masses, bad = [], [], -1
    for first, v in tile_blocks(scores, factors, transform):
        wrong = ~((v >= 0) & (v < torch.inf)).view(-1)
        if bad < 0 and bool(wrong.any()):
            bad = first * TILE + int(wrong.to(torch.uint8).argmax())
        v = v.where(~wrong.view_as(v), 0.0)
        exponent = torch.frexp(v.amax(dim=1)).exponent
        exponents.append(exponent)
        masses.append(quantize(v, exponent).sum(dim=1))
    return torch.cat(exponents), torch.cat(masses), masses[0].new_tensor([bad])


# ---------------------------------------------------------------- random numbers
def philox(
    c0: Tensor, c1: Tensor, c2: Tensor | int, c3: Tensor | int, seed: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10 (Salmon et al. 2011) on int64 tensors that hold 32-bit words."""
    k0, k1 = seed & MASK32, (seed >> 32) & MASK32
    c2, c3 = torch.as_tensor(c2, device=c0.device), torch.as_tensor(c3, device=c0.device)
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57  # the signed product wraps; its bits are the unsigned ones
        c0, c1, c2, c3 = ((p1 >> 32) & MASK32) ^ c1 ^ k0, p1 & MASK32, ((p0 >> 32) & MASK32) ^ c3 ^ k1, p0 & MASK32
        k0, k1 = (k0 + 0x9E3779B9) & MASK32, (k1 + 0xBB67AE85) & MASK32
    return c0, c1, c2, c3


def random_bits(x: Tensor, y: Tensor, purpose: int, attempt: int, seed: int, stream: int) -> Tensor:
    """R(x, y, purpose, attempt): 64 random bits in an int64."""
    w0, w1, w2, w3 = philox(x >> 1, y, stream, purpose + 256 * attempt, seed)
    odd = (x & 1).bool()
    return torch.where(odd, w2, w0) | (torch.where(odd, w3, w1) << 32)


def popcount32(x: Tensor) -> Tensor:
    x = x - ((x >> 1) & 0x55555555)
    x = (x & 0x33333333) + ((x >> 2) & 0x33333333)
    return ((((x + (x >> 4)) & 0x0F0F0F0F) * 0x01010101) >> 24) & 0xFF


def unsigned_less(a: Tensor, b: Tensor) -> Tensor:
    return (a ^ torch.iinfo(torch.int64).min) < (b ^ torch.iinfo(torch.int64).min)


def mulhi64(u: Tensor, m: Tensor) -> Tensor:
    """floor(u m / 2^64) for unsigned u < 2^64 and 0 <= m < 2^63."""
    u0, u1, m0, m1 = u & MASK32, (u >> 32) & MASK32, m & MASK32, m >> 32
    low, mid, cross = u0 * m0, u1 * m0, u0 * m1
    carry = ((low >> 32) & MASK32) + (mid & MASK32) + (cross & MASK32)
    return u1 * m1 + ((mid >> 32) & MASK32) + ((cross >> 32) & MASK32) + (carry >> 32)


# ---------------------------------------------------------------- draws over the tiles: a tree of exact binomials
def count_ones(calls: Tensor, node: Tensor, plane: int, left: Tensor, seed: int, stream: int) -> Tensor:
    """Ones among the first `left` bits of the Philox calls `calls`, `calls` + 1, ... of a node, per row."""
    rows = torch.repeat_interleave(torch.arange(len(left), device=left.device), (left + 127) >> 7)
    index = torch.arange(len(rows), device=left.device) - (((left + 127) >> 7).cumsum(0) - ((left + 127) >> 7))[rows]
    words = philox(calls[rows] + index, node[rows], stream, NODE + 256 * plane, seed)
    ones = torch.zeros_like(left)
    for j, word in enumerate(words):
        bits = (left[rows] - 128 * index - 32 * j).clamp(0, 32)
        ones.index_add_(0, rows, popcount32(word & ((1 << bits) - 1)))
    return ones


def binomial_chunk(
    node: Tensor, h: Tensor, left: Tensor, part: Tensor, whole: Tensor, seed: int, stream: int
) -> Tensor:
    """Binomial(left, part/whole), at most 2^14 trials: bit planes of uniforms against the digits of part/whole."""
    result, a, plane = torch.zeros_like(left), part, 0
    while bool((active := (left > 0) & (a > 0)).any()):
        a = 2 * a
        bit = a >= whole
        a = torch.where(bit, a - whole, a)
        ones = count_ones(128 * h, node, plane, torch.where(active, left, 0), seed, stream)
        result = torch.where(active & bit, result + ones, result)
        left = torch.where(active, torch.where(bit, left - ones, ones), left)
        plane += 1
    return result


def binomial(node: Tensor, n: Tensor, part: Tensor, whole: Tensor, seed: int, stream: int) -> Tensor:
    """Exact Binomial(n, part/whole), one per node: trials in chunks of 2^14."""
    result = torch.where(part == whole, n, 0)
    rows = torch.where((part > 0) & (part < whole), (n + 16383) >> 14, 0)
    owner = torch.repeat_interleave(torch.arange(len(n), device=n.device), rows)
    h = torch.arange(len(owner), device=n.device) - (rows.cumsum(0) - rows)[owner]
    for o, k in zip(owner.split(1024), h.split(1024), strict=True):
        left = (n[o] - (k << 14)).clamp(max=16384)
        result.index_add_(0, o, binomial_chunk(node[o], k, left, part[o], whole[o], seed, stream))
    return result


def split_draws(aligned: Tensor, draws: int, seed: int, stream: int) -> Tensor:
    """Draws per tile, int64 [T]: multinomial(draws, A_b / A) by a binary heap of exact binomials."""
    depth = (len(aligned) - 1).bit_length()
    levels = [torch.cat([aligned, aligned.new_zeros((1 << depth) - len(aligned))])]
    while len(levels[0]) > 1:
        levels.insert(0, levels[0].view(-1, 2).sum(dim=1))
    n = aligned.new_tensor([draws])
    for level, (whole, below) in enumerate(pairwise(levels)):
        node = torch.arange(1 << level, 2 << level, device=n.device)
        left = binomial(node, n, below[0::2], whole, seed, stream)
        n = torch.stack([left, n - left], dim=1).view(-1)
    return n[: len(aligned)]


# ---------------------------------------------------------------- draws inside the tiles
def draw_in_tiles(q: Tensor, n: Tensor, tile: Tensor, seed: int, stream: int) -> Tensor:
    """Counts [tiles, TILE]: n_b draws in each tile with probabilities q / sum q, without error (rejection)."""
    inclusive = q.cumsum(dim=1)
    mass = inclusive[:, -1]
    rows = torch.repeat_interleave(torch.arange(len(n), device=n.device), n)
    j = torch.arange(len(rows), device=n.device) - (n.cumsum(0) - n)[rows]
    m = mass[rows]
    modulus = (torch.remainder(1 << 62, m) * 4) % m  # 2^64 mod M; m > 0 wherever there is a draw
    r, pending, attempt = torch.zeros_like(j), torch.ones_like(j, dtype=torch.bool), 0
    while bool(pending.any()):
        u = random_bits(j[pending], tile[rows][pending], DRAW, attempt, seed, stream)
        accept = ~unsigned_less(u * m[pending], modulus[pending])
        where = pending.nonzero().view(-1)[accept]
        r[where] = mulhi64(u[accept], m[where])
        pending[where] = False
        attempt += 1
    base = mass.cumsum(0) - mass  # one search over all tiles: masses are < 2^43 and BLOCK is 2^10
    found = torch.searchsorted((inclusive + base.unsqueeze(1)).view(-1), r + base[rows], right=True)
    return torch.bincount(found, minlength=q.numel()).view_as(q)


def multiplier(counts: Tensor, q: Tensor, scale: Tensor) -> Tensor:
    """m = (count t_b) / q in fp64, 0 where the count is 0."""
    m = (counts.to(torch.float64) * scale.unsqueeze(1)) / q.to(torch.float64)
    return torch.where(counts > 0, m, 0.0)


def draw_tiles(
    scores: list[Tensor],
    factors: list[Tensor],
    transform: int,
    exponents: Tensor,
    scales: Tensor,
    draws: Tensor,
    seed: int,
    stream: int,
    output: int,
    weights: list[Tensor],
    out: list[Tensor],
) -> None:
    """Make the draws of every tile and write m, counts, w m or count > 0 into `out`."""
    flat = FlatWriter(scores, output, weights, out)
    for first, v in tile_blocks(scores, factors, transform):
        block = slice(first, first + len(v))
        q = quantize(v, exponents[block])
        tile = torch.arange(first, first + len(v), device=v.device)
        counts = draw_in_tiles(q, draws[block], tile, seed, stream)
        flat.write(counts, multiplier(counts, q, scales[block]))


class FlatWriter:
    """Writes consecutive pieces of the logical vector into the list of outputs."""

    def __init__(self, scores: list[Tensor], output: int, weights: list[Tensor], out: list[Tensor]) -> None:
        self.scores, self.output, self.weights, self.out = scores, output, weights, out
        self.at = 0

    def write(self, counts: Tensor, m: Tensor, write: Tensor | None = None) -> None:
        counts, m = counts.view(-1), m.view(-1)
        begin = 0
        for i, out in enumerate(self.out):
            size = out.numel()
            low, high = max(self.at, begin), min(self.at + counts.numel(), begin + size)
            if low < high:
                piece, source = slice(low - begin, high - begin), slice(low - self.at, high - self.at)
                target, values = out.view(-1)[piece], self.finish(i, piece, counts[source], m[source])
                where = slice(None) if write is None else write.view(-1)[source]  # the rest keeps its very bits
                target[where] = values[where].to(target.dtype)
            begin += size
        self.at += counts.numel()

    def finish(self, i: int, piece: slice, counts: Tensor, m: Tensor) -> Tensor:
        """fp32 m (fp64 for fp64 scores); w m is one product in the wider of the two types, then one rounding."""
        if self.output == COUNTS:
            return counts.to(torch.int32)
        if self.output == BOOL:
            return counts > 0
        m = m.to(torch.float64 if self.scores[i].dtype == torch.float64 else torch.float32)
        if self.output == WEIGHTS:
            w = self.weights[i].view(-1)[piece]
            m = m.to(torch.promote_types(m.dtype, w.dtype)) * w
        return m


# ---------------------------------------------------------------- exact global selection
def order_keys(v: Tensor) -> Tensor:
    """int64 keys that sort like the fp64 values: the bits, the low 63 inverted for negative numbers (-0 is 0)."""
    bits = (v + 0.0).view(torch.int64)
    return torch.where(bits < 0, bits ^ torch.iinfo(torch.int64).max, bits)


def key_histogram(
    scores: list[Tensor], factors: list[Tensor], transform: int, low: int, shift: int, bits: int, step: int
) -> Tensor:
    """How many keys lie in each of the bins [low + i 2^shift, low + (i + 1) 2^shift), over every step-th tile.

    int64 [2^bits + 2]: the bins, then the number of keys above them, then that of infinite and NaN values.
    """
    bins, numel = 1 << bits, sum(score.numel() for score in scores)
    total = scores[0].new_zeros(bins + 2, dtype=torch.int64)
    for first, v in tile_blocks(scores, factors, transform):
        sampled = torch.arange(first, first + len(v), device=v.device) % step == 0
        present = torch.arange(first * TILE, first * TILE + v.numel(), device=v.device).view_as(v) < numel
        v = v[sampled][present[sampled]]
        key = order_keys(v)
        offset = (key - low)[key >= low]  # wraps to the unsigned difference
        offset = (offset >> shift) & ((1 << (64 - shift)) - 1 if shift else -1)
        total[: bins + 1] += torch.bincount(
            torch.where((offset < 0) | (offset > bins), bins, offset), minlength=bins + 1
        )
        total[-1] += (~v.isfinite()).sum()
    return total


def key_mark(
    scores: list[Tensor],
    factors: list[Tensor],
    transform: int,
    threshold: int,
    shift: int,
    quota: Tensor,
    output: int,
    weights: list[Tensor],
    out: list[Tensor],
) -> Tensor:
    """Keep keys above the threshold and, in index order, the first quota_b of each tile's ties; write bool or weights.

    Scores are finite, as `key_histogram` has shown; above and tie are judged after `>> shift`. Tiles of quota -1 are
    left alone. Returns the ties a tile, int64 [T].
    """
    flat, numel, ties = FlatWriter(scores, output, weights, out), sum(score.numel() for score in scores), []
    for first, v in tile_blocks(scores, factors, transform):
        key = order_keys(v) >> shift
        tie = key == threshold
        tie.view(-1)[numel - first * TILE :] = False  # the padding is no element
        limit = quota[first : first + len(v)].unsqueeze(1)
        ties.append(torch.where(limit.view(-1) < 0, 0, tie.sum(dim=1)))
        keep = (key > threshold) | (tie & (tie.cumsum(dim=1) <= limit))
        flat.write(keep.to(torch.int64), keep.to(torch.float64), write=(limit >= 0).expand_as(v).contiguous())
    return torch.cat(ties)
