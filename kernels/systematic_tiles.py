"""Systematic counts inside every tile: marks at equal distances on lengths proportional to the scores."""

# The language of kernels is not what pyright reads.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ._elements import BOOL, COUNTS, TILE, power_of_two, quantize, read, tile_number, write
from ._vector import Outputs, Vector, launch


@triton.jit
def shift_product(a, b, shift):
    """floor(a b / 2^shift) of a 128-bit product, for 0 <= shift < 128, where it fits."""
    a, b, s = a.to(tl.uint64), b.to(tl.uint64), shift.to(tl.uint64)
    high, low = tl.umulhi(a, b), tl.mul(a, b, sanitize_overflow=False)
    near = tl.where(s == 0, low, (high << ((64 - s) & 63)) | (low >> (s & 63)))
    return tl.where(s < 64, near, high >> (s & 63)).to(tl.int64)


@triton.jit(do_not_specialize=["first", "skip", "period", "start", "bits"])
def systematic_tiles_kernel(
    score, factor, listed, first, skip, numel, period, exponents, begins, lengths, gains, shifts, weight, out,
    start, bits,
    TRANSFORM: tl.constexpr, FACTORED: tl.constexpr, LISTED: tl.constexpr, OUTPUT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    tile = tile_number(listed, first, row, LISTED)
    at = row * TILE + tl.arange(0, TILE)
    live = at < numel
    v = read(score, factor, at, live, skip.to(tl.int64), period.to(tl.int64), TRANSFORM, FACTORED)
    q = quantize(v, tl.load(exponents + tile))
    mass, whole = tl.sum(q, axis=0), tl.load(lengths + tile)
    gain, shift = tl.load(gains + tile), tl.load(shifts + tile)
    sums = tl.cumsum(q, axis=0)
    before = sums - q
    base = tl.load(begins + tile) + start
    positive = (v > 0).to(tl.int64)
    rank = tl.cumsum(positive, axis=0)
    # A tile without mass has q = 0 everywhere: both ends then agree, whatever they are.
    upper = base + tl.where(sums == mass, whole, shift_product(sums, gain, shift)) + rank
    lower = base + tl.where(before == mass, whole, shift_product(before, gain, shift)) + (rank - positive)
    count = (upper >> bits) - (lower >> bits)
    value = count.to(tl.float64)
    if OUTPUT != COUNTS and OUTPUT != BOOL:
        length = (upper - lower).to(tl.float64)
        value = (value * power_of_two(bits)) / tl.where(count > 0, length, 1.0)
    write(out, weight, at, live, value, OUTPUT, WIDE)


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
    vector = Vector(scores, factors, transform)
    outputs = Outputs(vector, output, weights, out)
    for run in vector.runs:
        target = outputs.of(run)
        launch(
            systematic_tiles_kernel, run.tiles, *run.inputs, exponents, begins, lengths, gains, shifts,
            target.weight, target.out, start, bits, num_warps=16, **run.options, **target.options,
        )  # fmt: skip
    outputs.scatter()
