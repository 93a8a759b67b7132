"""Where a sparse weight keeps its entries: by output (CSR) and by input, both int32."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .reference.products import row_numbers

_LIMIT = 2**31 - 1


class Pattern(NamedTuple):
    """The kept entries of a weight `[N, K]`, or `[O, C / groups, KH, KW]` seen as a matrix of O rows.

    `values` that belong to a pattern stand in CSR order: row by row, columns ascending. By input the same entries stand
    column by column, a convolution's columns counted over all groups: (input channel) KH KW + tap.

    Args:
        row_offsets: int32 `[N + 1]`.
        columns: int32 `[nnz]`, of each entry, within its group.
        column_offsets: int32 `[inputs + 1]`, inputs = K, or C KH KW of a convolution.
        rows: int32 `[nnz]`, of the entries by input.
        order: int32 `[nnz]`, where the entries by input stand in `values`.
    """

    row_offsets: Tensor
    columns: Tensor
    column_offsets: Tensor
    rows: Tensor
    order: Tensor

    @classmethod
    def from_mask(cls, mask: Tensor, groups: int = 1) -> Pattern:
        """Keep what is not zero in `mask`, shaped like the weight.

        Raises:
            ValueError: a mask of less than two dimensions, or of 2^31 entries or more.

        Cost:
            a few passes over the mask and one sort of the kept entries.
        """
        if mask.ndim < 2:
            raise ValueError(f"Pattern: mask must have at least 2 dimensions, got shape {list(mask.shape)}")
        kept = mask.flatten(1) != 0
        _check_size(mask.shape)
        rows, columns = kept.nonzero(as_tuple=True)
        offsets = torch.nn.functional.pad(kept.sum(1).cumsum(0), (1, 0))
        return cls._by_input(offsets, rows, columns, kept.shape[1], groups)

    @classmethod
    def from_csr(cls, row_offsets: Tensor, columns: Tensor, shape: Sequence[int], groups: int = 1) -> Pattern:
        """Take a CSR pattern of a weight of `shape`.

        Raises:
            ValueError: offsets that do not rise from 0 to nnz, columns outside the weight, twice in a
                row or out of order.

        Cost:
            a few passes over the entries and one sort of them.
        """
        _check_size(shape)
        height, width = shape[0], math.prod(shape[1:])
        for name, tensor in (("row_offsets", row_offsets), ("columns", columns)):
            if tensor.ndim != 1 or tensor.dtype not in (torch.int32, torch.int64):
                raise ValueError(
                    f"Pattern: {name} must be a vector of integers, got {tensor.dtype} {list(tensor.shape)}"
                )
        if len(row_offsets) != height + 1:
            raise ValueError(f"Pattern: row_offsets must have {height + 1} entries, got {len(row_offsets)}")
        steps = row_offsets.diff()
        if row_offsets[0] != 0 or row_offsets[-1] != len(columns) or bool((steps < 0).any()):
            raise ValueError(f"Pattern: row_offsets must rise from 0 to {len(columns)}, got others")
        if len(columns) and not (columns.min() >= 0 and columns.max() < width):
            raise ValueError(f"Pattern: columns must be in 0 ... {width - 1}, got {columns.min()} ... {columns.max()}")
        rows = row_numbers(row_offsets, len(columns))
        if bool(((rows * width + columns).diff() <= 0).any()):
            raise ValueError("Pattern: columns must ascend within a row, got some twice or out of order")
        return cls._by_input(row_offsets, rows, columns.long(), width, groups)

    @classmethod
    def _by_input(cls, offsets: Tensor, rows: Tensor, columns: Tensor, width: int, groups: int) -> Pattern:
        height = len(offsets) - 1
        inputs = rows // max(1, height // groups) * width + columns
        order = inputs.sort(stable=True).indices
        counts = torch.bincount(inputs, minlength=width * groups)
        column_offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
        return cls(*(t.to(torch.int32) for t in (offsets, columns, column_offsets, rows[order], order)))

    def places(self, width: int) -> Tensor:
        """Where the entries stand in the flat weight of `width` columns, int64 `[nnz]`, in CSR order."""
        return row_numbers(self.row_offsets, len(self.columns)) * width + self.columns

    def dense(self, values: Tensor, shape: Sequence[int]) -> Tensor:
        """Return the weight of `shape` with `values` where kept and 0 elsewhere, differentiable in `values`."""
        flat = values.new_zeros(math.prod(shape))
        return flat.scatter(0, self.places(math.prod(shape[1:])), values).view(*shape)


def _check_size(shape: Sequence[int]) -> None:
    if math.prod(shape) > _LIMIT * max(1, math.prod(shape[1:])) or math.prod(shape[1:]) > _LIMIT:
        raise ValueError(f"Pattern: a weight must have fewer than 2^31 rows and columns, got shape {list(shape)}")
