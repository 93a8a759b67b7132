"""Batch-last memory: the same numbers, the count of transposes, derivatives."""

import pytest
import torch
from torch.func import hessian, jacfwd, jacrev, jvp, vmap

from sparseprune import ops


def made(function, *arguments):
    before = ops.transposes()
    return function(*arguments), ops.transposes() - before


@pytest.mark.parametrize("shape", [(7, 5), (4, 3, 5, 2), (1, 5), (3, 1, 1, 1), (0, 5), (4, 0, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.uint8, torch.complex128])
def test_same_numbers_batch_last_strides(shape, dtype):
    x = (100 * torch.rand(shape)).to(dtype)
    y = ops.batch_last(x)
    assert torch.equal(x, y) and y.movedim(0, -1).is_contiguous()
    again, transposes = made(ops.batch_last, y)
    assert again is y and transposes == 0


def test_channels_last_and_odd_strides():
    x = torch.randn(4, 3, 5, 2)
    for strange in (x.contiguous(memory_format=torch.channels_last), x.transpose(1, 2), x[:, :, ::2]):
        y, transposes = made(ops.batch_last, strange)
        assert torch.equal(strange, y) and y.movedim(0, -1).is_contiguous() and transposes == 1


def test_derivatives_are_the_identity():
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ops.batch_last, x, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(ops.batch_last, x)
    t = torch.randn(4, 3, dtype=torch.float64)
    assert torch.equal(jvp(ops.batch_last, (x.detach(),), (t,))[1], t)
    many = torch.randn(5, 4, 3)
    assert torch.equal(vmap(ops.batch_last)(many), many)
    identity = torch.eye(12).view(4, 3, 4, 3)
    for jacobian in (jacfwd, jacrev):
        assert torch.equal(jacobian(ops.batch_last)(many[0]), identity)
    cubes = hessian(lambda x: ops.batch_last(x).pow(3).sum())(many[0])
    torch.testing.assert_close(cubes, 6 * many[0] * identity)
    batch_last_tangent = ops.batch_last(many[1])
    assert torch.equal(jvp(ops.batch_last, (many[0],), (batch_last_tangent,))[1], batch_last_tangent)


def test_elementwise_operations_keep_the_strides():
    y = ops.batch_last(torch.randn(4, 3, 5, 2))
    for z in (y.relu(), y + torch.randn(4, 3, 5, 2), torch.nn.functional.dropout(y, 0.5)):
        assert z.movedim(0, -1).is_contiguous()


@pytest.mark.parametrize("shape", [(7, 5), (4, 3, 5, 2), (1, 5), (3, 1, 1, 1), (0, 5), (4, 0, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_the_way_back(shape, dtype):
    x = (100 * torch.rand(shape)).to(dtype)
    last = ops.batch_last(x)
    first, transposes = made(ops.batch_first, last)
    assert torch.equal(first, x) and first.is_contiguous()
    assert transposes == (not last.is_contiguous()) and made(ops.batch_first, x) == (x, 0)


def test_other_memory_is_left_to_those_who_can_use_it():
    x = torch.randn(4, 3, 5, 2).contiguous(memory_format=torch.channels_last)
    assert ops.batch_first(x) is x


def test_derivatives_of_the_way_back_are_the_identity():
    x = torch.randn(4, 3, dtype=torch.float64)
    back = lambda x: ops.batch_first(x.t().contiguous().t())  # noqa: E731
    assert torch.autograd.gradcheck(back, x.requires_grad_(), check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(back, x)
