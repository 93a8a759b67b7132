"""Continuous functions of one variable as targets, whose tickets then approximate them: universality.

The variable t in [-1, 1] enters as x = (t, 1) / sqrt 2, of norm <= 1: the nets have no biases.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def lift(t: Tensor) -> Tensor:
    """Return the inputs (t, 1) / sqrt 2: [N, 2]."""
    return torch.stack([t, torch.ones_like(t)], 1) / 2**0.5


def interpolant(function: Callable[[Tensor], Tensor], pieces: int) -> tuple[list[Tensor], float]:
    """Return a target of Theorem 2.3 and a factor that make the function's piecewise linear interpolant.

    f(-1) + sum_i (s_i - s_{i-1}) relu(t - t_i), s_i the slopes: pieces + 1 neurons with |w*| <= 1 / sqrt 2, |v*| <= 1.

    Args:
        function: of t in [-1, 1], fp64.
        pieces: of equal length.

    Returns:
        [w* [pieces + 1, 2], v* [1, pieces + 1]], and the factor to multiply the network with.
    """
    knots = torch.linspace(-1, 1, pieces + 1, dtype=torch.float64)
    values = function(knots)
    slopes = values.diff() / knots.diff()
    bends = slopes.diff(prepend=slopes.new_zeros(1))
    coefficients = torch.cat([values[:1], bends]).unsqueeze(0)
    hinges = torch.stack([torch.ones_like(bends), -knots[:-1]], 1)
    weight = torch.cat([hinges.new_tensor([[0.0, 1.0]]), hinges]) / 2**0.5
    factor = 2 * float(coefficients.abs().max())
    return [weight, 2 * coefficients / factor], factor


def neuron_integral(height: Callable[[Tensor], Tensor], x: Tensor, steps: int = 400) -> Tensor:
    """Return E_w h(w) relu(<w, x>), w ~ U(-1 / sqrt 2, 1 / sqrt 2)^2: Theorem 3.4's functions, by the midpoint rule.

    Args:
        height: h of the rows of w [N, 2].
        x: [m, 2].
    """
    middles = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps * 2 - 1
    w = torch.cartesian_prod(middles, middles) / 2**0.5
    return torch.stack([(height(w) * (w @ row).relu()).mean() for row in x])
