"""flow_forward and flow_backward against their definition, at every edge of tiles, rows and places."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sparseprune import ops
from sparseprune.ops import reference

OPS = torch.ops.sparseprune
COMPILED = ops.backends()["flow_forward"]["cpu"] == "c++"


def drawn(o: int, k: int, p: int, dtype: torch.dtype, masked: bool) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    g = torch.Generator().manual_seed(o * k + p)
    w, x, grad = (torch.randn(*size, generator=g, dtype=torch.float64) for size in ((o, k), (p, k), (o, p)))
    return w.to(dtype), torch.rand(o, k, generator=g) < 0.4 if masked else None, x.to(dtype), grad.to(dtype)


SIZES = [(1, 1, 1), (5, 3, 2), (4, 16, 4), (3, 17, 5), (7, 1030, 3), (33, 517, 32), (512, 2304, 4), (6, 2048, 70)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", SIZES)
def test_agrees_with_the_definition_to_rounding(size, masked, power, dtype):
    w, mask, x, grad = drawn(*size, dtype, masked)
    exact = [t.double() for t in (w, x, grad)]
    # sums of n terms of these sizes, each rounded: n eps of the sum of absolute terms
    bound = 4 * torch.finfo(dtype).eps
    wide = reference.flow_forward(exact[0], mask, exact[1].abs(), power) * (x.shape[1] * bound)
    found = OPS.flow_forward(w, mask, x, power)
    assert found.dtype == dtype
    assert ((found.double() - reference.flow_forward(exact[0], mask, exact[1], power)).abs() <= wide + 1e-300).all()
    found = OPS.flow_backward(w, mask, x, grad, power)
    expected = reference.flow_backward(exact[0], mask, exact[1], exact[2], power)
    dx, scores, _ = reference.flow_backward(exact[0], mask, exact[1].abs(), exact[2].abs(), power)
    assert ((found[0].double() - expected[0]).abs() <= dx * (len(w) * bound) + 1e-300).all()
    assert ((found[1].double() - expected[1]).abs() <= scores * (len(x) * bound) + 1e-300).all()
    low, high = found[1].aminmax()
    assert found[2].tolist() == [min(0.0, float(low)), max(0.0, float(high))]
    if mask is not None:
        assert not found[1][~mask].any()


def test_one_weight_by_hand():
    w, x, grad = torch.tensor([[-3.0]]), torch.tensor([[2.0], [5.0]]), torch.tensor([[1.0, -1.0]])
    assert OPS.flow_forward(w, None, x, 1).tolist() == [[6.0, 15.0]]
    dx, scores, bounds = OPS.flow_backward(w, None, x, grad, 2)
    assert (dx.tolist(), scores.tolist(), bounds.tolist()) == ([[9.0], [-9.0]], [[-27.0]], [-27.0, 0.0])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_shows_in_the_bounds(bad):
    w, _, x, grad = drawn(9, 40, 3, torch.float32, False)
    grad[4, 1] = bad
    scores, bounds = OPS.flow_backward(w, None, x, grad, 1)[1:]
    assert not scores[4].isfinite().any() and scores[3].isfinite().all()
    assert not bounds.isfinite().all()


def test_same_bits_at_every_number_of_threads():
    w, mask, x, grad = drawn(512, 2304, 16, torch.float32, True)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append((OPS.flow_forward(w, mask, x, 1), *OPS.flow_backward(w, mask, x, grad, 1)))
    finally:
        torch.set_num_threads(before)
    if COMPILED:
        assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_operands_that_are_not_contiguous():
    w, mask, x, grad = drawn(8, 24, 6, torch.float32, True)
    spread = x.t().contiguous().t(), grad.t().contiguous().t()
    assert torch.equal(OPS.flow_forward(w, mask, spread[0], 1), OPS.flow_forward(w, mask, x, 1))
    pairs = zip(OPS.flow_backward(w, mask, *spread, 1), OPS.flow_backward(w, mask, x, grad, 1), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("masked", [False, True])
def test_opcheck(masked):
    w, mask, x, grad = drawn(8, 24, 6, torch.float32, masked)
    torch.library.opcheck(OPS.flow_forward.default, (w, mask, x, 1))
    torch.library.opcheck(OPS.flow_backward.default, (w, mask, x, grad, 2))


@pytest.mark.skipif(not COMPILED, reason="the reference raises torch's own errors")
def test_bad_arguments_are_named():
    w, mask, x, grad = drawn(8, 24, 6, torch.float32, True)
    assert mask is not None
    for arguments, message in (
        ((w, mask, x, 3), "power must be 1 or 2, got 3"),
        ((w, mask[1:], x, 1), "mask must be bool, contiguous and of the shape of weight"),
        ((w, mask, x[:, 1:], 1), "x must have 24 columns, got 23"),
        ((w.half(), mask, x.half(), 1), "weight must be float32 or float64"),
    ):
        with pytest.raises(RuntimeError, match=f"flow_forward: {message}"):
            OPS.flow_forward(*arguments)
    with pytest.raises(RuntimeError, match="flow_backward: grad must have 8 rows, got 7"):
        OPS.flow_backward(w, mask, x, grad[1:], 1)
