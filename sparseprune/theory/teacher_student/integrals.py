"""Gaussian integrals of g(z) = erf(z / sqrt 2) and its slope, over fields z ~ N(0, C): those of the ODEs.

Entries C_ij are broadcastable float64 tensors; each function takes those it reads. All are differentiable.

Reference: Saad & Solla 1995; Goldt et al. 2019 (arXiv 1906.08632), supplement.
"""

from __future__ import annotations

import math

from torch import Tensor


def i2(c11: Tensor, c12: Tensor, c22: Tensor) -> Tensor:
    """Return E[g(z1) g(z2)] = (2 / pi) asin(C12 / sqrt((1 + C11) (1 + C22)))."""
    return 2 / math.pi * (c12 / ((1 + c11) * (1 + c22)).sqrt()).asin()


def j2(c11: Tensor, c12: Tensor, c22: Tensor) -> Tensor:
    """Return E[g'(z1) g'(z2)] = (2 / pi) / sqrt(1 + C11 + C22 + C11 C22 - C12^2)."""
    return 2 / math.pi / ((1 + c11) * (1 + c22) - c12.square()).sqrt()


def i3(c11: Tensor, c12: Tensor, c13: Tensor, c23: Tensor, c33: Tensor) -> Tensor:
    """Return E[g'(z1) z2 g(z3)] = (2 / pi) (C23 (1 + C11) - C12 C13) / ((1 + C11) sqrt(L3)).

    L3 = (1 + C11) (1 + C33) - C13^2.
    """
    l3 = (1 + c11) * (1 + c33) - c13.square()
    return 2 / math.pi * (c23 * (1 + c11) - c12 * c13) / ((1 + c11) * l3.sqrt())


def i4(
    c11: Tensor,
    c12: Tensor,
    c13: Tensor,
    c14: Tensor,
    c22: Tensor,
    c23: Tensor,
    c24: Tensor,
    c33: Tensor,
    c34: Tensor,
    c44: Tensor,
) -> Tensor:
    """Return E[g'(z1) g'(z2) g(z3) g(z4)] = (4 / pi^2) asin(L0 / sqrt(L1 L2)) / sqrt(L4).

    L4 = (1 + C11) (1 + C22) - C12^2; L0, L1, L2 are L4 times the covariance of (z3, z4), the first plus 0, the others
    plus 1, under the law that g'(z1) g'(z2) tilts the fields to.
    """
    a, b = 1 + c11, 1 + c22
    l4 = a * b - c12.square()
    l0 = l4 * c34 - c23 * c24 * a - c13 * c14 * b + c12 * (c13 * c24 + c14 * c23)
    l1 = l4 * (1 + c33) - c23.square() * a - c13.square() * b + 2 * c12 * c13 * c23
    l2 = l4 * (1 + c44) - c24.square() * a - c14.square() * b + 2 * c12 * c14 * c24
    return 4 / math.pi**2 * (l0 / (l1 * l2).sqrt()).asin() / l4.sqrt()
