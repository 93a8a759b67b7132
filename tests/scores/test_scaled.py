"""Mantissas with an exponent: every rule against the plain op in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sparseprune.scores._scaled import Scaled, scaled, times_power

E = 300  # 2^300 does not fit float32, and its square not float64 times much
g = torch.Generator().manual_seed(0)
X, Y = (torch.rand(2, 4, 6, 6, generator=g) + 0.1 for _ in range(2))
W, B = torch.rand(4, 4, 3, 3, generator=g), torch.rand(4, generator=g)


def value(t: Tensor) -> Tensor:
    """The value in float64, where 2^300 fits."""
    assert isinstance(t, Scaled)
    return times_power(t.as_subclass(Tensor).detach().double(), t.exponent)


def check(op, *tensors: Tensor, exponents: tuple[int, ...]) -> None:
    """op on Scaled float32 tensors equals op on float64 values, and so do the gradients of its sum."""
    leaves = [t.clone().requires_grad_() for t in tensors]
    found = op(*(scaled(t, e) for t, e in zip(leaves, exponents, strict=True)))
    plain = [times_power(t.double(), e).requires_grad_() for t, e in zip(tensors, exponents, strict=True)]
    expected = op(*plain)
    assert value(found).shape == expected.shape
    torch.testing.assert_close(value(found), expected.detach(), rtol=1e-5, atol=0.0)
    grads = torch.autograd.grad(found.sum().as_subclass(Tensor), leaves)
    truth = torch.autograd.grad(expected.sum(), plain)
    for leaf, x, got, want, e in zip(leaves, plain, grads, truth, exponents, strict=True):
        # d mantissa_out / d mantissa_in = d out / d in * 2^(e_in - e_out)
        moved = times_power(want, e - found.exponent)
        torch.testing.assert_close(got.double(), moved, rtol=1e-5, atol=1e-6 * float(moved.abs().max()))
        assert leaf.shape == x.shape


ONE = {
    "relu": F.relu,
    "relu_inplace": lambda x: F.relu(x * 1, inplace=True),
    "leaky_relu": lambda x: F.leaky_relu(-x, 0.3),
    "prelu": lambda x: F.prelu(-x, torch.full((4,), 0.2, dtype=x.dtype)),
    "abs_neg": lambda x: (-x).abs(),
    "max_pool": lambda x: F.max_pool2d(x, 2),
    "avg_pool": lambda x: F.avg_pool2d(x, 3, 2),
    "adaptive_avg_pool": lambda x: F.adaptive_avg_pool2d(x, 2),
    "adaptive_max_pool": lambda x: F.adaptive_max_pool2d(x, 1),
    "interpolate": lambda x: F.interpolate(x, scale_factor=2),
    "dropout_eval": lambda x: F.dropout(x, 0.5, training=False),
    "pad": lambda x: F.pad(x, (1, 1, 0, 2)),
    "view": lambda x: x.view(x.size(0), -1),
    "flatten_permute": lambda x: x.permute(0, 2, 3, 1).contiguous().flatten(1),
    "mT": lambda x: x.mT,
    "index": lambda x: x[:, 1:3, ::2],
    "chunk": lambda x: x.chunk(2, dim=1)[1],
    "split": lambda x: torch.split(x, 3, 1)[0],
    "mean": lambda x: x.mean((2, 3)),
    "sum": lambda x: x.sum(1),
    "max_over_dim": lambda x: x.max(dim=1).values,
    "clamp_as_relu": lambda x: (x - x.mean()).clamp(min=0),
    "square": lambda x: x * x.mean(),
    "scalar": lambda x: 3 * x / 7,
    "ratio": lambda x: x / (x.mean() + x),
    "linear": lambda x: F.linear(x, torch.ones(5, 6, dtype=x.dtype) * 2e9),
    "matmul": lambda x: x @ torch.ones(6, 3, dtype=x.dtype) * 1e-9,
    "conv": lambda x: F.conv2d(x, W.to(x.dtype) * 1e12, None, 2, 1),
    "conv_transpose": lambda x: F.conv_transpose2d(x, W.to(x.dtype), stride=2),
    "einsum": lambda x: torch.einsum("bchw,cd->bdhw", x, W[:, :, 0, 0].to(x.dtype)),
}


@pytest.mark.parametrize("exponent", [-E, 0, E])
@pytest.mark.parametrize("name", ONE)
def test_one_argument(name, exponent):
    check(ONE[name], X, exponents=(exponent,))


TWO = {
    "add": lambda x, y: x + y,
    "add_alpha": lambda x, y: torch.add(x, y, alpha=0.5),
    "subtract": lambda x, y: x - 0.01 * y,
    "add_in_place": lambda x, y: (x * 1).add_(y),
    "iadd": lambda x, y: x.mul(2).__iadd__(y),
    "cat": lambda x, y: torch.cat([x, y], 1),
    "stack": lambda x, y: torch.stack((x, y)),
    "maximum": torch.maximum,
    "where": lambda x, y: torch.where(X > 0.5, x, y),
    "max": torch.max,
}


@pytest.mark.parametrize("exponents", [(E, E), (E, E - 7), (-E, 5 - E), (0, 9), (-3, 0)])
@pytest.mark.parametrize("name", TWO)
def test_sums_align(name, exponents):
    check(TWO[name], X, Y, exponents=exponents)


@pytest.mark.parametrize("exponents", [(E, -E), (200, 150), (-200, -150), (0, 40)])
def test_products_add_exponents(exponents):
    check(lambda x, y: x * y, X, Y, exponents=exponents)
    check(lambda x, y: x @ y.mT, X, Y, exponents=exponents)


SHIFTED = {
    "linear": lambda x: F.linear(x, W[0, 0].to(x.dtype).repeat(2, 2), B[:1].to(x.dtype).repeat(6)),
    "linear_keywords": lambda x: F.linear(x, weight=torch.ones(1, 6, dtype=x.dtype), bias=B[:1].to(x.dtype)),
    "conv": lambda x: F.conv2d(x, W.to(x.dtype), B.to(x.dtype), padding=1),
    "addmm": lambda x: torch.addmm(B.to(x.dtype)[:, None], W[:, :, 0, 0].to(x.dtype), x[0, :, 0]),
    "batch_norm": lambda x: F.batch_norm(
        x, B.to(x.dtype) * 0.1, 2 * B.to(x.dtype), B.to(x.dtype), B.to(x.dtype), eps=1e-3
    ),
    "batch_norm_plain": lambda x: F.batch_norm(x, 0 * B.to(x.dtype), B.to(x.dtype)),
    "plain_tensor": lambda x: x + B.to(x.dtype)[:, None, None],
    "number": lambda x: 1.5 + x,
    "buffer": lambda x: torch.cat([x, Y.to(x.dtype)]),
}


@pytest.mark.parametrize("exponent", [-60, -3, 0, 3, 60])
@pytest.mark.parametrize("name", SHIFTED)
def test_shifts_are_values(name, exponent):
    check(SHIFTED[name], X, exponents=(exponent,))


def test_zero_shift_does_not_drown_a_small_activation():
    y = F.linear(scaled(X, -E), torch.ones(2, 6), torch.zeros(2))
    torch.testing.assert_close(value(y), times_power(X.double().sum(-1, keepdim=True).expand(-1, -1, -1, 2), -E))


def test_products_come_back_into_range_by_exact_powers_of_two():
    x = scaled(torch.tensor([3.0, 0.1]))
    y = x * 2.0**60
    assert y.exponent == 62 and torch.equal(y.as_subclass(Tensor), torch.tensor([3.0, 0.1]) / 4)
    assert (x * 2.0**40).exponent == 0
    assert (x * 2.0**-40).exponent == -38
    deep = scaled(torch.ones(1, 4))
    for _ in range(500):
        deep = F.relu(F.linear(deep, torch.full((4, 4), 8.0)))
    assert deep.exponent + math.log2(float(deep.as_subclass(Tensor).max())) == 2500


def test_in_place_ops_keep_views_true():
    base = scaled(X.clone(), 5)
    view = base.view(-1)
    base += scaled(Y, 9)
    torch.testing.assert_close(value(view), value(base).view(-1))
    torch.testing.assert_close(value(base), 32 * X.double() + 512 * Y.double())
    base[:, 0] = scaled(Y[:, 0], 2)
    torch.testing.assert_close(value(view), value(base).view(-1))
    torch.testing.assert_close(value(base)[:, 0], 4 * Y[:, 0].double())
    base *= scaled(Y, 1)
    base /= 2
    torch.testing.assert_close(value(view), value(base).view(-1))
    with pytest.raises(OverflowError, match="exp_ needs a plain tensor"):
        base.exp_()


def test_metadata_passes_through():
    x = scaled(X, E)
    assert x.shape == X.shape and x.dim() == 4 and x.dtype == torch.float32 and len(x) == 2 and x.size(1) == 4


@pytest.mark.parametrize("op", [torch.sigmoid, F.gelu, F.layer_norm, torch.exp, lambda x: F.pad(x, (1, 1), value=2.0)])
def test_other_ops_get_the_value_or_raise(op):
    call = (lambda x: op(x, (6,))) if op is F.layer_norm else op
    x = scaled(X, 5)
    torch.testing.assert_close(value(call(x)), call(32 * X.double()), rtol=1e-5, atol=1e-6)
    for exponent in (E, -E):
        with pytest.raises(OverflowError, match=rf"synflow: \w+ needs the values .* \* 2\^{exponent}"):
            call(scaled(X, exponent))


def test_terms_too_far_apart_for_float32_are_not_lost_in_silence():
    with pytest.raises(OverflowError, match="terms of a sum must be within"):
        scaled(X) + scaled(Y, 150)
    with pytest.raises(OverflowError, match="terms of a sum must be within"):
        F.linear(scaled(X, 150), torch.ones(1, 6), torch.ones(1))
    far = scaled(X.double()) + scaled(Y.double(), 150)
    torch.testing.assert_close(value(far), times_power(Y.double(), 150))
    assert (scaled(0 * X) + scaled(Y, 150)).exponent == 150


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, grad):
        return grad * 2


def test_custom_functions_see_values_only():
    x = X.clone().requires_grad_()
    y = Doubled.apply(scaled(x))
    (grad,) = torch.autograd.grad(F.relu(y).sum(), x)
    assert torch.equal(grad, torch.full_like(X, 2.0))
    with pytest.raises(OverflowError, match="mul needs the values"):
        Doubled.apply(scaled(x, 3))


def test_the_callers_tensor_stays_plain():
    x = X.clone()
    F.relu(scaled(x, 3)) + 1
    assert type(x) is Tensor and torch.equal(x, X)
