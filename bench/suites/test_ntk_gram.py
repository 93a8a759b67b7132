"""Sums of tangent kernels over kept weights, beside gathered Jacobian columns and one GEMM; per-example gradients."""

import pytest
import torch

from .. import cases
from .inputs import conv, geometry, linear

DENSITIES = pytest.mark.parametrize("density", (0.5, 0.1, 0.02))
CASES = pytest.mark.parametrize("case", tuple(cases.Linear(1024, 1024, n) for n in (64, 128, 256)), ids=str)


@CASES
@DENSITIES
@pytest.mark.parametrize("outputs", (1, 10))
def test_ntk_gram(benchmark, case, density, outputs):
    benchmark.group = f"ntk_gram: {case}, density {density}"
    pattern, _, _, x, _ = linear(case, density)
    signals = torch.randn(case.outputs, outputs, case.batch)
    arguments = pattern.row_offsets, pattern.columns, None, x, signals, None, None, False
    benchmark(lambda: torch.ops.sparseprune.ntk_gram(*arguments))


@CASES
@DENSITIES
def test_columns_and_gemm(benchmark, case, density):
    benchmark.group = f"ntk_gram: {case}, density {density}"
    operands = linear(case, density)
    rows, columns = operands.weight.nonzero().unbind(1)

    def run():
        jacobian = operands.x[columns] * operands.grad[rows]
        return jacobian.t() @ jacobian

    benchmark(run)


@pytest.mark.parametrize("case", cases.RESNET20, ids=str)
@pytest.mark.parametrize("outputs", (1, 10))
def test_spconv_dw_each(benchmark, case, outputs):
    benchmark.group = f"spconv_dw_each: {case}"
    pattern, _, _, x, grad = conv(case._replace(batch=32), 0.1)
    signals = grad[..., None, :].expand(*grad.shape[:3], outputs, 32).contiguous()
    arguments = pattern.row_offsets, pattern.columns, x, signals, geometry(case).numbers
    benchmark(lambda: torch.ops.sparseprune.spconv_dw_each(*arguments))
