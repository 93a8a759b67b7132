"""Masked linear layers in Triton's interpreter against their definition in fp64, into poisoned memory."""

import pytest
import torch

from sparseprune.ops import reference

pytestmark = [pytest.mark.interpreter, pytest.mark.usefixtures("poisoned_memory")]
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# M, K, N: ones, primes, empty sides, tiles and one more, several bands of tiles
SHAPES = [(1, 1, 1), (3, 7, 5), (33, 67, 37), (0, 5, 3), (5, 0, 3), (5, 3, 0), (129, 17, 65), (293, 2, 35)]


@pytest.fixture(params=SHAPES, ids=str)
def shape(request):
    return request.param


@pytest.fixture
def check(kernels, product, mask, randn):
    def run(m, k, n, dtype=torch.float32):
        x, weight, grad, bias = (
            randn(*size, dtype=dtype, seed=i) for i, size in enumerate(((m, k), (n, k), (m, n), (n,)))
        )  # fmt: skip
        keep = mask(n, k)
        for b in (bias, None):
            product(kernels.masked_linear, reference.masked_linear, x, weight, keep, b, terms=k + 1)
        product(kernels.masked_linear_dx, reference.masked_linear_dx, grad, weight, keep, terms=n)
        product(kernels.masked_linear_dw, reference.masked_linear_dw, grad, x, keep, terms=m)

    return run


def test_shapes(check, shape):
    check(*shape)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_types(check, dtype):
    check(19, 71, 35, dtype)


def test_half_types_are_summed_in_fp32(kernels):
    x, keep = torch.ones(2, 1000, dtype=torch.bfloat16), torch.ones(3, 1000, dtype=torch.bool)
    assert bool((kernels.masked_linear(x, x[:1].repeat(3, 1), keep, None) == 1000).all())


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_what_is_pruned_never_counts(kernels, mask, randn):
    """Weights that are not finite, under the mask; gradients of pruned weights, where the product is not finite."""
    keep, weight = mask(5, 7), randn(5, 7)
    hidden = torch.where(keep, weight, float("nan"))
    x, grad = randn(3, 7), randn(3, 5)
    assert torch.equal(kernels.masked_linear(x, hidden, keep, None), kernels.masked_linear(x, weight, keep, None))
    assert torch.equal(kernels.masked_linear_dx(grad, hidden, keep), kernels.masked_linear_dx(grad, weight, keep))
    dw = kernels.masked_linear_dw(torch.full((3, 5), float("inf")), x, keep)
    assert bool((dw[~keep] == 0).all())


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_nothing_beyond_an_edge_is_read(kernels, randn):
    """A sample that is not finite spoils its own row alone: tiles end inside the rows of x and of grad."""
    x, grad, weight, keep = randn(3, 7), randn(3, 5), randn(5, 7), torch.ones(5, 7, dtype=torch.bool)
    spoilt, other = torch.tensor([False, True, False]), torch.tensor([0, 2])
    x[spoilt], grad[spoilt] = float("nan"), float("nan")
    y, dx = kernels.masked_linear(x, weight, keep, None), kernels.masked_linear_dx(grad, weight, keep)
    for got in (y, dx):
        assert bool(got[spoilt].isnan().all())
        assert bool(got[other].isfinite().all())


def test_tiles_without_kept_weights(kernels, product, randn):
    keep = torch.zeros(70, 130, dtype=torch.bool)
    keep[40:45, 3] = True
    grad, x = randn(9, 70), randn(9, 130, seed=1)
    product(kernels.masked_linear_dw, reference.masked_linear_dw, grad, x, keep, terms=9)


def test_a_band_of_tiles_covers_every_tile(kernels):
    """More rows of tiles than a band has, and a last band that is not full."""
    x, weight = torch.arange(1.0, 324.0)[:, None], torch.arange(1.0, 71.0)[:, None]
    y = kernels.masked_linear(x, weight, torch.ones(70, 1, dtype=torch.bool), None)
    assert torch.equal(y, x * weight.t())


def test_wrong_arguments_are_refused(kernels, mask, randn):
    x, weight, keep, grad = randn(3, 7), randn(5, 7), mask(5, 7), randn(3, 5)
    cases = [
        (kernels.masked_linear, (x, weight[:, 1:], keep, None), r"masked_linear: weight must have shape \[5, 7\]"),
        (kernels.masked_linear, (x, weight, keep[1:], None), r"mask must have shape \[5, 7\], got \[4, 7\]"),
        (kernels.masked_linear, (x, weight, keep.int(), None), "mask must be torch.bool"),
        (kernels.masked_linear, (x, weight, keep, randn(4)), "bias must have shape"),
        (
            kernels.masked_linear_dx,
            (grad[:, 1:].contiguous(), weight, keep),
            r"masked_linear_dx: weight must have shape",
        ),
        (kernels.masked_linear_dw, (grad, x[1:], keep), "masked_linear_dw: x must have shape"),
        (kernels.masked_linear_dw, (grad, x, keep.t().contiguous().t()), "mask must be contiguous"),
    ]
    for function, arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            function(*arguments)
