"""The limit kernel of matrices of inputs: oracles, scaling, the mixture over masks of the inputs, mistakes."""

import itertools
import math

import numpy as np
import pytest
import torch

from sparseprune.ntk import Estimate, infinite
from sparseprune.theory import random_ntk as theory

X, Y = torch.from_numpy(np.random.RandomState(1).random((2, 10)))
X, Y = (x / x.norm() for x in (X, Y))
E1 = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
DIAGONAL = torch.full((1, 2), math.sqrt(0.5), dtype=torch.float64)


def points(n: int, inputs: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, inputs, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_notebooks_pair():
    assert abs(infinite(X[None], Y[None], depth=3).item() - 2.4287229440232556) < 1e-12
    assert infinite(X[None], Y[None], depth=3, density=0.5).item() == infinite(X[None], Y[None], depth=3).item()
    raw = infinite(X[None], Y[None], depth=3, density=0.5, rescaled=False).item()
    assert raw == pytest.approx(2.4287229440232556 / 8, abs=1e-12)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("pruned", [False, True])
def test_a_matrix_is_its_entries_symmetric_positive_and_homogeneous(depth, pruned):
    x = points(6, 4)
    options = {"depth": depth, "density": 0.4, "input_pruned": pruned}
    kernel = infinite(x, **options)
    assert kernel.dtype == torch.float64 and torch.equal(kernel, kernel.T)
    assert torch.linalg.eigvalsh(kernel).min() > -1e-9
    assert (kernel.diagonal() - (depth + 1) * x.square().sum(1)).abs().max() < 1e-12
    for i, j in itertools.product(range(6), range(6)):
        assert infinite(x[i : i + 1], x[j : j + 1], **options).item() == pytest.approx(kernel[i, j].item(), abs=1e-12)
    a, b = points(6, 1, 1).abs(), points(6, 1, 2).abs()
    assert (infinite(a * x, b * x, **options) - a * kernel * b.T).abs().max() < 1e-12


def test_parallel_opposite_and_zero_vectors_are_exact():
    x = points(3, 7).float()  # single precision: no two norms are the same
    zero = torch.zeros(1, 7)
    kernel = infinite(x, torch.cat([2 * x, -x, zero]), depth=3)
    norms = x.double().square().sum(1)
    assert (kernel[:, :3].diagonal() - 8 * norms).abs().max() < 1e-12
    assert (kernel[:, 3:6].diagonal() - theory.theta(-1.0, 3) * norms).abs().max() < 1e-12
    assert torch.equal(kernel[:, 6], torch.zeros(3, dtype=torch.float64))
    pruned = infinite(torch.cat([x, zero]), depth=3, density=0.5, input_pruned=True)
    assert torch.equal(pruned[3], torch.zeros(4, dtype=torch.float64)) and pruned.isfinite().all()


@pytest.mark.parametrize(
    ("density", "expected"), [(1.0, 1.285739250819098), (0.5, 1.3499764065960962), (0.25, 1.3820949844845956)]
)
def test_two_inputs_pruned(density, expected):
    """Erratum: the printed limit, that of density 1, is not the limit of the net whose input layer is pruned."""
    assert abs(infinite(E1, DIAGONAL, depth=1, density=density, input_pruned=True).item() - expected) < 1e-12
    assert abs(infinite(E1, DIAGONAL, depth=1, density=density).item() - 1.285739250819098) < 1e-12


@pytest.mark.parametrize(("density", "expected"), [(0.5, 2.426706427023987), (0.1, 2.4222919415)])
def test_the_notebooks_pair_with_its_inputs_pruned(density, expected):
    found = infinite(X[None], Y[None], depth=3, density=density, input_pruned=True).item()
    assert abs(found - expected) < 1e-9
    raw = infinite(X[None], Y[None], depth=3, density=density, input_pruned=True, rescaled=False).item()
    assert raw == pytest.approx(density**4 * found, rel=1e-13)


def test_drawn_masks_agree_with_all_masks_within_their_standard_error():
    x = points(3, 6)
    options = {"depth": 3, "density": 0.3, "input_pruned": True}
    exact = infinite(x, **options)
    found = infinite(x, **options, samples=4000, seed=5)
    again = infinite(x, **options, samples=4000, seed=5)
    assert isinstance(found, Estimate) and torch.equal(found.kernel, again.kernel)
    assert not torch.equal(found.kernel, infinite(x, **options, samples=4000, seed=6).kernel)
    z = (found.kernel - exact) / found.standard_error
    assert z.abs().max() < 4.5 and 0.1 < z.square().mean() < 4
    raw = infinite(x, **options, samples=4000, seed=5, rescaled=False)
    assert torch.allclose(raw.standard_error, 0.3**4 * found.standard_error, rtol=1e-12, atol=0)


def test_the_standard_error_is_the_spread_over_seeds():
    options = {"depth": 2, "density": 0.5, "input_pruned": True, "samples": 200}
    runs = [infinite(X[None], Y[None], **options, seed=seed) for seed in range(200)]
    spread = torch.stack([run.kernel for run in runs]).std()
    assert 0.75 < spread / torch.stack([run.standard_error for run in runs]).mean() < 1.3


def test_many_inputs_are_drawn_and_approach_the_unpruned_limit():
    x = torch.nn.functional.normalize(points(2, 2000))
    found = infinite(x, depth=2, density=0.5, input_pruned=True)
    plain = infinite(x, depth=2)
    assert ((found.kernel - plain).abs() < 5 * found.standard_error + 1e-2).all()
    assert found.standard_error.max() < 0.05


def test_sixteen_inputs_are_listed_in_chunks():
    x = points(4, 16)
    kernel = infinite(x, depth=1, density=0.5, input_pruned=True)
    assert (kernel.diagonal() - 2 * x.square().sum(1)).abs().max() < 1e-9


def test_no_inputs_at_all():
    assert infinite(points(0, 3), points(2, 3), depth=2).shape == (0, 2)
    assert infinite(points(0, 3), points(2, 3), depth=2, density=0.5, input_pruned=True).shape == (0, 2)


@pytest.mark.parametrize(
    ("x1", "x2", "options", "reason"),
    [
        (X, None, {}, r"infinite: x1 must be a float tensor \[N, d0\], got torch.float64 \[10\]"),
        (X[None].long(), None, {}, "x1 must be a float tensor"),
        ([1.0], None, {}, "x1 must be a float tensor .* got list"),
        (X[None], E1, {}, "x2 must be like x1"),
        (X[None], X[None] / 0, {}, "x2 must be finite"),
        (X[None], None, {"depth": 0}, "depth must be a whole number of at least 1, got 0"),
        (X[None], None, {"density": 0.0}, r"density must be in \(0, 1\], got 0.0"),
        (X[None], None, {"density": math.nan}, r"density must be in \(0, 1\], got nan"),
        (X[None], None, {"samples": 1, "input_pruned": True}, "samples must be a whole number of at least 2"),
        (X[None], None, {"samples": 100}, "samples must be None unless input_pruned, got 100"),
    ],
)
def test_mistakes(x1, x2, options, reason):
    with pytest.raises(ValueError, match=reason):
        infinite(x1, x2, **{"depth": 3, **options})
