"""Sparse products of the CPU against their definitions in fp64, within bounds from the dtype and the number of terms.

Each run draws new inputs; a failure prints the seed that repeats it (SEED in fresh.py).
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from sparseprune import ops
from sparseprune.ops import reference

from .fresh import integer

OPS = torch.ops.sparseprune
DEFINITION: Any = reference
DTYPES = (torch.float32, torch.float64, torch.bfloat16)
BATCHES = (0, 1, 2, 3, 7, 16, 17, 31, 50, 64, 100, 127, 128, 129, 200, 333)
SHAPES = ((1, 1), (1, 37), (37, 1), (5, 3), (67, 131), (64, 64), (13, 1009), (0, 4), (4, 0))


class Case:
    """A mask, both of its patterns, and values."""

    def __init__(
        self, rng: torch.Generator, shape: tuple[int, int], density: float | Tensor, dtype: torch.dtype
    ) -> None:
        self.mask = (torch.rand(shape[0] * shape[1], generator=rng) < density).view(shape)
        if shape[0] > 2:
            self.mask[integer(rng, 0, shape[0])] = False  # a row with no entry
        if shape[1] > 2:
            self.mask[:, integer(rng, 0, shape[1])] = False
        self.rows, self.columns = self.mask.nonzero().unbind(1)
        self.by_row = offsets(self.rows, shape[0]), self.columns.int()
        order = torch.argsort(self.columns, stable=True)
        self.by_column = offsets(self.columns, shape[1]), self.rows[order].int()
        self.order = order.int()
        self.values = torch.randn(len(self.rows), generator=rng).to(dtype)

    def matrix(self, values: Tensor) -> Tensor:
        return torch.zeros(self.mask.shape, dtype=torch.float64).index_put((self.rows, self.columns), values.double())


def offsets(rows: Tensor, count: int) -> Tensor:
    return torch.cat([torch.zeros(1), torch.bincount(rows, minlength=count).cumsum(0)]).int()


def normal(rng: torch.Generator, *shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(shape, generator=rng).to(dtype)


def check(found: Tensor, exact: Tensor, magnitude: Tensor, terms: int) -> None:
    """|found - exact| <= (terms + 3) eps sum |a| |b|, and half-precision results are rounded once more."""
    sums = torch.float32 if found.dtype == torch.bfloat16 else found.dtype
    bound = (terms + 3) * torch.finfo(sums).eps * magnitude
    if sums != found.dtype:
        bound = bound + torch.finfo(found.dtype).eps * exact.abs()
    excess = (found.double() - exact).abs() - bound
    assert found.isfinite().all()
    assert found.numel() == 0 or excess.max() <= 0, f"worst at {int(excess.argmax())}: {float(excess.max())} over"


def poison() -> None:
    """Freed memory is full of NaN: what an operation leaves unwritten in its result is seen."""
    for size in (1 << 8, 1 << 12, 1 << 16, 1 << 20):
        torch.full((size,), torch.nan)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("density", [0.0, 0.1, 0.5, 1.0])
def test_products_agree_with_fp64(rng, shape, density, dtype) -> None:
    case = Case(rng, shape, density, dtype)
    w, size = case.matrix(case.values), case.matrix(case.values).abs()
    for batch in {BATCHES[integer(rng, 0, len(BATCHES))] for _ in range(4)}:
        x, g = normal(rng, shape[1], batch, dtype=dtype), normal(rng, shape[0], batch, dtype=dtype)
        bias = normal(rng, shape[0], dtype=dtype)
        a, b = x.double(), g.double()
        poison()
        y = OPS.spmm(case.values, *case.by_row, None, x, None)
        check(y, w @ a, size @ a.abs(), shape[1])
        y = OPS.spmm(case.values, *case.by_row, None, x, bias)
        check(y, w @ a + bias.double()[:, None], size @ a.abs() + bias.double().abs()[:, None], shape[1])
        dx = OPS.spmm(case.values, *case.by_column, case.order, g, None)
        check(dx, w.t() @ b, size.t() @ b.abs(), shape[0])
        exact, magnitude = (b @ a.t())[case.mask], (b.abs() @ a.abs().t())[case.mask]
        check(OPS.sddmm(*case.by_row, None, g, x), exact, magnitude, batch)
        check(OPS.sddmm(*case.by_column, case.order, x, g), exact, magnitude, batch)
        dx, dw = OPS.spmm_backward(case.values, *case.by_column, case.order, x, g)
        check(dx, w.t() @ b, size.t() @ b.abs(), shape[0])
        check(dw, exact, magnitude, batch)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "batch"), [((300, 2100), 130), ((1500, 700), 257), ((40, 9000), 128)], ids=str)
def test_large_products_by_panels_and_tiles(rng, shape, batch, dtype) -> None:
    """Sizes at which inputs are taken by panels and tiles of the batch are copied."""
    case = Case(rng, shape, 0.1, dtype)
    w, size = case.matrix(case.values), case.matrix(case.values).abs()
    x, g = normal(rng, shape[1], batch, dtype=dtype), normal(rng, shape[0], batch, dtype=dtype)
    a, b = x.double(), g.double()
    check(OPS.spmm(case.values, *case.by_row, None, x, None), w @ a, size @ a.abs(), shape[1])
    dx, dw = OPS.spmm_backward(case.values, *case.by_column, case.order, x, g)
    check(dx, w.t() @ b, size.t() @ b.abs(), shape[0])
    check(dw, (b @ a.t())[case.mask], (b.abs() @ a.abs().t())[case.mask], batch)
    assert torch.equal(dw, OPS.sddmm(*case.by_column, case.order, x, g))


@pytest.mark.parametrize("dtype", [*DTYPES, torch.float16, torch.int64], ids=str)
def test_transpose(rng, dtype) -> None:
    for _ in range(12):
        shape = integer(rng, 0, 150), integer(rng, 0, 300)
        x = torch.randint(-100, 100, shape, generator=rng).to(dtype)
        for given in (x, x.t(), x[:, ::2]):
            assert torch.equal(OPS.transpose(given), DEFINITION.transpose(given))
            assert OPS.transpose(given).is_contiguous()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("batch", [1, 128, 300])
def test_the_same_bits_at_any_number_of_threads(rng, dtype, batch, threads) -> None:
    case = Case(rng, (700, 900), torch.linspace(0.9, 0.01, 700)[:, None].expand(700, 900).reshape(-1), dtype)
    x, g = normal(rng, 900, batch, dtype=dtype), normal(rng, 700, batch, dtype=dtype)
    found = []
    for number in (1, 2, 4):
        torch.set_num_threads(number)
        found.append(
            [
                OPS.spmm(case.values, *case.by_row, None, x, None),
                OPS.sddmm(*case.by_row, None, g, x),
                *OPS.spmm_backward(case.values, *case.by_column, case.order, x, g),
                OPS.transpose(x),
            ]
        )
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_infinite_inputs_stay_where_they_are(rng) -> None:
    """Columns of the batch do not touch each other, and inputs that no weight reads touch nothing."""
    case = Case(rng, (20, 30), 0.3, torch.float32)
    x = normal(rng, 30, 21, dtype=torch.float32)
    expected = OPS.spmm(case.values, *case.by_row, None, x, None)
    x[:, 20] = torch.inf
    x[(~case.mask).all(0)] = torch.nan
    assert torch.equal(OPS.spmm(case.values, *case.by_row, None, x, None)[:, :20], expected[:, :20])


def test_opcheck(rng) -> None:
    case = Case(rng, (6, 9), 0.4, torch.float32)
    x, g = normal(rng, 9, 5, dtype=torch.float32), normal(rng, 6, 5, dtype=torch.float32)
    by_row, by_column = case.by_row, case.by_column
    calls = {
        OPS.transpose: (x,),
        OPS.spmm: (case.values, *by_row, None, x, g[:, 0].contiguous()),
        OPS.sddmm: (*by_row, None, g, x),
        OPS.spmm_backward: (case.values, *by_column, case.order, x, g),
    }
    for op, arguments in calls.items():
        torch.library.opcheck(op, arguments)


def test_wrong_arguments_raise(rng) -> None:
    case = Case(rng, (6, 9), 0.4, torch.float32)
    x, g = normal(rng, 9, 5, dtype=torch.float32), normal(rng, 6, 5, dtype=torch.float32)
    row, column = case.by_row, case.by_column
    wrong = [
        (OPS.spmm, (case.values[1:], *row, None, x, None), "values"),
        (OPS.spmm, (case.values.double(), *row, None, x, None), "values"),
        (OPS.spmm, (case.values, *row, case.order[1:], x, None), "order"),
        (OPS.spmm, (case.values, row[0].long(), row[1], None, x, None), "offsets"),
        (OPS.spmm, (case.values, row[0][:0], row[1], None, x, None), "offsets"),
        (OPS.spmm, (case.values, *row, None, x, x[0]), "bias"),
        (OPS.spmm, (case.values, *row, None, x[0], None), "dense"),
        (OPS.spmm, (case.values.half(), *row, None, x.half(), None), "float32, float64 and bfloat16"),
        (OPS.sddmm, (*row, None, g[1:], x), "left"),
        (OPS.sddmm, (*row, None, g, x[:, 1:]), "right"),
        (OPS.spmm_backward, (case.values, *column, case.order, x[1:], g), "dense"),
        (OPS.spmm_backward, (case.values, *column, case.order, x, g[:, 1:]), "grad"),
        (OPS.transpose, (x[0],), "matrix"),
        (OPS.transpose, (x.bool(),), "bytes"),
    ]
    for op, arguments, named in wrong:
        with pytest.raises(RuntimeError, match=named):
            op(*arguments)


@pytest.mark.skipif(ops.extension_error() is not None, reason="the reference has no instruction sets")
@pytest.mark.parametrize("isa", ["avx2", "plain"])
def test_lower_instruction_sets(isa) -> None:
    """The same tests where the processor has less."""
    if "SPARSEPRUNE_ISA" in os.environ:
        pytest.skip("inside such a run")
    pytest_here = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--import-mode=importlib"]
    chosen = "(agree and 0.5 and 131) or (agree and 0.1 and 1009) or (large and 130) or transpose"
    result = subprocess.run(
        [*pytest_here, __file__, "-k", chosen],
        env={**os.environ, "SPARSEPRUNE_ISA": isa},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-3000:]
