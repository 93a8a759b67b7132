"""The k largest of all."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from .. import ops
from ._arguments import Tensors, Transform
from ._ranks import Group, arguments


def top_k(
    scores: Tensors,
    k: int,
    *,
    transform: Transform = "given",
    factor: Tensors | None = None,
    output: Literal["bool", "weights", "indices"] = "bool",
    weights: Tensors | None = None,
    out: Tensors | None = None,
    group: Group = None,
) -> Tensor | list[Tensor]:
    """Keep exactly the k largest scores over all tensors; of equal ones those of lower flat index.

    Args: as in `multinomial`; the scores may be negative or zero. 1 <= k <= number of elements.
    Returns: bool masks, the weights with the rest set to 0, or ascending flat indices.
    Raises: ValueError naming tensor, flat index and value for a NaN or infinite score.
    Cost: about 2 reads of the scores and one more with the write, a few more for short or awkward vectors; no sort, no
        concatenation; O(numel / 4096) memory, and copies as in `multinomial`, of scores written in place too.
    """
    given = arguments("top_k", scores, transform, factor, group)
    given.one_of("output", output, ["bool", "weights", "indices"])
    return given.run(ops.top_k, given.count("k", k), output=output, weights=weights, out=out, reread=("scores",))
