"""Convolution of batch-last images with a compressed weight: a program owns a tile of one output channel."""

# The language of kernels is not what pyright reads.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ._elements import narrow, widen
from ._images import Sizes, load_shifted, place, tile, tile_count
from ._products import check, check_pattern, launch, sums


@triton.jit
def input_pixels(
    column, group, channels, x, at, top_row, left_column, live, height, width, batch, dilation_h, dilation_w,
    KH: tl.constexpr, KW: tl.constexpr, to: tl.constexpr,
):  # fmt: skip
    """What the entry in a column of the weight multiplies: the input `[PIXELS, BATCH]` under its tap."""
    channel = group * channels + column // (KH * KW)
    down, right = column % (KH * KW) // KW * dilation_h, column % KW * dilation_w
    shift = ((channel * height + down) * width + right) * batch
    return load_shifted(x, shift, at, top_row + down, left_column + right, live, height, width, to)


@triton.jit
def spconv_kernel(
    values, row_offsets, columns, x, bias, y, outputs, per_group, channels, batch,
    height, width, out_height, out_width, stride_h, stride_w, top, left, dilation_h, dilation_w,
    KH: tl.constexpr, KW: tl.constexpr, BIASED: tl.constexpr, PIXELS: tl.constexpr, BATCH: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    o = program % outputs  # neighbours share the input
    row, column, lane = place(program // outputs, out_width, batch, PIXELS, BATCH)
    live = (row < out_height)[:, None] & (lane < batch)[None, :]
    top_row, left_column = row * stride_h - top, column * stride_w - left
    at = ((top_row * width + left_column).to(tl.int64) * batch)[:, None] + lane[None, :]
    result = sums((PIXELS, BATCH), x)
    if BIASED:
        result += widen(tl.load(bias + o), result.dtype)
    for j in range(tl.load(row_offsets + o), tl.load(row_offsets + o + 1)):
        pixels = input_pixels(
            tl.load(columns + j), o // per_group, channels, x, at, top_row, left_column, live, height, width, batch,
            dilation_h, dilation_w, KH, KW, result.dtype,
        )  # fmt: skip
        result += widen(tl.load(values + j), result.dtype) * pixels
    to_y = ((o * out_height * out_width + (row * out_width + column)) * batch)[:, None] + lane[None, :]
    tl.store(y + to_y, narrow(result, y.dtype.element_ty), mask=live)


def spconv(
    values: Tensor, row_offsets: Tensor, columns: Tensor, x: Tensor, bias: Tensor | None, geometry: list[int]
) -> Tensor:
    """y = W ⋆ x + bias: `[O, OH, OW, B]` from `[C, H, W, B]`."""
    (channels, *size, batch), outputs, groups = x.shape, len(row_offsets) - 1, geometry[-1]
    sizes = Sizes.of("spconv", geometry, size, channels, outputs)
    check_pattern("spconv", x, row_offsets, columns)
    check("spconv", x, x=(x, tuple(x.shape)), values=(values, tuple(columns.shape)), bias=(bias, (outputs,)))
    y = x.new_empty(outputs, sizes.out_height, sizes.out_width, batch)
    if y.numel():
        pixels = sizes.out_height * sizes.out_width
        held = tile(pixels, batch, x.element_size())
        launch(
            spconv_kernel, outputs * tile_count(pixels, batch, held), values, row_offsets, columns, x,
            values if bias is None else bias, y, outputs, outputs // groups, channels // groups, batch, *sizes,
            KH=geometry[0], KW=geometry[1], BIASED=bias is not None, num_warps=4, **held,
        )  # fmt: skip
    return y
