"""The gradient of a masked convolution's input, gathered: what each input pixel gave is collected from the outputs.

Input pixels are taken in phases, by their remainders in the strides: all pixels of a phase meet the same taps, at
outputs as far apart as the pixels are.
"""

# The language of kernels is not what pyright reads.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ._elements import narrow
from ._images import Sizes, gemm, pixels_from
from ._products import check, check_mask, dot, launch, masked_load, sums


@triton.jit
def masked_conv2d_dx_kernel(
    grad, weight, mask, dx, images, grad_stride, dx_stride, channels, per_group, groups, phase_height, phase_width,
    height, width, out_height, out_width, stride_h, stride_w, top, left, dilation_h, dilation_w,
    KH: tl.constexpr, KW: tl.constexpr, UPCAST: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """A tile of BM input channels of one group by BN pixels of one phase, which may lie in several images."""
    program = tl.program_id(0).to(tl.int64)
    row_tiles = (channels + BM - 1) // BM
    c = program % row_tiles * BM + tl.arange(0, BM)
    group, rest = program // row_tiles % groups, program // row_tiles // groups
    phases = stride_h * stride_w
    phase = (rest % phases).to(tl.int32)
    down, right = phase // stride_w, phase % stride_w
    image, row, column = pixels_from(rest // phases * BN, phase_height * phase_width, phase_width, BN)
    y, x = row * stride_h + down, column * stride_w + right
    live = (image < images) & (y < height) & (x < width)
    corner = image * grad_stride + group * per_group * out_height * out_width + (row * out_width + column)
    result = sums((BM, BN), grad)
    for tap in range(KH * KW):
        reach_h, reach_w = down + top - tap // KW * dilation_h, right + left - tap % KW * dilation_w
        if (reach_h % stride_h == 0) & (reach_w % stride_w == 0):
            shift_h, shift_w = reach_h // stride_h, reach_w // stride_w
            inside = live & (row + shift_h >= 0) & (row + shift_h < out_height)
            inside = inside & (column + shift_w >= 0) & (column + shift_w < out_width)
            for start in range(0, per_group, BK):
                k = start + tl.arange(0, BK)
                reached = k < per_group
                to_w = ((group * per_group + k)[:, None] * channels + c[None, :]) * (KH * KW) + tap
                w = masked_load(weight, mask, to_w, reached[:, None] & (c < channels)[None, :])
                shift = (k.to(tl.int64) * out_height + shift_h) * out_width + shift_w
                live_grad = reached[:, None] & inside[None, :]
                pixels = tl.load(grad + shift[:, None] + corner[None, :], mask=live_grad, other=0)
                result = dot(tl.trans(w), pixels, result, UPCAST)
    to_dx = (image * dx_stride + (y * width + x))[None, :] + ((group * channels + c) * height * width)[:, None]
    tl.store(dx + to_dx, narrow(result, dx.dtype.element_ty), mask=(c < channels)[:, None] & live[None, :])


def masked_conv2d_dx(grad: Tensor, weight: Tensor, mask: Tensor, size: list[int], geometry: list[int]) -> Tensor:
    """The gradient of x `[B, C, H, W]`, size = [H, W], from grad `[B, O, OH, OW]`."""
    (outputs, channels, *_), images, groups = weight.shape, len(grad), geometry[-1]
    sizes = Sizes.of("masked_conv2d_dx", geometry, size, channels * groups, outputs)
    shape = (images, outputs, sizes.out_height, sizes.out_width)
    check("masked_conv2d_dx", grad, grad=(grad, shape), weight=(weight, (outputs, channels, *geometry[:2])))
    keep = check_mask("masked_conv2d_dx", weight, mask)
    dx = grad.new_empty(images, channels * groups, *size)
    if dx.numel():
        phases, height, width = sizes.phases
        tile = gemm(channels, images * height * width, grad)
        programs = triton.cdiv(channels, tile["BM"]) * groups * phases
        launch(
            masked_conv2d_dx_kernel, programs * triton.cdiv(images * height * width, tile["BN"]),
            grad, weight, keep, dx, images, grad[0].numel(), dx[0].numel(), channels, outputs // groups, groups,
            height, width, *sizes,
            KH=geometry[0], KW=geometry[1], **tile,
        )  # fmt: skip
    return dx
