"""Draws with replacement inside every tile, fused with the output."""

from __future__ import annotations

import torch
from torch import Tensor

from .philox import DRAW, mulhi64, random_bits, unsigned_less
from .scores import quantize, tile_blocks, tile_numbers
from .writer import FlatWriter

BLOCK = 1 << 18  # draws at once


def below(m: Tensor, j: Tensor, tile: Tensor, seed: int, stream: int) -> Tensor:
    """Uniform integers in [0, m), m > 0, without error (rejection): for the draws j of tiles `tile`."""
    modulus = (torch.remainder(1 << 62, m) * 4) % m  # 2^64 mod m
    r, pending, attempt = torch.zeros_like(j), torch.ones_like(j, dtype=torch.bool), 0
    while bool(pending.any()):
        u = random_bits(j[pending], tile[pending], DRAW, attempt, seed, stream)
        accept = ~unsigned_less(u * m[pending], modulus[pending])
        where = pending.nonzero().view(-1)[accept]
        r[where] = mulhi64(u[accept], m[where])
        pending[where] = False
        attempt += 1
    return r


def draw_in_tiles(q: Tensor, n: Tensor, tile: Tensor, seed: int, stream: int) -> Tensor:
    """Counts [tiles, TILE]: n_b draws in each tile with probabilities q / sum q, without error."""
    inclusive = q.cumsum(dim=1)
    mass, ends = inclusive[:, -1], n.cumsum(0)
    base = mass.cumsum(0) - mass  # one search over all tiles: masses are < 2^43, and there are at most 2^10
    line = (inclusive + base.unsqueeze(1)).view(-1)
    counts = torch.zeros_like(line)
    for begin in range(0, int(ends[-1]), BLOCK):
        draw = torch.arange(begin, min(begin + BLOCK, int(ends[-1])), device=n.device)
        rows = torch.searchsorted(ends, draw, right=True)
        r = below(mass[rows], draw - (ends - n)[rows], tile[rows], seed, stream)
        found = torch.searchsorted(line, r + base[rows], right=True)
        counts.index_add_(0, found, torch.ones_like(found))
    return counts.view_as(q)


def multiplier(counts: Tensor, q: Tensor, scale: Tensor) -> Tensor:
    """m = (count t_b) / q in fp64, 0 where the count is 0."""
    m = (counts.to(torch.float64) * scale.unsqueeze(1)) / q.to(torch.float64)
    return torch.where(counts > 0, m, 0.0)


def draw_tiles(
    scores: list[Tensor],
    factors: list[Tensor],
    transform: int,
    ids: Tensor,
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
        counts = draw_in_tiles(q, draws[block], tile_numbers(ids, first, len(v)), seed, stream)
        flat.write(counts, multiplier(counts, q, scales[block]))
