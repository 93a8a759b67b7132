"""Exact selection of the k largest values over a list of tensors, ties by index: digit histograms, no sort, no copy."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _library  # noqa: F401  (registers torch.ops.sparseprune)

# Digits of the 64-bit key, from the top. The first holds sign and exponent: its end bins are infinities and NaN.
WIDE = ((52, 12), (40, 12), (28, 12), (14, 14), (0, 14))
NARROW = ((52, 12), (40, 12), (29, 11))  # values that are exact in fp32 have 29 zero bits at the end


class NotFinite(ValueError):
    """A score is NaN or infinite."""


def top_k(
    scores: list[Tensor],
    k: int,
    *,
    transform: int,
    factors: list[Tensor],
    output: int,
    weights: list[Tensor],
    out: list[Tensor],
) -> None:
    """Write the mask (or the masked weights) of the k largest transformed scores into `out`: exactly k <= numel.

    Args: as in `sketch_multinomial`; output BOOL or WEIGHTS; scores of any sign.
    Raises:
        NotFinite: before anything is written.
    Cost: one read of the scores per digit (3 for fp32), one for ties, one more with the write; O(numel / 4096) memory.
    """
    ops = torch.ops.sparseprune
    narrow = not factors and transform != 2 and all(score.dtype != torch.float64 for score in scores)
    threshold, need, tied = 0, k, 0
    shift = 64
    for shift, bits in NARROW if narrow else WIDE:
        first = shift + bits == 64
        histogram = ops.key_histogram(scores, factors, transform, threshold, shift, bits)
        if first and int(histogram[0] + histogram[-1]) > 0:
            raise NotFinite("a score is NaN or infinite")
        above = histogram.flip(0).cumsum(0)
        place = int((above >= need).to(torch.uint8).argmax())
        digit = len(histogram) - 1 - place
        tied = int(histogram[digit])
        need -= int(above[place]) - tied
        threshold = digit - (1 << (bits - 1)) if first else (threshold << bits) | digit
        if tied == need:  # the whole bin is kept: lower digits decide nothing
            break
    if tied == need:
        tiles = -(-sum(score.numel() for score in scores) // 4096)
        quota = torch.full((tiles,), 4096, dtype=torch.int64, device=scores[0].device)
    else:
        ties = ops.key_ties(scores, factors, transform, threshold, shift)
        quota = torch.minimum((need - (ties.cumsum(0) - ties)).clamp(min=0), ties)
    ops.key_mark(scores, factors, transform, threshold, shift, quota, output, weights, out)
