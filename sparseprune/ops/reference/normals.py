"""Standard normal numbers from counters, by Box and Muller's pairs: the same bits everywhere.

Library logarithms and cosines differ between platforms: here they are polynomials (of Cephes), fp32 operations one by
one, off by some 1e-7 of their value.
"""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from .philox import MASK32, NORMAL, random_bits

_BATCH = 64  # pairs
_LOG = (
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
    2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1, -0.5,
)  # fmt: skip
_SINE = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
_COSINE = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)


def normals(samples: Tensor, count: int, seed: int, stream: int) -> Tensor:
    """Return fp32 [samples, count]: numbers 128 b + i and 128 b + 64 + i are pair 64 b + i of the sample."""
    pairs = torch.arange(-(-count // (2 * _BATCH)) * _BATCH, device=samples.device)
    bits = random_bits(pairs, samples[:, None], NORMAL, 0, seed, stream)
    radius = _radius(bits & MASK32)
    numbers = torch.stack([radius * part for part in _direction(bits >> 32 & MASK32)], dim=-1)
    return numbers.unflatten(1, (-1, _BATCH)).mT.flatten(1)[:, :count]


def _radius(word: Tensor) -> Tensor:
    """Return sqrt(-2 log u), u = (word >> 1 | 1) / 2^31: log u = e log 2 + log(1 + f), 1 + f in [sqrt(1/2), sqrt 2)."""
    u = (word >> 1 | 1).float() * 2.0**-31
    bits = u.view(torch.int32)
    exponent = bits - 0x3F3504F3 >> 23
    f = (bits - (exponent << 23)).view(torch.float32) - 1.0
    log = _polynomial(_LOG, f) * (f * f) + f + exponent.float() * 0.69314718056
    return (log * -2.0).double().sqrt().float()  # torch's own of fp32 is not always the nearest


def _direction(word: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of an angle in [-pi/4, pi/4) by the low 30 bits, exchanged and negated by the high two."""
    low = word & 0x3FFFFFFF
    r = ((low - (low >> 29 << 30)) << 2).float() * 3.657295198167899e-10  # pi / 2^33
    z = r * r
    sine = _polynomial(_SINE, z) * (z * r) + r
    cosine = _polynomial(_COSINE, z) * (z * z) - z * 0.5 + 1.0
    exchanged, sign = word >> 30 & 1 == 1, 1.0 - 2.0 * (word >> 31)
    return torch.where(exchanged, sine, cosine) * sign, torch.where(exchanged, cosine, sine) * sign


def _polynomial(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    first, *rest = coefficients
    return reduce(lambda total, c: total * x + c, rest, torch.full_like(x, first))
