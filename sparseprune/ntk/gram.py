"""The tangent kernel by contraction over kept weights, layer by layer, without a Jacobian."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..prunable import LAYERS
from ._capture import Obstacle, Tile, capture, owned, weight_of
from ._kept import Kept
from ._layers import small_part, weight_part
from ._tiles import TILE, Progress, assemble


@dataclass(frozen=True)
class Probe:
    """What one run shows: an obstacle to the gram, if any, the entries that count, bytes of a tile per example."""

    obstacle: str | None
    kept: Mapping[str, Kept]
    bytes_per_example: int


def gram(
    model: nn.Module, x1: Tensor, x2: Tensor | None, wanted: Mapping[str, nn.Parameter], found: Probe, *,
    parameters: str, full: bool, chunk: int | None, progress: Progress | None,
) -> Tensor:  # fmt: skip
    """Return K(x, x') from captured inputs and signals; `found` is this model's probe.

    Raises:
        RuntimeError: a layer used in a way that the probe did not see.
    """
    kept = found.kept if parameters == "kept" else {name: each.everything() for name, each in found.kept.items()}
    if chunk is None:
        chunk = max(1, TILE // max(1, found.bytes_per_example))

    def product(one: Tile, two: Tile) -> Tensor:
        shape = one.examples, two.examples, *((one.outputs, two.outputs) if full else ())
        kernel = next(iter(wanted.values())).new_zeros(shape)  # not of x1, which may be of integers
        for _, part in _parts(one, two, kept, full):
            kernel += part
        return kernel

    return assemble(lambda x: capture(model, x, wanted), product, x1, x2, chunk, progress)


def probe(model: nn.Module, x: Tensor, output: Tensor, wanted: Mapping[str, nn.Parameter]) -> Probe:
    """Compare every parameter's part in K(x_0, x_0) with its gradient by autograd, for one direction of the outputs.

    Two examples are captured and one, whose `output` it takes, is differentiated alone, so that a model that mixes its
    examples shows too.
    """
    obstacle = _without_form(model, wanted)
    if obstacle is not None:
        return Probe(obstacle, {}, 0)
    kept = _kept(model, wanted)
    with torch.enable_grad():
        direction = torch.linspace(1, 2, output.numel()).to(output)  # all ones would cancel a softmax
        value = output.reshape(-1) @ direction
    try:
        tile = capture(model, x[:2], wanted, direction)
    except Obstacle as error:
        return Probe(str(error), kept, 0)
    squares = {name: part[0, 0] for name, part in _parts(tile, tile, kept, full=False)}
    obstacle = _disagreement(value, wanted, squares)
    return Probe(obstacle, kept, tile.bytes_per_example(len(direction)))


def _parts(one: Tile, two: Tile, kept: Mapping[str, Kept], full: bool) -> Iterator[tuple[str, Tensor]]:
    """The part of every parameter that both tiles use, in the order of the layers."""
    for name, gradients in one.gradients.items():
        if name in two.gradients:
            yield name, small_part(gradients, two.gradients[name], full)
    for name, calls in one.calls.items():
        if name in two.calls:
            yield name, weight_part(calls, two.calls[name], kept[name], full)


def _without_form(model: nn.Module, wanted: Mapping[str, nn.Parameter]) -> str | None:
    """Name a parameter that no layer known here owns."""
    known = {id(parameter) for module in model.modules() for parameter in owned(module)}
    for name, parameter in wanted.items():
        if id(parameter) not in known:
            owner = model.get_submodule(name.rpartition(".")[0])
            return f"{name!r} belongs to a {type(owner).__name__}"
    return None


def _kept(model: nn.Module, wanted: Mapping[str, nn.Parameter]) -> dict[str, Kept]:
    names = {id(parameter): name for name, parameter in wanted.items()}
    found: dict[str, Kept] = {}
    for module in model.modules():
        name = names.get(id(weight_of(module))) if isinstance(module, LAYERS) else None
        if name is not None and name not in found:
            found[name] = Kept.of(module)
    return found


def _disagreement(value: Tensor, wanted: Mapping[str, nn.Parameter], squares: Mapping[str, Tensor]) -> str | None:
    """Name the parameter whose squared gradient of `value` is furthest from what was found, if any is far."""
    zero, parameters = value.new_zeros(()), list(wanted.values())
    reached = value.requires_grad
    grads = torch.autograd.grad(value, parameters, allow_unused=True) if reached else [None] * len(parameters)
    true = torch.stack([zero if grad is None else grad.square().sum() for grad in grads])
    found = torch.stack([squares.get(name, zero) for name in wanted])
    rough = torch.finfo(value.dtype).eps ** 0.5
    excess = (found - true).abs() - rough * (true + rough * true.max())
    worst = int(excess.argmax())
    if not excess[worst] > 0:
        return None
    name = list(wanted)[worst]
    return f"{name!r} is used other than by its own layer's forward, or by a model that mixes its examples"
