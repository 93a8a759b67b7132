"""What is timed of a layer: right results in the memory asked for, and the table that is printed."""

import pytest
import torch
from torch import nn

from sparseprune import ops, speeds
from sparseprune.speeds import forward, random_mask, sparse, step

LAYERS = {
    "linear": (nn.Linear(6, 5), (7, 6)),
    "conv2d": (nn.Conv2d(3, 4, 3, padding=1), (5, 3, 6, 6)),
}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("memory", ["batch_first", "batch_last"])
def test_layouts_take_the_same_step(kind, memory):
    dense, shape = LAYERS[kind]
    mask = random_mask(dense.weight.shape, 0.5)
    results = {layout: step(sparse(dense, mask, layout), shape, memory)() for layout in ("masked", "csr")}
    (y, dx, *csr), (y_, dx_, *masked) = results["csr"], results["masked"]
    found, wanted = {g.shape: g for g in csr}, [masked[0][mask], masked[1]]
    torch.testing.assert_close([y, dx], [y_, dx_])
    torch.testing.assert_close([found[g.shape] for g in wanted], wanted)
    torch.testing.assert_close(forward(sparse(dense, mask, "csr"), shape, memory)(), y)


@pytest.mark.parametrize("kind", LAYERS)
def test_memory_is_as_asked(kind):
    dense, shape = LAYERS[kind]
    csr = sparse(dense, random_mask(dense.weight.shape, 0.5), "csr")
    y, dx = step(csr, shape, "batch_first")()[:2]
    assert y.is_contiguous() and dx.is_contiguous()
    chained = step(csr, shape, "batch_last")
    before = ops.transposes()
    y, dx = chained()[:2]
    assert y.movedim(0, -1).is_contiguous() and dx.movedim(0, -1).is_contiguous()
    assert ops.transposes() == before, "nothing is transposed between csr layers"


def test_random_mask_keeps_its_density_and_repeats():
    mask = random_mask(torch.Size((100, 100)), 0.3)
    assert abs(int(mask.sum()) - 3000) < 300 and torch.equal(mask, random_mask(torch.Size((100, 100)), 0.3))


def test_rows_and_table(monkeypatch):
    told = []
    monkeypatch.setattr(speeds, "SHOWN", (("tiny", "linear", {"dtype": "float32", "size": 4, "batch": 2}),))
    rows = speeds.speeds(repeats=1, progress=lambda *at: told.append(at))
    assert [(row["work"], row["density"]) for row in rows] == [
        (work, density) for work in ("forward", "forward + backward") for density in speeds.DENSITIES
    ]
    assert all(row[layout] > 0 for row in rows for layout in ("dense", "masked", "csr"))
    assert told[0] == (0, len(rows)) and told[-1] == (len(rows), len(rows))
    assert speeds.table(rows).row_count == len(rows)
