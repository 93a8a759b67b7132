"""Fixtures of the tests that compare backends: fresh random inputs, and threads that are set back."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch

from .fresh import SEED


@pytest.fixture(params=range(2))
def rng(request: pytest.FixtureRequest) -> torch.Generator:
    print(f"SEED = {SEED}", file=sys.stderr)
    return torch.Generator().manual_seed(SEED + request.param)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
