"""Convolutions by kept weights and both their gradients, beside oneDNN."""

import pytest
import torch
from torch.nn import functional as F

from sparseprune import ops

from .. import cases
from .inputs import conv, geometry

GRID = pytest.mark.parametrize("density", (0.1, 0.05))
CASES = pytest.mark.parametrize("case", (*cases.RESNET20, *cases.VGG19), ids=str)


@CASES
@pytest.mark.parametrize("memory", (torch.contiguous_format, torch.channels_last), ids=str)
def test_dense(benchmark, case, memory):
    benchmark.group = f"spconv: {case}"
    operands = conv(case, 0.1)
    x = operands.x.permute(3, 0, 1, 2).contiguous(memory_format=memory)
    weight = operands.weight.contiguous(memory_format=memory)
    benchmark(lambda: F.conv2d(x, weight, None, case.stride, case.padding))


@CASES
@GRID
def test_spconv(benchmark, case, density):
    benchmark.group = f"spconv: {case}"
    operands = conv(case, density)
    benchmark(lambda: ops.spconv(operands.pattern, operands.values, operands.x, geometry(case)))


@CASES
@GRID
def test_spconv_nchw(benchmark, case, density):
    benchmark.group = f"spconv: {case}"
    operands = conv(case, density)
    x = operands.x.permute(3, 0, 1, 2).contiguous()
    benchmark(lambda: ops.spconv_nchw(operands.pattern, operands.values, x, geometry(case)))


@CASES
@GRID
def test_spconv_backward(benchmark, case, density):
    benchmark.group = f"spconv_backward: {case}"
    pattern, values, _, x, grad = conv(case, density)
    by_input, numbers = (pattern.column_offsets, pattern.rows, pattern.order), geometry(case).numbers
    benchmark(lambda: torch.ops.sparseprune.spconv_backward(values, *by_input, x, grad, numbers))
