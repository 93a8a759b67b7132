"""Masked convolutions in Triton's interpreter against their definition in fp64, into poisoned memory."""

import importlib

import pytest
import torch

from sparseprune.ops import reference
from sparseprune.ops.reference import Geometry

from .geometries import CASES, CHOSEN, FLOATS, case

pytestmark = [pytest.mark.interpreter, pytest.mark.usefixtures("poisoned_memory")]
SAME = Geometry((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1)


@pytest.fixture
def check(kernels, product):
    def run(c):
        forward, dx, dw = c.terms
        w = c.weight, c.mask
        return (
            product(kernels.masked_conv2d, reference.masked_conv2d, c.x, *w, c.bias, c.geometry, terms=forward),
            product(kernels.masked_conv2d_dx, reference.masked_conv2d_dx, c.grad, *w, c.size, c.geometry, terms=dx),
            product(kernels.masked_conv2d_dw, reference.masked_conv2d_dw, c.grad, c.x, c.mask, c.geometry, terms=dw),
        )

    return run


@pytest.mark.parametrize("name", CASES)
def test_geometries(check, name):
    check(case(*CASES[name]))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", ["same size", "all options"])
def test_types(check, name, dtype):
    check(case(*CHOSEN[name], dtype=dtype))


def test_many_tiles(check):
    check(case(2, 5, 9, 7, 37, SAME))
    check(case(3, 37, 5, 3, 3, SAME))


def test_empty_mask_and_no_bias(kernels, check, product):
    c = case(*CHOSEN["same size"], density=0.0)
    y, dx, dw = check(c)
    assert bool((y == c.bias[:, None, None]).all())
    assert not dx.any()
    assert not dw.any()
    c = case(*CHOSEN["same size"])
    product(kernels.masked_conv2d, reference.masked_conv2d, c.x, c.weight, c.mask, None, c.geometry, terms=c.terms[0])


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_sums_over_pixels_in_parts(check, monkeypatch, dtype):
    monkeypatch.setattr(importlib.import_module("sparseprune.kernels.masked_conv2d_dw"), "LEAST", 50)
    check(case(*CHOSEN["same size"], dtype=dtype))
    check(case(7, 2, 9, 5, 3, SAME, dtype=dtype))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of the interpreter: infinity times 0
def test_what_is_pruned_never_counts(kernels):
    c = case(*CHOSEN["all options"])
    hidden = torch.where(c.mask, c.weight, float("nan"))
    forward, dx = kernels.masked_conv2d, kernels.masked_conv2d_dx
    assert torch.equal(*(forward(c.x, w, c.mask, c.bias, c.geometry) for w in (hidden, c.weight)))
    assert torch.equal(*(dx(c.grad, w, c.mask, c.size, c.geometry) for w in (hidden, c.weight)))
    dw = kernels.masked_conv2d_dw(torch.full_like(c.grad, float("inf")), c.x, c.mask, c.geometry)
    assert bool((dw[~c.mask] == 0).all())


def test_wrong_arguments(kernels):
    c = case(*CHOSEN["same size"])
    for x, weight, mask, bias, geometry, message in (
        (c.x[:, :3].contiguous(), c.weight, c.mask, c.bias, c.geometry, "weight must have shape"),
        (c.x, c.weight.double(), c.mask, c.bias, c.geometry, "weight must be torch.float32"),
        (c.x, c.weight, c.mask[:1], c.bias, c.geometry, "mask must have shape"),
        (c.x, c.weight, c.mask, c.bias[:1], c.geometry, "bias must have shape"),
        (c.x.transpose(2, 3), c.weight, c.mask, c.bias, c.geometry, "x must be contiguous"),
        (c.x, c.weight, c.mask, c.bias, [*c.geometry[:-1], 4], "multiples of groups"),
        (c.x, c.weight, c.mask, c.bias, [*c.geometry[:2], 0, *c.geometry[3:]], "must be positive"),
        (c.x[:, :, :1, :1], c.weight, c.mask, c.bias, [3, 3, 1, 1, 0, 0, 0, 0, 1, 1, 1], "must fit"),
    ):
        with pytest.raises(ValueError, match=message):
            kernels.masked_conv2d(x, weight, mask, bias, geometry)
    with pytest.raises(ValueError, match="grad must have shape"):
        kernels.masked_conv2d_dx(c.grad[:, :, 1:].contiguous(), c.weight, c.mask, c.size, c.geometry)
    with pytest.raises(ValueError, match="grad must have shape"):
        kernels.masked_conv2d_dw(c.grad[1:], c.x, c.mask, c.geometry)
