"""What each kind of layer computes, as a form t(a, b, c) that is linear in weight a, input b and output c.

Role 0 is the weight, 1 the input, 2 the output. The three products are the form's partial gradients: y = dt/dc (a, b),
dt/db (a, c) and dt/da (b, c).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .batch_last import contiguous, turned

_RAW = torch.ops.sparseprune
_GEOMETRY = 11  # of a convolution's static numbers; the size of its input follows
_WIDE = 64  # a batch from which one walk for both gradients pays: it scatters dW over lines that threads share


@dataclass(frozen=True)
class Form:
    """The raw operations of one kind of layer; `index` (patterns, masks) and `static` (geometry) have no derivative.

    Args:
        products: by the role they give, functions of (the other two in order of role, bias, index, static).
        both: products 1 and 0 in one pass, from (a, b, c, index, static); None where there is no such operation.
        batch: the dimension of inputs and outputs that is the batch.
        channel: the dimension of outputs that the bias belongs to.
    """

    products: tuple[Callable[..., Tensor], Callable[..., Tensor], Callable[..., Tensor]]
    both: Callable[..., tuple[Tensor, Tensor]] | None
    batch: int
    channel: int

    def add_bias(self, y: Tensor, bias: Tensor) -> Tensor:
        """Broadcast over all dimensions but the channel's; as torch operations, for what the raw ones do not take."""
        shape = [1] * y.ndim
        shape[self.channel] = -1
        return y + bias.view(shape)

    def bias_gradient(self, grad: Tensor) -> Tensor:
        return grad.sum([d for d in range(grad.ndim) if d != self.channel])


def _spmm_both(
    a: Tensor, b: Tensor, c: Tensor, at: tuple[Tensor, ...], static: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    a, b, c = a.contiguous(), contiguous(b), contiguous(c)
    if b.shape[1] >= _WIDE:
        return _RAW.spmm_backward(a, *at[2:], b, c)
    return _RAW.spmm(a, *at[2:], c, None), _RAW.sddmm(at[0], at[1], None, c, b)


FORMS = {
    "spmm": Form(
        products=(
            lambda b, c, bias, at, static: _RAW.sddmm(at[0], at[1], None, contiguous(c), contiguous(b)),
            lambda a, c, bias, at, static: _RAW.spmm(a.contiguous(), *at[2:], contiguous(c), None),
            lambda a, b, bias, at, static: _RAW.spmm(a.contiguous(), at[0], at[1], None, contiguous(b), bias),
        ),
        both=_spmm_both,
        batch=-1,
        channel=0,
    ),
    # static: the geometry, then the size of the input's images.
    "spconv": Form(
        products=(
            lambda b, c, bias, at, static: _RAW.spconv_dw(
                at[0], at[1], contiguous(b), contiguous(c), static[:_GEOMETRY]
            ),
            lambda a, c, bias, at, static: _RAW.spconv_dx(
                a.contiguous(), *at[2:], contiguous(c), static[_GEOMETRY:], static[:_GEOMETRY]
            ),
            lambda a, b, bias, at, static: _RAW.spconv(
                a.contiguous(), at[0], at[1], contiguous(b), bias, static[:_GEOMETRY]
            ),
        ),
        both=lambda a, b, c, at, static: _RAW.spconv_backward(
            a.contiguous(), *at[2:], contiguous(b), contiguous(c), static[:_GEOMETRY]
        ),
        batch=-1,
        channel=0,
    ),
    # The same on images [B, C, H, W].
    "spconv_nchw": Form(
        products=(
            lambda b, c, bias, at, static: _RAW.spconv_nchw_dw(at[0], at[1], turned(b), turned(c), static[:_GEOMETRY]),
            lambda a, c, bias, at, static: _RAW.spconv_nchw_dx(
                a.contiguous(), *at[2:], turned(c), static[_GEOMETRY:], static[:_GEOMETRY]
            ),
            lambda a, b, bias, at, static: _RAW.spconv_nchw(
                a.contiguous(), at[0], at[1], turned(b), bias, static[:_GEOMETRY]
            ),
        ),
        both=lambda a, b, c, at, static: _RAW.spconv_nchw_backward(
            a.contiguous(), *at[2:], turned(b), turned(c), static[:_GEOMETRY]
        ),
        batch=0,
        channel=1,
    ),
    "masked_linear": Form(
        products=(
            lambda b, c, bias, at, static: _RAW.masked_linear_dw(c.contiguous(), b.contiguous(), at[0]),
            lambda a, c, bias, at, static: _RAW.masked_linear_dx(c.contiguous(), a.contiguous(), at[0]),
            lambda a, b, bias, at, static: _RAW.masked_linear(b.contiguous(), a.contiguous(), at[0], bias),
        ),
        both=None,
        batch=0,
        channel=1,
    ),
    "masked_conv2d": Form(
        products=(
            lambda b, c, bias, at, static: _RAW.masked_conv2d_dw(
                c.contiguous(), b.contiguous(), at[0], static[:_GEOMETRY]
            ),
            lambda a, c, bias, at, static: _RAW.masked_conv2d_dx(
                c.contiguous(), a.contiguous(), at[0], static[_GEOMETRY:], static[:_GEOMETRY]
            ),
            lambda a, b, bias, at, static: _RAW.masked_conv2d(
                b.contiguous(), a.contiguous(), at[0], bias, static[:_GEOMETRY]
            ),
        ),
        both=None,
        batch=0,
        channel=1,
    ),
    "block_spmm": Form(
        products=(
            lambda b, c, bias, at, static: _RAW.block_sddmm(at[0], at[1], contiguous(c), contiguous(b), static[0]),
            lambda a, c, bias, at, static: _RAW.block_spmm(a.contiguous(), *at[2:], contiguous(c), True),
            lambda a, b, bias, at, static: _RAW.block_spmm(a.contiguous(), at[0], at[1], None, contiguous(b), False),
        ),
        both=None,
        batch=-1,
        channel=0,
    ),
}
