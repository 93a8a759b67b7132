"""Successive draws without replacement."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from .. import ops
from ..ops import reference
from ._arguments import Tensors, Transform
from ._ranks import Group, arguments


def without_replacement(
    scores: Tensors,
    k: int,
    *,
    seed: int,
    stream: int = 0,
    transform: Transform = "given",
    factor: Tensors | None = None,
    output: Literal["bool", "weights", "indices"] = "bool",
    weights: Tensors | None = None,
    out: Tensors | None = None,
    group: Group = None,
) -> Tensor | list[Tensor]:
    """Keep k elements by k successive draws without replacement, each with p proportional to what is left.

    Keys score / (-log u), the k largest: the same law as drawing one by one (Efraimidis & Spirakis 2006).

    Args: as in `multinomial`.
    Returns: exactly k kept, or every positive score where there are fewer: bool masks, masked weights or flat indices.
    Raises, Cost: as in `priority`.
    """
    given = arguments("without_replacement", scores, transform, factor, group)
    given.one_of("output", output, ["bool", "weights", "indices"])
    given.count("k", k)
    return given.run(
        ops.race, k, reference.SUCCESSIVE_RACE, *given.randomness(seed, stream),
        output=output, weights=weights, out=out, reread=("scores",),
    )  # fmt: skip
