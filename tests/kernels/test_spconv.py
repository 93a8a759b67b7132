"""Compressed convolutions in Triton's interpreter against their definition in fp64, into poisoned memory."""

import importlib

import pytest
import torch

from sparseprune.ops import reference
from sparseprune.ops.reference import Geometry

from .geometries import CASES, CHOSEN, FLOATS, case, last

pytestmark = [pytest.mark.interpreter, pytest.mark.usefixtures("poisoned_memory")]
SMALL = Geometry((2, 2), (1, 1), (1, 0, 1, 0), (1, 1), 1)


@pytest.fixture
def check(kernels, product):
    def run(c):
        p, x, grad, values = c.pattern, last(c.x), last(c.grad), c.values
        by_output, by_input = p[:2], p[2:]
        forward, dx, dw = c.terms
        y = product(kernels.spconv, reference.spconv, values, *by_output, x, c.bias, c.geometry, terms=forward)
        product(kernels.spconv_dx, reference.spconv_dx, values, *by_input, grad, c.size, c.geometry, terms=dx)
        product(kernels.spconv_dw, reference.spconv_dw, *by_output, x, grad, c.geometry, terms=dw)
        both = values, *by_input, x, grad, c.geometry
        return y, *product(kernels.spconv_backward, reference.spconv_backward, *both, terms=max(dx, dw))

    return run


@pytest.mark.parametrize("name", CASES)
def test_geometries(check, name):
    check(case(*CASES[name]))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_types(check, dtype):
    check(case(*CHOSEN["all options"], dtype=dtype))


@pytest.mark.parametrize("batch", [1, 67])
def test_many_tiles(check, batch):
    check(case(batch, 2, 48, 47, 3, SMALL) if batch == 1 else case(batch, 2, 6, 7, 3, SMALL))


def test_empty_mask_and_no_bias(kernels, check, product):
    c = case(*CHOSEN["same size"], density=0.0)
    y, dx, dw = check(c)
    assert bool((y == c.bias[:, None, None, None]).all())
    assert not dx.any()
    assert dw.shape == (0,)
    c = case(*CHOSEN["all options"])
    args = c.values, *c.pattern[:2], last(c.x), None, c.geometry
    product(kernels.spconv, reference.spconv, *args, terms=c.terms[0])


def test_partial_sums_in_bounded_scratch(check, kernels, monkeypatch):
    monkeypatch.setattr(importlib.import_module("sparseprune.kernels._images"), "SCRATCH", 30)
    check(case(67, 2, 6, 7, 3, SMALL))


def test_wrong_arguments(kernels):
    c = case(*CHOSEN["same size"])
    p, x, grad, values = c.pattern, last(c.x), last(c.grad), c.values
    forward = values, *p[:2], x, c.bias, c.geometry
    backward = values, *p[2:], x, grad, c.geometry
    for op, given, place, wrong, message in (
        ("spconv", forward, 0, values[1:], "values must have shape"),
        ("spconv", forward, 2, p.columns.long(), "indices must be torch.int32"),
        ("spconv", forward, 3, x.double(), "values must be torch.float64"),
        ("spconv", forward, 3, x.transpose(0, 1), "x must be contiguous"),
        ("spconv", forward, 4, c.bias[1:], "bias must have shape"),
        ("spconv", forward, 5, [*c.geometry[:-1], 4], "multiples of groups"),
        ("spconv_backward", backward, 4, x[1:], "column_offsets must have"),
        ("spconv_backward", backward, 3, p.order[1:], "order must have shape"),
        ("spconv_backward", backward, 5, grad[:, 1:].contiguous(), "grad must have shape"),
        ("spconv_dx", (*backward[:4], grad, c.size, c.geometry), 5, [5, 5], "grad must have shape"),
        ("spconv_dw", (*p[:2], x, grad, c.geometry), 3, grad[1:], "grad must have shape"),
    ):
        with pytest.raises(ValueError, match=message):
            getattr(kernels, op)(*given[:place], wrong, *given[place + 1 :])


def test_repeats_give_the_same_bits(kernels):
    c = case(67, 2, 6, 7, 3, SMALL)
    args = c.values, *c.pattern[2:], last(c.x), last(c.grad), c.geometry
    for a, b in zip(kernels.spconv_backward(*args), kernels.spconv_backward(*args), strict=True):
        assert torch.equal(a, b)
