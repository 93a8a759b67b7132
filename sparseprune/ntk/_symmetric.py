"""Kernel matrices as linear algebra takes them: flat, symmetric, positive semi-definite to rounding."""

from __future__ import annotations

import torch
from torch import Tensor


def flat(who: str, name: str, kernel: Tensor) -> Tensor:
    """Return `[N, N]`, or `[N O, N O]` of `[N, N, O, O]`, in fp64, made symmetric to the last bit.

    Raises:
        ValueError: another shape or dtype, numbers that are not finite, or K - K^T above sqrt(eps) max |K|.
    """
    if not isinstance(kernel, Tensor) or kernel.dtype not in (torch.float32, torch.float64):
        got = kernel.dtype if isinstance(kernel, Tensor) else type(kernel).__name__
        raise ValueError(f"{who}: {name} must be a float32 or float64 tensor, got {got}")
    n, o = kernel.shape[0] if kernel.ndim else 0, kernel.shape[-1] if kernel.ndim else 0
    if kernel.shape not in ((n, n), (n, n, o, o)) or kernel.numel() == 0:
        raise ValueError(f"{who}: {name} must be [N, N] or [N, N, O, O], got {list(kernel.shape)}")
    matrix = kernel.double()
    if matrix.ndim == 4:
        matrix = matrix.transpose(1, 2).reshape(n * o, n * o)
    largest = float(matrix.abs().max())
    if not largest < float("inf"):
        raise ValueError(f"{who}: {name} must be finite, got infinite or NaN numbers")
    apart = float((matrix - matrix.mT).abs().max())
    if apart > torch.finfo(kernel.dtype).eps ** 0.5 * largest:
        raise ValueError(f"{who}: {name} must be symmetric, got K - K^T up to {apart:g} where K is up to {largest:g}")
    return (matrix + matrix.mT) / 2


def rounding(who: str, name: str, values: Tensor, dtype: torch.dtype) -> float:
    """Return max(N eps lambda_max, -lambda_min): eigenvalues up to that are rounding.

    Args:
        values: all eigenvalues, ascending.
        dtype: what the kernel was computed in; eps is its.

    Raises:
        ValueError: lambda_min < -sqrt(eps) lambda_max.
    """
    low, high = float(values[0]), float(values[-1])
    eps = torch.finfo(dtype).eps
    if low < -(eps**0.5) * max(high, 0.0):
        raise ValueError(f"{who}: {name} must be positive semi-definite, got eigenvalues from {low:g} to {high:g}")
    return max(len(values) * eps * high, -low, torch.finfo(torch.float64).tiny)
