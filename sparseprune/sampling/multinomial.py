"""Draws with replacement: Algorithm 1 of Bar & Giryes 2023."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import ops
from ._arguments import OUTPUTS, Output, Tensors, Transform
from ._ranks import Group, arguments


def multinomial(
    scores: Tensors,
    draws: int,
    *,
    seed: int,
    stream: int = 0,
    transform: Transform = "given",
    factor: Tensors | None = None,
    output: Output = "m",
    weights: Tensors | None = None,
    dtype: torch.dtype | None = None,
    out: Tensors | None = None,
    group: Group = None,
) -> Tensor | list[Tensor]:
    """Draw `draws` elements with replacement, p proportional to the scores: m_i = count_i / (draws p_i).

    E[m_i] = 1 for every positive score: p is the quantised law that is sampled exactly (docs/sampler.md).

    Args:
        scores: tensor or list of tensors, float16/bfloat16/float32/float64, finite and non-negative after `transform`.
        draws: s, 1 <= s < 2^31.
        seed, stream: counters of the Philox generator; the same pair gives the same bits on every device.
        transform, factor: fused score; a factor broadcasts to the shape of its score tensor.
        output: "m" (float32, float64 for float64 scores), "counts" (int32), "weights" (weights * m), "bool" (count > 0)
            or "indices" (int64, flat indices of the logical vector, ascending).
        weights: what m multiplies for "weights"; the scores themselves if absent.
        dtype: another floating type for "m" (not float16) or "weights": one rounding (half types by way of float32).
        out: contiguous tensors to write into.
        group: a torch.distributed process group whose ranks all call this: the logical vector is the concatenation of
            their `scores` in rank order, and every rank gets its own part of the result. DTensors (row or column
            shards, several mesh dimensions, copies) need none: the vector is that of the global tensors; weights and
            out are DTensors placed alike, a factor may also be a plain tensor that broadcasts to the global shape.
    Returns: a tensor, or a list like `scores`; DTensors for DTensors. The bits do not depend on the split over ranks;
        indices are those of a rank's own elements, numbered globally.
    Raises: ValueError naming tensor, flat index and value for a NaN, infinite or negative score; for scores all zero.
    Cost: 2 reads of the scores and 1 write, whatever s; O(numel / 4096) memory beside the output. Copies are made of
        inputs that are strided or overlap `out`, and of a factor that does not just repeat over leading dimensions.
    Reference: Bar & Giryes 2023, arXiv:2305.17559, Algorithm 1.
    """
    given = arguments("multinomial", scores, transform, factor, group)
    given.one_of("output", output, OUTPUTS)
    given.whole("draws", draws, 1, (1 << 31) - 1)
    return given.run(
        ops.sketch_multinomial, draws, *given.randomness(seed, stream),
        output=output, weights=weights, dtype=dtype, out=out,
    )  # fmt: skip
