"""Products on CUDA tensors against their definition in fp64 on the CPU: sizes that fill a GPU, poisoned memory."""

import pytest
import torch

from sparseprune.ops import reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.usefixtures("poisoned_memory"),
]
OPS = torch.ops.sparseprune
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.fixture
def check(product):
    """A raw operation on the GPU: within its bound of the definition, and the same bits again."""

    def run(name, *arguments, terms):
        moved = [a.cuda() if isinstance(a, torch.Tensor) else a for a in arguments]
        function = getattr(OPS, name)
        results = product(function, getattr(reference, name), *moved, terms=terms), function(*moved)
        for got, again in zip(*(r if isinstance(r, tuple) else (r,) for r in results), strict=True):
            assert torch.equal(got, again)

    return run


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("batch", [1, 31, 128, 256, 1000])
@pytest.mark.parametrize(("m", "k", "density"), [(1024, 1024, 0.1), (10, 4099, 0.5), (997, 1, 0.5), (3000, 701, 0.02)])
def test_sparse(check, pattern, mask, randn, m, k, density, batch, dtype):
    p = pattern(mask(m, k, density=density))
    values, dense, grad, bias = (
        randn(*size, dtype=dtype, seed=i) for i, size in enumerate(((len(p.rows),), (k, batch), (m, batch), (m,)))
    )
    check("transpose", dense, terms=0)
    check("spmm", values, p.offsets, p.indices, None, dense, bias, terms=k + 1)
    check("spmm", values, p.column_offsets, p.rows, p.order, grad, None, terms=m)
    check("sddmm", p.offsets, p.indices, None, grad, dense, terms=batch)
    check("spmm_backward", values, p.column_offsets, p.rows, p.order, dense, grad, terms=max(m, batch))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize(("m", "k", "n"), [(1, 4096, 4096), (16, 1000, 1000), (128, 1024, 1024), (2039, 701, 1301)])
def test_masked_linear(check, mask, randn, m, k, n, dtype):
    sizes = (m, k), (n, k), (m, n), (n,)
    x, weight, grad, bias = (randn(*size, dtype=dtype, seed=i) for i, size in enumerate(sizes))
    keep = mask(n, k)
    keep[n // 2 :] = False  # tiles without kept weights
    check("masked_linear", x, weight, keep, bias, terms=k + 1)
    check("masked_linear_dx", grad, weight, keep, terms=n)
    check("masked_linear_dw", grad, x, keep, terms=m)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("batch", [1, 100, 1024])
def test_blocks(check, pattern, mask, randn, size, batch, dtype):
    m, k = 1024 // size, 2048 // size
    p = pattern(mask(m, k))
    blocks = randn(len(p.rows), size, size, dtype=dtype)
    dense, grad = randn(k * size, batch, dtype=dtype, seed=1), randn(m * size, batch, dtype=dtype, seed=2)
    check("block_spmm", blocks, p.offsets, p.indices, None, dense, False, terms=k * size)
    check("block_spmm", blocks, p.column_offsets, p.rows, p.order, grad, True, terms=m * size)
    check("block_sddmm", p.offsets, p.indices, grad, dense, size, terms=batch)
