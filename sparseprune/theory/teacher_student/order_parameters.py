"""The order parameters Q, R, T of a student and its teacher: all that the generalisation error depends on.

The fields z = w . x / sqrt N of student and teacher units are Gaussian with covariance [[Q, R], [R^T, T]].

Reference: Goldt et al. 2019 (arXiv 1906.08632); Acharyya et al., UAI 2021, equations 3 and 13.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .integrals import i2
from .networks import Network


class OrderParameters(NamedTuple):
    """Overlaps of K student and M teacher units, float64, or a batch of them.

    Erratum: equation 3 prints R_mn for T_mn.

    Args:
        Q: w_i . w_k / N [..., K, K].
        R: w_i . w*_n / N [..., K, M].
        T: w*_n . w*_m / N [..., M, M].
        v: second-layer weights of the student [..., K].
        v_star: of the teacher [..., M].
    """

    Q: Tensor
    R: Tensor
    T: Tensor
    v: Tensor
    v_star: Tensor

    def covariance(self) -> Tensor:
        """Return the covariance of all fields, [[Q, R], [R^T, T]]: [..., K + M, K + M]."""
        batch = torch.broadcast_shapes(*(block.shape[:-2] for block in (self.Q, self.R, self.T)))
        Q, R, T = (block.expand(*batch, -1, -1) for block in (self.Q, self.R, self.T))
        return torch.cat([torch.cat([Q, R], dim=-1), torch.cat([R.mT, T], dim=-1)], dim=-2)

    def canonical(self) -> OrderParameters:
        """Return those of `Network.canonical`: every v_i >= 0."""
        sign = torch.where(self.v < 0, -1.0, 1.0).to(self.v)
        Q = self.Q * sign.unsqueeze(-1) * sign.unsqueeze(-2)
        return self._replace(Q=Q, R=self.R * sign.unsqueeze(-1), v=self.v * sign)


def order_parameters(student: Network, teacher: Network) -> OrderParameters:
    """Return Q, R and T of a student, or of a batch of students [...] of one teacher or as many."""
    n = student.w.shape[-1]
    w, w_star = student.w, teacher.w
    return OrderParameters(w @ w.mT / n, w @ w_star.mT / n, w_star @ w_star.mT / n, student.v, teacher.v)


def generalisation_error(p: OrderParameters) -> Tensor:
    """Return E (f(x) - f*(x))^2 / 2 [...]: half the mean squared error, equation 13.

    It is u^T I2 u / 2, u = (v, -v*), I2 = E g(z_i) g(z_j) of all fields. Labels of noise sigma add sigma^2 / 2.
    """
    C = p.covariance()
    own = C.diagonal(dim1=-2, dim2=-1)
    moments = i2(own.unsqueeze(-1), C, own.unsqueeze(-2))
    batch = torch.broadcast_shapes(p.v.shape[:-1], p.v_star.shape[:-1])
    u = torch.cat([p.v.expand(*batch, -1), -p.v_star.expand(*batch, -1)], dim=-1)
    return ((u.unsqueeze(-2) @ moments).squeeze(-2) * u).sum(-1) / 2


def ansatz(M: int, Z: int, v_star: float) -> OrderParameters:
    """Return the order parameters that Z students a teacher unit converge to without noise, units group by group.

    Q_ik = 1 inside a group, else 0; R_in = 1 if i is in group n, else 0; T = I; v_i = v* / Z (assumption A6). Trained
    students are so up to signs, `OrderParameters.canonical`, and up to v: Lemma 3 fixes only the sum of a group.
    """
    group = torch.arange(M * Z) // Z
    Q = (group[:, None] == group).double()
    R = (group[:, None] == torch.arange(M)).double()
    v, u = (torch.full((size,), value, dtype=torch.float64) for size, value in ((M * Z, v_star / Z), (M, v_star)))
    return OrderParameters(Q, R, torch.eye(M, dtype=torch.float64), v, u)


def keep_units(p: OrderParameters, kept: Tensor) -> OrderParameters:
    """Return the order parameters after node pruning: those of dropped units are 0, and so are their v.

    Args:
        kept: masks [..., K], bool or 0/1.
    """
    kept = kept.to(p.v)
    Q = p.Q * kept.unsqueeze(-1) * kept.unsqueeze(-2)
    return p._replace(Q=Q, R=p.R * kept.unsqueeze(-1), v=p.v * kept)


def keep_random_edges(p: OrderParameters, c: float) -> OrderParameters:
    """Return the expected order parameters when every first-layer weight is kept with chance c (Lemma 4).

    E Q'_ii = c Q_ii, E Q'_ik = c^2 Q_ik, E R' = c R, T' = T. Erratum: the statement is right; its proof prints c^2
    for the diagonal too.
    """
    own = p.Q.diagonal(dim1=-2, dim2=-1)
    return p._replace(Q=c**2 * p.Q + (c - c**2) * torch.diag_embed(own), R=c * p.R)


def reweight(p: OrderParameters, kept: Tensor) -> OrderParameters:
    """Return p with the v of kept units that come closest to the student's output, 0 for the others (DIVNET).

    The least squares of Mariet & Sra 2016 (arXiv 1511.05077), section 2.2, over the law of the inputs:
    argmin_v' E (sum_k v_k g(z_k) - sum_{j kept} v'_j g(z_j))^2, of many solutions the one of least norm.

    Args:
        kept: masks [..., K], bool or 0/1.
    """
    own = p.Q.diagonal(dim1=-2, dim2=-1)
    moments = i2(own.unsqueeze(-1), p.Q, own.unsqueeze(-2))
    kept = kept.to(p.v)
    among = moments * kept.unsqueeze(-1) * kept.unsqueeze(-2)
    wanted = (moments @ p.v.unsqueeze(-1)) * kept.unsqueeze(-1)
    v = torch.linalg.pinv(among, rtol=1e-12, hermitian=True) @ wanted
    return keep_units(p, kept)._replace(v=v.squeeze(-1) * kept)
