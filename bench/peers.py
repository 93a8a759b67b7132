"""What others have for the same work: in torch, in SciPy, by hand, and SparseProp where a Python has it."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.nn import functional as F

WORKER = Path(__file__).with_name("sparseprop_worker.py")
_SETTLE = 0.05  # seconds: OpenMP's threads spin for some hundredths after a product, on the other process's cores


def _every_core() -> None:
    """Undo what a bound thread leaves to its child: one core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


class SparseProp:
    """A process of the Python that has SparseProp: its OpenMP runtime would disturb ours within one.

    Args:
        python: an interpreter that imports torch and sparseprop, e.g. of a venv of its own.
    """

    def __init__(self, python: str) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
        # Bound threads, which steady our times, cost SparseProp half of its speed.
        environment = {
            name: value for name, value in environment.items() if name not in ("OMP_PROC_BIND", "OMP_PLACES")
        }
        self._process = subprocess.Popen(
            [python, str(WORKER), str(torch.get_num_threads())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            preexec_fn=_every_core,
        )

    def ask(self, request: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        pickle.dump(request, self._process.stdin)
        self._process.stdin.flush()
        answer = pickle.load(self._process.stdout)
        time.sleep(_SETTLE)
        return answer

    def call(self, kind: str, weight: Tensor, x: Tensor, grad: Tensor | None = None, **options: Any) -> Elsewhere:
        """The forward, or with `grad` forward and backward, of a "linear" or "conv2d" of a weight with zeros.

        Args:
            options: of SparseProp's conv2d (stride, padding, vectorizing_over_on); batch_last: memory of x and grad.
        """
        arrays = [None if t is None else t.detach().contiguous().numpy() for t in (weight, x, grad)]
        return Elsewhere(self, *self.ask((kind, *arrays, options)))

    def close(self) -> None:
        self._process.communicate()


class Elsewhere:
    """A call in another process, which times itself.

    Args:
        process: where it is.
        number: its number there.
        results: what it returned at first.
    """

    def __init__(self, process: SparseProp, number: int, results: list[Any]) -> None:
        self.results = [torch.from_numpy(result) for result in results]
        self.seconds = lambda: process.ask(number)

    def __call__(self) -> list[Tensor]:
        return self.results


def sparseprop(python: str | None) -> SparseProp | None:
    """SparseProp by the Python given, by this one if that has it, or None."""
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('sparseprop') is None)"
    if subprocess.run([python or sys.executable, "-c", look]).returncode == 0:
        return SparseProp(python or sys.executable)
    if python is not None:
        raise ValueError(f"bench: SparseProp must be installed where it is said to be, got {python} without it")
    return None


def csr(weight: Tensor) -> Tensor:
    """torch's own CSR of what is not zero."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch calls it a beta
        return weight.to_sparse_csr()


def bsr(weight: Tensor, size: int) -> Tensor:
    """torch's own block-sparse form: blocks that are not all zero."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return weight.to_sparse_bsr((size, size))


def csr_step(weight: Tensor, x: Tensor, grad: Tensor) -> Callable[[], tuple[Tensor, ...]]:
    """The three products by hand: W X, W^T G, and G X^T where W is not zero (torch CSR, MKL or cuSPARSE)."""
    straight, transposed = csr(weight), csr(weight.t().contiguous())
    right = x.t()

    def run() -> tuple[Tensor, ...]:
        dw = torch.sparse.sampled_addmm(straight, grad, right, beta=0.0)
        return straight @ x, transposed @ grad, dw.values()

    return run


def scipy_product(weight: Tensor, x: Tensor) -> Callable[[], Any]:
    """SciPy's CSR, on one thread."""
    from scipy.sparse import csr_matrix

    matrix, array = csr_matrix(weight.numpy()), x.numpy()
    return lambda: matrix @ array


def jacobian_contraction(model: nn.Module, names: list[str], x: Tensor) -> Tensor:
    """The tangent kernel (trace) as torch.func gives it: Jacobians of every example at once, contracted."""
    parameters = {name: p.detach() for name, p in model.named_parameters() if name in names}
    outputs = lambda given, example: functional_call(model, given, (example[None],))[0]  # noqa: E731
    jacobians = vmap(jacrev(outputs), (None, 0))(parameters, x)
    return sum(torch.einsum("nop,mop->nm", j, j) for j in (each.flatten(2) for each in jacobians.values()))  # type: ignore


def kept_columns(model: nn.Module, masks: Mapping[str, Tensor], x: Tensor, chunk: int = 1 << 14) -> Tensor:
    """The same by hand: the Jacobian's columns of kept weights, some at a time, and one GEMM for these.

    Args:
        model: of dense layers whose pruned weights are 0.
        masks: of its Linear and Conv2d weights, by name.
    """
    seen: dict[str, tuple[nn.Module, Tensor, Tensor]] = {}
    keep = lambda name: lambda module, given, y: seen.update({name: (module, given[0].detach(), y)})  # noqa: E731
    layers = {name: model.get_submodule(name.removesuffix(".weight")) for name in masks}
    hooks = [layer.register_forward_hook(keep(name)) for name, layer in layers.items()]
    y = model(x)
    for hook in hooks:
        hook.remove()
    kernel = x.new_zeros(len(x), len(x))
    for o in range(y.shape[1]):
        signals = torch.autograd.grad(y[:, o].sum(), [out for _, _, out in seen.values()], retain_graph=True)
        for (name, (layer, given, _)), signal in zip(seen.items(), signals, strict=True):
            rows, columns = masks[name].flatten(1).nonzero().unbind(1)
            if isinstance(layer, nn.Conv2d):
                patches = F.unfold(given, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # type: ignore
                each = torch.bmm(signal.flatten(2), patches.mT).flatten(1)
                jacobian = each[:, masks[name].flatten()]
                kernel.addmm_(jacobian, jacobian.t())
                continue
            for i in range(0, len(rows), chunk):
                jacobian = given[:, columns[i : i + chunk]] * signal[:, rows[i : i + chunk]]
                kernel.addmm_(jacobian, jacobian.t())
    return kernel
