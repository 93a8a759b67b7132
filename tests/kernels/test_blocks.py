"""Block-sparse products in Triton's interpreter against their definition in fp64, into poisoned memory."""

import pytest
import torch

from sparseprune.ops import reference

pytestmark = [pytest.mark.interpreter, pytest.mark.usefixtures("poisoned_memory")]
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@pytest.fixture
def check(kernels, product, pattern, mask, randn):
    def run(m, k, b, size, dtype=torch.float32):
        p = pattern(mask(m, k, density=0.5, seed=m))
        blocks = randn(len(p.rows), size, size, dtype=dtype)
        dense, grad = randn(k * size, b, dtype=dtype, seed=1), randn(m * size, b, dtype=dtype, seed=2)
        straight, turned = (p.offsets, p.indices, None), (p.column_offsets, p.rows, p.order)
        product(kernels.block_spmm, reference.block_spmm, blocks, *straight, dense, False, terms=k * size)
        product(kernels.block_spmm, reference.block_spmm, blocks, *turned, grad, True, terms=m * size)
        product(kernels.block_sddmm, reference.block_sddmm, p.offsets, p.indices, grad, dense, size, terms=b)

    return run


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 5), (2, 5, 133), (3, 2, 0)], ids=str)
def test_shapes(check, shape):
    check(*shape, 32)


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sizes_and_types(check, size, dtype):
    check(3, 2, 7, size, dtype)


def test_empty_patterns(kernels, pattern, randn):
    p, dense, grad = pattern(torch.zeros(3, 2, dtype=torch.bool)), randn(64, 5), randn(96, 5)
    blocks = randn(0, 32, 32)
    y = kernels.block_spmm(blocks, p.offsets, p.indices, None, dense, False)
    assert torch.equal(y, torch.zeros(96, 5))
    assert kernels.block_sddmm(p.offsets, p.indices, grad, dense, 32).shape == (0, 32, 32)


def test_wrong_arguments_are_refused(kernels, pattern, randn):
    p, blocks, dense, grad = pattern(torch.eye(2, dtype=torch.bool)), randn(2, 32, 32), randn(64, 5), randn(64, 5)
    cases = [
        (kernels.block_spmm, (randn(2, 48, 48), p.offsets, p.indices, None, dense, False), "size of 32, 64 or 128"),
        (kernels.block_spmm, (blocks[1:], p.offsets, p.indices, None, dense, False), "blocks must have shape"),
        (
            kernels.block_spmm,
            (blocks, p.offsets, p.indices, None, dense[1:], False),
            r"dense must have shape \[32, 5\]",
        ),
        (kernels.block_sddmm, (p.offsets, p.indices, grad[1:], dense, 32), "left must have shape"),
        (kernels.block_sddmm, (p.offsets, p.indices, grad, dense, 16), "size of 32, 64 or 128"),
    ]
    for function, arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            function(*arguments)
