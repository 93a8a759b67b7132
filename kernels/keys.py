"""Exact selection by keys that sort like the fp64 values: digit histograms, ties per tile, marking."""

# The language of kernels is not what pyright reads.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._elements import TILE, read, tile_number, write
from ._vector import Outputs, Vector, launch

COPIES = 64  # of the histogram, so that programs seldom meet at one counter


@triton.jit
def order_keys(v):
    """The bits of v, the low 63 inverted for negative numbers."""
    bits = v.to(tl.int64, bitcast=True)
    return tl.where(bits < 0, bits ^ 0x7FFFFFFFFFFFFFFF, bits)


@triton.jit(do_not_specialize=["first", "skip", "numel", "period", "prefix", "shift", "copies"])
def key_histogram_kernel(
    score, factor, listed, first, skip, numel, period, histogram, prefix, shift, copies, BITS: tl.constexpr,
    TOP: tl.constexpr, TRANSFORM: tl.constexpr, FACTORED: tl.constexpr, LISTED: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    at = row * TILE + tl.arange(0, TILE)
    live = at < numel
    key = order_keys(read(score, factor, at, live, skip.to(tl.int64), period.to(tl.int64), TRANSFORM, FACTORED))
    digit = key >> shift
    origin = 1 << (BITS - 1) if TOP else 0  # the digit of the key 0
    if not TOP:
        live = live & ((digit >> BITS) == prefix)
        digit = digit & ((1 << BITS) - 1)
    bins = histogram + ((row % copies) << BITS) + origin
    zero = key == 0  # the common tie: one addition a tile
    tl.atomic_add(bins + digit, tl.full([TILE], 1, tl.int64), mask=live & ~zero, sem="relaxed")
    tl.atomic_add(bins, tl.sum((live & zero).to(tl.int64), axis=0), sem="relaxed")


@triton.jit(do_not_specialize=["first", "skip", "numel", "period", "threshold", "shift"])
def key_ties_kernel(
    score, factor, listed, first, skip, numel, period, ties, threshold, shift,
    TRANSFORM: tl.constexpr, FACTORED: tl.constexpr, LISTED: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    at = row * TILE + tl.arange(0, TILE)
    live = at < numel
    key = order_keys(read(score, factor, at, live, skip.to(tl.int64), period.to(tl.int64), TRANSFORM, FACTORED))
    tie = live & ((key >> shift) == threshold)
    tl.store(ties + tile_number(listed, first, row, LISTED), tl.sum(tie.to(tl.int64), axis=0))


@triton.jit(do_not_specialize=["first", "skip", "numel", "period", "threshold", "shift"])
def key_mark_kernel(
    score, factor, listed, first, skip, numel, period, quota, weight, out, threshold, shift,
    TRANSFORM: tl.constexpr, FACTORED: tl.constexpr, LISTED: tl.constexpr, OUTPUT: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    at = row * TILE + tl.arange(0, TILE)
    live = at < numel
    key = order_keys(read(score, factor, at, live, skip.to(tl.int64), period.to(tl.int64), TRANSFORM, FACTORED))
    digit = key >> shift
    tie = digit == threshold
    place = tl.cumsum(tie.to(tl.int32), axis=0)
    keep = (digit > threshold) | (tie & (place <= tl.load(quota + tile_number(listed, first, row, LISTED))))
    write(out, weight, at, live, keep.to(tl.float64), OUTPUT, WIDE)


def key_histogram(
    scores: list[Tensor], factors: list[Tensor], transform: int, prefix: int, shift: int, bits: int
) -> Tensor:
    """int64 [2^bits]: how often each digit (key >> shift) mod 2^bits occurs among keys with the higher bits `prefix`."""
    vector = Vector(scores, factors, transform)
    copies = min(COPIES, vector.tiles)
    histogram = scores[0].new_zeros(copies, 1 << bits, dtype=torch.int64)
    for run in vector.runs:
        launch(
            key_histogram_kernel, run.tiles, *run.inputs, histogram, prefix, shift, copies,
            BITS=bits, TOP=shift + bits == 64, **run.options,
        )  # fmt: skip
    return histogram.sum(dim=0)


def key_ties(scores: list[Tensor], factors: list[Tensor], transform: int, threshold: int, shift: int) -> Tensor:
    """int64 [T]: elements of each tile with key >> shift == threshold."""
    vector = Vector(scores, factors, transform)
    ties = scores[0].new_empty(vector.tiles, dtype=torch.int64)
    for run in vector.runs:
        launch(key_ties_kernel, run.tiles, *run.inputs, ties, threshold, shift, **run.options)
    return ties


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
) -> None:
    """Keep keys above the threshold and the first quota_b of each tile's ties, by index: write bool or weights."""
    vector = Vector(scores, factors, transform)
    outputs = Outputs(vector, output, weights, out)
    for run in vector.runs:
        target = outputs.of(run)
        launch(
            key_mark_kernel, run.tiles, *run.inputs, quota, target.weight, target.out, threshold, shift,
            **run.options, **target.options,
        )  # fmt: skip
    outputs.scatter()
