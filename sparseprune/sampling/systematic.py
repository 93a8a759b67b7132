"""Counts by one random offset."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import ops
from ._arguments import OUTPUTS, Output, Tensors, Transform
from ._ranks import Group, arguments


def systematic(
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
    """Lay the scores end to end, mark the line at `draws` equal distances from one random offset: count_i marks in i.

    count_i is floor or ceil of its mean and the counts sum to `draws`: the least variance that each element can have.
    Neighbours' counts depend on one another, so sums over neighbours vary less still, and not as independent draws do.

    Args: as in `multinomial`.
    Returns: as in `multinomial`; m_i = count_i / mean count, E[m_i] = 1.
    Raises, Cost: as in `multinomial`.
    Reference: Madow & Madow 1944, "On the theory of systematic sampling".
    """
    given = arguments("systematic", scores, transform, factor, group)
    given.one_of("output", output, OUTPUTS)
    given.whole("draws", draws, 1, (1 << 31) - 1)
    return given.run(
        ops.sketch_systematic, draws, *given.randomness(seed, stream),
        output=output, weights=weights, dtype=dtype, out=out,
    )  # fmt: skip
