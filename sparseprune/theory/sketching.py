"""Pruning at initialization as sketching: the error of Algorithm 1 on linear features, exact, bounded, as printed.

Data X [d, n] has its examples in columns; r_k is the norm of row k. A mask of s draws is m_k = c_k / (s p_k) with
c ~ Multinomial(s, p); it was found with weights w0 and data X~ and is applied to weights w and data X. Errors are
E |X^T w - X^T (w * m)|^2. A bare name is the exact value, `*_bound` an upper bound that holds, `*_printed` what the
paper prints where that is something else. Gaussian data: X_ki ~ N(0, 1/n), independent.

Weights are float64 tensors [..., d], data [d, n] or [..., d, n], results [...]; all of it differentiable.

Reference: Bar & Giryes 2023, arXiv 2305.17559; Drineas, Kannan & Mahoney 2006 for Lemma 4.1.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from ..sampling import multinomial

# The data that the mask was found with: those of the error, others of the same law, none (p proportional to |w0|).
Seen = Literal["same", "independent", "none"]


def probabilities(w0: Tensor, x: Tensor | None = None) -> Tensor:
    """Return p_k = r_k |w0_k| / sum_j r_j |w0_j| (equation 2), which minimises `error` at w = w0.

    Args:
        x: the data [d, n]; None: r = 1, what a mask without data can know.
    """
    scores = w0.abs() if x is None else w0.abs() * x.norm(dim=-1)
    return scores / scores.sum(-1, keepdim=True)


def expected_distinct(p: Tensor, draws: int) -> Tensor:
    """Return E |m|_0 = sum_k 1 - (1 - p_k)^s, the weights that are kept."""
    return -torch.expm1(draws * torch.log1p(-p)).sum(-1)


def error(w: Tensor, x: Tensor, p: Tensor, draws: int) -> Tensor:
    """Return the error of a mask drawn from p: (1/s) (sum_k r_k^2 w_k^2 / p_k - |X^T w|^2).

    Weights with p_k = 0 are never kept: they leave the sums, and |X^T w|^2 of them alone is added.

    Args:
        p: probabilities [..., d].
        draws: s.
    """
    drawn = p > 0
    kept, lost = w * drawn, w * ~drawn
    return (_second_moment(kept, x, p) - _features(kept, x)) / draws + _features(lost, x)


def lemma_41(w0: Tensor, x: Tensor, draws: int) -> Tensor:
    """Return (1/s) (sum_k r_k |w0_k|)^2 - (1/s) |X^T w0|^2: `error` at w = w0 and the best p."""
    return error(w0, x, probabilities(w0, x), draws)


def lemma_41_printed(w0: Tensor, x: Tensor, draws: int) -> Tensor:
    """Return Lemma 4.1 as printed. Erratum: the last norm is not squared."""
    return ((w0.abs() * x.norm(dim=-1)).sum(-1).square() - _features(w0, x).sqrt()) / draws


def lemma_43_bound(w: Tensor, w0: Tensor, x: Tensor, seen: Tensor, draws: int) -> Tensor:
    """Return (1/s) sum_k r_k^2 w_k^2 / p_k with p of w0 and the data `seen`: `error` without its negative term.

    It is correct as printed, and the exact error of independent Poisson counts.
    """
    return _second_moment(w, x, probabilities(w0, seen)) / draws


def kappa_squared(n: int) -> float:
    """Return kappa_n^2 = (E r_k)^2 = (2/n) (Gamma((n+1)/2) / Gamma(n/2))^2, about 1 - 1/(2n), of Gaussian data."""
    return 2 / n * math.exp(2 * (math.lgamma((n + 1) / 2) - math.lgamma(n / 2)))


def kappa_independent(n: int) -> float:
    """Return k_n = E r~_j / r~_k = Gamma((n+1)/2) Gamma((n-1)/2) / Gamma(n/2)^2 of Gaussian data; infinite at n = 1."""
    if n == 1:
        return math.inf
    return math.exp(math.lgamma((n + 1) / 2) + math.lgamma((n - 1) / 2) - 2 * math.lgamma(n / 2))


def theorem_44(w: Tensor, w0: Tensor, n: int, draws: int, *, seen: Seen = "same") -> Tensor:
    """Return the error over Gaussian data and masks: (f/s) sum_k (w_k^2 / |w0_k|) (|w0|_1 - |w0_k|).

    f = kappa_n^2 where the mask was found with the same data, k_n with independent data, 1 with none. So a mask needs
    no data: the three are within 1 % at n = 128. Weights with w0_k = 0 are lost: they add w_k^2.

    Args:
        n: examples.
    """
    factor = {"same": kappa_squared, "independent": kappa_independent, "none": lambda n: 1.0}[seen](n)
    size, drawn = w0.abs(), w0 != 0
    others = torch.where(drawn, size.sum(-1, keepdim=True) / size - 1, 0)
    return (w.square() * others).sum(-1) * factor / draws + (w.square() * ~drawn).sum(-1)


def theorem_44_bound(w: Tensor, w0: Tensor, draws: int) -> Tensor:
    """Return (1/s) |w0|_1 (|w - w0|^2 / min_k |w0_k| + 2 |w - w0|_1 + |w0|_1), for masks of the same data or none."""
    return _theorem_44(w, w0, draws, w0.abs().amin(-1))


def theorem_44_printed(w: Tensor, w0: Tensor, draws: int) -> Tensor:
    """Return Theorem 4.4 as printed, with max_k |w0_k| for the minimum. Erratum: it is false.

    w0 = (1, .01), w = (1, 1), n = 16, s = 3: the error is 32.31, this 1.34, the bound 34.00.
    """
    return _theorem_44(w, w0, draws, w0.abs().amax(-1))


def _theorem_44(w: Tensor, w0: Tensor, draws: int, scale: Tensor) -> Tensor:
    norm, step = w0.abs().sum(-1), w - w0
    return norm * (step.square().sum(-1) / scale + 2 * step.abs().sum(-1) + norm) / draws


def lemma_42(w0: Tensor, n: int, draws: int) -> Tensor:
    """Return (kappa_n^2 / s) (|w0|_1^2 - |w0|_2^2): `theorem_44` at w = w0."""
    return theorem_44(w0, w0, n, draws)


def lemma_42_bound(w0: Tensor, draws: int) -> Tensor:
    """Return (1/s) |w0|_1^2."""
    return w0.abs().sum(-1).square() / draws


def lemma_42_printed(w0: Tensor, draws: int) -> Tensor:
    """Return (1/s) |w0|_2^2. Erratum: it is false; the proof has the square of a sum below the sum of squares.

    w0 = ones(10), n = 50, s = 5: the error is 17.82, this 2.
    """
    return w0.square().sum(-1) / draws


def lemma_45(w: Tensor, draws: int) -> Tensor:
    """Return the error of uniform draws, ((d - 1)/s) |w|^2, at every n: `theorem_44` with w0 = 1 and no data seen."""
    return (w.shape[-1] - 1) * w.square().sum(-1) / draws


def lemma_45_bound(w: Tensor, draws: int) -> Tensor:
    """Return (d/s) |w|^2, correct as printed."""
    return w.shape[-1] * w.square().sum(-1) / draws


def sketch_to_uniform(w0: Tensor, n: int) -> Tensor:
    """Return `lemma_42` over `lemma_45`: kappa_n^2 (|w0|_1^2 - |w0|_2^2) / ((d - 1) |w0|_2^2), at most kappa_n^2.

    Erratum. Claimed: sketching avoids the factor d of uniform draws. Where all |w0_k| are equal it gains nothing but
    kappa_n^2; many Gaussian weights have 2/pi kappa_n^2, Laplace 1/2, log-normal exp(-sigma^2).
    """
    return lemma_42(w0, n, 1) / lemma_45(w0, 1)


def theorem_72_bound(theta0: Tensor, jacobian0: Tensor, draws: int, *, norm: float, distance: float) -> Tensor:
    """Bound the error of the features J_t^T theta_t of a net, the mask found at its initialization.

    (1/s) K^3 |theta0|_1 F(J_0) (|theta0|_1 + F(theta0) D^2 + 2 sqrt(d) D), F(A) = sum_k 1/|A_k|. It is loose: by 10^4
    for tens of weights; F of Gaussian weights has an infinite mean.

    Args:
        theta0: the parameters at initialization [d].
        jacobian0: J_0 [d, examples].
        norm: K >= max(1, |J_0|_F, |J_t|_F).
        distance: D >= |theta_t - theta0|_2.
    """
    weight = theta0.abs().sum()
    return norm**3 * weight * _f(jacobian0) * (weight + _moved(theta0, distance)) / draws


def theorem_72_printed(
    theta0: Tensor, jacobian0: Tensor, draws: int, *, norm: float, radius: float, eigenvalue: float
) -> Tensor:
    """Return Theorem 7.2 as printed, for D = 3 K R_0 / lambda_min: the terms in D times K^2, so weaker, but valid.

    Erratum: the powers of K are not those of the proof.
    """
    weight, distance = theta0.abs().sum(), 3 * norm * radius / eigenvalue
    return norm**3 * weight * _f(jacobian0) * (weight + norm**2 * _moved(theta0, distance)) / draws


def _f(rows: Tensor) -> Tensor:
    return rows.norm(dim=-1).reciprocal().sum()


def _moved(theta0: Tensor, distance: float) -> Tensor:
    return _f(theta0[:, None]) * distance**2 + 2 * math.sqrt(len(theta0)) * distance


def masks(p: Tensor, draws: int, *, samples: int, seed: int) -> Tensor:
    """Draw masks of Algorithm 1 by the sampler: [samples, d]."""
    return torch.stack([_mask(p, draws, seed, i) for i in range(samples)])


def monte_carlo(w: Tensor, x: Tensor, p: Tensor, draws: int, *, samples: int, seed: int) -> Tensor:
    """Return |X^T w - X^T (w * m)|^2 of drawn masks, [samples]; its mean is `error`."""
    return _features(w * (1 - masks(p, draws, samples=samples, seed=seed)), x)


def monte_carlo_gaussian(
    w: Tensor, w0: Tensor, n: int, draws: int, *, seen: Seen = "same", samples: int, seed: int
) -> Tensor:
    """Return the same over new Gaussian data for every mask, [samples]; its mean is `theorem_44`."""
    generator = torch.Generator().manual_seed(seed)
    errors = w.new_empty(samples)
    for i in range(samples):
        x, other = torch.randn(2, len(w), n, dtype=w.dtype, generator=generator) / math.sqrt(n)
        p = probabilities(w0, {"same": x, "independent": other, "none": None}[seen])
        errors[i] = _features(w * (1 - _mask(p, draws, seed, i)), x)
    return errors


def _mask(p: Tensor, draws: int, seed: int, stream: int) -> Tensor:
    mask = multinomial(p, draws, seed=seed, stream=stream)
    assert isinstance(mask, Tensor)  # a list only for a list
    return mask


def _features(w: Tensor, x: Tensor) -> Tensor:
    """Return |X^T w|^2."""
    return torch.einsum("...k,...ki->...i", w, x).square().sum(-1)


def _second_moment(w: Tensor, x: Tensor, p: Tensor) -> Tensor:
    """Return sum_k r_k^2 w_k^2 / p_k, where 0/0 = 0."""
    squares = x.square().sum(-1) * w.square()
    return torch.where(squares > 0, squares / p, 0).sum(-1)
