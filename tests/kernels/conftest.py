"""Inputs that all kernel tests share. Triton is imported inside fixtures only: one process is one mode."""

import importlib
import os
from typing import NamedTuple

import pytest
import torch
from torch.nn import functional as F

SCORES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

# Sizes around the tile of 4096, and lists whose tiles cross tensor boundaries.
LISTS = {
    "one": [1],
    "short tile": [4095],
    "tile": [4096],
    "tile and one": [4097],
    "aligned": [4096, 8192],
    "cut": [5, 4096, 3, 9000, 1, 0, 4095, 4096],
    "tiny": [3] * 12,
    "tail": [0, 4090, 12, 0],
}


def scores_of(sizes, dtypes=SCORES, spread=3.0, zeros=0.2, signed=False, seed=0):
    """Scores of many magnitudes, with zeros of both signs; dtypes in turn."""
    generator = torch.Generator().manual_seed(seed)
    result = []
    for i, size in enumerate(sizes):
        v = (spread * torch.randn(size, dtype=torch.float64, generator=generator)).exp()
        u = torch.rand(2, size, generator=generator)
        v = torch.where(u[0] < zeros, 0.0, v)
        if signed:
            v = torch.where(u[1] < 0.5, -v, v)
        else:
            v[(v == 0) & (u[1] < 0.5)] = -0.0
        dtype = dtypes[i % len(dtypes)]
        result.append(v.clamp(-60000.0, 60000.0).to(dtype) if dtype == torch.float16 else v.to(dtype))
    return result


def poisoned(tensors, dtypes):
    """Outputs that hold NaN, or a number that no kernel writes."""
    result = []
    for t, dtype in zip(tensors, dtypes, strict=True):
        if dtype == torch.bool:
            result.append(torch.full((t.numel(),), 7, dtype=torch.uint8, device=t.device).view(torch.bool))
        else:
            fill = float("nan") if dtype.is_floating_point else -77
            result.append(torch.full((t.numel(),), fill, dtype=dtype, device=t.device))
    return result


def assert_same(got, expected):
    """Equal types and equal bits, the sign of zero included."""
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    assert len(got) == len(expected)
    for i, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), i
        a, b = (t.cpu().view(-1).view(bits[t.element_size()]) for t in (a, b))
        different = (a != b).nonzero().view(-1)
        assert len(different) == 0, f"tensor {i}: {len(different)} differ, first at {int(different[0])}"


class Pattern(NamedTuple):
    """A mask by output and by input, as the products take it."""

    offsets: torch.Tensor
    indices: torch.Tensor
    column_offsets: torch.Tensor
    rows: torch.Tensor
    order: torch.Tensor


def pattern_of(mask):
    """The pattern of a bool matrix."""
    rows, columns = mask.nonzero(as_tuple=True)
    order = torch.argsort(columns, stable=True)
    offsets, column_offsets = (F.pad(mask.sum(axis).cumsum(0), (1, 0)) for axis in (1, 0))
    return Pattern(*(t.int() for t in (offsets, columns, column_offsets, rows[order], order)))


def mask_of(*shape, density=0.3, seed=0):
    """A random mask whose first row is full and whose second is empty, where there are so many."""
    mask = torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < density
    mask[:1], mask[1:2] = True, False
    return mask


def normal(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_product(function, definition, *arguments, terms):
    """A product whose error is at most terms + 3 roundings of sums and one of results, of the sum of magnitudes.

    `definition` says what it must be: it is taken in fp64 of the same arguments, and of their magnitudes.
    """
    got = function(*arguments)
    wide = [a.cpu() if isinstance(a, torch.Tensor) else a for a in arguments]
    floating = [isinstance(a, torch.Tensor) and a.is_floating_point() for a in wide]
    wide = [a.double() if f else a for a, f in zip(wide, floating, strict=True)]
    exact, scale = definition(*wide), definition(*(a.abs() if f else a for a, f in zip(wide, floating, strict=True)))
    dtype = next(a.dtype for a in arguments if isinstance(a, torch.Tensor) and a.is_floating_point())
    sums = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
    for g, e, s in zip(*(r if isinstance(r, tuple) else (r,) for r in (got, exact, scale)), strict=True):
        assert (g.dtype, g.shape) == (dtype, e.shape)
        error = (g.cpu().double() - e).abs()
        bound = ((terms + 3) * sums + torch.finfo(dtype).eps) * s + torch.finfo(dtype).smallest_normal
        bad = (~(error <= bound)).nonzero()
        assert len(bad) == 0, f"{len(bad)} of {error.numel()}, first at {bad[0].tolist()}: {error[tuple(bad[0])]}"
    return got


@pytest.fixture(params=LISTS, ids=list(LISTS))
def sizes(request):
    return LISTS[request.param]


@pytest.fixture
def make():
    return scores_of


@pytest.fixture
def poison():
    return poisoned


@pytest.fixture
def same():
    return assert_same


@pytest.fixture
def pattern():
    return pattern_of


@pytest.fixture
def mask():
    return mask_of


@pytest.fixture
def randn():
    return normal


@pytest.fixture
def product():
    return assert_product


@pytest.fixture
def poisoned_memory(monkeypatch):
    """Fresh memory that holds NaN, so that what a kernel leaves out is seen."""
    fresh = torch.Tensor.new_empty

    def new_empty(self, *size, **options):
        t = fresh(self, *size, **options)
        return t.fill_(float("nan")) if t.is_floating_point() else t

    monkeypatch.setattr(torch.Tensor, "new_empty", new_empty)


@pytest.fixture(scope="session")
def kernels():
    """sparseprune.kernels in Triton's interpreter."""
    pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("the interpreter is its own process: TRITON_INTERPRET=1")
    return importlib.import_module("sparseprune.kernels")
