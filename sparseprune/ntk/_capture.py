"""What the layers of a model read, and the signals that its outputs send back to them; examples last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional as F

from .. import ops
from ..ops import Geometry
from ..prunable import LAYERS
from ._parameters import BATCH_NORM

_NORMS = (BATCH_NORM, nn.GroupNorm, nn.LayerNorm)
_POINTWISE = Geometry((1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1)


class Obstacle(RuntimeError):
    """Why the signals at the layers do not tell the gradients."""


class Call(NamedTuple):
    """One use of a weight: x `[C, H, W, N]`, signals dF_o/dy `[M, OH, OW, O, N]` of its result y.

    A linear layer is a 1x1 convolution of images 1 x (tokens).
    """

    x: Tensor
    signals: Tensor
    geometry: Geometry

    @property
    def positions(self) -> int:
        """Pixels of the result."""
        return self.signals.shape[1] * self.signals.shape[2]


@dataclass
class Tile:
    """What a batch of examples shows: the calls of each weight, and gradients `[R, O, N]` of the small parameters."""

    examples: int
    outputs: int
    calls: dict[str, list[Call]] = field(default_factory=dict)
    gradients: dict[str, Tensor] = field(default_factory=dict)

    def add(self, name: str, gradient: Tensor) -> None:
        """Add one use of a small parameter."""
        before = self.gradients.get(name)
        self.gradients[name] = gradient if before is None else before + gradient

    def bytes_per_example(self, outputs: int) -> int:
        """Memory that an example of this tile would take with so many outputs."""
        found = [(call.x, call.signals) for calls in self.calls.values() for call in calls]
        inputs = sum(x.nbytes for x, _ in found)
        signals = sum(s.nbytes for _, s in found) + sum(g.nbytes for g in self.gradients.values())
        return (inputs + signals // self.outputs * outputs) // self.examples


def weight_of(layer: nn.Module) -> nn.Parameter | None:
    """The parameter that holds a layer's weight in its layout; None where something computes it."""
    return layer._parameters.get("values", layer._parameters.get("weight"))


def owned(module: nn.Module) -> list[nn.Parameter]:
    """The parameters of a module whose gradients its input and signals tell."""
    if not isinstance(module, (*LAYERS, *_NORMS)):
        return []
    return [p for p in (weight_of(module), module._parameters.get("bias")) if p is not None]


@torch.enable_grad()
def capture(model: nn.Module, x: Tensor, wanted: Mapping[str, nn.Parameter], direction: Tensor | None = None) -> Tile:
    """Run a model on x `[N, ...]`, forward once and backward for each output (or once for outputs @ direction).

    Raises:
        Obstacle: a layer used in a way that its input and signals do not tell.

    Cost:
        a forward and O backward passes that stop short of the weights; memory O + 1 times the layers' activations.
    """
    names = {id(parameter): name for name, parameter in wanted.items()}
    uses: list[_Use] = []

    def hook(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Tensor) -> Tensor | None:
        mine = [p for p in owned(module) if id(p) in names]
        if not mine or not output.requires_grad:  # the latter: inside no_grad, where no gradient comes back
            return None
        # What is written into a view goes around the edge that is taken here.
        fresh = output.clone() if output._is_view() else output
        source = args[0] if args else next(iter(kwargs.values()))
        if source.shape[:1] != x.shape[:1] or source.ndim < (4 if isinstance(module, nn.Conv2d) else 2):
            shape = f"shape {list(source.shape)} for {len(x)} examples"
            raise Obstacle(f"the input of {names[id(mine[0])]!r} does not have the examples first, but {shape}")
        make = _Layer if isinstance(module, LAYERS) else _Norm
        uses.append(make(module, source.detach(), output.shape, get_gradient_edge(fresh), names))
        return fresh

    handles = [
        module.register_forward_hook(hook, with_kwargs=True, prepend=True)
        for module in model.modules()
        if owned(module)
    ]
    try:
        output = model(x)
    finally:
        for handle in handles:
            handle.remove()
    output = output.reshape(len(x), -1)
    output = output if direction is None else output @ direction[:, None]
    return _backward(output, uses)


def _backward(output: Tensor, uses: list[_Use]) -> Tile:
    outputs = output.shape[1]
    for use in uses:
        use.begin(outputs)
    edges = [use.edge for use in uses]
    for o in range(outputs if uses else 0):
        grads: Sequence[Tensor | None] = [None] * len(edges)
        if output.requires_grad:
            last = o + 1 == outputs
            grads = torch.autograd.grad(output[:, o].sum(), edges, retain_graph=not last, allow_unused=True)
        for use, grad in zip(uses, grads, strict=True):
            use.receive(o, grad)
    tile = Tile(len(output), outputs)
    for use in uses:
        use.end(tile)
    return tile


class _Use(Protocol):
    """One call of a module, from its forward to the last backward pass."""

    edge: GradientEdge

    def begin(self, outputs: int) -> None: ...
    def receive(self, o: int, grad: Tensor | None) -> None: ...
    def end(self, tile: Tile) -> None: ...


class _Layer:
    """A call of a linear layer or a convolution."""

    def __init__(
        self, layer: nn.Module, x: Tensor, y: torch.Size, edge: GradientEdge, names: Mapping[int, str]
    ) -> None:
        self.edge, self._linear = edge, not isinstance(layer, nn.Conv2d)
        self._weight, self._bias = (names.get(id(p)) for p in (weight_of(layer), layer._parameters.get("bias")))
        self._geometry = _POINTWISE
        if isinstance(layer, nn.Conv2d):
            x, self._geometry = _images(layer, x)
        self._x = _last(x, self._linear)
        self._shape = (y[-1], 1, y[1:-1].numel()) if self._linear else y[1:]

    def begin(self, outputs: int) -> None:
        self._signals = self._x.new_empty(*self._shape, outputs, self._x.shape[-1])

    def receive(self, o: int, grad: Tensor | None) -> None:
        self._signals[..., o, :] = 0 if grad is None else _last(grad, self._linear)

    def end(self, tile: Tile) -> None:
        if self._bias is not None:
            tile.add(self._bias, self._signals.sum((1, 2)))
        if self._weight is not None:
            tile.calls.setdefault(self._weight, []).append(Call(self._x, self._signals, self._geometry))


class _Norm:
    """A call of a norm: y = weight n + bias with n the normalised input."""

    def __init__(self, norm: nn.Module, x: Tensor, y: torch.Size, edge: GradientEdge, names: Mapping[int, str]) -> None:
        self.edge = edge
        self._names = [names.get(id(p)) for p in (weight_of(norm), norm._parameters.get("bias"))]
        self._normalised = _normalised(norm, x)
        # Parameters stand along the last dimensions of a layer norm's input, along the second of the others'.
        self._last = isinstance(norm, nn.LayerNorm)
        self._size = owned(norm)[0].numel()

    def begin(self, outputs: int) -> None:
        self._sums = self._normalised.new_zeros(2, self._size, outputs, len(self._normalised))

    def receive(self, o: int, grad: Tensor | None) -> None:
        if grad is None:
            return
        shape = (len(grad), -1, self._size) if self._last else (len(grad), self._size, -1)
        for sums, each in zip(self._sums, (grad * self._normalised, grad), strict=True):
            sums[:, o] = each.reshape(shape).sum(1 if self._last else 2).t()

    def end(self, tile: Tile) -> None:
        for name, gradient in zip(self._names, self._sums, strict=True):
            if name is not None:
                tile.add(name, gradient)


def _last(x: Tensor, linear: bool) -> Tensor:
    """`[C, H, W, N]`, contiguous, of images `[N, C, H, W]` or of `[N, *, C]` as images 1 x *."""
    if linear:
        x = x.reshape(len(x), 1, -1, x.shape[-1]).permute(0, 3, 1, 2)
    return ops.batch_last(x).permute(1, 2, 3, 0)


def _images(conv: nn.Conv2d, x: Tensor) -> tuple[Tensor, Geometry]:
    """The images that a convolution walks over, padded here unless by zeros, and its geometry."""
    left, right, top, bottom = padding = conv._reversed_padding_repeated_twice
    if conv.padding_mode != "zeros":
        x = F.pad(x, padding, conv.padding_mode)
        left = right = top = bottom = 0
    numbers = [*conv.kernel_size, *conv.stride, top, bottom, left, right, *conv.dilation, conv.groups]
    return x, Geometry.of(numbers)


def _normalised(norm: Any, x: Tensor) -> Tensor:
    if isinstance(norm, nn.GroupNorm):
        return F.group_norm(x, norm.num_groups, eps=norm.eps)
    if isinstance(norm, nn.LayerNorm):
        return F.layer_norm(x, norm.normalized_shape, eps=norm.eps)
    return F.batch_norm(x, norm.running_mean, norm.running_var, eps=norm.eps)
