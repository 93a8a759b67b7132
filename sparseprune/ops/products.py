"""The products of sparse layers, differentiable any number of times, in reverse and forward mode, under torch.func.

Activations are batch-last: `[K, B]`, `[C, H, W, B]`; contiguous ones are read where they are. Sums of half precision
are taken in float32. Under autocast floating arguments are cast as torch casts those of its own products.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import _trilinear
from .pattern import Pattern
from .reference import Geometry

_BLOCKS = (32, 64, 128)


def spmm(pattern: Pattern, values: Tensor, dense: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return W dense + bias of a sparse W `[N, K]`.

    Args:
        pattern: where W keeps its entries.
        values: `[nnz]` in the pattern's order; float32, float64, bfloat16 or float16.
        dense: `[K, B]`, of the same dtype.
        bias: `[N]` or None.

    Returns:
        `[N, B]`.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit.

    Cost:
        2 nnz B flops; bitwise the same at any number of threads. A backward pass costs twice that.
    """
    _check("spmm", pattern, {"values": values, "dense": dense, "bias": bias})
    _shape("spmm", "values", values, [len(pattern.columns)])
    _shape("spmm", "dense", dense, [len(pattern.column_offsets) - 1, None])
    _shape("spmm", "bias", bias, [len(pattern.row_offsets) - 1])
    return _run("spmm", 2, pattern, (), values, dense, bias)


def spmm_t(pattern: Pattern, values: Tensor, dense: Tensor) -> Tensor:
    """Return W^T dense, `[K, B]` from dense `[N, B]`; otherwise like `spmm`."""
    _check("spmm_t", pattern, {"values": values, "dense": dense})
    _shape("spmm_t", "values", values, [len(pattern.columns)])
    _shape("spmm_t", "dense", dense, [len(pattern.row_offsets) - 1, None])
    return _run("spmm", 1, pattern, (), values, dense)


def sddmm(pattern: Pattern, left: Tensor, right: Tensor) -> Tensor:
    """Return the entries of left right^T that the pattern keeps, `[nnz]`: a dense-dense product, sampled.

    Args:
        pattern: of a weight `[N, K]`.
        left: `[N, B]`.
        right: `[K, B]`, of the same dtype.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit.

    Cost:
        2 nnz B flops.
    """
    _check("sddmm", pattern, {"left": left, "right": right})
    _shape("sddmm", "left", left, [len(pattern.row_offsets) - 1, None])
    _shape("sddmm", "right", right, [len(pattern.column_offsets) - 1, left.shape[1]])
    return _run("spmm", 0, pattern, (), right, left)


def spconv(pattern: Pattern, values: Tensor, x: Tensor, geometry: Geometry, bias: Tensor | None = None) -> Tensor:
    """Return W ⋆ x + bias of a sparse W `[O, C / groups, KH, KW]`, without unfolding the images.

    Args:
        pattern: where W keeps its entries.
        values: `[nnz]` in the pattern's order.
        x: `[C, H, W, B]`, of the same dtype.
        geometry: kernel, stride, padding, dilation and groups.
        bias: `[O]` or None.

    Returns:
        `[O, OH, OW, B]`.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit.

    Cost:
        2 nnz OH OW B flops; a backward pass twice that.
    """
    _check("spconv", pattern, {"values": values, "x": x, "bias": bias})
    _shape("spconv", "values", values, [len(pattern.columns)])
    _geometry("spconv", geometry, len(pattern.row_offsets) - 1)
    taps = geometry.kernel[0] * geometry.kernel[1]
    _shape("spconv", "x", x, [(len(pattern.column_offsets) - 1) // taps, None, None, None])
    _shape("spconv", "bias", bias, [len(pattern.row_offsets) - 1])
    static = _static("spconv", geometry, x.shape[1], x.shape[2])
    return _run("spconv", 2, pattern, static, values, x, bias)


def spconv_nchw(pattern: Pattern, values: Tensor, x: Tensor, geometry: Geometry, bias: Tensor | None = None) -> Tensor:
    """Return W ⋆ x + bias of images `[B, C, H, W]`: `[B, O, OH, OW]`; otherwise like `spconv`.

    Nothing is transposed: neighbouring pixels of a row are computed together instead of examples of the batch. Faster
    where rows are long or images are few.
    """
    _check("spconv_nchw", pattern, {"values": values, "x": x, "bias": bias})
    _shape("spconv_nchw", "values", values, [len(pattern.columns)])
    _geometry("spconv_nchw", geometry, len(pattern.row_offsets) - 1)
    taps = geometry.kernel[0] * geometry.kernel[1]
    _shape("spconv_nchw", "x", x, [None, (len(pattern.column_offsets) - 1) // taps, None, None])
    _shape("spconv_nchw", "bias", bias, [len(pattern.row_offsets) - 1])
    static = _static("spconv_nchw", geometry, x.shape[2], x.shape[3])
    return _run("spconv_nchw", 2, pattern, static, values, x, bias)


def masked_linear(x: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x where(mask, weight, 0)^T + bias; the mask is applied where the weight is read.

    Args:
        x: `[M, K]`.
        weight: `[N, K]`, of the same dtype.
        mask: bool `[N, K]`.
        bias: `[N]` or None.

    Returns:
        `[M, N]`; the gradient of the weight is exactly 0 where pruned.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit.

    Cost:
        that of the dense product; on CUDA no masked copy of the weight is made.
    """
    _check("masked_linear", (_mask("masked_linear", mask, weight),), {"weight": weight, "x": x, "bias": bias})
    _shape("masked_linear", "weight", weight, [None, None])
    _shape("masked_linear", "x", x, [None, weight.shape[1]])
    _shape("masked_linear", "bias", bias, [len(weight)])
    return _run("masked_linear", 2, (mask,), (), weight, x, bias)


def masked_conv2d(x: Tensor, weight: Tensor, mask: Tensor, geometry: Geometry, bias: Tensor | None = None) -> Tensor:
    """Return where(mask, weight, 0) ⋆ x + bias, `[B, O, OH, OW]` from `[B, C, H, W]`; else like `masked_linear`."""
    _check("masked_conv2d", (_mask("masked_conv2d", mask, weight),), {"weight": weight, "x": x, "bias": bias})
    _shape("masked_conv2d", "weight", weight, [None, None, *geometry.kernel])
    _geometry("masked_conv2d", geometry, len(weight))
    _shape("masked_conv2d", "x", x, [None, weight.shape[1] * geometry.groups, None, None])
    _shape("masked_conv2d", "bias", bias, [len(weight)])
    static = _static("masked_conv2d", geometry, x.shape[2], x.shape[3])
    return _run("masked_conv2d", 2, (mask,), static, weight, x, bias)


def block_spmm(pattern: Pattern, blocks: Tensor, dense: Tensor) -> Tensor:
    """Return W dense of a block-sparse W.

    Args:
        pattern: which blocks W keeps: of a weight `[N / S, K / S]`.
        blocks: `[nnz, S, S]`, S of 32, 64 or 128, in the pattern's order.
        dense: `[K, B]`, of the same dtype.

    Returns:
        `[N, B]`.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit.

    Cost:
        2 nnz S^2 B flops.
    """
    _check("block_spmm", pattern, {"blocks": blocks, "dense": dense})
    size = blocks.shape[-1]
    if size not in _BLOCKS:
        raise ValueError(f"block_spmm: blocks must be 32, 64 or 128 wide, got shape {list(blocks.shape)}")
    _shape("block_spmm", "blocks", blocks, [len(pattern.columns), size, size])
    _shape("block_spmm", "dense", dense, [(len(pattern.column_offsets) - 1) * size, None])
    return _run("block_spmm", 2, pattern, (size,), blocks, dense)


def _run(
    form: str,
    role: int,
    index: tuple[Tensor, ...],
    static: tuple[int, ...],
    p: Tensor,
    q: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    device, bias = p.device.type, None if bias is None else bias.contiguous()
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        p, q, bias = _cast(p, dtype), _cast(q, dtype), None if bias is None else _cast(bias, dtype)
        with torch.autocast(device, enabled=False):
            return _run(form, role, index, static, p, q, bias)
    if p.dtype == torch.float16 and device == "cpu":
        bias = None if bias is None else bias.float()
        return _trilinear.apply(form, role, tuple(index), static, p.float(), q.float(), bias).half()
    return _trilinear.apply(form, role, tuple(index), static, p, q, bias)


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """As autocast does: everything but float64."""
    return x if x.dtype == torch.float64 else x.to(dtype)


def _geometry(who: str, geometry: Geometry, outputs: int) -> None:
    if min(*geometry.kernel, *geometry.stride, *geometry.dilation, geometry.groups) < 1 or min(geometry.padding) < 0:
        raise ValueError(f"{who}: geometry must be positive, and not negative its padding, got {geometry}")
    if outputs % geometry.groups:
        raise ValueError(f"{who}: groups must divide the {outputs} outputs, got {geometry.groups}")


def _static(who: str, geometry: Geometry, height: int, width: int) -> tuple[int, ...]:
    size = geometry.output_size(height, width)
    if min(size) < 1:
        raise ValueError(f"{who}: x must be at least as large as the kernel, got images of {height} x {width}")
    return (*geometry.numbers, height, width)


def _mask(who: str, mask: Tensor, weight: Tensor) -> Tensor:
    if mask.dtype != torch.bool or mask.shape != weight.shape:
        raise ValueError(
            f"{who}: mask must be bool with shape {list(weight.shape)} like weight, got {mask.dtype} {list(mask.shape)}"
        )
    return mask.contiguous()


def _check(who: str, index: tuple[Tensor, ...], tensors: dict[str, Tensor | None]) -> None:
    """Raise ValueError unless all tensors share a floating dtype (autocast will see to it) and a device."""
    first, model = next(iter(tensors.items()))
    assert model is not None
    dtype, device = model.dtype, model.device
    if not dtype.is_floating_point:
        raise ValueError(f"{who}: {first} must be floating point, got {dtype}")
    for name, tensor in tensors.items():
        if tensor is None:
            continue
        if tensor.dtype != dtype and not (torch.is_autocast_enabled(device.type) and tensor.is_floating_point()):
            raise ValueError(f"{who}: {name} must have the dtype of {first}, {dtype}, got {tensor.dtype}")
        if tensor.device != device:
            raise ValueError(f"{who}: {name} must be on the device of {first}, {device}, got {tensor.device}")
    for tensor in index:
        if tensor.device != device:
            raise ValueError(f"{who}: the pattern must be on the device of {first}, {device}, got {tensor.device}")


def _shape(who: str, name: str, tensor: Tensor | None, expected: list[int | None]) -> None:
    if tensor is None:
        return
    fits = tensor.ndim == len(expected)
    for size, wanted in zip(tensor.shape, expected, strict=False):
        fits = fits and (wanted is None or size == wanted)
    if not fits:
        shape = ", ".join("any" if wanted is None else str(wanted) for wanted in expected)
        raise ValueError(f"{who}: {name} must have shape [{shape}], got {list(tensor.shape)}")
