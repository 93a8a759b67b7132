"""Eigenvalues of a tangent kernel and what is read from them, with or without the matrix."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ._products import Products, largest
from ._symmetric import flat, rounding
from .empirical import empirical


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The spectrum of a kernel K, positive semi-definite of size n = N (or N O for all pairs of outputs).

    Args:
        eigenvalues: `[k]` fp64, the largest first; rounding is not clipped.
        smallest: the least of all n, no less than 0; None: not computed.
        noise: eigenvalues up to this are rounding.
        trace: their sum.
        frobenius: ||K||_F, the root of the sum of their squares.
        frobenius_error: its standard error; 0: exact.
        alignment: <K, Y Y^T> / (||K||_F ||Y Y^T||_F) with targets Y, in [0, 1]; None: no targets. Its relative error is
            that of ||K||_F.
    """

    eigenvalues: Tensor
    smallest: float | None
    noise: float
    trace: float
    frobenius: float
    frobenius_error: float
    alignment: float | None

    @property
    def condition(self) -> float | None:
        """Return lambda_max / lambda_min, infinity where lambda_min is rounding, None where it is not known."""
        if self.smallest is None:
            return None
        return float(self.eigenvalues[0]) / self.smallest if self.smallest > self.noise else math.inf

    @property
    def effective_rank(self) -> float:
        """Return (trace / ||K||_F)^2, from 1 to n; its relative error is twice that of ||K||_F."""
        return (self.trace / self.frobenius) ** 2 if self.frobenius > 0 else 0.0


def spectrum(
    kernel: Tensor | nn.Module,
    x: Tensor | None = None,
    *,
    y: Tensor | None = None,
    k: int | None = None,
    smallest: bool = False,
    centred: bool = False,
    samples: int = 16,
    outputs: Literal["trace", "full"] = "trace",
    parameters: Literal["kept", "all"] = "kept",
    biases: bool = True,
    norms: bool = True,
    batch_size: int = 256,
    seed: int = 0,
    progress: Callable[[int], Any] | None = None,
) -> Spectrum:
    """Return the spectrum of a kernel matrix, or of a model's tangent kernel on inputs.

    Of a matrix, and of a model where k is None: all eigenvalues, exactly. Of a model with k: the matrix is never made;
    the k largest come by Lanczos from products K v = J (J^T v), a vector-Jacobian and a Jacobian-vector product a
    batch, the trace from the diagonal, and ||K||_F^2 = ||K Q||_F^2 + E ||K (I - Q Q^T) z||^2 from the eigenvectors Q
    found and `samples` vectors z of random signs.

    Args:
        kernel: `[N, N]` or `[N, N, O, O]`, symmetric; or a model as for `empirical`.
        x: the model's inputs `[N, ...]`.
        y: float targets `[N]` or `[N, C]` (`[N, O]` for a kernel of all pairs of outputs), e.g. one-hot classes.
        k: how many eigenvalues, the largest; None: all.
        smallest: for a model with k, also the smallest, by Lanczos on lambda_max I - K: to within 1e-8
            lambda_max (float32: 6e-6), in hundreds of products or more where small eigenvalues are close. Else it is
            there anyway.
        centred: K of features less their mean over the examples, H K H with H = I - 1 1^T / N, and y less its mean; a
            null direction more, so that the condition number is infinite.
        samples: as above, at least 2.
        outputs, parameters, biases, norms: as for `empirical`; for "trace" a product costs O times one for "full".
        batch_size: examples in memory at once.
        seed: of the random vectors.
        progress: called with the number of products K v made so far.

    Raises:
        ValueError: arguments as above that do not fit, a kernel that is asymmetric or indefinite beyond rounding.
        RuntimeError: Lanczos iterations that do not converge.

    Cost:
        a matrix: O(n^3). A model with k: some 2 k + 20 products or more, and one backward pass an example and output;
        memory k vectors, the parameters' gradients and a batch.

    Reference:
        Lehoucq, Sorensen, Yang, "ARPACK Users' Guide", 1998; Cristianini et al., "On Kernel-Target Alignment", 2001.
    """
    for name, value, least in (("k", k, 1), ("samples", samples, 2), ("batch_size", batch_size, 1)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise ValueError(f"spectrum: {name} must be an integer >= {least}, got {value!r}")
    if isinstance(kernel, nn.Module) != (x is not None):
        raise ValueError("spectrum: x must be given with a model, and not with a kernel matrix")
    options: dict[str, Any] = {"outputs": outputs, "parameters": parameters, "biases": biases, "norms": norms}
    if isinstance(kernel, nn.Module):
        assert x is not None
        products = Products(kernel, x, batch_size=batch_size, progress=progress, **options)
        if k is not None and k < products.size:
            return _of_products(products, y, k, smallest, centred, samples, seed)
        kernel = empirical(kernel, x, **options)
    return _of_matrix(kernel, y, k, centred)


def _of_matrix(kernel: Tensor, y: Tensor | None, k: int | None, centred: bool) -> Spectrum:
    matrix = flat("spectrum", "kernel", kernel)
    width = len(matrix) // len(kernel)
    targets = _targets(y, len(kernel), width)
    if centred:
        matrix = _centre(_centre(matrix, width).mT, width)
        targets = None if targets is None else _centre(targets, width)
    values = torch.linalg.eigvalsh(matrix)
    noise = rounding("spectrum", "kernel", values, kernel.dtype)
    norm = float(torch.linalg.matrix_norm(matrix))
    alignment = None if targets is None else _alignment(targets, matrix @ targets, norm)
    low = max(float(values[0]), 0.0)
    return Spectrum(values.flip(0)[:k], low, noise, float(matrix.trace()), norm, 0.0, alignment)


def _of_products(
    products: Products, y: Tensor | None, k: int, smallest: bool, centred: bool, samples: int, seed: int
) -> Spectrum:
    width, size, eps = products.width, products.size, torch.finfo(products.dtype).eps
    tolerance = max(eps**0.75, 1e-8)  # of the smallest eigenvalue; each digit more costs many products
    targets = _targets(y, size // width, width)

    def multiply(v: Tensor) -> Tensor:
        return centre(products(centre(v[:, None])[:, 0])[:, None])[:, 0]

    def centre(columns: Tensor) -> Tensor:
        return _centre(columns, width) if centred else columns

    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(size, generator=generator, dtype=torch.float64)
    values, vectors = largest(multiply, start, k, eps**0.75)
    top, low = float(values[-1]), 0.0 if centred else None
    if smallest and not centred:
        (gap,), _ = largest(lambda v: top * v - multiply(v), start, 1, tolerance)
        low = max(top - float(gap), 0.0)
    trace = products.trace()
    if centred:
        means = torch.eye(width, dtype=torch.float64).repeat(size // width, 1) / math.sqrt(size // width)
        trace -= sum(float(v @ products(v)) for v in means.T)
    rest = torch.randint(2, (samples, size), generator=generator).double() * 2 - 1
    rest -= (rest @ vectors) @ vectors.T
    squares = torch.stack([multiply(z).square().sum() for z in rest])
    norm = math.sqrt(float(values.square().sum() + squares.mean()))
    error = float(squares.std()) / math.sqrt(samples) / (2 * norm) if norm > 0 else 0.0
    alignment = None
    if targets is not None:
        targets = centre(targets.cpu())
        alignment = _alignment(targets, torch.stack([multiply(v) for v in targets.T], 1), norm)
    noise = max(size * eps, tolerance) * top
    return Spectrum(values.flip(0), low, noise, trace, norm, error, alignment)


def _targets(y: Tensor | None, examples: int, width: int) -> Tensor | None:
    """Return targets as columns `[n, C]`: one of all outputs, for a kernel of all pairs of them."""
    if y is None:
        return None
    shape = "[N] or [N, C]" if width == 1 else f"[N, {width}]"
    fits = y.ndim in (1, 2) if width == 1 else y.ndim == 2 and y.shape[1] == width
    if not fits or len(y) != examples or not y.is_floating_point() or not bool(y.isfinite().all()):
        raise ValueError(f"spectrum: y must be finite floats {shape}, N = {examples}, got {y.dtype} {list(y.shape)}")
    return y.double().reshape(examples * width, -1)


def _alignment(targets: Tensor, moved: Tensor, norm: float) -> float:
    """<K, Y Y^T> / (||K||_F ||Y Y^T||_F); ||Y Y^T||_F = ||Y^T Y||_F."""
    scale = norm * float(torch.linalg.matrix_norm(targets.mT @ targets))
    return float((targets * moved).sum()) / scale if scale > 0 else 0.0


def _centre(columns: Tensor, width: int) -> Tensor:
    """H v of `[N width, C]`: less the mean over the N examples."""
    v = columns.reshape(-1, width, columns.shape[-1])
    return (v - v.mean(0)).reshape(columns.shape)
