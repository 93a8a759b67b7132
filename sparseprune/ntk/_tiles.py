"""A kernel matrix put together from pairs of tiles of examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

Side = TypeVar("Side")
Progress = Callable[[int, int], Any]
TILE = 2**28  # bytes that one tile of examples may take where the caller names no chunk


def assemble(
    make: Callable[[Tensor], Side], product: Callable[[Side, Side], Tensor], x1: Tensor, x2: Tensor | None, chunk: int,
    progress: Progress | None,
) -> Tensor:  # fmt: skip
    """Return product(make(x1), make(x2)), `[N1, N2]` or `[N1, N2, O, O]`, with two tiles in memory at a time.

    x2 None: of x1 with itself, half of the pairs, symmetric to the last bit.
    """
    rows = x1.split(chunk)
    columns = rows if x2 is None else x2.split(chunk)
    total = len(rows) * (len(rows) + 1) // 2 if x2 is None else len(rows) * len(columns)
    kernel: Tensor | None = None
    done = 0
    for i, row in enumerate(rows):
        one = make(row)
        for j, column in enumerate(columns[: i + 1] if x2 is None else columns):
            same = x2 is None and i == j
            block = product(one, one if same else make(column))
            if same:
                block = (block + _mirrored(block)) / 2
            if kernel is None:
                kernel = block.new_zeros(len(x1), len(x1 if x2 is None else x2), *block.shape[2:])
            down, right = slice(i * chunk, i * chunk + len(row)), slice(j * chunk, j * chunk + len(column))
            kernel[down, right] = block
            if x2 is None and not same:
                kernel[right, down] = _mirrored(block)
            done += 1
            if progress is not None:
                progress(done, total)
    assert kernel is not None  # there are examples
    return kernel


def _mirrored(block: Tensor) -> Tensor:
    """K(x', x) of K(x, x'): outputs change places with their examples."""
    return block.transpose(0, 1) if block.ndim == 2 else block.permute(1, 0, 3, 2)
