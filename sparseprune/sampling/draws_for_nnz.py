"""How many draws keep a given number of distinct elements."""

from __future__ import annotations

from .. import ops
from ._arguments import Tensors, Transform
from ._ranks import Group, arguments


def draws_for_nnz(
    scores: Tensors,
    nnz: int,
    *,
    transform: Transform = "given",
    factor: Tensors | None = None,
    group: Group = None,
) -> int:
    """The least s for which s draws with replacement keep `nnz` distinct elements on average: sum 1-(1-p_i)^s >= nnz.

    Args: as in `multinomial`; 1 <= nnz <= number of elements.
    Raises: ValueError as in `multinomial`, or where no s < 2^31 reaches `nnz` (it names what can be reached).
    Cost: 1 read of the scores (float64: 2), a histogram of 4 MB; 31 evaluations on at most a few thousand bins.
    """
    given = arguments("draws_for_nnz", scores, transform, factor, group)
    given.count("nnz", nnz)
    return given.ask(ops.draws_for_nnz, nnz)
