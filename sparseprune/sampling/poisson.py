"""Independent Poisson counts."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import ops
from ._arguments import OUTPUTS, Output, Tensors, Transform
from ._ranks import Group, arguments


def poisson(
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
    """Count every element apart: count_i ~ Poisson(draws p_i), m_i = count_i / (draws p_i), E[m_i] = 1.

    The counts sum to `draws` on average only; in return no element's count tells of another's.

    Args: as in `multinomial`; draws <= 2^30.
    Returns, Raises, Cost: as in `multinomial`.
    """
    given = arguments("poisson", scores, transform, factor, group)
    given.one_of("output", output, OUTPUTS)
    given.whole("draws", draws, 1, 1 << 30)
    return given.run(
        ops.sketch_poisson, draws, *given.randomness(seed, stream),
        output=output, weights=weights, dtype=dtype, out=out,
    )  # fmt: skip
