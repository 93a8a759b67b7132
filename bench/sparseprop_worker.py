"""SparseProp in a process of its own, by whatever Python has it: pickled requests on stdin, answers on stdout.

(kind, weight, x, grad, options) makes a module; the answer is its number and what it gives (output, gradients of input
and values). A number alone asks for the seconds of that one.
"""

from __future__ import annotations

import importlib.util
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sparseprop.modules import SparseConv2d, SparseLinear


def measurement() -> Any:
    """The one way to time, from its file: this Python need not have sparseprune."""
    path = Path(__file__).parent.parent / "sparseprune" / "measure.py"
    spec = importlib.util.spec_from_file_location("measure", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(kind: str, weight: Any, x: Any, grad: Any, options: dict[str, Any]) -> Callable[[], tuple[torch.Tensor, ...]]:
    """The forward where `grad` is None, else forward and backward. Options: batch_last, and those of the modules."""
    x, weight = torch.from_numpy(x), torch.from_numpy(weight)
    last = options.pop("batch_last", False)
    module = SparseLinear(weight) if kind == "linear" else SparseConv2d(weight, **options)
    if last:
        x = x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)
    if grad is None:
        return torch.no_grad()(lambda: (module(x),))
    grad = torch.from_numpy(grad)
    if last:
        grad = grad.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)
    x.requires_grad_()

    def run() -> tuple[torch.Tensor, ...]:
        y = module(x)
        return (y, *torch.autograd.grad(y, (x, module.W_val), grad))

    return run


def main() -> None:
    torch.set_num_threads(int(sys.argv[1]))
    seconds = measurement().seconds
    answers = sys.stdout.buffer
    sys.stdout = sys.stderr  # what libraries print would break the answers
    calls: list[Callable[[], Any]] = []
    while True:
        try:
            request = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        if isinstance(request, int):
            answer: Any = seconds(calls[request])
        else:
            calls.append(call(*request))
            answer = len(calls) - 1, [result.detach().numpy().copy() for result in calls[-1]()]
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    main()
