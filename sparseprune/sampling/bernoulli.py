"""Independent choices."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import ops
from ._arguments import OUTPUTS, Output, Tensors, Transform
from ._ranks import Group, arguments


def bernoulli(
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
    """Keep each element on its own with probability min(1, c score), `k` of them on average: m_i = 1 / probability.

    Args: as in `multinomial`. 1 <= k <= number of elements; where at most k scores are positive all of them are kept.
    Returns: as in `multinomial`; counts are 0 or 1, E[m_i] = 1. The expected number kept is k, less at most 1/128 of
        the elements within 1/128 octave of 1/c, plus at most 2^-23 k.
    Raises: as in `multinomial`.
    Cost: 2 reads (float64 scores: 3) and 1 write; a histogram of 4 MB.
    Reference: Poisson sampling, Hajek 1964.
    """
    given = arguments("bernoulli", scores, transform, factor, group)
    given.one_of("output", output, OUTPUTS)
    given.count("k", k)
    return given.run(
        ops.bernoulli, k, *given.randomness(seed, stream),
        output=output, weights=weights, dtype=dtype, out=out,
    )  # fmt: skip
