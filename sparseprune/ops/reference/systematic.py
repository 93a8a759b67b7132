"""Systematic counts: one uniform offset over lengths proportional to the scores, marks at equal distances."""

from __future__ import annotations

import torch
from torch import Tensor

from .philox import mulhi64
from .scores import quantize, tile_blocks
from .writer import FlatWriter


def shift_product(a: Tensor, b: Tensor, shift: Tensor) -> Tensor:
    """floor(a b / 2^shift) for 0 <= a, b < 2^63, where it is below 2^63; shift is at least 1, or b = 0."""
    high, low = mulhi64(a, b), a * b
    s = shift.clamp(1, 63)
    near = (high << (64 - s)) | ((low >> s) & ((1 << (64 - s)) - 1))
    return torch.where(shift < 64, near, high >> (shift - 64).clamp(0, 63))


def systematic_tiles(
    scores: list[Tensor],
    factors: list[Tensor],
    transform: int,
    exponents: Tensor,
    begins: Tensor,
    lengths: Tensor,
    gains: Tensor,
    shifts: Tensor,
    start: int,
    bits: int,
    output: int,
    weights: list[Tensor],
    out: list[Tensor],
) -> None:
    """Share each tile's length among its positive scores, count the marks j 2^bits - start; write as `draw_tiles`.

    With Q the inclusive sums of q, an element ends at Y = begin + (Q gain >> shift) + positive scores so far.
    """
    flat = FlatWriter(scores, output, weights, out)
    for first, v in tile_blocks(scores, factors, transform):
        block = slice(first, first + len(v))
        sums = quantize(v, exponents[block]).cumsum(dim=1)
        share = shift_product(sums, gains[block].unsqueeze(1).expand_as(sums), shifts[block].unsqueeze(1))
        share = torch.where(sums == sums[:, -1:], lengths[block].unsqueeze(1), share)
        share = torch.where(sums[:, -1:] > 0, share, 0)
        ends = begins[block].unsqueeze(1) + share + (v > 0).cumsum(dim=1)
        starts = torch.cat([begins[block].unsqueeze(1), ends[:, :-1]], dim=1)
        counts = ((ends + start) >> bits) - ((starts + start) >> bits)
        m = (counts.to(torch.float64) * 2.0**bits) / (ends - starts).to(torch.float64)
        flat.write(counts, torch.where(counts > 0, m, 0.0))
