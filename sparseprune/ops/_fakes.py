"""The shapes and dtypes of what each operation returns, for tracing; one function an operation, named like it."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from . import reference
from .reference.convolution import Geometry


def score_tiles(scores, factors, transform) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    int32, int64 = (partial(scores[0].new_empty, dtype=dtype) for dtype in (torch.int32, torch.int64))
    tiles = -(-sum(score.numel() for score in scores) // reference.TILE)
    return int32(tiles), int64(tiles), int32(tiles), int64(1)


def split_draws(aligned, *rest: Any) -> Tensor:
    return torch.empty_like(aligned)


def poisson_counts(whole, *rest: Any) -> Tensor:
    return torch.empty_like(whole)


def draw_tiles(*args: Any) -> None:
    return None


systematic_tiles = bernoulli_tiles = draw_tiles


def key_histogram(*args: Any) -> tuple[Tensor, Tensor]:
    scores, race, bits = args[0], args[3], args[-2]
    int64 = partial(scores[0].new_empty, dtype=torch.int64)
    return int64((1 << bits) + 2), int64((1 << bits) if race else 0)


def key_mark(*args: Any) -> Tensor:
    return torch.empty_like(args[11])


def mass_histogram(scores, factors, transform, exponent) -> tuple[Tensor, Tensor]:
    int64 = partial(scores[0].new_empty, dtype=torch.int64)
    return int64(2, reference.BINS), int64(1)


def transpose(x) -> Tensor:
    return x.new_empty(x.shape[1], x.shape[0])


def spmm(values, offsets, indices, order, dense, bias) -> Tensor:
    return dense.new_empty(len(offsets) - 1, dense.shape[1])


def sddmm(offsets, indices, order, left, right) -> Tensor:
    return left.new_empty(len(indices))


def spmm_backward(values, offsets, indices, order, dense, grad) -> tuple[Tensor, Tensor]:
    return dense.new_empty(dense.shape), values.new_empty(values.shape)


def spconv(values, row_offsets, columns, x, bias, geometry) -> Tensor:
    rows, width = Geometry.of(geometry).output_size(x.shape[1], x.shape[2])
    return x.new_empty(len(row_offsets) - 1, rows, width, x.shape[3])


def spconv_dx(values, column_offsets, rows, order, grad, size, geometry) -> Tensor:
    return grad.new_empty((len(column_offsets) - 1) // (geometry[0] * geometry[1]), *size, grad.shape[3])


def spconv_dw(row_offsets, columns, x, grad, geometry) -> Tensor:
    return x.new_empty(len(columns))


def spconv_backward(values, column_offsets, rows, order, x, grad, geometry) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), values.new_empty(values.shape)


def spconv_nchw(values, row_offsets, columns, x, bias, geometry) -> Tensor:
    rows, width = Geometry.of(geometry).output_size(x.shape[2], x.shape[3])
    return x.new_empty(x.shape[0], len(row_offsets) - 1, rows, width)


def spconv_nchw_dx(values, column_offsets, rows, order, grad, size, geometry) -> Tensor:
    return grad.new_empty(grad.shape[0], (len(column_offsets) - 1) // (geometry[0] * geometry[1]), *size)


spconv_nchw_dw, spconv_nchw_backward = spconv_dw, spconv_backward


def masked_linear(x, weight, mask, bias) -> Tensor:
    return x.new_empty(x.shape[0], len(weight))


def masked_linear_dx(grad, weight, mask) -> Tensor:
    return grad.new_empty(grad.shape[0], weight.shape[1])


def masked_linear_dw(grad, x, mask) -> Tensor:
    return x.new_empty(mask.shape)


def masked_conv2d(x, weight, mask, bias, geometry) -> Tensor:
    return x.new_empty(x.shape[0], len(weight), *Geometry.of(geometry).output_size(x.shape[2], x.shape[3]))


def masked_conv2d_dx(grad, weight, mask, size, geometry) -> Tensor:
    return grad.new_empty(grad.shape[0], weight.shape[1] * geometry[-1], *size)


def masked_conv2d_dw(grad, x, mask, geometry) -> Tensor:
    return x.new_empty(mask.shape)


def block_spmm(blocks, offsets, indices, order, dense, transposed) -> Tensor:
    return dense.new_empty((len(offsets) - 1) * blocks.shape[1], dense.shape[1])


def block_sddmm(offsets, indices, left, right, size) -> Tensor:
    return left.new_empty(len(indices), size, size)


def ntk_gram(offsets, indices, squares, a, b, a2, b2, full) -> Tensor:
    shape = a.shape[1], (a if a2 is None else a2).shape[1]
    return a.new_empty(*shape, b.shape[1], b.shape[1]) if full else a.new_empty(shape)


def spconv_dw_each(row_offsets, columns, x, grad, geometry) -> Tensor:
    return x.new_empty(len(columns), *grad.shape[3:])


def flow_forward(weight, mask, x, power) -> Tensor:
    return x.new_empty(len(weight), len(x))


def flow_backward(weight, mask, x, grad, power) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), weight.new_empty(weight.shape), weight.new_empty(2)


def online_sgd(w, v, *rest: Any) -> tuple[Tensor, Tensor]:
    return w.new_empty(w.shape), v.new_empty(v.shape)
