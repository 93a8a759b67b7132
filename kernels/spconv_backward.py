"""Gradients of a compressed convolution by the pattern of inputs: a program owns a tile of one input channel.

Input pixels are taken in phases, by their remainders in the strides: all pixels of a phase meet the same taps, at
outputs as far apart as the pixels are, so that no lane idles and nothing is scattered.
"""

# The language of kernels is not what pyright reads.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ._elements import narrow, widen
from ._images import Sizes, load_shifted, place, sum_of_slots, tile, tile_count
from ._products import check, check_pattern, launch, sums


@triton.jit(do_not_specialize=["first"])
def spconv_backward_kernel(
    values, column_offsets, rows, order, x, grad, dx, partial, kept, first, channels, batch, phase_height, phase_width,
    height, width, out_height, out_width, stride_h, stride_w, top, left, dilation_h, dilation_w,
    KH: tl.constexpr, KW: tl.constexpr, WEIGHTS: tl.constexpr, PIXELS: tl.constexpr, BATCH: tl.constexpr,
):  # fmt: skip
    """dX, and where WEIGHTS is set this tile's part of dW, from the same loads of the outputs' gradient."""
    program = tl.program_id(0).to(tl.int64)
    c, slot = program % channels, program // channels
    phases = stride_h * stride_w
    phase = ((first + slot) % phases).to(tl.int32)
    down, right = phase // stride_w, phase % stride_w
    row, column, lane = place((first + slot) // phases, phase_width, batch, PIXELS, BATCH)
    at = ((row * out_width + column).to(tl.int64) * batch)[:, None] + lane[None, :]
    at_row, at_column = row * stride_h + down, column * stride_w + right
    live = (lane < batch)[None, :] & ((row < phase_height) & (at_row < height) & (at_column < width))[:, None]
    to_x = ((c * height * width + (at_row * width + at_column)) * batch)[:, None] + lane[None, :]
    result = sums((PIXELS, BATCH), grad)
    if WEIGHTS:
        held = widen(tl.load(x + to_x, mask=live, other=0), result.dtype)
    for tap in range(KH * KW):
        reach_h, reach_w = down + top - tap // KW * dilation_h, right + left - tap % KW * dilation_w
        if (reach_h % stride_h == 0) & (reach_w % stride_w == 0):
            shift_h, shift_w = reach_h // stride_h, reach_w // stride_w
            line = column_offsets + c * (KH * KW) + tap
            for j in range(tl.load(line), tl.load(line + 1)):
                o, entry = tl.load(rows + j).to(tl.int64), tl.load(order + j)
                shift = ((o * out_height + shift_h) * out_width + shift_w) * batch
                pixels = load_shifted(
                    grad, shift, at, row + shift_h, column + shift_w, live, out_height, out_width, result.dtype
                )  # fmt: skip
                result += widen(tl.load(values + entry), result.dtype) * pixels
                if WEIGHTS:
                    tl.store(partial + slot * kept + entry, tl.sum(held * pixels))
    tl.store(dx + to_x, narrow(result, dx.dtype.element_ty), mask=live)


def _checked(
    op: str, values: Tensor, column_offsets: Tensor, rows: Tensor, order: Tensor, shape: tuple[int, ...], grad: Tensor,
    geometry: list[int],
) -> Sizes:  # fmt: skip
    """The sizes of a convolution of images of a shape, whose arguments fit together."""
    channels, *size, batch = shape
    sizes = Sizes.of(op, geometry, size, channels, len(grad))
    if len(column_offsets) != channels * geometry[0] * geometry[1] + 1:
        raise ValueError(f"{op}: column_offsets must have a row a channel and tap, got {len(column_offsets) - 1}")
    check_pattern(op, grad, column_offsets, rows, order)
    out = (len(grad), sizes.out_height, sizes.out_width, batch)
    check(op, grad, values=(values, tuple(rows.shape)), grad=(grad, out))
    return sizes


def _plan(sizes: Sizes, batch: int, itemsize: int) -> tuple[int, dict[str, int]]:
    """How many tiles an input channel has, over all phases, and what they hold."""
    phases, height, width = sizes.phases
    held = tile(height * width, batch, itemsize)
    return phases * tile_count(height * width, batch, held), held


def spconv_dx(
    values: Tensor, column_offsets: Tensor, rows: Tensor, order: Tensor, grad: Tensor, size: list[int],
    geometry: list[int],
) -> Tensor:  # fmt: skip
    """The gradient of spconv's input, `[C, H, W, B]` with size = [H, W], from grad `[O, OH, OW, B]`."""
    (kh, kw), batch = geometry[:2], grad.shape[3]
    channels = (len(column_offsets) - 1) // (kh * kw)
    sizes = _checked("spconv_dx", values, column_offsets, rows, order, (channels, *size, batch), grad, geometry)
    dx = grad.new_empty(channels, *size, batch)
    if dx.numel():
        slots, held = _plan(sizes, batch, grad.element_size())
        launch(
            spconv_backward_kernel, channels * slots, values, column_offsets, rows, order, dx, grad, dx, dx, 0, 0,
            channels, batch, *sizes.phases[1:], *sizes, KH=kh, KW=kw, WEIGHTS=False, num_warps=4, **held,
        )  # fmt: skip
    return dx


def spconv_backward(
    values: Tensor, column_offsets: Tensor, rows: Tensor, order: Tensor, x: Tensor, grad: Tensor, geometry: list[int]
) -> tuple[Tensor, Tensor]:
    """Both gradients of y = W ⋆ x by the pattern of inputs: that of x, and that of the kept weights in CSR order."""
    (kh, kw), channels, batch, dx = geometry[:2], x.shape[0], x.shape[3], x.new_empty(x.shape)
    sizes = _checked("spconv_backward", values, column_offsets, rows, order, tuple(x.shape), grad, geometry)
    check("spconv_backward", grad, x=(x, tuple(x.shape)))
    slots, held = _plan(sizes, batch, x.element_size())

    def fill(partial: Tensor, first: int) -> None:
        launch(
            spconv_backward_kernel, channels * len(partial), values, column_offsets, rows, order, x, grad, dx, partial,
            len(rows), first, channels, batch, *sizes.phases[1:], *sizes, KH=kh, KW=kw, WEIGHTS=True, num_warps=4,
            **held,
        )  # fmt: skip

    return dx, sum_of_slots(fill, slots if dx.numel() else 0, len(rows), x)
