"""The transposes at the border of a chain of sparse layers, beside torch's copy."""

import pytest
import torch

from sparseprune import ops

SHAPES = pytest.mark.parametrize("shape", ((128, 1024), (64, 64, 32, 32)), ids=str)


@SHAPES
def test_batch_last(benchmark, shape):
    benchmark.group = f"batch_last: {shape}"
    x = torch.randn(shape)
    benchmark(lambda: ops.batch_last(x))


@SHAPES
def test_torch_copy(benchmark, shape):
    benchmark.group = f"batch_last: {shape}"
    x = torch.randn(shape)
    benchmark(lambda: x.movedim(0, -1).contiguous())


@SHAPES
def test_back_to_contiguous(benchmark, shape):
    benchmark.group = f"batch_last: {shape}"
    x = ops.batch_last(torch.randn(shape))
    benchmark(lambda: x.contiguous())
