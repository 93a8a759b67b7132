"""Sketches: counts with mean s p~ over one logical vector, by three laws that differ in how counts vary.

All read the scores twice and write once. Between the two passes stands a table of one exponent, one integer mass and
one number of positive scores a tile.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .reference import SYSTEMATIC, poisson_table, random_bits
from .vector import Table, Vector

MASK64 = (1 << 64) - 1


def align(exponents: Tensor, masses: Tensor) -> Tensor:
    """A_b: the tile masses M_b 2^e_b as integers on one scale, 2^58 <= sum A < 2^60 + T; 0 exactly where M_b is 0."""
    present = masses > 0
    exponents = exponents.to(torch.int64)
    top = int((exponents + torch.frexp(masses.to(torch.float64)).exponent).masked_fill(~present, -(1 << 20)).max())

    def scaled(bits: int) -> Tensor:
        shift = (bits - top + exponents).clamp(-63, 63)
        return torch.where(shift >= 0, masses << shift.clamp(min=0), masses >> (-shift).clamp(min=0))

    total = len(masses) + int(scaled(32).where(present, 0).sum())
    return scaled(92 - total.bit_length()).clamp(min=1).where(present, 0)


def draw(vector: Vector, table: Table, scales: Tensor, draws: Tensor, seed: int, stream: int) -> None:
    """Make the draws of every tile; scales: what turns count/q into m."""
    for part in vector.parts("mass"):
        torch.ops.sparseprune.draw_tiles(
            *part.source, part.ids, part.pick(table.exponents), part.pick(scales), part.pick(draws), seed, stream,
            vector.output, part.weights, part.out,
        )  # fmt: skip


def sketch_multinomial(vector: Vector, draws: int, seed: int, stream: int) -> None:
    """Write the result of `draws` draws with replacement, p proportional to the scores: Algorithm 1.

    Raises: BadScore, NoPositiveScore, before anything is written.
    """
    table = vector.table()
    aligned = align(table.exponents, table.masses)
    per_tile = torch.ops.sparseprune.split_draws(aligned, vector.wanted(), draws, seed, stream)
    f64 = torch.float64
    total = torch.tensor(draws, dtype=f64, device=vector.device)  # CUDA divides by a CPU scalar inexactly
    scales = (aligned.sum().to(f64) / aligned.to(f64)) * table.masses.to(f64) / total
    draw(vector, table, scales, per_tile, seed, stream)


def sketch_poisson(vector: Vector, draws: int, seed: int, stream: int) -> None:
    """Write the result of independent counts Poisson(draws p_i). Raises as `sketch_multinomial`."""
    table = vector.table()
    aligned = align(table.exponents, table.masses).tolist()
    total = sum(aligned)
    means = [max((draws * a << 62) // total, a > 0) for a in aligned]  # of each tile, in units of 2^-62
    whole, fraction = (
        torch.tensor(values, device=vector.device)
        for values in ([mean >> 62 for mean in means], [mean & ((1 << 62) - 1) for mean in means])
    )
    wanted = vector.wanted()
    ids = (wanted if wanted.numel() else torch.ones_like(whole)).nonzero().view(-1)
    per_tile = torch.zeros_like(whole)
    tails = poisson_table(vector.device)
    per_tile[ids] = torch.ops.sparseprune.poisson_counts(whole[ids], fraction[ids], ids, tails, seed, stream)
    f64 = torch.float64
    scales = table.masses.to(f64) / (whole.to(f64) + fraction.to(f64) * 2.0**-62)
    draw(vector, table, scales, per_tile, seed, stream)


def gains(lengths: list[int], masses: list[int]) -> tuple[list[int], list[int]]:
    """G and g with G = floor(N 2^g / M) and 2^62 <= G < 2^63, for every tile; G = 0 where the length N is 0."""
    ratios = [(n << 106) // m if n else 0 for n, m in zip(lengths, masses, strict=True)]
    excess = [max(ratio.bit_length() - 63, 0) for ratio in ratios]
    return [ratio >> e for ratio, e in zip(ratios, excess, strict=True)], [106 - e if e else 1 for e in excess]


def sketch_systematic(vector: Vector, draws: int, seed: int, stream: int) -> None:
    """Write counts that are floor or ceil of draws p_i, by one random offset. Raises as `sketch_multinomial`."""
    table = vector.table()
    aligned = align(table.exponents, table.masses)
    bits = 60 - draws.bit_length()
    positives = table.positives.to(torch.int64)
    total, shared = int(aligned.sum()), (draws << bits) - int(positives.sum())  # every positive score owns 1
    ends = [shared * c // total for c in aligned.cumsum(0).tolist()]
    lengths = [end - begin for end, begin in zip(ends, [0, *ends[:-1]], strict=True)]
    zero = torch.zeros((), dtype=torch.int64, device="cpu")
    start = (int(random_bits(zero, zero, SYSTEMATIC, 0, seed, stream)) & MASK64) >> (64 - bits)
    length, gain, shift = (
        torch.tensor(x, device=vector.device) for x in (lengths, *gains(lengths, table.masses.tolist()))
    )
    begins = (length.cumsum(0) - length) + (positives.cumsum(0) - positives)
    for part in vector.parts("mass"):
        torch.ops.sparseprune.systematic_tiles(
            *part.source, *(part.pick(t) for t in (table.exponents, begins, length, gain, shift)), start, bits,
            vector.output, part.weights, part.out,
        )  # fmt: skip
