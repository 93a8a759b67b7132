"""Each example's gradient of a compressed convolution's weights: a program holds some entries of one output channel."""

# The language of kernels is not what pyright reads.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ._images import Sizes
from ._products import check, check_pattern, check_wide, launch, sums, tile_of

ENTRIES = {4: 8, 8: 4}  # of a program at a time, by bytes an element


@triton.jit(do_not_specialize=["rows", "shares"])
def spconv_dw_each_kernel(
    row_offsets, columns, x, grad, values, rows, shares, outputs, batch,
    height, width, out_height, out_width, stride_h, stride_w, top, left, dilation_h, dilation_w,
    KH: tl.constexpr, KW: tl.constexpr, CHUNK: tl.constexpr, BO: tl.constexpr, BATCH: tl.constexpr,
):  # fmt: skip
    # The shares of a row follow each other: they read the same gradient.
    p = tl.program_id(0).to(tl.int64)
    m, across = p // shares % rows, (batch + BATCH - 1) // BATCH
    slot = p // shares // rows
    o, n = slot // across * BO + tl.arange(0, BO), slot % across * BATCH + tl.arange(0, BATCH)
    live = (o < outputs)[:, None] & (n < batch)[None, :]
    lane = o[:, None] * batch + n[None, :]
    end = tl.load(row_offsets + m + 1).to(tl.int64)
    for start in range(tl.load(row_offsets + m).to(tl.int64) + p % shares * CHUNK, end, shares * CHUNK):
        entry = start + tl.arange(0, CHUNK)
        column = tl.load(columns + entry, mask=entry < end, other=0)
        channel = (column // (KH * KW)).to(tl.int64)
        down, right = column % (KH * KW) // KW * dilation_h - top, column % KW * dilation_w - left
        acc = sums((CHUNK, BO, BATCH), x)
        for pixel in range(out_height * out_width):
            row, place = pixel // out_width * stride_h + down, pixel % out_width * stride_w + right
            inside = (row >= 0) & (row < height) & (place >= 0) & (place < width) & (entry < end)
            at = ((channel * height + row) * width + place) * batch
            pixels = tl.load(x + at[:, None] + n[None, :], mask=inside[:, None] & (n < batch)[None, :], other=0)
            signal = tl.load(grad + (m * out_height * out_width + pixel) * outputs * batch + lane, mask=live, other=0)
            acc += pixels[:, None, :] * signal[None, :, :]
        to_values = (entry * outputs * batch)[:, None, None] + lane[None, :, :]
        tl.store(values + to_values, acc, mask=(entry < end)[:, None, None] & live[None, :, :])


def spconv_dw_each(row_offsets: Tensor, columns: Tensor, x: Tensor, grad: Tensor, geometry: list[int]) -> Tensor:
    """The gradient of spconv's kept weights for each example and output: `[nnz, O, N]` in CSR order."""
    (channels, *size, batch), rows, outputs = x.shape, len(row_offsets) - 1, grad.shape[3]
    if geometry[-1] != 1:
        raise ValueError(f"spconv_dw_each: groups must be 1, got {geometry[-1]}")
    sizes = Sizes.of("spconv_dw_each", geometry, size, channels, rows)
    check_wide("spconv_dw_each", x)
    check_pattern("spconv_dw_each", x, row_offsets, columns)
    shape = (rows, sizes.out_height, sizes.out_width, outputs, batch)
    check("spconv_dw_each", x, x=(x, tuple(x.shape)), grad=(grad, shape))
    values = x.new_empty(len(columns), outputs, batch)
    if values.numel():
        chunk, lanes, apart = ENTRIES[x.element_size()], tile_of(batch, 1, 64), tile_of(outputs, 1, 4)
        shares = max(1, len(columns) // (rows * chunk))
        launch(
            spconv_dw_each_kernel, rows * shares * triton.cdiv(outputs, apart) * triton.cdiv(batch, lanes),
            row_offsets, columns, x, grad, values, rows, shares, outputs, batch, *sizes,
            KH=geometry[0], KW=geometry[1], CHUNK=chunk, BO=apart, BATCH=lanes,
        )  # fmt: skip
    return values
