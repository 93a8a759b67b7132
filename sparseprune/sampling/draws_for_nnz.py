"""How many draws keep a given number of distinct elements."""

from __future__ import annotations

from functools import partial
from typing import Literal

from .. import ops
from ._arguments import Tensors, Transform
from ._ranks import Group, arguments


def draws_for_nnz(
    scores: Tensors,
    nnz: int,
    *,
    law: Literal["multinomial", "systematic"] = "multinomial",
    transform: Transform = "given",
    factor: Tensors | None = None,
    group: Group = None,
) -> int:
    """The least s for which s draws keep `nnz` distinct elements on average.

    "multinomial": sum 1 - (1 - p_i)^s >= nnz; a Poisson sketch of as many draws keeps less than one element fewer.
    "systematic": sum min(1, s p_i) >= nnz.

    Args: as in `multinomial`; 1 <= nnz <= number of elements.
    Raises: ValueError as in `multinomial`, or where no s < 2^31 reaches `nnz` (it names what can be reached).
    Cost: 1 read of the scores (float64: 2), a histogram of 4 MB; 31 evaluations on at most a few thousand bins.
    """
    given = arguments("draws_for_nnz", scores, transform, factor, group)
    given.one_of("law", law, ["multinomial", "systematic"])
    return given.ask(partial(ops.draws_for_nnz, systematic=law == "systematic"), given.count("nnz", nnz))
