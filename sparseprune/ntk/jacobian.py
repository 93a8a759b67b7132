"""The tangent kernel by its definition: Jacobians of every example, multiplied."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from ..nn import densify
from ._tiles import TILE, Progress, assemble


def jacobian(
    model: nn.Module, x1: Tensor, x2: Tensor | None, names: list[str], *, outputs: int, parameters: str,
    full: bool, chunk: int | None, progress: Progress | None,
) -> Tensor:  # fmt: skip
    """Return K(x, x') = sum_p dF(x)/dp dF(x')/dp over the parameters `names` of a model of so many outputs."""
    if parameters == "all":
        model = densify(copy.deepcopy(model))
    given = dict(model.named_parameters())
    given = {name: given[name].detach() for name in names}
    if chunk is None:
        chunk = max(1, TILE // max(1, outputs * sum(p.nbytes for p in given.values())))

    def product(one: list[Tensor], two: list[Tensor]) -> Tensor:
        form = "nok,mpk->nmop" if full else "nok,mok->nm"
        first, *others = (torch.einsum(form, a, b) for a, b in zip(one, two, strict=True))
        return sum(others, first)

    return assemble(lambda x: jacobians(model, given, x), product, x1, x2, chunk, progress)


def jacobians(model: nn.Module, parameters: Mapping[str, Tensor], x: Tensor) -> list[Tensor]:
    """Return dF(x_n)_o / dp of each parameter, `[N, O, numel]`, every example a batch of its own."""

    def output(given: dict[str, Tensor], example: Tensor) -> Tensor:
        return functional_call(model, given, (example[None],)).reshape(-1)

    with torch.no_grad():  # the frozen rest of the model needs no graph
        # One output at a time: two levels of vmap fail in some of torch's backward formulas (prelu's).
        found = vmap(jacrev(output, chunk_size=1), (None, 0))(dict(parameters), x)
    return [each.flatten(2) for each in found.values()]
