"""How close the product of two uniform weights comes to a wanted one: chances, widths and errors of Lemma 2.4."""

from __future__ import annotations

import math


def product_cdf(z: float) -> float:
    """Return G(z) = P(u w <= z) = 1/2 + (z / 2) (1 + ln(1 / |z|)) for u, w ~ U(-1, 1), |z| <= 1."""
    z = max(-1.0, min(1.0, z))
    return 0.5 if z == 0 else 0.5 + z / 2 * (1 - math.log(abs(z)))


def hit_probability(alpha: float, tolerance: float) -> float:
    """Return p = P(u > 0, |u w - alpha| <= eps) = (G(alpha + eps) - G(alpha - eps)) / 2.

    Near (eps / 2) ln(1 / |alpha|), and the same for u < 0: by symmetry a unit serves either side of Lemma 2.4 with this
    chance.
    """
    return (product_cdf(alpha + tolerance) - product_cdf(alpha - tolerance)) / 2


def hit_probability_printed(alpha: float, tolerance: float) -> float:
    """Return P(|w - alpha| <= eps, |u - 1| <= eps) for u, w ~ U(-1, 1): eps^2 / 2 inside the cube, of error 2 eps.

    The paper's route: both weights have to be near theirs. True, and the reason for its k ~ 1 / eps^2, where only the
    product has to be near: k ~ 1 / eps.
    """
    return (min(1.0, alpha + tolerance) - max(-1.0, alpha - tolerance)) / 2 * min(tolerance, 2.0) / 2


def width(alpha: float, tolerance: float, delta: float, sides: int = 2) -> int:
    """Return the units per target weight, k >= ln(sides / delta) / p, that hit every side with chance 1 - delta.

    Args:
        alpha: the largest |target weight|: the rarest.
        tolerance: of a target weight.
        sides: two for every target weight of the network.
    """
    return math.ceil(math.log(sides / delta) / hit_probability(alpha, tolerance))


def width_printed(alpha: float, tolerance: float, delta: float, sides: int = 2) -> int:
    """Return `width` by the paper's route: weights within eps / 2 of theirs, for an error of eps."""
    return math.ceil(math.log(sides / delta) / hit_probability_printed(alpha, tolerance / 2))


def success_probability(alpha: float, tolerance: float, units: int) -> float:
    """Return P(both sides hit among k units) = 1 - 2 (1 - p)^k + (1 - 2 p)^k.

    It is the chance of Lemma 2.4's sup error to be at most `tolerance` if tolerance < |alpha|, a lower bound else.
    """
    p = hit_probability(alpha, tolerance)
    return 1 - 2 * (1 - p) ** units + (1 - 2 * p) ** units


def median_error(alpha: float, units: int) -> float:
    """Return the median sup error of the best of many units.

    -2 ln(1 - 1 / sqrt 2) / (k ln(1 / |alpha|)) = 2.456 / (k ln(1 / |alpha|)), as both sides have errors of density
    ln(1 / |alpha|) / 2 at 0.
    """
    return -2 * math.log(1 - math.sqrt(0.5)) / (units * math.log(1 / abs(alpha)))
