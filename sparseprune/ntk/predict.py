"""What a network trained in its tangent kernel predicts: kernel regression, and gradient flow until a time."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from ._symmetric import flat, rounding


def predict(
    k_train: Tensor,
    y_train: Tensor,
    k_test: Tensor,
    *,
    ridge: float = 0.0,
    time: float | Tensor | None = None,
    learning_rate: float = 1.0,
    loss: Literal["mse"] = "mse",
    prior_train: Tensor | None = None,
    prior_test: Tensor | None = None,
) -> Tensor:
    """Return the test outputs of a network that is linear in its parameters, trained by gradient flow until a time.

    Flow `dw/dt = -learning_rate dL/dw` on `L(w) = (sum_n |f(x_n) - y_n|^2 + ridge |w - w_0|^2) / (2 N)` gives, exactly,

        f(x) = f_0(x) + k(x, X) A^+ (I - exp(-learning_rate time A / N)) (y - f_0(X)),  A = K + ridge I,

    and kernel regression, `f_0 + k A^+ (y - f_0)`, at time None (infinity). `time` full-batch steps of gradient descent
    follow it closely while learning_rate lambda_max / N << 1. L is the mean over examples of half the squared error
    summed over outputs: torch's mse_loss, a mean over O outputs too, is (2 / O) L where ridge is 0.

    Args:
        k_train: `[N, N]`, symmetric and positive semi-definite, float32 or float64, as from `empirical` or `infinite`;
            each column of targets is then fitted by itself. Or `[N, N, O, O]` from outputs="full".
        y_train: `[N]` or `[N, O]`.
        k_test: `[T, N]` (or `[T, N, O, O]`): kernels of test examples with training ones.
        ridge: added to the diagonal, >= 0.
        time: >= 0, a number or times `[S]`; None: the limit.
        learning_rate: > 0.
        loss: "mse", L above; other losses have no closed form.
        prior_train, prior_test: outputs f_0 at initialization, shaped like y_train and the result; None: 0.

    Returns:
        `[T]` or `[T, O]` in k_train's dtype, with a first dimension S for times `[S]`; computed in fp64. Directions
        whose eigenvalue of A is at most max(N eps lambda_max, -lambda_min), eps being that of k_train's dtype, are
        rounding: they keep their prior.

    Raises:
        ValueError: arguments as above that do not fit; k_train asymmetric or indefinite by more than sqrt(eps) of its
            largest entry or eigenvalue.

    Cost:
        an eigendecomposition, O((N O)^3).

    Reference:
        Lee et al., "Wide Neural Networks of Any Depth Evolve as Linear Models", 2019, arXiv 1902.06720, Eqs. 8-11.
    """
    if loss != "mse":
        raise ValueError(f"predict: loss must be 'mse', got {loss!r}")
    if not (math.isfinite(ridge) and ridge >= 0):
        raise ValueError(f"predict: ridge must be a finite number >= 0, got {ridge}")
    if not (math.isfinite(learning_rate) and learning_rate > 0):
        raise ValueError(f"predict: learning_rate must be a finite number > 0, got {learning_rate}")
    examples = len(k_train)
    matrix = flat("predict", "k_train", k_train)
    times = None if time is None else _times(time, matrix)
    targets, cross = _targets(k_train, y_train), _cross(k_train, k_test)
    shape = (len(k_test), *targets.shape[1:])
    residual = targets - _prior("prior_train", prior_train, targets.shape, matrix)
    start = _prior("prior_test", prior_test, shape, matrix)
    values, vectors = torch.linalg.eigh(matrix)
    noise = rounding("predict", "k_train", values, k_train.dtype)
    rates = values.clamp(min=0) + ridge
    learned = torch.ones_like(rates) if times is None else -torch.expm1(-learning_rate / examples * times * rates)
    factors = torch.where(rates > noise, learned / rates.clamp(min=noise), 0.0)
    modes = vectors.mT @ residual.reshape(len(matrix), -1)
    moved = cross @ (vectors @ (factors[..., None] * modes))
    return (start + moved.reshape(*factors.shape[:-1], *shape)).to(k_train.dtype)


def _times(time: float | Tensor, like: Tensor) -> Tensor:
    """Return `[1]` or `[S, 1]`, to be multiplied with rates `[N]`."""
    times = torch.as_tensor(time, dtype=torch.float64, device=like.device)
    if times.ndim > 1 or not bool((times.isfinite() & (times >= 0)).all()):
        raise ValueError(f"predict: time must be None, a finite number >= 0 or a vector of those, got {time}")
    return times[..., None]


def _targets(k_train: Tensor, y: Tensor) -> Tensor:
    full = k_train.ndim == 4
    fits = y.ndim == 2 and y.shape[1] == k_train.shape[2] if full else y.ndim in (1, 2)
    if not fits or len(y) != len(k_train):
        expected = f"[{len(k_train)}, {k_train.shape[2]}]" if full else f"[{len(k_train)}] or [{len(k_train)}, O]"
        raise ValueError(f"predict: y_train must be {expected}, as k_train is, got {list(y.shape)}")
    return _finite("y_train", y, k_train)


def _cross(k_train: Tensor, k_test: Tensor) -> Tensor:
    if k_test.ndim != k_train.ndim or k_test.shape[1:] != k_train.shape[1:]:
        expected = ", ".join(map(str, k_train.shape[1:]))
        raise ValueError(f"predict: k_test must be [T, {expected}], as k_train is, got {list(k_test.shape)}")
    cross = _finite("k_test", k_test, k_train)
    return cross if cross.ndim == 2 else cross.transpose(1, 2).flatten(2).flatten(0, 1)


def _prior(name: str, prior: Tensor | None, shape: tuple[int, ...], like: Tensor) -> Tensor:
    if prior is None:
        return like.new_zeros(shape)
    if prior.shape != shape:
        raise ValueError(f"predict: {name} must be {list(shape)}, as the outputs there are, got {list(prior.shape)}")
    return _finite(name, prior, like)


def _finite(name: str, x: Tensor, like: Tensor) -> Tensor:
    if x.device != like.device:
        raise ValueError(f"predict: {name} must be on {like.device}, as k_train is, got {x.device}")
    if not bool(x.isfinite().all()):
        raise ValueError(f"predict: {name} must be finite, got infinite or NaN numbers")
    return x.double()
