"""Algorithm 1 of Bar & Giryes 2023: scores -> draws with replacement -> m = count/(s p), over one logical vector.

Two reads of the scores and one write of the output, whatever the number of draws. Everything between them is a table of
one exponent and one integer mass a tile.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import _library  # noqa: F401  (registers torch.ops.sparseprune)


class BadScore(ValueError):
    """A score that is NaN, infinite or negative, at a flat index of the logical vector."""

    def __init__(self, index: int) -> None:
        super().__init__(f"bad score at flat index {index}")
        self.index = index


class NoPositiveScore(ValueError):
    """Every score is zero: there is nothing to draw."""


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


def sketch_multinomial(
    scores: list[Tensor],
    draws: int,
    *,
    seed: int,
    stream: int,
    transform: int,
    factors: list[Tensor],
    output: int,
    weights: list[Tensor],
    out: list[Tensor],
) -> None:
    """Write m, counts, w m or count > 0 of `draws` draws with p proportional to the scores into `out`.

    Args:
        scores, weights, out: lists of contiguous tensors of equal sizes, one device (`weights` only for WEIGHTS).
        factors: empty, or one contiguous tensor a score, repeated along its leading dimensions.
        transform, output: the codes of `reference`.
    Raises:
        BadScore, NoPositiveScore: before anything is written.
    Cost: 2 reads of the scores, 1 write, O(numel / 4096) memory.
    """
    ops = torch.ops.sparseprune
    exponents, masses, bad = ops.score_tiles(scores, factors, transform)
    if int(bad) >= 0:
        raise BadScore(int(bad))
    if not bool(masses.any()):
        raise NoPositiveScore("no positive score")
    aligned = align(exponents, masses)
    per_tile = ops.split_draws(aligned, draws, seed, stream)
    f64 = torch.float64
    total = torch.tensor(draws, dtype=f64, device=masses.device)  # CUDA divides by a CPU scalar inexactly
    scales = (aligned.sum().to(f64) / aligned.to(f64)) * masses.to(f64) / total
    ops.draw_tiles(scores, factors, transform, exponents, scales, per_tile, seed, stream, output, weights, out)
