"""Neuron-subnetworks: Remark 3.6's algorithm, its moments, Theorem 3.4's data and functions."""

import math

import pytest
import torch

from sparseprune.theory.lottery import neurons, universal


def sample(points=20, d=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(points, d, generator=generator, dtype=torch.float64)
    y = torch.randint(2, (points,), generator=generator) * 2.0 - 1
    return x / x.norm(dim=1, keepdim=True), y.double()


def algorithm(x, y, width, blocks, seed, tolerance=0.1):
    w, u = neurons.random_units(x.shape[1], width, blocks, seed)
    values = neurons.features(w, x)
    v = neurons.readouts(values, y)
    scale = neurons.bound(v, tolerance)
    return values, u, v, scale, neurons.keep(u, v, tolerance, scale)


def test_remark_3_6_readouts_are_min_norm_and_fit():
    x, y = sample()
    w, _ = neurons.random_units(10, 200, 3, 0)
    assert float(w.abs().max()) <= 10**-0.5
    values = neurons.features(w, x)
    v = neurons.readouts(values, y)
    assert torch.allclose((values @ v.unsqueeze(-1)).squeeze(-1), y.expand(3, -1), atol=1e-10)
    assert torch.allclose(v, torch.linalg.pinv(values) @ y, atol=1e-10)


@pytest.mark.parametrize("ratio", [-0.95, -0.5, 0.0, 0.3, 0.89, 1.0])
def test_lemma_3_3_moments(ratio):
    eps = 0.1
    u = torch.empty(400_000, dtype=torch.float64).uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    kept = neurons.keep(u, torch.tensor(ratio), eps, 1.0)
    found = [kept.double(), u * kept, u**2 * kept]
    expected = [float(m) for m in neurons.moments(torch.tensor(ratio, dtype=torch.float64), eps)]
    for values, moment in zip(found, expected, strict=True):
        assert abs(float(values.mean()) - moment) < 4.5 * float(values.std()) / 632
    inside = [eps, eps * ratio, eps * (ratio**2 + eps**2 / 3)]
    assert (expected == pytest.approx(inside, abs=1e-15)) == (abs(ratio) <= 1 - eps)


def test_lemma_3_3_as_printed_is_biased_whatever_the_constant_and_the_corrected_bound_is_not():
    """|v| <= 1: the units with v = 1 are kept half as often as those with v = 1/2, which no common factor mends."""
    v = torch.tensor([1.0, 0.5], dtype=torch.float64).expand(50_000, 2)
    _, u = neurons.random_units(1, 2, 50_000, 0)
    values = torch.eye(2, dtype=torch.float64).expand(50_000, 2, 2)  # the two features, apart
    for scale, ratio in ((neurons.bound_printed(v), 0.5 * (1 - 0.05) / 0.5), (neurons.bound(v, 0.1), 2.0)):
        found = neurons.predict(values, u, neurons.keep(u, v, 0.1, scale), 0.1, scale)
        mean, spread = neurons.prediction_moments(values, v, 0.1, scale)
        assert float(mean[0] / mean[1]) == pytest.approx(ratio)
        assert bool(((found - mean).abs() < 4.5 * spread).all()) and float(spread.max()) < 0.02


def test_remark_3_6_mean_and_standard_deviation_of_the_prediction():
    x, y = sample(6, 4)
    eps = 0.1
    w, _ = neurons.random_units(4, 30, 20, 1)
    values = neurons.features(w, x)
    v = neurons.readouts(values, y)
    scale = neurons.bound(v, eps)
    mean, spread = neurons.prediction_moments(values, v, eps, scale)
    assert torch.allclose(mean, y, atol=1e-10)
    r = v / scale
    formula = (values**2 * (((r**2 + eps**2 / 3) / eps - r**2).unsqueeze(1))).sum(-1).mean(0) / 20
    assert torch.allclose(spread, scale * formula.sqrt(), rtol=1e-12)
    draws = torch.empty(2000, 20, 30, dtype=torch.float64).uniform_(-1, 1, generator=torch.Generator().manual_seed(2))
    found = torch.stack([neurons.predict(values, u, neurons.keep(u, v, eps, scale), eps, scale) for u in draws])
    assert bool(((found.mean(0) - y).abs() < 4.5 * spread / 2000**0.5).all())
    assert torch.allclose(found.std(0), spread, rtol=4.5 / math.sqrt(2 * 2000))


def test_theorem_3_4_sample_error_falls_like_the_root_signs_are_right_and_the_fraction_is_eps():
    logs = {}
    for blocks in (10, 160):
        found = []
        for seed in range(12):
            x, y = sample(seed=seed)
            values, u, _, scale, kept = algorithm(x, y, 200, blocks, seed)
            prediction = neurons.predict(values, u, kept, 0.1, scale)
            found.append(float((prediction - y).abs().max()))
            assert abs(float(kept.double().mean()) - 0.1) < 4.5 * math.sqrt(0.09 / kept.numel())
            unscaled = (values @ (u * kept).unsqueeze(-1)).sum(0).squeeze(-1)
            assert blocks == 10 or bool((unscaled * y > 0).all())
        logs[blocks] = torch.tensor(found).log().mean()
    assert float(logs[160] - logs[10]) / math.log(16) == pytest.approx(-0.5, abs=0.15)


def test_theorem_3_4_functions_of_the_kernels_space():
    """One input dimension lies in the plane: E relu(<w, x>) over the square, by its exact value at x = (1, 0)."""
    axis = torch.tensor([[1.0, 0.0], [0.0, -2.0]], dtype=torch.float64)
    found = universal.neuron_integral(lambda w: torch.ones(len(w), dtype=torch.float64), axis)
    side = 0.5**0.5
    assert found.tolist() == pytest.approx([side / 4, side / 2], rel=1e-5)
    odd = universal.neuron_integral(lambda w: w[:, 0].sign(), axis)
    assert odd.tolist() == pytest.approx([side / 4, 0], abs=1e-12)
