"""Exponent, quantised mass and number of positive scores of every tile, and the first bad score."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._elements import TILE, exponent_of, quantize, read, tile_number
from ._vector import Vector, launch

NONE = (1 << 63) - 1


@triton.jit(do_not_specialize=["first", "skip", "period"])
def score_tiles_kernel(
    score, factor, listed, first, skip, numel, period, exponents, masses, positives, bad,
    TRANSFORM: tl.constexpr, FACTORED: tl.constexpr, LISTED: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    tile = tile_number(listed, first, row, LISTED)
    lane = tl.arange(0, TILE)
    at = row * TILE + lane
    v = read(score, factor, at, at < numel, skip.to(tl.int64), period.to(tl.int64), TRANSFORM, FACTORED)
    wrong = ~((v >= 0) & (v < float("inf")))
    place = tl.min(tl.where(wrong, lane, TILE), axis=0)
    tl.atomic_min(bad, tile * TILE + place, mask=place < TILE, sem="relaxed")
    v = tl.where(wrong, 0.0, v)
    exponent = exponent_of(tl.max(v, axis=0))
    tl.store(exponents + tile, exponent)
    tl.store(masses + tile, tl.sum(quantize(v, exponent), axis=0))
    tl.store(positives + tile, tl.sum((v > 0).to(tl.int32), axis=0))


def score_tiles(scores: list[Tensor], factors: list[Tensor], transform: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each tile exponent e_b (int32), mass M_b (int64) and positive scores (int32); the first bad index or -1."""
    vector = Vector(scores, factors, transform)
    exponents = scores[0].new_empty(vector.tiles, dtype=torch.int32)
    masses = scores[0].new_empty(vector.tiles, dtype=torch.int64)
    positives = torch.empty_like(exponents)
    bad = scores[0].new_full((1,), NONE, dtype=torch.int64)
    for run in vector.runs:
        launch(score_tiles_kernel, run.tiles, *run.inputs, exponents, masses, positives, bad, **run.options)
    return exponents, masses, positives, torch.where(bad == NONE, -1, bad)
