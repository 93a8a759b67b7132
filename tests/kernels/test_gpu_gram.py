"""Gram matrices of gradients on CUDA tensors against their definition in fp64 on the CPU: sizes of many tiles."""

import pytest
import torch

from sparseprune.ops import reference
from sparseprune.ops.reference import Geometry

from .geometries import case, last

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.usefixtures("poisoned_memory"),
]
OPS = torch.ops.sparseprune
FLOATS = (torch.float32, torch.float64)
EMULATION = 16  # roundings of fp32 that a product of three products of tf32 may be wrong by


@pytest.fixture
def check(product):
    """A raw operation on the GPU: within its bound of the definition, and the same bits again."""

    def run(name, *arguments, terms):
        moved = [a.cuda() if isinstance(a, torch.Tensor) else a for a in arguments]
        function = getattr(OPS, name)
        got = product(function, getattr(reference, name), *moved, terms=terms)
        assert torch.equal(got, function(*moved))
        return got

    return run


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("examples", [1, 33, 130, 257])
@pytest.mark.parametrize(("m", "k", "outputs"), [(300, 131, 10), (17, 997, 1), (10, 64, 33)])
def test_gram(check, pattern, mask, randn, m, k, examples, outputs, dtype):
    p = pattern(mask(m, k))
    sizes = (len(p.rows),), (k, examples), (m, outputs, examples), (k, 65), (m, outputs, 65)
    squares, a, b, a2, b2 = (randn(*size, dtype=dtype, seed=i) for i, size in enumerate(sizes))
    terms = m + k + outputs + 2 * EMULATION
    for q in (squares.square(), None):
        own = check("ntk_gram", p.offsets, p.indices, q, a, b, None, None, False, terms=terms)
        assert torch.equal(own, own.t())
        check("ntk_gram", p.offsets, p.indices, q, a, b, a2, b2, False, terms=terms)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("outputs", [1, 3, 10, 17])
def test_full(check, pattern, mask, randn, outputs, dtype):
    p = pattern(mask(97, 131))
    sizes = (131, 70), (97, outputs, 70), (131, 33), (97, outputs, 33)
    a, b, a2, b2 = (randn(*size, dtype=dtype, seed=i) for i, size in enumerate(sizes))
    terms = 97 + 131 + EMULATION
    own = check("ntk_gram", p.offsets, p.indices, None, a, b, None, None, True, terms=terms)
    assert torch.equal(own, own.permute(1, 0, 3, 2))
    check("ntk_gram", p.offsets, p.indices, None, a, b, a2, b2, True, terms=terms)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(("stride", "outputs", "batch"), [(1, 10, 67), (2, 1, 128), (3, 5, 1)])
def test_spconv_dw_each(check, randn, stride, outputs, batch, dtype):
    geometry = Geometry((3, 3), (stride, stride), (1, 1, 1, 1), (1, 1), 1)
    c = case(batch, 33, 17, 16, 65, geometry, dtype=dtype, density=0.1)
    rows, columns = c.grad.shape[2:]
    grad = randn(65, rows, columns, outputs, batch, dtype=dtype)
    check("spconv_dw_each", *c.pattern[:2], last(c.x), grad, c.geometry, terms=rows * columns)
