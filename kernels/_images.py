"""What kernels of convolutions share: the sizes of a geometry, and tiles of batch-last images."""

# The language of kernels is not what pyright reads.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._elements import widen
from ._products import UPCAST, tile_of, tiles

SCRATCH = 1 << 24  # partial sums that are held at a time
# The largest BM, BN, BK of an implicit GEMM and its warps, by bytes an element: addresses that are gathered one by one
# take registers, and these tiles do not spill.
TILES = {2: (64, 128, 32), 4: (32, 64, 16), 8: (32, 32, 16)}
WARPS = {2: 8, 4: 4, 8: 4}


class Sizes(NamedTuple):
    """The geometry of one launch, in the order in which every kernel takes it."""

    height: int
    width: int
    out_height: int
    out_width: int
    stride_h: int
    stride_w: int
    top: int
    left: int
    dilation_h: int
    dilation_w: int

    @classmethod
    def of(cls, op: str, geometry: list[int], size: Sequence[int], channels: int, outputs: int) -> Sizes:
        """Those of a convolution of `channels` images of `size` into `outputs`; raise where there is none."""
        (kh, kw, sh, sw, top, bottom, left, right, dh, dw, groups), (height, width) = geometry, size
        if min(kh, kw, sh, sw, dh, dw, groups) < 1 or min(top, bottom, left, right) < 0:
            raise ValueError(f"{op}: kernel, stride, dilation and groups must be positive, got {geometry}")
        if channels % groups or outputs % groups:
            raise ValueError(f"{op}: channels must be multiples of groups = {groups}, got {channels}, {outputs}")
        rows = (height + top + bottom - dh * (kh - 1) - 1) // sh + 1
        columns = (width + left + right - dw * (kw - 1) - 1) // sw + 1
        if rows < 1 or columns < 1:
            raise ValueError(f"{op}: the kernel must fit into the padded image, got {height} x {width}, {geometry}")
        if (height + top + bottom) * (width + left + right) >= 1 << 30:  # pixels of one image are counted in int32
            raise ValueError(
                f"{op}: a padded image must have fewer than 2^30 pixels, got {height} x {width}, {geometry}"
            )
        return cls(height, width, rows, columns, sh, sw, top, left, dh, dw)

    @property
    def phases(self) -> tuple[int, int, int]:
        """Classes of input pixels that meet the same taps, and the rows and columns of the largest of them."""
        sh, sw = self.stride_h, self.stride_w
        return sh * sw, -(-self.height // sh), -(-self.width // sw)


def tile(pixels: int, batch: int, itemsize: int) -> dict[str, int]:
    """PIXELS and BATCH of a program on batch-last images: what it holds in registers."""
    held = 1024 if itemsize == 8 else 2048
    lanes = tile_of(batch, 1, 64)
    return {"PIXELS": tile_of(pixels, 1, held // lanes), "BATCH": lanes}


def gemm(rows: int, columns: int, like: Tensor) -> dict[str, int]:
    """The tile of an implicit GEMM `[rows, columns]`, and how it is computed."""
    return {**tiles(rows, columns, like, TILES), "num_warps": WARPS[like.element_size()], "UPCAST": UPCAST}


def tile_count(pixels: int, batch: int, held: dict[str, int]) -> int:
    return triton.cdiv(pixels, held["PIXELS"]) * triton.cdiv(batch, held["BATCH"])


def sum_of_slots(fill: Callable[[Tensor, int], None], slots: int, kept: int, like: Tensor) -> Tensor:
    """The sum of partial gradients `[slots, kept]`, always in the same order; `fill(rows, first)` writes some rows."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    total, step = like.new_zeros(kept, dtype=dtype), max(1, SCRATCH // max(1, kept))
    for first in range(0, slots, step):
        partial = like.new_zeros(min(step, slots - first), kept, dtype=dtype)
        fill(partial, first)
        total += partial.sum(0)
    return total.to(like.dtype)


@triton.jit
def place(slot, columns, batch, PIXELS: tl.constexpr, BATCH: tl.constexpr):
    """Row and column of each pixel of a tile, and its batch lanes."""
    batches = (batch + BATCH - 1) // BATCH
    pixel = (slot // batches).to(tl.int32) * PIXELS + tl.arange(0, PIXELS)
    lane = (slot % batches) * BATCH + tl.arange(0, BATCH)
    return pixel // columns, pixel % columns, lane


@triton.jit
def pixels_from(first, area, columns, COUNT: tl.constexpr):
    """Image, row and column of COUNT pixels from a number on, images of `area` pixels one after another.

    One int64 quotient for all of them, int32 ones for each.
    """
    pixel = (first % area).to(tl.int32) + tl.arange(0, COUNT)
    return first // area + pixel // area, pixel % area // columns, pixel % columns


@triton.jit
def load_shifted(image, shift, at, row, column, live, height, width, to: tl.constexpr):
    """image[shift + at] `[PIXELS, BATCH]`, 0 where the pixel (row, column) is not in the image."""
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    return widen(tl.load(image + shift + at, mask=inside[:, None] & live, other=0), to)
