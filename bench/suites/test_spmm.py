"""W X, its transpose product, both gradients in one walk, and the sampled product, beside the dense ones."""

import pytest
import torch
from torch.nn import functional as F

from sparseprune import ops

from .. import cases, peers
from .inputs import linear

GRID = pytest.mark.parametrize("density", (0.1, 0.05))
CASES = pytest.mark.parametrize("case", cases.LINEAR, ids=str)


@CASES
def test_dense(benchmark, case):
    benchmark.group = f"spmm: {case}"
    operands = linear(case, 0.1)
    x = operands.x.t().contiguous()
    benchmark(lambda: F.linear(x, operands.weight))


@CASES
@GRID
def test_spmm(benchmark, case, density):
    benchmark.group = f"spmm: {case}"
    operands = linear(case, density)
    benchmark(lambda: ops.spmm(operands.pattern, operands.values, operands.x))


@CASES
@GRID
def test_spmm_t(benchmark, case, density):
    benchmark.group = f"spmm: {case}"
    operands = linear(case, density)
    benchmark(lambda: ops.spmm_t(operands.pattern, operands.values, operands.grad))


@CASES
@GRID
def test_torch_csr(benchmark, case, density):
    benchmark.group = f"spmm: {case}"
    operands = linear(case, density)
    matrix = peers.csr(operands.weight)
    benchmark(lambda: matrix @ operands.x)


@CASES
@GRID
def test_spmm_backward(benchmark, case, density):
    benchmark.group = f"spmm_backward: {case}"
    pattern, values, _, x, grad = linear(case, density)
    by_input = pattern.column_offsets, pattern.rows, pattern.order
    benchmark(lambda: torch.ops.sparseprune.spmm_backward(values, *by_input, x, grad))


@CASES
@GRID
def test_sddmm(benchmark, case, density):
    benchmark.group = f"spmm_backward: {case}"
    operands = linear(case, density)
    benchmark(lambda: ops.sddmm(operands.pattern, operands.grad, operands.x))
