"""Spectra: of matrices against their definitions, of models without the matrix against those of the matrix."""

import math

import pytest
import torch

import sparseprune as sp
from sparseprune import ntk

N = 20
X = torch.randn(N, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.randn(N, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def net(layout: str | None = "masked", dtype: torch.dtype = torch.float64) -> torch.nn.Module:
    model = sp.models.build("mlp", seed=0, input_shape=(6,), classes=2, hidden=(32, 24)).to(dtype)
    if layout is None:
        return model
    return sp.sparsify(model, sp.prune(model, 0.4, score="random"), layout=layout)  # pyright: ignore


def test_of_a_matrix_by_definition():
    k = X @ X.T + torch.eye(N, dtype=X.dtype)
    found = ntk.spectrum(k, y=Y)
    torch.testing.assert_close(found.eigenvalues, torch.linalg.eigvalsh(k).flip(0))
    assert found.condition == pytest.approx(float(torch.linalg.cond(k)))
    assert found.trace == pytest.approx(float(k.trace())) and found.frobenius_error == 0
    assert found.effective_rank == pytest.approx(float(k.trace() ** 2 / k.square().sum()))
    yy = Y @ Y.T
    assert found.alignment == pytest.approx(float((k * yy).sum() / k.norm() / yy.norm()))
    h = torch.eye(N, dtype=X.dtype) - 1 / N
    centred = ntk.spectrum(k, y=Y, k=3, centred=True)
    torch.testing.assert_close(centred.eigenvalues, torch.linalg.eigvalsh(h @ k @ h).flip(0)[:3])
    k, yy = h @ k @ h, h @ yy @ h
    assert centred.alignment == pytest.approx(float((k * yy).sum() / k.norm() / yy.norm()))
    assert centred.condition == math.inf


def test_extremes():
    assert ntk.spectrum(torch.eye(5), y=torch.ones(5)).effective_rank == pytest.approx(5)
    one = ntk.spectrum(torch.ones(5, 5), y=torch.ones(5))
    assert one.effective_rank == pytest.approx(1) and one.alignment == pytest.approx(1) and one.condition == math.inf
    zero = ntk.spectrum(torch.zeros(5, 5), y=torch.ones(5))
    assert (zero.effective_rank, zero.alignment, zero.condition) == (0, 0, math.inf)


@pytest.mark.parametrize("outputs", ["trace", "full"])
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("layout", [None, "masked", "csr"])
def test_without_the_matrix_as_with_it(layout, outputs, centred):
    model, made = net(layout), []
    exact = ntk.spectrum(model, X, y=Y, outputs=outputs, centred=centred)
    options = {"smallest": True, "batch_size": 7, "progress": made.append}
    found = ntk.spectrum(model, X, y=Y, k=6, outputs=outputs, centred=centred, **options)
    torch.testing.assert_close(found.eigenvalues, exact.eigenvalues[:6])
    assert found.trace == pytest.approx(exact.trace) and found.condition == pytest.approx(exact.condition, rel=1e-4)
    assert abs(found.frobenius - exact.frobenius) < 4 * found.frobenius_error < 0.1 * exact.frobenius
    assert exact.alignment is not None
    assert found.alignment == pytest.approx(exact.alignment, rel=5 * found.frobenius_error / found.frobenius)
    assert made == list(range(1, len(made) + 1))


@pytest.mark.parametrize("options", [{"parameters": "all"}, {"biases": False}])
def test_parameters_are_those_of_empirical(options):
    model = net()
    next(model.parameters()).requires_grad_(False)
    kernel = ntk.empirical(model, X, **options)
    found = ntk.spectrum(model, X, k=4, **options)
    torch.testing.assert_close(found.eigenvalues, torch.linalg.eigvalsh(kernel).flip(0)[:4])
    assert found.trace == pytest.approx(float(kernel.trace()))
    assert found.smallest is None and found.condition is None
    torch.testing.assert_close(ntk.spectrum(kernel).eigenvalues[:4], found.eigenvalues)


def test_float32_and_the_same_seed_twice():
    model, x = net("masked", torch.float32), X.float()
    one, two = (ntk.spectrum(model, x, k=4) for _ in range(2))
    assert torch.equal(one.eigenvalues, two.eigenvalues) and one.frobenius == two.frobenius
    assert ntk.spectrum(model, x, k=4, seed=1).frobenius != one.frobenius
    torch.testing.assert_close(one.eigenvalues, ntk.spectrum(model, x).eigenvalues[:4], rtol=1e-4, atol=0)


def test_the_standard_error_is_that_of_the_estimates():
    model = net()
    exact = ntk.spectrum(model, X).frobenius
    found = [ntk.spectrum(model, X, k=2, seed=seed, samples=8) for seed in range(30)]
    scores = torch.tensor([(each.frobenius - exact) / each.frobenius_error for each in found])
    assert scores.abs().median() < 1.5 and scores.square().mean() < 6


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((torch.eye(3),), {"k": 0}, "k must be an integer >= 1"),
        ((torch.eye(3),), {"samples": 1}, "samples must be an integer >= 2"),
        ((torch.eye(3), X), {}, "x must be given with a model, and not with a kernel matrix"),
        ((torch.ones(3, 3).triu(),), {}, "kernel must be symmetric"),
        ((-torch.eye(3),), {}, "kernel must be positive semi-definite"),
        ((torch.eye(3),), {"y": torch.ones(2)}, "y must be finite floats"),
        ((torch.eye(3),), {"y": torch.ones(3, dtype=torch.int64)}, "y must be finite floats"),
    ],
)
def test_bad_input(arguments, options, message):
    with pytest.raises(ValueError, match=f"spectrum: {message}"):
        ntk.spectrum(*arguments, **options)


def test_a_model_needs_inputs_and_parameters():
    with pytest.raises(ValueError, match="x must be given with a model"):
        ntk.spectrum(net())
    with pytest.raises(ValueError, match="parameters that require grad"):
        ntk.spectrum(net().requires_grad_(False), X, k=2)
