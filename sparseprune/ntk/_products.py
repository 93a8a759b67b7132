"""Products of a tangent kernel with vectors, the kernel never made, and its largest eigenvalues from them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp, vjp

from ..nn import densify
from ._parameters import included
from ._tiles import TILE
from .empirical import _check_option, _checked, _first_output
from .jacobian import jacobians

Multiply = Callable[[Tensor], Tensor]
# Lanczos vectors kept: ARPACK's own 20 restart too early for eigenvalues as close as the small ones of a kernel.
_BASIS = 128


class Products:
    """K v = J (J^T v) for the kernel `[n, n]` that `empirical` would return, J taken batch by batch.

    Args:
        model, x, outputs, parameters, biases, norms: as for `empirical`.
        batch_size: examples at once.
        progress: called with the number of products made.

    Raises:
        ValueError: as `empirical` does.
    """

    def __init__(
        self, model: nn.Module, x: Tensor, *, outputs: str, parameters: str, biases: bool, norms: bool, batch_size: int,
        progress: Callable[[int], Any] | None,
    ) -> None:  # fmt: skip
        for name, value in (("outputs", outputs), ("parameters", parameters)):
            _check_option(name, value)
        model = _checked(model, parameters)
        first = _first_output(model, x, None)
        names = included(model, biases=biases, norms=norms)
        if not names:
            raise ValueError("spectrum: model must have parameters that require grad and count, got none")
        self.model = densify(copy.deepcopy(model)) if parameters == "all" else model
        own = dict(self.model.named_parameters())
        self.parameters = {name: own[name].detach() for name in names}
        self.x, self.batch_size, self.progress, self.made = x, batch_size, progress, 0
        self.dtype, count = first.dtype, first.numel()
        self.width = count if outputs == "full" else 1
        self.columns = [slice(None)] if outputs == "full" else [slice(o, o + 1) for o in range(count)]
        self.size = len(x) * self.width
        self._each = count * sum(p.numel() * p.element_size() for p in self.parameters.values())

    @torch.no_grad()
    def __call__(self, v: Tensor) -> Tensor:
        """Return K v `[n]` in fp64 on the CPU, of v `[n]`. Cost: a vjp and a jvp a batch, times O for "trace"."""
        parts = v.to(self.x.device, self.dtype).reshape(len(self.x), self.width).split(self.batch_size)
        batches = self.x.split(self.batch_size)
        total = torch.zeros(self.size, dtype=torch.float64)
        for column in self.columns:
            direction = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
            for batch, part in zip(batches, parts, strict=True):
                pull = vjp(self._outputs(batch, column), self.parameters)[1]
                for name, gradient in pull(part)[0].items():
                    direction[name] += gradient
            moved = [jvp(self._outputs(batch, column), (self.parameters,), (direction,))[1] for batch in batches]
            total += torch.cat(moved).double().reshape(-1).cpu()
        self.made += 1
        if self.progress is not None:
            self.progress(self.made)
        return total

    def trace(self) -> float:
        """Return the trace of K. Cost: O backward passes an example; memory a tile of Jacobians."""
        chunk = min(self.batch_size, max(1, TILE // self._each))
        total = 0.0
        for batch in self.x.split(chunk):
            total += sum(float(j.double().square().sum()) for j in jacobians(self.model, self.parameters, batch))
        return total

    def _outputs(self, batch: Tensor, column: slice) -> Callable[[dict[str, Tensor]], Tensor]:
        return lambda given: functional_call(self.model, given, (batch,)).reshape(len(batch), -1)[:, column]


def largest(multiply: Multiply, start: Tensor, k: int, tolerance: float) -> tuple[Tensor, Tensor]:
    """Return the k largest eigenvalues `[k]`, ascending, and eigenvectors `[n, k]` of a symmetric operator, by Lanczos.

    Args:
        multiply: v `[n]` -> K v, fp64 on the CPU.
        start: `[n]`, the first vector.
        tolerance: relative, of the eigenvalues.

    Raises:
        RuntimeError: no convergence.
    """
    import scipy.sparse.linalg

    arpack: Any = scipy.sparse.linalg  # whose annotations know fewer arguments than it has

    def product(v: np.ndarray) -> np.ndarray:
        return multiply(torch.from_numpy(np.ascontiguousarray(v, dtype=np.float64).reshape(-1))).numpy()

    operator = arpack.LinearOperator((len(start), len(start)), matvec=product, dtype=np.float64)
    try:
        basis = min(len(start), max(2 * k + 1, _BASIS))
        values, vectors = arpack.eigsh(operator, k, which="LA", v0=start.numpy(), tol=tolerance, ncv=basis)
    except arpack.ArpackNoConvergence as error:
        raise RuntimeError(f"spectrum: Lanczos iterations did not converge: {error}") from None
    return torch.from_numpy(values), torch.from_numpy(vectors)
