"""Weighted selection of exactly k, unbiased."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import ops
from ..ops import reference
from ._arguments import OUTPUTS, Output, Tensors, Transform
from ._ranks import Group, arguments


def priority(
    scores: Tensors,
    k: int,
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
    """Keep exactly k elements, unbiased: keys score / u, the k largest, m = max(1, tau / score), tau = key k + 1.

    Args: as in `multinomial`. With at most k positive scores all of them are kept with m = 1.
    Returns: m (float32, float64 for float64 scores), weights * m, 0/1 counts, bool masks or flat indices.
    Raises: as in `multinomial`.
    Cost: 2 reads of the scores (float64: 3), a sample, mostly no more, and 1 write; histograms of 4 MB.
    Reference: Duffield, Lund, Thorup 2007, "Priority sampling for estimation of arbitrary subset sums".
    """
    given = arguments("priority", scores, transform, factor, group)
    given.one_of("output", output, OUTPUTS)
    given.count("k", k)
    return given.run(
        ops.race, k, reference.PRIORITY_RACE, *given.randomness(seed, stream),
        output=output, weights=weights, dtype=dtype, out=out, reread=("scores", "weights"),
    )  # fmt: skip
