"""Scores as one logical vector in tiles, and each tile as integers on its own power of two."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

TILE = 4096
BLOCK = 1024  # tiles held in memory at once
GIVEN, ABS, SQUARE = range(3)


def score_values(score: Tensor, factor: Tensor | None, transform: int) -> Tensor:
    """v = score f, |score f| or score^2 f, flat fp64: one product of exactly converted inputs (square: two)."""
    v = score.reshape(-1).to(torch.float64)
    if transform == SQUARE:
        v = v * v
    if factor is not None and v.numel() > 0:
        v = (v.view(-1, factor.numel()) * factor.reshape(1, -1).to(torch.float64)).view(-1)
    return v.abs() if transform == ABS else v + 0.0  # -0 becomes 0


def values_between(begin: int, end: int, score: Tensor, factor: Tensor | None, transform: int) -> Tensor:
    """The values of some elements only."""
    if factor is not None:
        factor = factor.view(-1)[torch.arange(begin, end, device=score.device) % factor.numel()]
    return score_values(score.view(-1)[begin:end], factor, transform)


def tile_blocks(scores: list[Tensor], factors: list[Tensor], transform: int) -> Iterator[tuple[int, Tensor]]:
    """Yield (first tile, v [tiles, TILE]) of the logical vector; absent elements are 0."""
    parts: list[Tensor] = []
    held = first = 0
    for i, score in enumerate(scores):
        begin = 0
        while begin < score.numel():
            end = min(score.numel(), begin + BLOCK * TILE - held)
            parts.append(values_between(begin, end, score, factors[i] if factors else None, transform))
            held += end - begin
            begin = end
            if held == BLOCK * TILE:
                yield first, torch.cat(parts).view(-1, TILE)
                parts, held, first = [], 0, first + BLOCK
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


def tile_numbers(ids: Tensor, first: int, tiles: int) -> Tensor:
    """The numbers in the one global vector of the tiles first ... first + tiles - 1; without `ids` their own."""
    return ids[first : first + tiles] if ids.numel() else torch.arange(first, first + tiles, device=ids.device)


def score_tiles(
    scores: list[Tensor], factors: list[Tensor], transform: int, exponents: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each tile exponent e_b (int32), mass M_b (int64) and positive scores (int32); the first bad index or -1.

    `exponents`: empty, or those to use, where tiles are only parts of their whole.
    """
    own, masses, positives, bad = [], [], [], -1
    for first, v in tile_blocks(scores, factors, transform):
        wrong = ~((v >= 0) & (v < torch.inf)).view(-1)
        if bad < 0 and bool(wrong.any()):
            bad = first * TILE + int(wrong.to(torch.uint8).argmax())
        v = v.where(~wrong.view_as(v), 0.0)
        given = exponents[first : first + len(v)]
        own.append(given if given.numel() else torch.frexp(v.amax(dim=1)).exponent)
        masses.append(quantize(v, own[-1]).sum(dim=1))
        positives.append((v > 0).sum(dim=1, dtype=torch.int32))
    return torch.cat(own), torch.cat(masses), torch.cat(positives), masses[0].new_tensor([bad])
