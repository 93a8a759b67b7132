"""Sparse products in Triton's interpreter against their definition in fp64, into poisoned memory."""

import pytest
import torch

from sparseprune.ops import reference

pytestmark = [pytest.mark.interpreter, pytest.mark.usefixtures("poisoned_memory")]
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# M, K, B: ones, primes, no batch, tiles of the batch and one more, rows of several chunks
SHAPES = [(1, 1, 1), (7, 13, 5), (3, 1, 17), (1, 29, 2), (5, 11, 0), (5, 41, 129), (4, 331, 3)]


@pytest.fixture(params=SHAPES, ids=str)
def shape(request):
    return request.param


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request):
    return request.param


@pytest.fixture
def sample(pattern, mask, randn):
    def make(m, k, b, dtype=torch.float32, density=0.3):
        p = pattern(mask(m, k, density=density, seed=m + k))
        numbers = (randn(*size, dtype=dtype, seed=i) for i, size in enumerate(((len(p.rows),), (k, b), (m, b), (m,))))
        return p, *numbers

    return make


def test_transpose(kernels, randn, dtype):
    for rows, columns in ((1, 1), (3, 67), (65, 64), (130, 2), (0, 3), (3, 0)):
        x = randn(rows, columns, dtype=dtype)
        assert torch.equal(kernels.transpose(x), reference.transpose(x))
    flags = randn(5, 7) > 0
    assert torch.equal(kernels.transpose(flags), flags.t())


def test_spmm(kernels, product, sample, shape):
    p, values, dense, grad, bias = sample(*shape)
    for b in (bias, None):
        product(kernels.spmm, reference.spmm, values, p.offsets, p.indices, None, dense, b, terms=shape[1] + 1)
    product(kernels.spmm, reference.spmm, values, p.column_offsets, p.rows, p.order, grad, None, terms=shape[0])


def test_sddmm(kernels, product, sample, shape):
    p, _, dense, grad, _ = sample(*shape)
    product(kernels.sddmm, reference.sddmm, p.offsets, p.indices, None, grad, dense, terms=shape[2])
    product(kernels.sddmm, reference.sddmm, p.column_offsets, p.rows, p.order, dense, grad, terms=shape[2])


def test_backward(kernels, product, sample, shape):
    p, values, dense, grad, _ = sample(*shape)
    arguments = values, p.column_offsets, p.rows, p.order, dense, grad
    product(kernels.spmm_backward, reference.spmm_backward, *arguments, terms=max(shape))


def test_backward_of_a_batch_that_no_program_holds(kernels, product, sample):
    p, values, dense, grad, _ = sample(3, 4, 521)
    arguments = values, p.column_offsets, p.rows, p.order, dense, grad
    product(kernels.spmm_backward, reference.spmm_backward, *arguments, terms=521)


def test_types(kernels, product, sample, dtype):
    p, values, dense, grad, bias = sample(5, 23, 19, dtype)
    product(kernels.spmm, reference.spmm, values, p.offsets, p.indices, None, dense, bias, terms=24)
    product(kernels.sddmm, reference.sddmm, p.offsets, p.indices, None, grad, dense, terms=19)
    arguments = values, p.column_offsets, p.rows, p.order, dense, grad
    product(kernels.spmm_backward, reference.spmm_backward, *arguments, terms=23)


def test_half_types_are_summed_in_fp32(kernels, pattern):
    """A sum in bfloat16 would stay at 256."""
    p, ones = pattern(torch.ones(1, 1000, dtype=torch.bool)), torch.ones(1000, 2, dtype=torch.bfloat16)
    assert kernels.spmm(ones[:, 0].clone(), p.offsets, p.indices, None, ones, None).tolist() == [[1000, 1000]]


def test_empty_patterns(kernels, pattern, randn):
    for m, k, b in ((3, 4, 5), (0, 4, 5), (3, 0, 5), (0, 0, 0)):
        p = pattern(torch.zeros(m, k, dtype=torch.bool))
        values, dense, grad, bias = randn(0), randn(k, b), randn(m, b), randn(m)
        y = kernels.spmm(values, p.offsets, p.indices, None, dense, bias)
        assert torch.equal(y, bias[:, None].expand(m, b))
        assert kernels.sddmm(p.offsets, p.indices, None, grad, dense).shape == (0,)
        dx, dvalues = kernels.spmm_backward(values, p.column_offsets, p.rows, p.order, dense, grad)
        assert torch.equal(dx, torch.zeros(k, b))
        assert dvalues.shape == (0,)


def test_one_row_of_many_shares(kernels, product, pattern, randn):
    """Few rows with many entries: several programs a row; rows of fewer entries than programs."""
    mask = torch.ones(3, 900, dtype=torch.bool)
    mask[1] = False
    mask[2, 5:] = False
    p, left, right = pattern(mask), randn(3, 40), randn(900, 40, seed=1)
    product(kernels.sddmm, reference.sddmm, p.offsets, p.indices, None, left, right, terms=40)


def test_wrong_arguments_are_refused(kernels, sample):
    p, values, dense, grad, bias = sample(7, 13, 5)
    cases = [
        (kernels.spmm, (values[1:], p.offsets, p.indices, None, dense, None), "spmm: values must have shape"),
        (kernels.spmm, (values, p.offsets, p.indices, None, dense, bias[1:]), r"spmm: bias must have shape \[7\]"),
        (kernels.spmm, (values, p.offsets, p.indices, None, dense.double(), None), "spmm: dense must be torch.float32"),
        (kernels.spmm, (values, p.offsets.long(), p.indices, None, dense, None), "offsets must be torch.int32"),
        (kernels.spmm, (values, p.offsets, p.indices, p.order[1:], dense, None), "order must have shape"),
        (kernels.spmm, (values, p.offsets, p.indices, None, dense[:, ::2], None), "dense must be contiguous"),
        (kernels.spmm, (values.int(), p.offsets, p.indices, None, dense, None), "must be float16"),
        (kernels.sddmm, (p.offsets, p.indices, None, grad[1:], dense), r"left must have shape \[7, 5\], got \[6, 5\]"),
        (kernels.sddmm, (p.offsets, p.indices, None, grad, dense[:, 1:].contiguous()), "left must have shape"),
        (
            kernels.spmm_backward,
            (values, p.column_offsets, p.rows, p.order, dense[1:], grad),
            r"dense must have shape \[13, 5\]",
        ),
        (kernels.transpose, (dense.t(),), "contiguous matrix"),
        (kernels.transpose, (values,), "contiguous matrix"),
    ]
    for function, arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            function(*arguments)
