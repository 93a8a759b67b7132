"""Kernels and least squares from inner products, against their definitions on the features themselves."""

import pytest
import torch

from sparseprune.nodes import Gram


def features(rows: int = 40, n: int = 6) -> torch.Tensor:
    return torch.randn(rows, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.5


def test_batches_add_up():
    a, gram = features(), Gram()
    for batch in a.split(7):
        gram.add(batch)
    assert gram.rows == 40
    torch.testing.assert_close(gram.matrix, a.T @ a)


def test_kernels_are_those_of_the_features():
    a = features()
    distances = (a[:, :, None] - a[:, None, :]).square().sum(0)
    expected = torch.exp(-10 / len(a) * distances) + 0.01 * torch.eye(6)  # beta = 10 / |T|
    torch.testing.assert_close(Gram(a).rbf(), expected)
    torch.testing.assert_close(Gram(a).rbf(beta=0.3 * len(a)), torch.exp(-0.3 * distances) + 0.01 * torch.eye(6))
    linear = Gram(a).linear(epsilon=0.0)
    torch.testing.assert_close(linear / linear[0, 0], a.T @ a / (a.T @ a)[0, 0])
    assert linear.diagonal().mean() == pytest.approx(1.0)


def test_lemma_1_the_mean_linear_kernel_is_q():
    """E[L] = Q for pre-activations w.x of standard normal x, exactly for every N."""
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(3, 5, dtype=torch.float64, generator=generator)
    x = torch.randn(200_000, 5, dtype=torch.float64, generator=generator)
    gram = Gram(x @ w.T)
    q = w @ w.T
    assert (gram.matrix / gram.rows - q).abs().max() < 0.1
    torch.testing.assert_close(gram.linear(0.0), q / q.diagonal().mean(), rtol=0, atol=0.02)


def test_the_rbf_kernel_is_not_sign_invariant_the_linear_one_is_up_to_sign():
    a = features()
    flipped = a.clone()
    flipped[:, 1] = -a[:, 0]
    linear, rbf = Gram(flipped).linear(0.0), Gram(flipped).rbf(epsilon=0.0)
    assert torch.linalg.det(linear[:2, :2]).abs() < 1e-9 and torch.linalg.det(rbf[:2, :2]) > 0.5


def test_regress_is_least_squares():
    a = features()
    on, target = torch.tensor([0, 2, 3]), a[:, 4:]
    expected = torch.linalg.lstsq(a[:, on], target).solution
    torch.testing.assert_close(Gram(a).regress(on, a[:, on].T @ target), expected, rtol=1e-8, atol=1e-9)
    several = torch.tensor([[0, 2], [3, 1]])
    moments = torch.stack([a[:, some].T @ target for some in several])
    expected = torch.stack([torch.linalg.lstsq(a[:, some], target).solution for some in several])
    torch.testing.assert_close(Gram(a).regress(several, moments), expected, rtol=1e-8, atol=1e-9)


def test_equal_and_dead_columns_give_the_solution_of_least_norm():
    a = features()
    a[:, 1], a[:, 2] = a[:, 0], 0.0
    on = torch.tensor([0, 1, 2, 3])
    expected = torch.linalg.lstsq(a[:, on], a[:, 5:], driver="gelsd").solution
    torch.testing.assert_close(Gram(a).regress(on, a[:, on].T @ a[:, 5:]), expected, rtol=1e-4, atol=1e-4)
    assert (Gram(torch.zeros(5, 3)).regress(on[:2], torch.zeros(2, 1).double()) == 0).all()
