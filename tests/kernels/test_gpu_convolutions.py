"""Convolutions on CUDA tensors against their definition in fp64 on the CPU, at sizes that fill a GPU."""

import pytest
import torch

from sparseprune.ops import reference
from sparseprune.ops.reference import Geometry

from .geometries import CASES, FLOATS, case, last

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.usefixtures("poisoned_memory"),
]
OPS = torch.ops.sparseprune
LARGE = {
    "narrow": (64, 16, 32, 32, 16, Geometry((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1)),
    "strided": (67, 64, 17, 16, 130, Geometry((3, 3), (2, 2), (1, 0, 1, 1), (1, 1), 1)),
    "wide": (33, 257, 4, 4, 129, Geometry((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1)),
    "first": (4, 3, 61, 64, 64, Geometry((7, 7), (2, 2), (3, 3, 3, 3), (1, 1), 1)),
    "dilated groups": (16, 64, 14, 15, 96, Geometry((3, 5), (1, 2), (2, 2, 4, 4), (2, 2), 4)),
    "depthwise": (32, 48, 16, 16, 48, Geometry((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 48)),
    "1x1": (31, 128, 8, 8, 256, Geometry((1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1)),
}
ALL = {**CASES, **LARGE}


@pytest.fixture
def check(product):
    """A raw operation on the GPU: within its bound of the definition, and the same bits again."""

    def run(name, *arguments, terms):
        operation = getattr(OPS, name)
        got, again = product(operation, getattr(reference, name), *arguments, terms=terms), operation(*arguments)
        for a, b in zip(*(r if isinstance(r, tuple) else (r,) for r in (got, again)), strict=True):
            assert torch.equal(a, b)

    return run


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", ALL)
def test_masked(check, name, dtype):
    c = case(*ALL[name], dtype=dtype, device="cuda")
    forward, dx, dw = c.terms
    check("masked_conv2d", c.x, c.weight, c.mask, c.bias, c.geometry, terms=forward)
    check("masked_conv2d_dx", c.grad, c.weight, c.mask, c.size, c.geometry, terms=dx)
    check("masked_conv2d_dw", c.grad, c.x, c.mask, c.geometry, terms=dw)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", ALL)
def test_compressed(check, name, dtype):
    c = case(*ALL[name], dtype=dtype, device="cuda", density=0.1)
    p, x, grad, values = c.pattern, last(c.x), last(c.grad), c.values
    forward, dx, dw = c.terms
    check("spconv", values, *p[:2], x, c.bias, c.geometry, terms=forward)
    check("spconv_dx", values, *p[2:], grad, c.size, c.geometry, terms=dx)
    check("spconv_dw", *p[:2], x, grad, c.geometry, terms=dw)
    check("spconv_backward", values, *p[2:], x, grad, c.geometry, terms=max(dx, dw))
