"""The limit kernel, its layers, its factors and its spread at finite width against the specification's oracles."""

import math

import pytest
import torch

from sparseprune.theory import random_ntk as theory

NOTEBOOK = 0.7687972123753375
TABLE = {
    1: (0, -0.0576688856, 0.3183098862, 0.9423311144, 1.6803287350, 2),
    2: (0.3183098862, 0.3438622463, 0.6857086363, 1.3514795611, 2.3688136627, 3),
    3: (0.6857086363, 0.7422493226, 1.0603881068, 1.7378446792, 2.9856931874, 4),
    4: (1.0603881068, 1.1306221309, 1.4303904972, 2.1071125384, 3.5459581576, 5),
}
COSINES = (-1, -0.5, 0, 0.5, 0.9, 1)


@pytest.mark.parametrize("depth", TABLE)
def test_table_of_the_limit_kernel(depth):
    for rho, expected in zip(COSINES, TABLE[depth], strict=True):
        assert abs(theory.theta(float(rho), depth) - expected) < 1e-9
    tensor = theory.theta(torch.tensor(COSINES, dtype=torch.float64), depth)
    assert (tensor - torch.tensor(TABLE[depth], dtype=torch.float64)).abs().max() < 1e-9


def test_the_notebooks_pair():
    assert abs(theory.theta(NOTEBOOK, 3) - 2.4287229440232556) < 1e-14
    expected = (0.7687972123753375, 0.8025609177465547, 0.8291578207952512, 0.850535754886135)
    assert theory.covariances(NOTEBOOK, 3) == pytest.approx(expected, abs=1e-14)
    slopes = [theory.kappa0(s) for s in expected[:3]]
    assert slopes == pytest.approx((0.7791444561114264, 0.7965297365716885, 0.8111795710415652), abs=1e-14)
    assert theory.contributions(NOTEBOOK, 3) == pytest.approx((0.38704, 0.51856, 0.67259, 0.85054), abs=1e-5)
    assert sum(theory.contributions(NOTEBOOK, 3)) == pytest.approx(theory.theta(NOTEBOOK, 3), abs=1e-14)


def test_theorem_a_rescaled_the_limit_is_the_dense_one_and_un_rescaled_alpha_to_the_depth_of_it():
    dense = theory.theta(NOTEBOOK, 3)
    assert theory.theta(NOTEBOOK, 3, density=0.3) == dense
    assert theory.theta(NOTEBOOK, 3, density=0.3, rescaled=False) == pytest.approx(0.027 * dense, rel=1e-14)


def test_factors_of_the_layers():
    assert theory.layer_factors(3, 0.5) == [1.0] * 4
    assert theory.layer_factors(3, 0.5, rescaled=False) == [0.125] * 4
    assert theory.layer_factors(3, 0.5, rescaled=False, input_pruned=True) == [0.0625] * 4
    unmasked = theory.layer_factors(3, 0.5, rescaled=False, gradients="all")
    assert unmasked == [0.125, 0.25, 0.25, 0.25]
    assert theory.layer_factors(3, 0.5, gradients="all") == [1, 2, 2, 2]
    assert theory.layer_factors(3, 0.5, rescaled=False, gradients="all", input_pruned=True) == [0.125] * 4
    measured = (0.049, 0.131, 0.173, 0.219)
    parts = zip(unmasked, theory.contributions(NOTEBOOK, 3), strict=True)
    assert [factor * part for factor, part in parts] == pytest.approx(measured, rel=0.05)


@pytest.mark.parametrize(
    ("rho", "expected"),
    [
        (1.0, (12, 28, 156)),
        (0.5, (4.157000976, 9.201989881, 49.56190112)),
        (0.0, (0.8986788164, 1.8986788164, 9.8986788164)),
    ],
)
def test_variance_of_one_hidden_layer(rho, expected):
    assert [theory.variance_depth_1(rho, density) for density in (1, 0.5, 0.1)] == pytest.approx(expected, abs=1e-8)


def test_model_of_the_spread_and_the_width_laws():
    assert theory.variance(1024, 0.5) == (50 + 36 / 0.5) / 1024
    assert theory.mean_absolute_deviation(1024, 1.0) == pytest.approx(math.sqrt(2 / math.pi * 86 / 1024))
    assert [theory.scaled_width(1024, 0.25, power) for power in (0.5, 1.0, 2.0)] == [2048, 4096, 16384]
    growing = [theory.variance(theory.scaled_width(1024, 1 - k / 8), 1 - k / 8) for k in range(8)]
    assert growing == sorted(growing, reverse=True)
    assert growing[4] == pytest.approx((50 * 0.5 + 36) / 1024)
