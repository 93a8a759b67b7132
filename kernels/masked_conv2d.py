"""Convolution with a dense weight under a mask: implicit GEMM, the mask applied where a tile of the weight is read."""

# The language of kernels is not what pyright reads.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ._elements import narrow, widen
from ._images import Sizes, gemm, pixels_from
from ._products import check, check_mask, dot, launch, masked_load, sums


@triton.jit
def masked_conv2d_kernel(
    x, weight, mask, bias, y, images, x_stride, y_stride, channels, per_group, groups,
    height, width, out_height, out_width, stride_h, stride_w, top, left, dilation_h, dilation_w,
    KH: tl.constexpr, KW: tl.constexpr, BIASED: tl.constexpr, UPCAST: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """A tile of BM output channels of one group by BN pixels, which may lie in several images."""
    program = tl.program_id(0).to(tl.int64)
    row_tiles = (per_group + BM - 1) // BM
    group = program // row_tiles % groups
    within = program % row_tiles * BM + tl.arange(0, BM)
    o, kept_rows = group * per_group + within, within < per_group
    area = out_height * out_width
    image, row, column = pixels_from(program // row_tiles // groups * BN, area, out_width, BN)
    live = image < images
    top_row, left_column = row * stride_h - top, column * stride_w - left
    corner = image * x_stride + group * channels * height * width + (top_row * width + left_column)
    depth = channels * (KH * KW)
    result = sums((BM, BN), x)
    if BIASED:
        result += widen(tl.load(bias + o, mask=kept_rows, other=0), result.dtype)[:, None]
    for start in range(0, depth, BK):
        k = start + tl.arange(0, BK)
        channel, down, right = k // (KH * KW), k % (KH * KW) // KW * dilation_h, k % KW * dilation_w
        w = masked_load(weight, mask, o[:, None] * depth + k[None, :], kept_rows[:, None] & (k < depth)[None, :])
        line, place = top_row[None, :] + down[:, None], left_column[None, :] + right[:, None]
        inside = live[None, :] & (k < depth)[:, None] & (line >= 0) & (line < height) & (place >= 0) & (place < width)
        shift = (channel.to(tl.int64) * height + down) * width + right
        pixels = tl.load(x + shift[:, None] + corner[None, :], mask=inside, other=0)
        result = dot(w, pixels, result, UPCAST)
    to_y = (image * y_stride + (row * out_width + column))[None, :] + o[:, None] * area
    tl.store(y + to_y, narrow(result, y.dtype.element_ty), mask=kept_rows[:, None] & live[None, :])


def masked_conv2d(x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None, geometry: list[int]) -> Tensor:
    """y = W ⋆ x + bias: `[B, O, OH, OW]` from x `[B, C, H, W]`, weight and mask `[O, C / groups, KH, KW]`."""
    (images, channels, *size), outputs, groups = x.shape, len(weight), geometry[-1]
    sizes = Sizes.of("masked_conv2d", geometry, size, channels, outputs)
    shape = (outputs, channels // groups, *geometry[:2])
    check("masked_conv2d", x, x=(x, tuple(x.shape)), weight=(weight, shape), bias=(bias, (outputs,)))
    keep = check_mask("masked_conv2d", weight, mask)
    y = x.new_empty(images, outputs, sizes.out_height, sizes.out_width)
    if y.numel():
        pixels, per_group = images * sizes.out_height * sizes.out_width, outputs // groups
        tile = gemm(per_group, pixels, x)
        programs = triton.cdiv(per_group, tile["BM"]) * groups * triton.cdiv(pixels, tile["BN"])
        launch(
            masked_conv2d_kernel, programs, x, weight, keep, weight if bias is None else bias, y,
            images, x[0].numel(), y[0].numel(), channels // groups, per_group, groups, *sizes,
            KH=geometry[0], KW=geometry[1], BIASED=bias is not None, **tile,
        )  # fmt: skip
    return y
