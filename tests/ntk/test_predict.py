"""Kernel regression and gradient flow: against the ODE, gradient descent, least squares, and bad input."""

import pytest
import torch
from scipy.integrate import solve_ivp

from sparseprune import ntk


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


N, T = 7, 4
X, X_TEST = normal(N, 9, seed=0), normal(T, 9, seed=1)
Y = normal(N, 2, seed=2)
K, K_TEST = X @ X.T, X_TEST @ X.T
PRIORS = {"prior_train": normal(N, 2, seed=3), "prior_test": normal(T, 2, seed=4)}


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_gradient_flow_is_the_solution_of_its_differential_equation(ridge):
    """In the dual: w = w_0 + X^T a, da/dt = -lr/N ((K + ridge I) a + f_0 - y)."""
    lr = 0.7

    def flow(_, a):
        residual = K @ torch.from_numpy(a).view(N, 2) + ridge * torch.from_numpy(a).view(N, 2)
        return (-lr / N * (residual + PRIORS["prior_train"] - Y)).flatten().numpy()

    times = torch.tensor([0.0, 0.5, 3.0])
    found = ntk.predict(K, Y, K_TEST, ridge=ridge, time=times, learning_rate=lr, **PRIORS)
    solved = solve_ivp(flow, (0, 3), [0.0] * 2 * N, t_eval=times.numpy(), rtol=1e-11, atol=1e-12)
    a = torch.from_numpy(solved.y.T.copy()).view(3, N, 2)
    torch.testing.assert_close(found, PRIORS["prior_test"] + K_TEST @ a, rtol=1e-8, atol=1e-8)
    assert torch.equal(found[0], PRIORS["prior_test"])
    one = ntk.predict(K, Y, K_TEST, ridge=ridge, time=3.0, learning_rate=lr, **PRIORS)
    torch.testing.assert_close(one, found[2])


def test_gradient_descent_of_a_linear_model_follows_the_flow():
    """Of mse_loss, which is 2 / O times the loss of the docstring."""
    torch.manual_seed(0)
    model = torch.nn.Linear(9, 2, bias=False, dtype=torch.float64)
    with torch.no_grad():
        priors = {"prior_train": model(X), "prior_test": model(X_TEST)}
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for _ in range(400):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(X), Y).backward()
        optimizer.step()
    found = ntk.predict(K, Y, K_TEST, time=400.0, learning_rate=1e-3 * 2 / 2, **priors)
    moved = (found - priors["prior_test"]).abs().max()
    assert (found - model(X_TEST)).abs().max() < 2e-3 * moved and moved > 0.3


def test_the_limit_is_least_squares_and_that_of_long_times():
    found = ntk.predict(K, Y, K_TEST)
    torch.testing.assert_close(found, X_TEST @ torch.linalg.pinv(X) @ Y)
    torch.testing.assert_close(found, ntk.predict(K, Y, K_TEST, time=1e9))
    ridge = torch.linalg.solve(K + 0.1 * torch.eye(N, dtype=K.dtype), Y)
    torch.testing.assert_close(ntk.predict(K, Y, K_TEST, ridge=0.1), K_TEST @ ridge)
    torch.testing.assert_close(ntk.predict(K, Y[:, 0], K_TEST), found[:, 0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_singular_kernel_takes_the_pseudo_inverse(dtype):
    x, test = X[:, :3].to(dtype), X_TEST[:, :3].to(dtype)
    expected = test @ torch.linalg.pinv(x) @ Y.to(dtype)
    for time in (None, 1e9):
        found = ntk.predict(x @ x.T, Y.to(dtype), test @ x.T, time=time)
        assert found.dtype is dtype
        torch.testing.assert_close(found, expected)
    zero = ntk.predict(torch.zeros(N, N), Y, torch.zeros(T, N), **PRIORS)
    assert torch.equal(zero, PRIORS["prior_test"].float())


def test_kernels_of_all_pairs_of_outputs_are_one_kernel_of_both():
    model = torch.nn.Sequential(torch.nn.Linear(9, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2)).double()
    full = ntk.empirical(model, X, outputs="full")
    cross = ntk.empirical(model, X_TEST, X, outputs="full")
    flat = full.permute(0, 2, 1, 3).reshape(2 * N, 2 * N)
    step = torch.linalg.matrix_exp(-2.0 / N * flat) - torch.eye(2 * N, dtype=flat.dtype)
    moved = -cross.permute(0, 2, 1, 3).reshape(2 * T, 2 * N) @ torch.linalg.solve(flat, step @ Y.reshape(-1))
    torch.testing.assert_close(ntk.predict(full, Y, cross, time=2.0), moved.view(T, 2), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "cross_entropy"}, "loss must be 'mse'"),
        ({"ridge": -1.0}, "ridge must be a finite number >= 0"),
        ({"learning_rate": 0.0}, "learning_rate must be a finite number > 0"),
        ({"time": -1.0}, "time must be None, a finite number >= 0"),
        ({"time": torch.ones(1, 1)}, "time must be None"),
        ({"k_train": K + torch.ones(N, N).triu(1)}, "k_train must be symmetric"),
        ({"k_train": -K}, "k_train must be positive semi-definite"),
        ({"k_train": K[:3]}, r"k_train must be \[N, N\] or \[N, N, O, O\], got \[3, 7\]"),
        ({"k_train": K.long()}, "k_train must be a float32 or float64 tensor"),
        ({"k_train": K * float("nan")}, "k_train must be finite"),
        ({"y_train": Y[1:]}, r"y_train must be \[7\] or \[7, O\]"),
        ({"k_test": K_TEST.T}, r"k_test must be \[T, 7\]"),
        ({"k_test": K_TEST / 0}, "k_test must be finite"),
        ({"prior_test": Y}, r"prior_test must be \[4, 2\]"),
    ],
)
def test_bad_input(change, message):
    arguments = {"k_train": K, "y_train": Y, "k_test": K_TEST} | change
    with pytest.raises(ValueError, match=f"predict: {message}"):
        ntk.predict(**arguments)
