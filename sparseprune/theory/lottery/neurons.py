"""Neuron-subnetworks: whole units kept or dropped, as good as random features. Lemma 3.3, Theorem 3.4, Remark 3.6.

The network sum_i u_i relu(<w_i, x>) has k1 k2 hidden units in k2 blocks, w ~ U(-1 / sqrt d, 1 / sqrt d), u ~ U(-1, 1).
Each block has readouts v that make its features the target's; a unit is kept iff |u - v / C| <= eps. The average over
blocks of what is kept, times c = C / eps, is that of the readouts, with an error of order 1 / sqrt(k2).
"""

from __future__ import annotations

import torch
from torch import Tensor


def random_units(dimension: int, width: int, blocks: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return w [k2, k1, d] and u [k2, k1], fp64."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.empty(blocks, width, dimension, dtype=torch.float64).uniform_(-1, 1, generator=generator)
    u = torch.empty(blocks, width, dtype=torch.float64).uniform_(-1, 1, generator=generator)
    return w / dimension**0.5, u


def features(w: Tensor, x: Tensor) -> Tensor:
    """Return relu(<w_i, x_j>), [k2, m, k1], for the rows of x [m, d]."""
    return (x @ w.mT).relu()


def readouts(values: Tensor, y: Tensor) -> Tensor:
    """Return each block's min-norm least-squares fit of y [m]: v [k2, k1]; k1 >= m, features of full rank.

    v = F^T (F F^T)^-1 y.
    """
    return (values.mT @ torch.linalg.solve(values @ values.mT, y.unsqueeze(1))).squeeze(-1)


def bound(v: Tensor, tolerance: float) -> float:
    """Return C = max |v| / (1 - eps), so that v / C +- eps is inside (-1, 1) for every unit.

    Erratum. Lemma 3.3 asks for |v| <= 1, which is C = max |v|: the window of the largest |v| is then cut in half, it
    is kept half as often, and the limit of many blocks is another function: see `moments`.
    """
    return float(v.abs().max()) / (1 - tolerance)


def bound_printed(v: Tensor) -> float:
    """Return C = max |v|."""
    return float(v.abs().max())


def keep(u: Tensor, v: Tensor, tolerance: float, scale: float) -> Tensor:
    """Return which units stay, |u - v / C| <= eps: bool, of u's shape."""
    return (u - v / scale).abs() <= tolerance


def predict(values: Tensor, u: Tensor, kept: Tensor, tolerance: float, scale: float) -> Tensor:
    """Return c sum of kept u_i relu(<w_i, x>), c = C / (eps k2): [m]."""
    return scale / (tolerance * len(u)) * (values @ (u * kept).unsqueeze(-1)).sum(0).squeeze(-1)


def moments(ratio: Tensor, tolerance: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return P(kept), E[u kept], E[u^2 kept] of a unit with v / C = ratio, u ~ U(-1, 1).

    eps, eps r and eps (r^2 + eps^2 / 3) where |r| <= 1 - eps; beyond it the window [r - eps, r + eps] is cut at 1 and
    E[u kept] is no longer proportional to r.
    """
    low, high = (ratio - tolerance).clamp(min=-1), (ratio + tolerance).clamp(max=1)
    return (high - low) / 2, (high**2 - low**2) / 4, (high**3 - low**3) / 6


def prediction_moments(values: Tensor, v: Tensor, tolerance: float, scale: float) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of `predict` over draws of u, for these features: [m] each.

    With `bound` the mean is that of the readouts and the variance
    C^2 / k2 times the blocks' mean of sum_i F_i^2 ((r_i^2 + eps^2 / 3) / eps - r_i^2), r = v / C.
    """
    _, first, second = moments(v / scale, tolerance)
    factor = scale / (tolerance * len(v))
    mean = factor * (values @ first.unsqueeze(-1)).sum(0).squeeze(-1)
    variance = (values**2 @ (second - first**2).unsqueeze(-1)).sum(0).squeeze(-1)
    return mean, factor * variance.sqrt()
