"""How far a ticket is from its target: exact for a linear map, bounded above and searched from below for a network."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..random_ntk import kappa1
from .weights import forward


def slope_errors(first: Tensor, second: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return e+, e- with second relu(first x) - target x = e+ relu(x) + e- relu(-x), first having one weight a unit.

    Args:
        first: kept weights, [..., H, m], zeros elsewhere.
        second: [..., n, H].
        target: [..., n, m].

    Returns:
        Two of target's shape.
    """
    return second @ first.relu() - target, second @ (-first).relu() + target


def linear_error(first: Tensor, second: Tensor, target: Tensor, norm: float = 2) -> Tensor:
    """Return sup over ||x|| <= 1 of |second relu(first x) - target x|, for each output: [..., n]; exact.

    The error is separable in the coordinates: its largest and its least value are dual norms of
    max(e+, e-, 0) and max(-e+, -e-, 0).

    Args:
        first, second, target: see `slope_errors`.
        norm: of x, 2 or inf.
    """
    dual = 2 if norm == 2 else 1
    up, down = slope_errors(first, second, target)
    above = torch.linalg.vector_norm(torch.maximum(up, down).clamp(min=0), dual, -1)
    below = torch.linalg.vector_norm(torch.minimum(up, down).clamp(max=0), dual, -1)
    return torch.maximum(above, below)


def certificate21(ticket: Sequence[Tensor], target: Sequence[Tensor]) -> float:
    """Return an upper bound of sup over ||x||_2 <= 1 of |ticket(x) - target(x)| for a ticket of Theorem 2.1.

    e_i = ||W_i|| e_{i-1} + E_i (prod_{j<i} ||W_j|| + e_{i-1}), E_i^2 = sum over outputs of `linear_error`^2: the
    layer's error grows with its input's norm, which is the target's plus the error so far.

    Args:
        ticket: `Ticket.compact()`.
    """
    error, norm = 0.0, 1.0
    for first, second, layer in zip(ticket[::2], ticket[1::2], target, strict=True):
        own = float(linear_error(first, second, layer).norm())
        spectral = float(torch.linalg.matrix_norm(layer, 2))
        error = spectral * error + own * (norm + error)
        norm *= spectral
    return error


def layer_tolerance(error: float, depth: int, outputs: int) -> float:
    """Return the `linear_error` per output, eps / (2 l sqrt n), that keeps a network of Theorem 2.1 within eps <= 1.

    With norms <= 1, 1 + e_i <= (1 + e_{i-1}) (1 + sqrt(n) eps0), so that e_l <= exp(eps / 2) - 1 <= eps.
    """
    return error / (2 * depth * math.sqrt(outputs))


def certificate23(ticket: Sequence[Tensor], target: Sequence[Tensor]) -> float:
    """Return an upper bound of sup over ||x||_2 <= 1 of |ticket(x) - target(x)| for a ticket of Theorem 2.3.

    sum_i |v_i| `linear_error` of the neuron's inner map against r w*_i, r = max(v*_i / v_i, 0), and
    |v*_i| ||w*_i|| where the signs of v*_i and v_i differ.
    """
    first, second, third = ticket
    ratio = (target[1] / third).clamp(min=0)
    inner = linear_error(first, second, ratio.T * target[0])
    return float((third.abs() * inner + (target[1] - ratio * third).abs() * target[0].norm(dim=1)).sum())


def searched_error(ticket: Sequence[Tensor], target: Sequence[Tensor], points: int = 20_000, seed: int = 0) -> float:
    """Return the largest |ticket(x) - target(x)| found on the unit sphere: a lower bound of the sup over the ball.

    Both are positively homogeneous, so that the ball's sup is the sphere's. After `points` random points the hundred
    worst move about, in steps that shrink.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(points, target[0].shape[1], generator=generator, dtype=torch.float64)
    x /= x.norm(dim=1, keepdim=True)
    for step in (0.3, 0.1, 0.03, 0.01, 0.003):
        errors = (forward(ticket, x) - forward(target, x)).abs().flatten()
        best = x[errors.topk(min(100, len(x))).indices]
        noise = torch.randn(20, *best.shape, generator=generator, dtype=torch.float64)
        x = torch.cat([best, (best + step * noise).flatten(0, 1)])
        x /= x.norm(dim=1, keepdim=True)
    return float((forward(ticket, x) - forward(target, x)).abs().max())


def gaussian_error(first: Tensor, second: Tensor, target: Tensor) -> Tensor:
    """Return E (second relu(first x) - target x)^2 for x ~ N(0, I), for each output: [..., n]; exact.

    sum_i ((e+^2 + e-^2) / 2 - (e+ + e-)^2 / (2 pi)) + (sum_i e+ + e-)^2 / (2 pi).
    A ReLU behind both makes it no larger.

    Args:
        first, second, target: see `slope_errors`.
    """
    up, down = slope_errors(first, second, target)
    mean = (up + down) / math.sqrt(2 * math.pi)
    return ((up**2 + down**2) / 2 - mean**2).sum(-1) + mean.sum(-1) ** 2


def random_features_error(features: Tensor, target: Tensor) -> float:
    """Return min over v of E (sum_i v_i relu(<w_i, x>) - relu(<w*, x>))^2 for x ~ N(0, I); exact.

    A neuron-subnetwork times a constant is one such v: none is nearer. By least squares with
    E relu(<a, x>) relu(<b, x>) = |a| |b| kappa1(cos(a, b)) / 2.

    Args:
        features: w, fp64 [k, d].
        target: w*, fp64 [d].
    """
    lengths = features.norm(dim=1)
    units, one = features / lengths.unsqueeze(1), target / target.norm()
    gram = lengths.outer(lengths) * kappa1(units @ units.T) / 2
    moment = lengths * target.norm() * kappa1(units @ one) / 2
    explained = torch.linalg.solve_triangular(torch.linalg.cholesky(gram), moment.unsqueeze(1), upper=False)
    return float(target.norm() ** 2 / 2 - explained.square().sum())
