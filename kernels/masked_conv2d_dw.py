"""The gradient of a masked convolution's weight: a GEMM over the pixels of all images, the mask in its epilogue."""

# The language of kernels is not what pyright reads.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._elements import narrow
from ._images import TILES, WARPS, Sizes, pixels_from
from ._products import UPCAST, check, check_mask, dot, launch, sums, tile_of

PROGRAMS = 1024  # wanted; a sum over pixels is split until there are as many
LEAST = 2048  # pixels of a part
WIDTH = 64  # of a tile, at most: wider ones spill


@triton.jit
def masked_conv2d_dw_kernel(
    grad, x, mask, dw, images, grad_stride, x_stride, channels, per_group, groups, part,
    height, width, out_height, out_width, stride_h, stride_w, top, left, dilation_h, dilation_w,
    KH: tl.constexpr, KW: tl.constexpr, UPCAST: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """A tile of BM outputs of one group by BN weights of an output, summed over `part` pixels."""
    program = tl.program_id(0).to(tl.int64)
    width_w = channels * (KH * KW)
    row_tiles, column_tiles = (per_group + BM - 1) // BM, (width_w + BN - 1) // BN
    group, split = program // row_tiles // column_tiles % groups, program // row_tiles // column_tiles // groups
    within = program % row_tiles * BM + tl.arange(0, BM)
    k = program // row_tiles % column_tiles * BN + tl.arange(0, BN)
    kept_rows, kept_columns = within < per_group, k < width_w
    down, right = k % (KH * KW) // KW * dilation_h - top, k % KW * dilation_w - left
    shift = ((group * channels + k // (KH * KW)) * height + down) * width + right
    o = group * per_group + within
    area = out_height * out_width
    result = sums((BM, BN), x)
    for start in range(split * part, split * part + part, BK):
        image, row, column = pixels_from(start, area, out_width, BK)
        live = image < images
        to_grad = (image * grad_stride + (row * out_width + column))[None, :] + o[:, None] * area
        g = tl.load(grad + to_grad, mask=kept_rows[:, None] & live[None, :], other=0)
        y, x_ = row[None, :] * stride_h + down[:, None], column[None, :] * stride_w + right[:, None]
        inside = (kept_columns[:, None] & live[None, :]) & (y >= 0) & (y < height) & (x_ >= 0) & (x_ < width)
        corner = image * x_stride + (row * stride_h * width + column * stride_w)
        pixels = tl.load(x + shift[:, None] + corner[None, :], mask=inside, other=0)
        result = dot(g, tl.trans(pixels), result, UPCAST)
    to_w = o[:, None] * width_w + k[None, :]
    inside = kept_rows[:, None] & kept_columns[None, :]
    result = tl.where(tl.load(mask + to_w, mask=inside, other=0) != 0, result, 0.0)
    to_dw = split * groups * per_group * width_w + to_w
    tl.store(dw + to_dw, narrow(result, dw.dtype.element_ty), mask=inside)


def _parts(programs: int, pixels: int, depth: int) -> tuple[int, int]:
    """Into how many parts the pixels are cut, and the pixels of one, whole steps of the loop."""
    parts = max(1, min(triton.cdiv(PROGRAMS, max(1, programs)), pixels // LEAST))
    part = triton.cdiv(triton.cdiv(pixels, parts), depth) * depth
    return max(1, triton.cdiv(pixels, max(1, part))), part


def masked_conv2d_dw(grad: Tensor, x: Tensor, mask: Tensor, geometry: list[int]) -> Tensor:
    """The gradient of the weight where the mask keeps, else 0: `[O, C / groups, KH, KW]`."""
    (images, inputs, *size), outputs, (kh, kw), groups = x.shape, len(mask), geometry[:2], geometry[-1]
    sizes = Sizes.of("masked_conv2d_dw", geometry, size, inputs, outputs)
    shape = (images, outputs, sizes.out_height, sizes.out_width)
    check("masked_conv2d_dw", x, x=(x, tuple(x.shape)), grad=(grad, shape))
    channels, per_group, area = inputs // groups, outputs // groups, sizes.out_height * sizes.out_width
    tall, wide, inner = TILES[x.element_size()]
    bm, bn = tile_of(per_group, 16, tall), tile_of(channels * kh * kw, 32, min(wide, WIDTH))
    programs = triton.cdiv(per_group, bm) * triton.cdiv(channels * kh * kw, bn) * groups
    parts, part = _parts(programs, images * area, inner)
    dtype = x.dtype if parts == 1 or x.dtype == torch.float64 else torch.float32
    dw = x.new_empty(parts, outputs, channels, kh, kw, dtype=dtype)
    keep = check_mask("masked_conv2d_dw", dw[0], mask)
    launch(
        masked_conv2d_dw_kernel, programs * parts, grad, x, keep, dw, images, outputs * area,
        inputs * sizes.height * sizes.width, channels, per_group, groups, part, *sizes,
        KH=kh, KW=kw, UPCAST=UPCAST, BM=bm, BN=bn, BK=inner, num_warps=WARPS[x.element_size()],
    )  # fmt: skip
    return dw[0] if parts == 1 else dw.sum(0).to(x.dtype)
