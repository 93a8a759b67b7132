"""Inputs that all kernel tests share. Triton is imported inside fixtures only: one process is one mode."""

import importlib
import os

import pytest
import torch

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


@pytest.fixture(scope="session")
def kernels():
    """sparseprune.kernels in Triton's interpreter."""
    pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("the interpreter is its own process: TRITON_INTERPRET=1")
    return importlib.import_module("sparseprune.kernels")
