"""What the kernels of products share: their launch, the checks of their arguments, tiles and sums.

Sums are fp32, or fp64 for fp64; no atomics, and tiles that depend on shapes alone, so that equal calls give equal bits.
"""

# The language of kernels is not what pyright reads.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

from ._elements import widen

# The interpreter of Triton 3.9 multiplies the bits of bfloat16 operands: there they are made fp32 before a dot.
UPCAST = bool(knobs.runtime.interpret)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
PROGRAMS = 128  # about the number of processors of a large GPU
# The largest BM, BN, BK by bytes an element; three steps in flight fit into 99 KiB of shared memory. No more than 32
# rows of fp32 and fp64: Triton 3.6 gives taller tiles to the tensor cores of sm_100, as tf32 whatever was asked for.
TILES = {2: (64, 128, 64), 4: (32, 64, 32), 8: (32, 64, 16)}


def launch(kernel: Any, programs: int, *args: Any, num_warps: int = 4, **options: Any) -> None:
    """Run a kernel on the device of its first argument, where there is work; multiply-adds are fused."""
    if programs:
        with torch.cuda.device_of(args[0]):
            kernel[(programs,)](*args, **options, num_warps=num_warps, enable_fp_fusion=True)


def check(op: str, like: Tensor, **tensors: tuple[Tensor | None, tuple[int, ...]]) -> None:
    """Raise unless every tensor given is contiguous, of its shape and of the floating dtype and device of `like`."""
    if like.dtype not in FLOATS:
        raise ValueError(f"{op}: tensors must be float16, bfloat16, float32 or float64, got {like.dtype}")
    for name, (t, shape) in tensors.items():
        if t is not None:
            _check_one(op, name, t, shape, like.dtype, like.device)


def check_wide(op: str, like: Tensor) -> None:
    """Raise unless `like` is of fp32 or fp64, where half types would lose what is asked for."""
    if like.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{op}: tensors must be float32 or float64, got {like.dtype}")


def check_pattern(op: str, like: Tensor, offsets: Tensor, indices: Tensor, order: Tensor | None = None) -> None:
    """Raise unless a pattern is of contiguous int32 vectors on the device of `like`; its numbers are trusted."""
    for name, t, shape in (
        ("offsets", offsets, (max(offsets.numel(), 1),)),
        ("indices", indices, (indices.numel(),)),
        ("order", order, (indices.numel(),)),
    ):
        if t is not None:
            _check_one(op, name, t, shape, torch.int32, like.device)


def check_mask(op: str, weight: Tensor, mask: Tensor) -> Tensor:
    """The mask as kernels read it; raise unless it is contiguous, bool and of the shape and device of the weight.

    Bytes, but int32 beside fp64: Triton before 3.9 takes the byte for the width of the operands and gives up.
    """
    _check_one(op, "mask", mask, tuple(weight.shape), torch.bool, weight.device)
    return mask.int() if weight.dtype == torch.float64 else mask.view(torch.uint8)


def _check_one(
    op: str, name: str, t: Tensor, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> None:  # fmt: skip
    if tuple(t.shape) != shape:
        raise ValueError(f"{op}: {name} must have shape {list(shape)}, got {list(t.shape)}")
    if t.dtype != dtype or t.device != device:
        raise ValueError(f"{op}: {name} must be {dtype} on {device}, got {t.dtype} on {t.device}")
    if not t.is_contiguous():
        raise ValueError(f"{op}: {name} must be contiguous, got strides {list(t.stride())}")


def tile_of(size: int, low: int, high: int) -> int:
    """The power of two that holds `size`, between two powers of two."""
    return min(max(triton.next_power_of_2(max(size, 1)), low), high)


def tiles(
    rows: int, columns: int, like: Tensor, largest: dict[int, tuple[int, int, int]] = TILES
) -> dict[str, int]:  # fmt: skip
    """BM x BN outputs and BK terms a step of a dot, by shape and type alone; smaller where a GPU would be idle."""
    tall, wide, inner = largest[like.element_size()]
    bm, bn = tile_of(rows, 16, tall), tile_of(columns, 32, wide)
    while bm * bn > 1024 and triton.cdiv(rows, bm) * triton.cdiv(columns, bn) < PROGRAMS:
        bm, bn = (bm, bn // 2) if bn > bm else (bm // 2, bn)
    return {"BM": bm, "BN": bn, "BK": inner}


@triton.jit
def sums(shape, x):
    """Zeros in the type in which sums over elements at x are taken."""
    to: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    return tl.zeros(shape, to)


@triton.jit
def masked_load(weight, keep, at, live):
    """Weights where their mask keeps them, else 0, even where the weight is not finite; live: what lies inside."""
    w = tl.load(weight + at, mask=live, other=0)
    kept = tl.load(keep + at, mask=live, other=0) != 0
    return tl.where(kept, w, tl.zeros_like(w))


@triton.jit
def dot(a, b, acc, UPCAST: tl.constexpr):
    """acc + a b, in full precision for fp32 and fp64; half types go to the tensor cores as they are."""
    if UPCAST:
        a, b = widen(a, acc.dtype), widen(b, acc.dtype)
    return tl.dot(a, b, acc, input_precision="ieee", out_dtype=acc.dtype)


@triton.jit
def tile_numbers(p, down, across, GROUP: tl.constexpr):
    """The tile (i, j) of program p, in bands of GROUP rows of tiles: neighbours in time share what they read."""
    band = p // (GROUP * across)
    rows = tl.minimum(down - band * GROUP, GROUP)
    inside = p - band * (GROUP * across)
    return band * GROUP + inside % rows, inside // rows
