"""Teachers and students: f(x) = sum_k v_k g(w_k . x / sqrt N), g(z) = erf(z / sqrt 2), inputs x ~ N(0, I_N)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Network(NamedTuple):
    """A network of H units and N inputs, or a batch of them, float64.

    Args:
        w: first-layer weights [..., H, N].
        v: second-layer weights [..., H].
    """

    w: Tensor
    v: Tensor

    def canonical(self) -> Network:
        """Return the same function with every v_k >= 0: g is odd, so that (-w_k, -v_k) is the unit (w_k, v_k)."""
        sign = torch.where(self.v < 0, -1.0, 1.0).to(self.v)
        return Network(sign.unsqueeze(-1) * self.w, sign * self.v)


def random_teacher(hidden: int, inputs: int, v_star: float, seed: int) -> Network:
    """Return a teacher w*_mi ~ N(0, 1), v*_m = v*."""
    w = _normal(seed, hidden, inputs)
    return Network(w, torch.full((hidden,), float(v_star), dtype=torch.float64))


def random_student(hidden: int, inputs: int, seed: int) -> Network:
    """Return a student as it starts, w_ki, v_k ~ N(0, 1)."""
    weights = _normal(seed, hidden, inputs + 1)
    return Network(weights[:, :-1].contiguous(), weights[:, -1].contiguous())


def activation(field: Tensor) -> Tensor:
    """Return g(z) = erf(z / sqrt 2)."""
    return (field / math.sqrt(2)).erf()


def forward(network: Network, x: Tensor) -> Tensor:
    """Return f(x) [..., samples] of inputs x [..., samples, N]."""
    fields = x @ network.w.mT / math.sqrt(network.w.shape[-1])
    return (activation(fields) @ network.v.unsqueeze(-1)).squeeze(-1)


def monte_carlo_error(student: Network, teacher: Network, samples: int, seed: int) -> Tensor:
    """Return (f(x) - f*(x))^2 / 2 [..., samples] of drawn inputs; its mean is `generalisation_error`."""
    x = _normal(seed, samples, student.w.shape[-1]).to(student.w)
    return (forward(student, x) - forward(teacher, x)).square() / 2


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
