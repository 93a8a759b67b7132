"""Generalisation errors after edge pruning, in closed form, at the ansatz, and where edges beat nodes.

A share c of the first-layer weights is kept. Node pruning of as many parameters keeps k = c K units (equation 4), and
the two are compared in units of M v*^2, which leaves c and Z. Shares are float64 tensors or floats, results tensors.

Reference: Acharyya et al., UAI 2021, Lemma 4, Theorems 3 to 5. Importance edges are not in the paper.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Share = Tensor | float


def theorem_3(c: Share, M: int, Z: float, v_star: float, scale: Share = 1.0) -> Tensor:
    """Return the error after random edge pruning, v scaled by A: (M v*^2 / pi) (A^2 a + pi/6 - 2 A b), equation 10.

    a = asin(c/(1+c))/Z + (1 - 1/Z) asin(c^2/(1+c)), b = asin(c / sqrt(2 (1+c))).

    Erratum. It is called the error of the expected network: it is that at the expected order parameters, which the
    error tends to as N grows. The expected network itself has another, `averaged_edge`.

    Args:
        c: share kept.
        Z: students of a teacher unit; where their v differ, 1 / s2 with s2 = sum_i v_i^2 / (M v*^2).
        scale: A.
    """
    a, b = _quadratic(c, Z)
    return M * v_star**2 / math.pi * (scale**2 * a + math.pi / 6 - 2 * scale * b)


def best_scale(c: Share, Z: float) -> Tensor:
    """Return A* = b / a, the scale of v with the least error after random edge pruning, c > 0."""
    a, b = _quadratic(c, Z)
    return b / a


def theorem_5(c: Share, M: int, Z: float, v_star: float) -> Tensor:
    """Return the least error over A after random edge pruning, (M v*^2 / pi) (pi/6 - b^2 / a), c > 0."""
    a, b = _quadratic(c, Z)
    return M * v_star**2 / math.pi * (math.pi / 6 - b.square() / a)


def averaged_edge(c: Share, M: int, v_star: float) -> Tensor:
    """Return the error of the average of all randomly pruned networks, w' = c w: Q' = c^2 Q, R' = c R, for any Z."""
    c = _tensor(c)
    return _copies(c.square(), c, M, v_star)


def importance_edge(c: Share, M: int, v_star: float) -> Tensor:
    """Return the error of keeping the largest |w| of each unit, of a Gaussian teacher: all copies share one mask.

    Q' = R' = q(c) = c + 2 tau phi(tau), tau = Phi^-1(1 - c/2): the second moment of what is kept.
    """
    q = kept_moment(c)
    return _copies(q, q, M, v_star)


def kept_moment(c: Share) -> Tensor:
    """Return q(c) = E[w^2; |w| > tau] = c + 2 tau phi(tau), w ~ N(0, 1), P(|w| > tau) = c."""
    c = _tensor(c)
    tau = torch.special.ndtri(1 - c / 2)
    # tau phi(tau) is 0 at tau = infinity, c = 0.
    slope = torch.where(c > 0, tau.clamp_max(40) * (-tau.square() / 2).exp(), 0.0)
    return c + 2 / math.sqrt(2 * math.pi) * slope


def theorem_4_margin(c: Share, Z: float) -> Tensor:
    """Return (DPP node - random edge) / (M v*^2) = (1 - 2c + c/Z) / 6 - theorem_3, for c <= 1/Z.

    Theorem 4 says that it is >= 0 for 0 <= c <= 1/Z, Z >= 4. The first term is `theorem_1` with k = c K units.
    """
    c = _tensor(c)
    return (1 - 2 * c + c / Z) / 6 - theorem_3(c, 1, Z, 1.0)


def theorem_5_margin(c: Share, Z: float) -> Tensor:
    """Return (DIVNET - random edge with the best scale) / (M v*^2) = (1 - Z c) / 6 - theorem_5, for 0 < c <= 1/Z.

    Theorem 5 says that it is <= 0.
    """
    c = _tensor(c)
    return (1 - Z * c) / 6 - theorem_5(c, 1, Z, 1.0)


def crossing(Z: float) -> float:
    """Return c*(Z), where `theorem_4_margin` turns from edges to nodes: the least c > 0 with a margin of 0; 0 if none.

    Theorem 4 holds for 0 < c <= 1/Z where c* > 1/Z: Z >= 4.
    """
    from scipy.optimize import root_scalar

    low, high = 1e-6, 0.5  # the margin is negative at 1/2, for every Z
    if theorem_4_margin(low, Z) <= 0:
        return 0.0
    return root_scalar(lambda c: float(theorem_4_margin(c, Z)), bracket=(low, high), xtol=1e-14).root


def _quadratic(c: Share, Z: float) -> tuple[Tensor, Tensor]:
    c = _tensor(c)
    a = (c / (1 + c)).asin() / Z + (1 - 1 / Z) * (c.square() / (1 + c)).asin()
    return a, (c / (2 * (1 + c)).sqrt()).asin()


def _copies(Q: Tensor, R: Tensor, M: int, v_star: float) -> Tensor:
    """Return the error of copies with Q'_ik = Q inside a group, the diagonal too, and R'_in = R."""
    b = (R / (2 * (1 + Q)).sqrt()).asin()
    return M * v_star**2 / math.pi * ((Q / (1 + Q)).asin() + math.pi / 6 - 2 * b)


def _tensor(c: Share) -> Tensor:
    c = torch.as_tensor(c, dtype=torch.float64)
    if not bool(((c >= 0) & (c <= 1)).all()):
        raise ValueError(f"teacher_student: shares c must be in [0, 1], got {c.tolist()}")
    return c
