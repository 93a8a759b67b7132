"""The tangent kernel of randomly pruned ReLU nets: its infinite-width limit and its spread at finite width.

The net, in NTK parametrisation, without biases, with L hidden layers of width n, W ~ N(0, 1), M ~ Bernoulli(alpha):
    g_0 = x,  f_h = (W_h * M_h) g_{h-1},  g_h = sqrt(2 / (alpha n)) relu(f_h),  F = (W_{L+1} * M_{L+1}) g_L.
This is the rescaled net; the un-rescaled one has no alpha in the scale. The input layer is not pruned (M_1 = 1). The
tangent kernel is the inner product of the gradients with respect to the kept weights.

Cosines `rho` of unit inputs are floats or tensors in [-1, 1]; the result is of the same kind.

Reference: Yang & Wang, AISTATS 2023 (arXiv 2203.14328); arc-cosine kernels: Cho & Saul 2009; the recursion: Jacot et
al. 2018. Only the abstract of the first was at hand: what is said of its theorems is said of the claims of that
abstract and of the authors' notebook, and the formulas are derived.
"""

from __future__ import annotations

import math
from typing import Literal, TypeVar

from torch import Tensor

Cosine = TypeVar("Cosine", float, Tensor)
Gradients = Literal["kept", "all"]

# n Var = A + B / alpha at depth 3 and the cosine of the authors' notebook, fitted at n = 256.
NOTEBOOK_A, NOTEBOOK_B = 50.0, 36.0


def kappa0(rho: Cosine) -> Cosine:
    """Return t'(rho) = 1 - acos(rho) / pi = 1/2 + asin(rho) / pi: the chance, doubled, that both units are active."""
    if not isinstance(rho, Tensor):
        return 1 - math.acos(rho) / math.pi
    return 1 - rho.clamp(-1, 1).acos() / math.pi


def kappa1(rho: Cosine) -> Cosine:
    """Return t(rho) = (sqrt(1 - rho^2) + (pi - acos rho) rho) / pi: the covariance after one ReLU layer."""
    if not isinstance(rho, Tensor):
        return math.sqrt(1 - rho * rho) / math.pi + rho * kappa0(rho)
    rho = rho.clamp(-1, 1)
    return (1 - rho * rho).sqrt() / math.pi + rho * kappa0(rho)


def covariances(rho: Cosine, depth: int) -> list[Cosine]:
    """Return S_0 = rho, S_h = t(S_{h-1}), h = 1..depth."""
    values = [rho]
    for _ in range(depth):
        values.append(kappa1(values[-1]))
    return values


def contributions(rho: Cosine, depth: int) -> list[Cosine]:
    """Return each layer's part of the limit kernel, S_{h-1} prod_{j=h}^{L+1} D_j, D_j = t'(S_{j-1}), D_{L+1} = 1."""
    covariance = covariances(rho, depth)
    parts = [covariance[depth]]
    slope = 1.0
    for value in reversed(covariance[:depth]):
        slope = slope * kappa0(value)
        parts.append(value * slope)
    return parts[::-1]


def theta(rho: Cosine, depth: int, density: float = 1.0, rescaled: bool = True) -> Cosine:
    """Return the limit kernel of unit inputs: Theta_L(rho), or alpha^L Theta_L(rho) of the un-rescaled net.

    Theta_L(1) = L + 1, and Theta(a x, b y) = a b Theta(x, y) for a, b > 0.

    Erratum. Claimed: the limit of the pruned net is Theta_L (rescaled), whatever is pruned. It is so with the input
    layer unpruned, or with as many inputs as one likes; with a pruned input layer of finitely many inputs the limit
    is another kernel, a Gaussian mixture over the masks of the inputs: `sparseprune.ntk.infinite(input_pruned=True)`.

    Args:
        rho: cosine of the two inputs.
        depth: hidden layers L.
        density: alpha, the chance of a weight of layers 2..L+1 to be kept.
        rescaled: whether each pruned layer is divided by sqrt(alpha).
    """
    parts = contributions(rho, depth)
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total if rescaled else total * density**depth


def layer_factors(
    depth: int,
    density: float,
    *,
    rescaled: bool = True,
    gradients: Gradients = "kept",
    input_pruned: bool = False,
) -> list[float]:
    """Return what pruning multiplies each layer's part of the limit with, layers 1..L+1.

    Un-rescaled, kept: alpha^L for every layer: one a pruned layer before it, one for its own mask, one a pruned layer
    behind it. With gradients of pruned weights counted too the layer's own mask drops out: alpha^{L-1}, and alpha^L
    for the unpruned input layer. Rescaled: alpha^-L times that.

    Erratum. Claimed: the input layer too may be pruned, for one alpha more everywhere. So it is here, and so it is
    only as the number of inputs grows: see `theta`.

    Args:
        gradients: "kept", or "all" where pruned weights count as trainable.
        input_pruned: the limit of infinitely many inputs.
    """
    pruned = [input_pruned, *[True] * depth]
    count = sum(pruned)
    own = [layer and gradients == "all" for layer in pruned]
    return [density ** (count - layer - (count if rescaled else 0)) for layer in own]


def variance_depth_1(rho: float, density: float = 1.0) -> float:
    """Return n Var of the rescaled empirical kernel of one hidden layer, exact at every width n.

    (2 / (pi alpha)) (J2 + 2 rho J1 + 3 rho^2 J0) - Theta_1^2, with th = acos rho, J0 = pi - th,
    J1 = sin th + (pi - th) cos th, J2 = 3 sin th cos th + (pi - th) (1 + 2 cos^2 th), Theta_1 = (J1 + rho J0) / pi.
    """
    angle = math.acos(rho)
    rest = math.pi - angle
    j1 = math.sin(angle) + rest * rho
    j2 = 3 * math.sin(angle) * rho + rest * (1 + 2 * rho**2)
    limit = (j1 + rho * rest) / math.pi
    return 2 / (math.pi * density) * (j2 + 2 * rho * j1 + 3 * rho**2 * rest) - limit**2


def variance(width: float, density: float, a: float = NOTEBOOK_A, b: float = NOTEBOOK_B) -> float:
    """Return the model of the rescaled empirical kernel's variance, (A + B / alpha) / n.

    Erratum. Claimed, of the bound on the error: a width that grows linearly in 1/alpha is enough as the error goes to
    0. What holds at every error, and can be measured: n Var = A + B / alpha for wide nets, so that a fixed width
    lets the variance grow towards 1/alpha and a width n0 / alpha gives (A alpha + B) / n0, which falls with alpha.

    Args:
        a, b: of the architecture and the cosine; the default are depth 3 and the notebook's pair.
    """
    return (a + b / density) / width


def mean_absolute_deviation(width: float, density: float, a: float = NOTEBOOK_A, b: float = NOTEBOOK_B) -> float:
    """Return the model of the mean |kernel - limit|, that of a Gaussian: sqrt(2 / pi) times `variance`'s root."""
    return math.sqrt(2 / math.pi * variance(width, density, a, b))


def scaled_width(base: int, density: float, power: float = 1.0) -> int:
    """Return the width n0 alpha^-power: 1/2, 1 and 2 are the square-root, linear and quadratic laws."""
    return round(base * density**-power)
