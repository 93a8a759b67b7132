"""The gradient of a compressed convolution's weights: a program holds a tile of one output channel's gradient."""

# The language of kernels is not what pyright reads.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ._elements import widen
from ._images import Sizes, place, sum_of_slots, tile, tile_count
from ._products import check, check_pattern, launch
from .spconv import input_pixels


@triton.jit(do_not_specialize=["first"])
def spconv_dw_kernel(
    row_offsets, columns, x, grad, partial, kept, first, outputs, per_group, channels, batch,
    height, width, out_height, out_width, stride_h, stride_w, top, left, dilation_h, dilation_w,
    KH: tl.constexpr, KW: tl.constexpr, PIXELS: tl.constexpr, BATCH: tl.constexpr,
):  # fmt: skip
    to: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    program = tl.program_id(0).to(tl.int64)
    o, slot = program % outputs, program // outputs
    row, column, lane = place(first + slot, out_width, batch, PIXELS, BATCH)
    live = (row < out_height)[:, None] & (lane < batch)[None, :]
    top_row, left_column = row * stride_h - top, column * stride_w - left
    at = ((top_row * width + left_column).to(tl.int64) * batch)[:, None] + lane[None, :]
    to_grad = ((o * out_height * out_width + (row * out_width + column)) * batch)[:, None] + lane[None, :]
    held = widen(tl.load(grad + to_grad, mask=live, other=0), to)
    for j in range(tl.load(row_offsets + o), tl.load(row_offsets + o + 1)):
        pixels = input_pixels(
            tl.load(columns + j), o // per_group, channels, x, at, top_row, left_column, live, height, width, batch,
            dilation_h, dilation_w, KH, KW, to,
        )  # fmt: skip
        tl.store(partial + slot * kept + j, tl.sum(held * pixels))


def spconv_dw(row_offsets: Tensor, columns: Tensor, x: Tensor, grad: Tensor, geometry: list[int]) -> Tensor:
    """The gradient of spconv's kept weights, `[nnz]` in CSR order."""
    (channels, *size, batch), outputs, groups = x.shape, len(row_offsets) - 1, geometry[-1]
    sizes = Sizes.of("spconv_dw", geometry, size, channels, outputs)
    check_pattern("spconv_dw", x, row_offsets, columns)
    shape = (outputs, sizes.out_height, sizes.out_width, batch)
    check("spconv_dw", x, x=(x, tuple(x.shape)), grad=(grad, shape))
    pixels = sizes.out_height * sizes.out_width
    held = tile(pixels, batch, x.element_size())

    def fill(partial: Tensor, first: int) -> None:
        launch(
            spconv_dw_kernel, outputs * len(partial), row_offsets, columns, x, grad, partial, len(columns), first,
            outputs, outputs // groups, channels // groups, batch, *sizes,
            KH=geometry[0], KW=geometry[1], num_warps=4, **held,
        )  # fmt: skip

    return sum_of_slots(fill, tile_count(pixels, batch, held) if grad.numel() else 0, len(columns), x)
