"""The tangent kernel of a network at hand."""

from __future__ import annotations

import warnings
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..replica import is_spread, unwrapped
from ._checks import check_whole
from ._parameters import check_model, included
from ._tiles import Progress
from .gram import gram, probe
from .jacobian import jacobian

_OPTIONS = {
    "outputs": ("trace", "full"),
    "implementation": ("auto", "jacobian", "gram"),
    "parameters": ("kept", "all"),
}


class Choice(NamedTuple):
    """What `implementation="auto"` takes, "gram" or "jacobian", and why."""

    implementation: str
    reason: str


def empirical(
    model: nn.Module,
    x1: Tensor,
    x2: Tensor | None = None,
    *,
    outputs: Literal["trace", "full"] = "trace",
    implementation: Literal["auto", "jacobian", "gram"] = "auto",
    parameters: Literal["kept", "all"] = "kept",
    biases: bool = True,
    norms: bool = True,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Return the tangent kernel of a network as it is.

    K(x, x')_op = sum_p dF_o(x)/dp dF_p(x')/dp over the parameters p that require grad; "trace" sums over o = p.

    Args:
        model: any module `[N, ...] -> [N]` or `[N, O]` that treats its examples one by one, float32 or float64, with
            batch norms and dropout in eval mode. It is left as it is.
        x1: `[N1, ...]`, on the model's device.
        x2: `[N2, ...]`; None: x1, and a result symmetric to the last bit.
        outputs: "trace": the sum over outputs (not their mean). "full": all pairs of them.
        implementation: "jacobian": by definition, with torch.func. "gram": inputs and back-propagated signals of every
            layer, contracted over kept weights; no Jacobian. "auto": gram where it can, see `choose`; it warns once
            where it cannot.
        parameters: "kept": the parameters as they are: of a masked layer dF/dw = m dF/d(w m), zero where pruned; of a
            csr layer its values. "all": the effective weights, pruned ones counted as trainable.
        biases, norms: whether biases of layers and affine parameters of norms count.
        chunk: examples in a tile; None: as many as take 256 MiB (gram: their inputs and signals; jacobian: Jacobians).
        progress: called with (done, total) after every pair of tiles.

    Returns:
        `[N1, N2]`, or `[N1, N2, O, O]` for "full", in the model's dtype.

    Raises:
        ValueError: arguments or a model as above that do not fit; parameters="all" with a layer in the csr layout.
        RuntimeError: implementation="gram" on a model that it cannot treat; it names the parameter.

    Cost:
        gram: O backward passes for every pair of tiles, N1 N2 (nnz + outputs O) for a linear layer and O N1 N2 nnz for
        one used at several positions; memory the result and two tiles. jacobian: O N1 N2 parameters, memory O chunk
        parameters.

    Reference:
        Jacot et al., "Neural Tangent Kernel", 2018, arXiv 1806.07572.
    """
    for name, value in (("outputs", outputs), ("implementation", implementation), ("parameters", parameters)):
        _check_option(name, value)
    if chunk is not None:
        check_whole("empirical", "chunk", chunk, 1)
    model = _checked(model, parameters)
    output = _first_output(model, x1, x2)
    x2 = None if x2 is x1 else x2
    wanted = _wanted(model, biases=biases, norms=norms)
    common: dict[str, Any] = {"parameters": parameters, "full": outputs == "full", "chunk": chunk, "progress": progress}
    found = probe(model, x1, output, wanted) if implementation != "jacobian" else None
    if found is not None and found.obstacle is not None:
        if implementation == "gram":
            raise RuntimeError(f"empirical: implementation='gram' cannot treat this model: {found.obstacle}")
        warnings.warn(f"empirical: taking the slower implementation 'jacobian': {found.obstacle}", stacklevel=2)
    number = output.numel()
    del output  # with the graph of its example
    if found is None or found.obstacle is not None:
        return jacobian(model, x1, x2, list(wanted), outputs=number, **common)
    return gram(model, x1, x2, wanted, found, **common)


def choose(model: nn.Module, x: Tensor, *, parameters: Literal["kept", "all"] = "kept") -> Choice:
    """Return what `empirical(..., implementation="auto")` takes for a model, and why.

    Every parameter's part in K(x_0, x_0), for one direction of the outputs, is compared with the square of its gradient
    by autograd: a parameter used other than by its own layer shows.

    Args:
        model, parameters: as for `empirical`.
        x: inputs `[N, ...]`, of which at most two are used.

    Raises:
        ValueError: as for `empirical`.

    Cost:
        two forward and two backward passes.
    """
    _check_option("parameters", parameters)
    model = _checked(model, parameters)
    output = _first_output(model, x, None)
    obstacle = probe(model, x, output, _wanted(model, biases=True, norms=True)).obstacle
    if obstacle is not None:
        return Choice("jacobian", obstacle)
    return Choice("gram", "every trainable parameter is used by its own layer alone, and its part agrees with autograd")


def _checked(model: nn.Module, parameters: str) -> nn.Module:
    model = unwrapped("empirical", model)
    if is_spread(model):
        raise ValueError("empirical: model must be whole on every rank, got parameters spread over ranks")
    check_model(model, parameters)
    return model


def _wanted(model: nn.Module, *, biases: bool, norms: bool) -> dict[str, nn.Parameter]:
    wanted = included(model, biases=biases, norms=norms)
    if not wanted:
        raise ValueError("empirical: model must have parameters that require grad and count, got none")
    return wanted


def _check_option(name: str, value: object) -> None:
    if value not in _OPTIONS[name]:
        raise ValueError(f"empirical: {name} must be one of {', '.join(map(repr, _OPTIONS[name]))}, got {value!r}")


def _first_output(model: nn.Module, x1: Tensor, x2: Tensor | None) -> Tensor:
    """What the model says of the first example, when all inputs have been checked."""
    for name, x in (("x1", x1), ("x2", x2)):
        if x is None:
            continue
        if not isinstance(x, Tensor):
            raise ValueError(f"empirical: {name} must be a tensor, got {type(x).__name__}")
        if x.ndim < 1 or not len(x):
            raise ValueError(f"empirical: {name} must hold at least one example, got shape {list(x.shape)}")
    if x2 is not None and (x2.shape[1:] != x1.shape[1:] or x2.dtype != x1.dtype or x2.device != x1.device):
        theirs, ours = (f"{list(x.shape[1:])} {x.dtype} on {x.device}" for x in (x2, x1))
        raise ValueError(f"empirical: x2 must be examples like those of x1, {ours}, got {theirs}")
    with torch.enable_grad():
        y = model(x1[:1])
    if not isinstance(y, Tensor) or y.ndim not in (1, 2) or len(y) != 1:
        got = list(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(f"empirical: model must return [N] or [N, O], got {got} for one example")
    return y
