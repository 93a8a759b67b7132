"""A histogram of the scores by their leading bits."""

# The language of kernels is not what pyright reads.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._elements import TILE, read, rescale
from ._histogram import add, tally
from ._vector import Vector, launch

BINS = tl.constexpr(1 << 18)


@triton.jit(do_not_specialize=["skip", "period", "exponent"])
def mass_histogram_kernel(
    score, factor, skip, numel, period, histogram, bad, exponent, TRANSFORM: tl.constexpr, FACTORED: tl.constexpr
):
    at = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    v = read(score, factor, at, at < numel, skip.to(tl.int64), period.to(tl.int64), TRANSFORM, FACTORED)
    wrong = ~((v >= 0) & (v < float("inf")))
    add(bad, tl.sum(wrong.to(tl.int64), axis=0))
    bits = rescale(tl.where(wrong, 0.0, v), exponent).to(tl.int64, bitcast=True)
    counted = bits > 0
    slot = bits >> 45
    tally(histogram, slot, tl.full([TILE], 1, tl.int64), counted)
    tally(histogram + BINS, slot, (bits >> 29) & 65535, counted)


def mass_histogram(scores: list[Tensor], factors: list[Tensor], transform: int, exponent: int) -> tuple[Tensor, Tensor]:
    """Counts of positive values in the bins bits(v 2^-exponent) >> 45, and sums of the next 16 bits: int64 [2, 2^18].

    Second, int64 [1], the number of scores that are NaN, infinite or negative; they are in no bin.
    """
    histogram = scores[0].new_zeros(2, BINS.value, dtype=torch.int64)
    bad = histogram.new_zeros(1)
    for run in Vector(scores, factors, transform).runs:
        launch(
            mass_histogram_kernel, run.tiles, run.score, run.factor, run.skip, run.numel, run.factor.numel(),
            histogram, bad, exponent, TRANSFORM=run.transform, FACTORED=run.factored,
        )  # fmt: skip
    return histogram, bad
