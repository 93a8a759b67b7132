"""Patterns: from a mask and from CSR, straight and by input; what is refused."""

import pytest
import torch

from sparseprune.ops import Pattern


def random_mask(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape))) < 0.4


@pytest.mark.parametrize(("shape", "groups"), [((5, 7), 1), ((1, 1), 1), ((6, 4, 3, 2), 1), ((6, 4, 3, 2), 3)])
def test_both_orders_hold_the_entries_of_the_mask(shape, groups):
    mask = random_mask(*shape)
    pattern = Pattern.from_mask(mask, groups)
    assert all(t.dtype == torch.int32 for t in pattern)
    values = torch.arange(1.0, len(pattern.columns) + 1)
    dense = pattern.dense(values, shape)
    assert torch.equal(dense != 0, mask) and torch.equal(dense[mask], values)
    # By input: column (group, c, tap) lists the outputs of its group that keep it.
    flat = dense.flatten(1)
    for column, (start, end) in enumerate(
        zip(pattern.column_offsets[:-1].tolist(), pattern.column_offsets[1:].tolist(), strict=True)
    ):
        group, within = divmod(column, flat.shape[1])
        rows = [r for r in range(shape[0]) if flat[r, within] != 0 and r // (shape[0] // groups) == group]
        assert pattern.rows[start:end].tolist() == rows
        assert values[pattern.order[start:end].long()].tolist() == [flat[r, within] for r in rows]


def test_csr_round_trip():
    pattern = Pattern.from_mask(random_mask(6, 4, 3, 2), 3)
    again = Pattern.from_csr(pattern.row_offsets, pattern.columns, (6, 4, 3, 2), 3)
    assert all(torch.equal(a, b) for a, b in zip(pattern, again, strict=True))


def test_nothing_kept_and_no_rows():
    assert len(Pattern.from_mask(torch.zeros(3, 4)).columns) == 0
    assert Pattern.from_mask(torch.zeros(0, 4)).column_offsets.tolist() == [0] * 5


@pytest.mark.parametrize(
    ("offsets", "columns", "message"),
    [
        ([0, 1], [0], "row_offsets must have 3 entries"),
        ([0, 2, 1], [0], "row_offsets must rise from 0 to 1"),
        ([1, 1, 1], [0], "row_offsets must rise from 0 to 1"),
        ([0, 1, 2], [0, 3], r"columns must be in 0 ... 2, got 0 ... 3"),
        ([0, 1, 2], [0, -1], "columns must be in 0"),
        ([0, 2, 2], [1, 0], "columns must ascend"),
        ([0, 2, 2], [1, 1], "columns must ascend"),
        ([0.0, 1, 1], [1], "row_offsets must be a vector of integers"),
    ],
)
def test_wrong_patterns_are_refused(offsets, columns, message):
    with pytest.raises(ValueError, match=f"Pattern: {message}"):
        Pattern.from_csr(torch.tensor(offsets), torch.tensor(columns, dtype=torch.int32), (2, 3))


def test_a_mask_needs_two_dimensions():
    with pytest.raises(ValueError, match="at least 2 dimensions"):
        Pattern.from_mask(torch.ones(3))
