"""The order parameters' dynamics under online SGD as N -> infinity; one unit of time is N steps.

A step, each input once, Delta = f(x) - f*(x) - sigma zeta:
    w_k <- w_k - (eta / sqrt N) v_k g'(z_k) Delta x,  v_k <- v_k - (eta_v / N) g(z_k) Delta.

Reference: Saad & Solla 1995; Goldt et al. 2019 (arXiv 1906.08632), equations S29-S36.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from .integrals import i2, i3, i4, j2
from .order_parameters import OrderParameters


def derivatives(p: OrderParameters, eta: float, sigma: float = 0.0, eta_v: float | None = None) -> OrderParameters:
    """Return d/dt of the order parameters. With u = (v, -v*) and a, b over the fields of students and teachers,

    dR_in = -eta v_i sum_a u_a I3(i, n, a),  dv_i = -eta_v sum_a u_a I2(i, a),  dT = dv* = 0,
    dQ_ik = -eta v_i sum_a u_a I3(i, k, a) + (i <-> k)
        + eta^2 v_i v_k (sum_ab u_a u_b I4(i, k, a, b) + sigma^2 J2(i, k)).

    Args:
        p: of one student, or of a batch.
        eta, eta_v: learning rates of w and of v; by default the same.

    Cost: memory for K^2 (K + M)^2 numbers.
    """
    C, v = p.covariance(), p.v
    own = C.diagonal(dim1=-2, dim2=-1)
    units = v.shape[-1]
    u = torch.cat([v, -p.v_star.expand(*v.shape[:-1], -1)], dim=-1)
    student, among = C[..., :units, :], C[..., :units, :units]
    c_i = own[..., :units]

    first, all_own = c_i[..., :, None], own[..., None, :]
    d_v = i2(first, student, all_own) @ u[..., None]

    i3_ija = i3(first[..., None], student[..., None], student[..., None, :], C[..., None, :, :], all_own[..., None, :])
    drift = -eta * v[..., None] * (i3_ija @ u[..., None, :, None]).squeeze(-1)

    c_ik, c_ia, c_ka = among[..., None, None], student[..., :, None, :], student[..., None, :, :]
    i4_ikab = i4(
        first[..., None, None],
        c_ik,
        c_ia[..., None],
        c_ia[..., None, :],
        c_i[..., None, :, None, None],
        c_ka[..., None],
        c_ka[..., None, :],
        own[..., None, None, :, None],
        C[..., None, None, :, :],
        own[..., None, None, None, :],
    )
    pair = u[..., None, None, :, None]
    square = (pair * (i4_ikab @ pair)).sum((-2, -1)) + sigma**2 * j2(first, among, c_i[..., None, :])
    d_q = drift[..., :units] + drift[..., :units].mT + eta**2 * v[..., :, None] * v[..., None, :] * square
    rate = eta if eta_v is None else eta_v
    zero = torch.zeros_like
    return OrderParameters(d_q, drift[..., units:], zero(p.T), -rate * d_v.squeeze(-1), zero(p.v_star))


def integrate(
    p: OrderParameters,
    times: Sequence[float],
    eta: float,
    sigma: float = 0.0,
    *,
    eta_v: float | None = None,
    tolerance: float = 1e-6,
) -> OrderParameters:
    """Return the order parameters of one student at `times`, from p at time 0: a batch [times].

    SciPy's RK45.

    Args:
        p: of one student, at time 0.
        times: ascending, in units of N steps.
        tolerance: relative and absolute, of a step.

    Raises:
        ValueError: no times, or not ascending from 0 on.
        ArithmeticError: a start whose derivatives are not finite, or no step small enough for the tolerance.
    """
    from scipy.integrate import solve_ivp

    if not len(times) or times[0] < 0 or any(a >= b for a, b in pairwise(times)):
        raise ValueError(f"integrate: times must be some, ascending, from 0 on, got {list(times)}")
    if times[-1] == 0:
        return OrderParameters(*(part.unsqueeze(0) for part in p))
    moving = (p.Q, p.R, p.v)

    def unflatten(state: Tensor) -> OrderParameters:
        blocks = state.split([block.numel() for block in moving], dim=-1)
        Q, R, v = (values.unflatten(-1, block.shape) for values, block in zip(blocks, moving, strict=True))
        return p._replace(Q=Q, R=R, v=v)

    def slope(_: float, state: np.ndarray) -> np.ndarray:
        d = derivatives(unflatten(torch.as_tensor(state)), eta, sigma, eta_v)
        return torch.cat([d.Q.flatten(), d.R.flatten(), d.v]).numpy()

    start = torch.cat([block.flatten() for block in moving]).numpy()
    if not np.isfinite(slope(0.0, start)).all():  # of which RK45 would look for a first step for ever
        raise ArithmeticError("integrate: the derivatives at the start are not finite")
    span = (0.0, times[-1])
    found = solve_ivp(slope, span, start, t_eval=times, rtol=tolerance, atol=tolerance)
    if not found.success:
        raise ArithmeticError(f"integrate: stopped before t = {times[-1]:g}: {found.message}")
    return unflatten(torch.from_numpy(found.y.T.copy()))


def lemma_3_rate() -> float:
    """Return rate of dv_i/dt = eta_v rate (v* - sum_{j in G_n} v_j) at the ansatz: I2 = (2 / pi) asin(1/2) = 1/3."""
    return 2 / math.pi * math.asin(0.5)


def lemma_3_rate_printed() -> float:
    """Return Lemma 3's rate as printed, asin(1/2). Erratum: it lacks the factor 2 / pi; the fixed point is the same."""
    return math.asin(0.5)
