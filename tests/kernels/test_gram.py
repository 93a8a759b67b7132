"""Gram matrices of gradients in Triton's interpreter against their definition in fp64, into poisoned memory."""

import importlib

import pytest
import torch

from sparseprune.ops import reference

from .geometries import CASES, CHOSEN, case

pytestmark = [pytest.mark.interpreter, pytest.mark.usefixtures("poisoned_memory")]
# M, K, N, N2, O: ones, primes, tiles and one more, several chunks of entries and of outputs
SHAPES = [(1, 1, 1, 1, 1), (7, 13, 5, 3, 2), (3, 41, 17, 35, 1), (5, 71, 33, 18, 3), (2, 5, 2, 3, 19)]


@pytest.fixture
def check(kernels, product):
    """All forms of one Gram matrix: with itself and across, with and without squares, traces and whole."""

    def run(offsets, indices, squares, a, b, a2, b2, full=True):
        terms = int(offsets.diff().max().clamp(min=1)) + b.shape[1] + len(offsets) if len(offsets) > 1 else 1
        for apart in {False, full}:
            for q in (squares, None):
                args = offsets, indices, q, a, b, None, None, apart
                own = product(kernels.ntk_gram, reference.ntk_gram, *args, terms=terms)
                assert torch.equal(own, own.permute(1, 0, 3, 2) if apart else own.t())
                assert own.is_contiguous()
            args = offsets, indices, squares, a, b, a2, b2, apart
            product(kernels.ntk_gram, reference.ntk_gram, *args, terms=terms)

    return run


@pytest.fixture
def sample(pattern, mask, randn):
    def make(m, k, n, n2, o, dtype=torch.float32):
        p = pattern(mask(m, k, seed=m))
        sizes = (len(p.rows),), (k, n), (m, o, n), (k, n2), (m, o, n2)
        squares, a, b, a2, b2 = (randn(*size, dtype=dtype, seed=i) for i, size in enumerate(sizes))
        return p.offsets, p.indices, squares.square(), a, b, a2, b2

    return make


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gram(check, sample, shape):
    check(*sample(*shape))


def test_fp64(check, sample):
    check(*sample(5, 37, 17, 4, 2, torch.float64))
    check(*sample(2, 5, 2, 3, 6, torch.float64))


def test_one_side_given(kernels, product, sample):
    offsets, indices, squares, a, b, a2, b2 = sample(5, 11, 4, 4, 2)
    for sides in ((a2, None), (None, b2)):
        args = offsets, indices, squares, a, b, *sides, False
        product(kernels.ntk_gram, reference.ntk_gram, *args, terms=20)


@pytest.mark.parametrize("shape", [(0, 4, 3, 2, 2), (3, 0, 3, 2, 2), (3, 4, 0, 2, 2), (3, 4, 2, 0, 2), (3, 4, 3, 2, 0)])
def test_nothing(check, sample, shape):
    check(*sample(*shape))


def test_shares_of_neurons(kernels, check, sample, monkeypatch):
    """Several shares, then scratch for fewer of them; the same bits again."""
    arguments = sample(23, 7, 3, 2, 2)
    check(*arguments, full=False)
    monkeypatch.setattr(importlib.import_module("sparseprune.kernels.ntk_gram"), "SCRATCH", 20)
    check(*arguments)
    gram = (*arguments[:5], None, None, False)
    assert torch.equal(kernels.ntk_gram(*gram), kernels.ntk_gram(*gram))


def each(c, outputs, dtype=torch.float32):
    """The arguments of spconv_dw_each from a case without groups."""
    rng = torch.Generator().manual_seed(2)
    size = c.grad.shape[1], *c.grad.shape[2:], outputs, c.grad.shape[0]
    grad = torch.randn(size, generator=rng, dtype=torch.float64).to(dtype)
    return *c.pattern[:2], c.x.permute(1, 2, 3, 0).contiguous(), grad, c.geometry


@pytest.mark.parametrize("name", [name for name, given in CASES.items() if given[-1].groups == 1])
@pytest.mark.parametrize(("outputs", "dtype"), [(1, torch.float32), (3, torch.float64)])
def test_spconv_dw_each(kernels, product, name, outputs, dtype):
    given = CASES[name]
    args = each(case(*given, dtype=dtype), outputs, dtype)
    product(kernels.spconv_dw_each, reference.spconv_dw_each, *args, terms=args[3].shape[1] * args[3].shape[2])


def test_spconv_dw_each_of_many_tiles(kernels, product):
    """More examples than lanes, more outputs than a program holds, and none; few rows of many entries."""
    for outputs, batch in ((5, 67), (0, 3), (2, 0)):
        c = case(batch, 9, 2, 3, 1, CHOSEN["same size"][-1], density=1.0)
        product(kernels.spconv_dw_each, reference.spconv_dw_each, *each(c, outputs), terms=6)


def test_spconv_dw_each_of_an_empty_mask(kernels):
    args = each(case(*CHOSEN["same size"], density=0.0), 2)
    assert kernels.spconv_dw_each(*args).shape == (0, 2, 3)


def test_wrong_arguments_are_refused(kernels, sample):
    gram = (*sample(5, 11, 4, 3, 2), False)
    offsets, indices, squares, a, b, _, b2, _ = gram
    images = each(case(*CHOSEN["same size"]), 2)
    for op, given, place, wrong, message in (
        ("ntk_gram", gram, 0, offsets.long(), "offsets must be torch.int32"),
        ("ntk_gram", gram, 1, indices[1:], "squares must have shape"),
        ("ntk_gram", gram, 2, squares.double(), "squares must be torch.float32"),
        ("ntk_gram", gram, 3, a.half(), "must be float32 or float64"),
        ("ntk_gram", gram, 3, a[:, 1:].contiguous(), r"b must have shape \[5, 2, 3\]"),
        ("ntk_gram", gram, 4, b[1:], r"b must have shape \[5, 2, 4\], got \[4, 2, 4\]"),
        ("ntk_gram", gram, 5, None, r"b2 must have shape \[5, 2, 4\]"),
        ("ntk_gram", gram, 6, b2[..., ::2], "b2 must have shape"),
        ("ntk_gram", gram, 3, a.t().contiguous().t(), "a must be contiguous"),
        ("spconv_dw_each", images, 2, images[2].bfloat16(), "must be float32 or float64"),
        ("spconv_dw_each", images, 3, images[3][1:], "grad must have shape"),
        ("spconv_dw_each", images, 4, [*images[4][:-1], 2], "groups must be 1, got 2"),
    ):
        with pytest.raises(ValueError, match=message):
            getattr(kernels, op)(*given[:place], wrong, *given[place + 1 :])
