"""Empirical kernels of random nets: autograd's to rounding, the limits and the closed forms within their intervals."""

import importlib
import itertools
import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sparseprune.ntk import infinite, monte_carlo
from sparseprune.ntk.monte_carlo import kernels
from sparseprune.theory import random_ntk as theory

X, Y = torch.from_numpy(np.random.RandomState(1).random((2, 10)))
X, Y = (x / x.norm() for x in (X, Y))
LIMIT = 2.4287229440232556
NET = {"depth": 3, "width": 16, "density": 0.5, "draws": 5, "dtype": torch.float64}


def gradients(x: Tensor, weights: list[Tensor], masks: list[Tensor], scales: list[float], which: str) -> list[Tensor]:
    """Each layer's gradient of one net's output at one input."""
    effective = [(w * m).requires_grad_() for w, m in zip(weights, masks, strict=True)]
    g = scales[0] * x
    for layer, scale in zip(effective[:-1], scales[1:], strict=True):
        g = scale * (layer @ g).relu()
    found = torch.autograd.grad((effective[-1] @ g).sum(), effective)
    return [g * m if which == "kept" else g for g, m in zip(found, masks, strict=True)]


@pytest.mark.parametrize("which", ["kept", "all"])
def test_the_formula_is_autograds_kernel(which):
    generator = torch.Generator().manual_seed(3)
    shapes = [(2, 7, 4), (2, 7, 7), (2, 7, 7), (2, 1, 7)]
    weights = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    masks = [(torch.rand(shape, generator=generator) < 0.6).double() for shape in shapes]
    scales = [0.7, 0.5, 0.6, 0.9]
    a = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    b = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    layers = [(w.clone(), m) for w, m in zip(weights, masks, strict=True)]
    found = kernels(a, b, layers, scales, which)
    assert found.shape == (2, 2, 3, 4)
    for draw, i, j in itertools.product(range(2), range(2), range(3)):
        net = ([w[draw] for w in weights], [m[draw] for m in masks], scales, which)
        pairs = zip(gradients(a[i], *net), gradients(b[j], *net), strict=True)
        expected = torch.stack([(left * right).sum() for left, right in pairs])
        assert torch.allclose(found[draw, i, j], expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("density", [1.0, 0.5])
def test_rescaled_nets_have_the_dense_limit_layer_by_layer(density):
    parts = monte_carlo(X, Y, depth=3, width=512, density=density, draws=150, layers=True).double()
    error = parts.std(0) / math.sqrt(150)
    z = (parts.mean(0) - torch.tensor(theory.contributions(float(X @ Y), 3))) / error
    assert z.abs().max() < 4.5
    total = parts.sum(1)
    assert abs(total.mean() - LIMIT) < 4.5 * total.std() / math.sqrt(150)


def test_un_rescaled_nets_have_alpha_to_the_depth_of_it_draw_by_draw():
    rescaled, raw = (monte_carlo(X, Y, **NET, rescaled=rescaled) for rescaled in (True, False))
    assert torch.allclose(raw, 0.125 * rescaled, rtol=1e-12)
    rescaled, raw = (monte_carlo(X, Y, **NET, input_pruned=True, rescaled=rescaled) for rescaled in (True, False))
    assert torch.allclose(raw, 0.0625 * rescaled, rtol=1e-12)


def test_unmasked_gradients_lose_an_alpha_in_every_pruned_layer():
    options = {"depth": 3, "width": 256, "density": 0.5, "draws": 300, "rescaled": False, "gradients": "all"}
    parts = monte_carlo(X, Y, **options, layers=True).double()
    factors = theory.layer_factors(3, 0.5, rescaled=False, gradients="all")
    expected = torch.tensor(factors) * torch.tensor(theory.contributions(float(X @ Y), 3))
    assert ((parts.mean(0) - expected) / (parts.std(0) / math.sqrt(300))).abs().max() < 4.5


def test_inputs_pruned_the_limit_is_the_mixture_and_not_the_printed_one():
    x, y = torch.tensor([1.0, 0.0]), torch.full((2,), math.sqrt(0.5))
    draws = monte_carlo(x, y, depth=1, width=4096, density=0.5, draws=400, input_pruned=True).double()
    error = draws.std() / math.sqrt(400)
    mixture = infinite(x[None], y[None], depth=1, density=0.5, input_pruned=True).item()
    assert abs(draws.mean() - mixture) < 4 * error < abs(mixture - 1.285739250819098) / 2


@pytest.mark.parametrize(("density", "rho"), [(1.0, 0.5), (0.5, 0.0), (0.1, 1.0)])
def test_variance_of_one_hidden_layer_is_the_closed_form(density, rho):
    x, y = torch.tensor([1.0, 0.0]), torch.tensor([rho, math.sqrt(1 - rho**2)])
    draws = monte_carlo(x, y, depth=1, width=64, density=density, draws=4000, seed=1).double()
    centred = draws - draws.mean()
    error = 64 * ((centred**4).mean() - draws.var() ** 2).sqrt() / math.sqrt(4000)
    assert abs(64 * draws.var() - theory.variance_depth_1(rho, density)) < 4 * error
    assert abs(draws.mean() - theory.theta(rho, 1)) < 4 * draws.std() / math.sqrt(4000)


def test_a_draw_is_known_by_its_number_however_it_is_asked_for(monkeypatch):
    whole = monte_carlo(X, Y, **NET)
    assert torch.allclose(monte_carlo(X, Y, **NET | {"draws": range(3, 5)}), whole[3:], rtol=1e-13)
    module = importlib.import_module("sparseprune.ntk.monte_carlo")
    monkeypatch.setattr(module, "_BYTES", 0)
    assert torch.allclose(monte_carlo(X, Y, **NET), whole, rtol=1e-13)
    pairs = monte_carlo(torch.stack([X, Y]), Y[None], **NET)
    assert pairs.shape == (5, 2, 1) and torch.allclose(pairs[:, 0, 0], whole, rtol=1e-13)
    for other in ({"seed": 1}, {"width": 17}, {"density": 0.25}):
        assert not torch.isclose(monte_carlo(X, Y, **NET | other), whole).any()


def test_a_run_resumes_and_tells_its_progress(tmp_path, monkeypatch):
    path = tmp_path / "draws.jsonl"
    expected = monte_carlo(X, Y, **NET, layers=True)
    seen = []
    monte_carlo(X, Y, **NET | {"draws": range(1, 3)}, out=path, progress=lambda *counts: seen.append(counts))
    assert seen == [(2, 2)]
    found = monte_carlo(X, Y, **NET, layers=True, out=path, progress=lambda *counts: seen.append(counts))
    assert seen == [(2, 2), (5, 5)] and torch.allclose(found, expected, rtol=1e-13)
    assert [json.loads(line)["key"]["draws"] for line in path.read_text().splitlines()] == [[1, 2], [0, 3, 4]]
    module = importlib.import_module("sparseprune.ntk.monte_carlo")
    with monkeypatch.context() as patch:
        patch.setattr(module, "kernels", None)  # nothing is drawn again
        assert torch.equal(monte_carlo(X, Y, **NET, layers=True, out=path), found)
    monte_carlo(Y, X, **NET, out=path)
    assert len(path.read_text().splitlines()) == 3  # other inputs are another run


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"x2": Y[None]}, "monte_carlo: x2 must be like x1"),
        ({"x1": X[None, None]}, r"x1 must be a float tensor \[d0\] or \[N, d0\]"),
        ({"x1": X * math.nan}, "x1 must be finite"),
        ({"depth": 0}, "depth must be a whole number of at least 1, got 0"),
        ({"width": 2.5}, "width must be a whole number of at least 1, got 2.5"),
        ({"density": 1.5}, r"density must be in \(0, 1\], got 1.5"),
        ({"draws": 0}, "draws must be at least 1"),
        ({"draws": range(-1, 3)}, "draws must be at least 1, from 0 on"),
        ({"gradients": "some"}, "gradients must be kept or all, got 'some'"),
        ({"dtype": torch.float16}, "dtype must be float32 or float64"),
    ],
)
def test_mistakes(tmp_path, change, reason):
    with pytest.raises(ValueError, match=reason):
        monte_carlo(**{"x1": X, "x2": Y, **NET, "out": tmp_path / "draws.jsonl", **change})
    assert not any(tmp_path.iterdir())
