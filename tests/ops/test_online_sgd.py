"""online_sgd and its random numbers against their definitions, at every edge of registers, rows and batches."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sparseprune import ops
from sparseprune.ops import reference

OPS = torch.ops.sparseprune
COMPILED = ops.backends()["online_sgd"]["cpu"] == "c++"


def drawn(runs: int, students: int, teachers: int, n: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(n)
    sizes = (runs, students, n), (runs, students), (runs, teachers, n), (runs, teachers)
    w, v, w_star, v_star = (torch.randn(*size, generator=g, dtype=torch.float64).to(dtype) for size in sizes)
    return w, v, w_star, v_star


def test_normals_are_box_and_mullers_of_their_words():
    samples = torch.arange(3)
    bits = reference.random_bits(torch.arange(128), samples[:, None], reference.NORMAL, 0, 7, 2)
    radius = (-2 * ((bits & 0xFFFFFFFF) >> 1 | 1).float().mul(2.0**-31).double().log()).sqrt()
    word = bits >> 32 & 0xFFFFFFFF
    low = word & 0x3FFFFFFF
    angle = (low - (low >> 29 << 30)).double() * math.pi / 2**31
    angle = torch.where(word >> 30 & 1 == 1, math.pi / 2 - angle, angle) + math.pi * (word >> 31)
    pairs = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1).unflatten(2, (2, 64))
    expected = pairs.transpose(1, 2).flatten(1)
    found = reference.normals(samples, 200, 7, 2)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected[:, :200], rtol=1e-6, atol=2e-7)


def test_normals_are_normal_and_independent():
    x = reference.normals(torch.arange(20_000), 60, 3, 0).double()
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)):
        assert abs(float((x**power).mean()) - moment) < 5 * math.sqrt(variance / x.numel()), power
    correlations = torch.corrcoef(torch.cat([x.T, x.T.square()]))
    assert float((correlations - torch.eye(120)).abs().max()) < 5.5 / math.sqrt(len(x))
    quantiles = torch.linspace(0.01, 0.99, 25, dtype=torch.float64)
    shares = (x.flatten()[:, None] < torch.special.ndtri(quantiles)).double().mean(0)
    assert float((shares - quantiles).abs().max()) < 5 * 0.5 / math.sqrt(x.numel())
    assert not torch.equal(reference.normals(torch.arange(4), 60, 3, 1), x[:4].float())


@pytest.mark.parametrize("n", [1, 63, 128, 129, 500])
def test_the_inputs_are_the_same_bits(n):
    """One step from w = 0 with the noise alone as the error goes along x."""
    zero = torch.zeros(1, 1, n, dtype=torch.float64)
    w, _ = OPS.online_sgd(zero, torch.ones(1, 1).double(), zero[:, :0], zero[:, :0, 0], 5, 1, 1.0, 1.0, 3, 9)
    x = reference.normals(torch.tensor([5]), n + 1, 3, 9)[0].double()
    step = w[0, 0] / (math.sqrt(2 / (math.pi * n)) * x[n])
    torch.testing.assert_close(step, x[:n], rtol=1e-14, atol=0)


SIZES = [(1, 1, 1, 1), (2, 6, 2, 50), (3, 5, 2, 128), (1, 3, 4, 129), (2, 20, 5, 127), (1, 4, 0, 40), (2, 6, 2, 500)]


@pytest.mark.parametrize("sigma", [0.0, 0.5])
@pytest.mark.parametrize("size", SIZES)
def test_agrees_with_the_definition_to_rounding(size, sigma):
    exact = drawn(*size, torch.float64)
    expected = reference.online_sgd(*exact, 7, 60, 0.5, sigma, 11, 4)
    assert float((expected[0] - exact[0]).abs().max()) > 0.01
    for dtype, atol in ((torch.float64, 1e-13), (torch.float32, 2e-5)):
        found = OPS.online_sgd(*(t.to(dtype) for t in exact), 7, 60, 0.5, sigma, 11, 4)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.dtype == dtype
            torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=atol)


def test_a_step_descends_the_gradient_of_half_the_squared_error():
    w, v, w_star, v_star = (t[0].requires_grad_() for t in drawn(1, 3, 2, 30, torch.float64))
    x = reference.normals(torch.tensor([8]), 31, 1, 0)[0].double()
    label = v_star @ torch.erf(w_star @ x[:30] / math.sqrt(60)) + 0.3 * x[30]
    loss = (v @ torch.erf(w @ x[:30] / math.sqrt(60)) - label).square() / 2
    grad_w, grad_v = torch.autograd.grad(loss, (w, v))
    now_w, now_v = OPS.online_sgd(*(t.detach()[None] for t in (w, v, w_star, v_star)), 8, 1, 0.7, 0.3, 1, 0)
    torch.testing.assert_close(now_w[0], w - 0.7 * grad_w, rtol=0, atol=1e-14)
    torch.testing.assert_close(now_v[0], v - 0.7 / 30 * grad_v, rtol=0, atol=1e-14)


def test_same_bits_at_every_number_of_threads_alone_and_in_parts(threads):
    nets = drawn(5, 6, 2, 70, torch.float32)
    found = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        found.append(OPS.online_sgd(*nets, 0, 40, 0.5, 0.25, 1, 0))
    alone = [OPS.online_sgd(*(t[s : s + 1] for t in nets), 0, 40, 0.5, 0.25, 1, s) for s in range(5)]
    found.append(tuple(torch.cat(parts) for parts in zip(*alone, strict=True)))
    half = OPS.online_sgd(*nets, 0, 17, 0.5, 0.25, 1, 0)
    found.append(OPS.online_sgd(*half, *nets[2:], 17, 23, 0.5, 0.25, 1, 0))
    for other in found[1:]:
        if COMPILED:
            assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
    other = OPS.online_sgd(*nets, 0, 40, 0.5, 0.25, 2, 0)
    assert not torch.equal(found[0][0], other[0])


def test_nothing_to_do_and_operands_that_are_not_contiguous():
    nets = drawn(2, 3, 2, 20, torch.float32)
    same = OPS.online_sgd(*nets, 0, 0, 0.5, 0.0, 0, 0)
    assert torch.equal(same[0], nets[0]) and torch.equal(same[1], nets[1]) and same[0] is not nets[0]
    empty = OPS.online_sgd(*(t[:0] for t in nets), 0, 5, 0.5, 0.0, 0, 0)
    assert empty[0].shape == (0, 3, 20) and empty[1].shape == (0, 3)
    spread = [t.movedim(0, -1).contiguous().movedim(-1, 0) for t in nets]
    pairs = zip(OPS.online_sgd(*spread, 0, 9, 0.5, 0.0, 0, 0), OPS.online_sgd(*nets, 0, 9, 0.5, 0.0, 0, 0), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_opcheck():
    torch.library.opcheck(OPS.online_sgd.default, (*drawn(2, 3, 2, 20, torch.float64), 0, 3, 0.5, 0.1, 1, 0))


@pytest.mark.skipif(not COMPILED, reason="the reference raises torch's own errors")
def test_bad_arguments_are_named():
    w, v, w_star, v_star = drawn(2, 3, 2, 20, torch.float32)
    for nets, message in (
        ((w.half(), v, w_star, v_star), "w must be float32 or float64"),
        ((w[0], v, w_star, v_star), "w must have 3 dimensions and the dtype of w"),
        ((w, v[:, 1:], w_star, v_star), "v must have size 3 in dimension 1, got 2"),
        ((w, v, w_star[..., 1:], v_star), "w_star must have size 20 in dimension 2, got 19"),
        ((w, v, w_star, v_star.double()), "v_star must have 2 dimensions and the dtype of w"),
    ):
        with pytest.raises(RuntimeError, match=f"online_sgd: {message}"):
            OPS.online_sgd(*nets, 0, 1, 0.5, 0.0, 0, 0)
    with pytest.raises(RuntimeError, match="online_sgd: first and samples must be within 0 and 4294967296"):
        OPS.online_sgd(w, v, w_star, v_star, 2**32, 1, 0.5, 0.0, 0, 0)
