"""Batch-last memory for tensors of the usual logical shape, and a count of the transposes that it costs.

A logical `[B, K]` or `[B, C, H, W]` whose batch has stride 1 is what sparse layers read and return: elementwise
operations keep such strides, so a chain of layers transposes once at its start.
"""

# torch declares the methods of a Function with *args.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

_SIZES = (2, 4, 8)  # bytes of the elements that the raw operation moves
_count = 0


def transposes() -> int:
    """Return how many transposes of whole activations have been made so far (not counted inside torch.compile)."""
    return _count


def batch_last(x: Tensor) -> Tensor:
    """Return `x` `[B, ...]` with batch-last strides: itself where it has them, else one transpose, differentiable."""
    physical = x.movedim(0, -1)
    if physical.is_contiguous():
        return x
    if torch.compiler.is_compiling():
        return _Contiguous.apply(physical).movedim(-1, 0)
    return _ContiguousJvp.apply(physical).movedim(-1, 0)


def batch_first(x: Tensor) -> Tensor:
    """Return a batch-last `x` `[B, ...]` contiguous, by one fast transpose, differentiable; any other `x` as it is.

    For dense layers behind sparse ones: torch's own copy takes many times as long for images.
    """
    if x.is_contiguous() or not x.movedim(0, -1).is_contiguous():
        return x
    return _Turned.apply(x) if torch.compiler.is_compiling() else _TurnedJvp.apply(x)


def contiguous(x: Tensor) -> Tensor:
    """Return a batch-last `x` `[..., B]` contiguous, by the fast transpose where its memory has the batch first."""
    if x.is_contiguous():
        return x
    _note_one()
    first = x.movedim(-1, 0)
    if first.is_contiguous():
        return _transpose(first.flatten(1)).view(x.shape)
    if first.ndim == 4 and first.is_contiguous(memory_format=torch.channels_last):
        # [B, H, W, C] -> [H, W, C, B], whose rows are then moved whole.
        turned = _transpose(first.permute(0, 2, 3, 1).flatten(1))
        return turned.view(*x.shape[1:3], x.shape[0], x.shape[3]).permute(2, 0, 1, 3).contiguous()
    return x.contiguous()


def _note_one() -> None:
    global _count
    if not torch.compiler.is_compiling():  # a counter would be a side effect to trace
        _count += 1


def _transpose(x: Tensor) -> Tensor:
    return torch.ops.sparseprune.transpose(x) if x.element_size() in _SIZES else x.t().contiguous()


class _Contiguous(Function):
    """The same numbers in other memory, so that its derivative is the identity."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return contiguous(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor) -> tuple[Tensor, int]:
        return x.movedim(in_dims[0], 0).contiguous(), 0


class _ContiguousJvp(_Contiguous):
    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return tangent.contiguous()


def turned(x: Tensor) -> Tensor:
    """Return `x` `[B, ...]` contiguous, by the fast transpose where its memory has the batch last."""
    if x.is_contiguous():
        return x
    _note_one()
    rows = x.movedim(0, -1)
    return _transpose(rows.flatten(0, -2)).view(x.shape) if rows.is_contiguous() else x.contiguous()


class _Turned(_Contiguous):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return turned(x)


class _TurnedJvp(_Turned):
    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return tangent.contiguous()
