"""A weight that stands for |m w|^power: layers of few places read it where it lies, for all others it is written out.

At one sample the flow's cost is that of passing over the weights, so they are passed over as seldom as can be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.modules.utils import _pair

# Places (pixels of an output, samples of a linear layer) up to which this is faster than products of what is written.
_PLACES = 32
_METADATA = {"__get__", "__len__", "size", "dim", "numel", "stride", "is_contiguous", "is_floating_point", "get_device"}


class Stored(Tensor):
    """A leaf whose memory is that of w, and which any op sees as v = |m w|^power.

    conv2d and linear below add what they give to its scores; other ops leave a gradient by v, as usual.
    """

    mask: Tensor | None
    power: int
    written: Tensor | None  # v, a leaf of its own, once something asked for it
    scores: Tensor | None  # the sum of gradients by v, times v
    bounds: tuple[float, float] | None  # of 0 and the scores, where the pass that made them told

    def collect(self, scores: Tensor, bounds: tuple[float, float] | None = None) -> None:
        """Add to the scores, whose memory the first take over."""
        self.bounds = bounds if self.scores is None else None
        self.scores = scores if self.scores is None else self.scores.add_(scores)

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an op on the value; what only asks for a shape or dtype needs none."""
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            if func.__name__ in _METADATA and not isinstance(found := func(*args, **kwargs), Tensor):
                return found
        return func(*(value(a) for a in args), **{key: value(a) for key, a in kwargs.items()})


def stored(w: Tensor, mask: Tensor | None, power: int, dtype: torch.dtype) -> Stored:
    """Return a leaf that stands for |mask * w|^power in that dtype, with the memory of w where it can."""
    w = w.detach().to(dtype)
    if mask is not None and mask.dtype != torch.bool:
        w, mask = w * mask, None
    leaf = w.contiguous().as_subclass(Stored)
    leaf.mask, leaf.power = None if mask is None else mask.contiguous(), power
    leaf.written = leaf.scores = leaf.bounds = None
    with torch._C.DisableTorchFunctionSubclass():
        leaf.requires_grad_()
    return leaf


def value(x: Any) -> Any:
    """Return v, a leaf, of a stored weight; all else, and what lists and tuples hold of it, as it is."""
    if type(x) in (list, tuple):
        return type(x)(map(value, x))
    if type(x) is not Stored:
        return x
    if x.written is None:
        with torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
            w = x.as_subclass(Tensor).detach()
            # a bool mask is made a number first: the product is then vectorised
            v = w.abs() if x.mask is None else x.mask.to(w.dtype).mul_(w).abs_()
            x.written = (v if x.power == 1 else v.square_()).requires_grad_()
    return x.written


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return F.linear of the same arguments."""
    if type(weight) is not Stored or not 0 < input.numel() <= _PLACES * input.shape[-1]:
        return F.linear(input, value(weight), bias)
    y = _Flow.apply(input.reshape(-1, input.shape[-1]), weight).t().reshape(*input.shape[:-1], -1)
    return y if bias is None else y + bias


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Return torch.conv2d of the same arguments."""
    if type(weight) is Stored and input.shape[:-3] == (1,) and groups == 1 and not isinstance(padding, str):
        geometry = _pair(stride), _pair(padding), _pair(dilation)
        sizes = zip(input.shape[2:], weight.shape[2:], *geometry, strict=True)
        size = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in sizes]
        if min(size) > 0 and size[0] * size[1] <= _PLACES:
            patches = F.unfold(input, weight.shape[2:], stride=stride, padding=padding, dilation=dilation)
            y = _Flow.apply(patches[0].t(), weight).view(1, -1, *size)
            return y if bias is None else y + bias.view(-1, 1, 1)
    return torch.conv2d(input, value(weight), bias, stride, padding, dilation, groups)


class _Flow(torch.autograd.Function):
    """y [O, P] = v x^T of x [P, K]; differentiable once, and what comes back is added to the scores of the leaf."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, leaf: Stored) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.leaf = leaf
        ctx.save_for_backward(x)
        return torch.ops.sparseprune.flow_forward(*_matrices(leaf), x, leaf.power)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x,), leaf = ctx.saved_tensors, ctx.leaf
        dx, scores, bounds = torch.ops.sparseprune.flow_backward(*_matrices(leaf), x, grad, leaf.power)
        with torch._C.DisableTorchFunctionSubclass():
            leaf.collect(scores.view(leaf.shape), tuple(bounds.tolist()))
        return dx, None


def _matrices(leaf: Stored) -> tuple[Tensor, Tensor | None]:
    """The weight and its mask, [O, K]."""
    with torch._C.DisableTorchFunctionSubclass():
        return leaf.as_subclass(Tensor).detach().flatten(1), None if leaf.mask is None else leaf.mask.flatten(1)
