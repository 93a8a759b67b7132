"""Generalisation errors after node pruning, in closed form, at the ansatz: K = Z M students, Z to each teacher unit.

Only the units kept of each group, l_m, matter; u = v*^2 / 6 is the error of a lost teacher unit, and k the units kept.
"Reweighted" is DIVNET's: with the kept units' v that come closest to the student's output. Bare names are exact.

Reference: Acharyya et al., UAI 2021, Lemma 2, Theorems 1 and 2. Random nodes and k > M are not in the paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def lemma_2(kept: Sequence[int], Z: int, v_star: float) -> float:
    """Return u sum_m (1 - l_m / Z)^2. It holds for every l_m <= Z: the condition sum l_m <= M is not needed.

    Args:
        kept: l_m, the units kept of each group.

    Raises:
        ValueError: an l_m outside [0, Z].
    """
    if not all(0 <= units <= Z for units in kept):
        raise ValueError(f"lemma_2: kept must be from 0 to {Z} units of a group, got {list(kept)}")
    return lemma_2_general([v_star * units / Z for units in kept], v_star)


def lemma_2_general(sums: Sequence[float], v_star: float) -> float:
    """Return (1/6) sum_m (v* - sum_{i kept in group m} v_i)^2: units of a group need not have equal v.

    Args:
        sums: of the kept units' v over each group, signs as `Network.canonical` has them.
    """
    return sum((v_star - total) ** 2 for total in sums) / 6


def theorem_1(k: int, M: int, Z: int, v_star: float) -> float:
    """Return the error after DPP node pruning to k <= M units, u (k (1 - 1/Z)^2 + M - k) (equation 5)."""
    _check(k, M, M)
    return lemma_2([1] * k + [0] * (M - k), Z, v_star)


def theorem_1_reweighted(k: int, M: int, v_star: float) -> float:
    """Return the error of DIVNET with k <= M units, u (M - k) (equation 6)."""
    _check(k, M, M)
    return v_star**2 / 6 * (M - k)


def random_node(k: int, M: int, Z: int, v_star: float) -> float:
    """Return the expected error of k random units, u M (1 - c) (1 - c (K - M) / (K - 1)), c = k / K."""
    K = M * Z
    _check(k, K, M)
    return v_star**2 / 6 * M * (1 - k / K) * (1 - k / K * (K - M) / max(K - 1, 1))


def random_node_reweighted(k: int, M: int, Z: int, v_star: float) -> float:
    """Return the expected error of k random units, reweighted: u M C(K - Z, k) / C(K, k)."""
    K = M * Z
    _check(k, K, M)
    return v_star**2 / 6 * M * math.comb(K - Z, k) / math.comb(K, k)


def importance_node(k: int, M: int, Z: int, v_star: float) -> float:
    """Return the error of the k units of largest |v| where groups differ a little: one fills up after the other.

    With ties broken at random it is `random_node`.
    """
    _check(k, M * Z, M)
    return lemma_2([min(Z, max(0, k - Z * m)) for m in range(M)], Z, v_star)


def random_law(k: int, M: int, Z: int) -> list[float]:
    """Return P(l) for l = 0..Z units kept of a group, of k random ones: C(Z, l) C(K - Z, k - l) / C(K, k)."""
    return _law([math.comb(Z, units) for units in range(Z + 1)], k, M)


def dpp_law(k: int, M: int, Z: int, epsilon: float = 0.0) -> list[float]:
    """Return P(l) for l = 0..Z units kept of a group by a k-DPP of the kernel Q + epsilon I, Q in blocks of ones.

    Groups weigh C(Z, l) epsilon^(l-1) (l + epsilon), that is det L_Y times the choices. As epsilon -> 0 the fewest
    powers of it win: l_m <= 1 if k <= M; else every l_m >= 1, with chances proportional to prod_m C(Z, l_m) l_m.
    """
    if not 0 <= epsilon < math.inf:
        raise ValueError(f"dpp_law: epsilon must be finite and at least 0, got {epsilon}")
    if epsilon > 0:
        weights = [math.comb(Z, units) * epsilon ** (units - 1) * (units + epsilon) for units in range(Z + 1)]
        weights[0] = 1.0
    elif k <= M:
        weights = [1, Z, *[0] * (Z - 1)]
    else:
        weights = [math.comb(Z, units) * units for units in range(Z + 1)]
    return _law(weights, k, M)


def expected(law: Sequence[float], M: int, v_star: float) -> float:
    """Return the expected error u M sum_l P(l) (1 - l / Z)^2 of a law of units kept of a group."""
    Z = len(law) - 1
    return v_star**2 / 6 * M * sum(chance * (1 - units / Z) ** 2 for units, chance in enumerate(law))


def expected_reweighted(law: Sequence[float], M: int, v_star: float) -> float:
    """Return the expected error u M P(0) after reweighting: a group is lost only as a whole."""
    return v_star**2 / 6 * M * law[0]


def equation_18(units: int, Z: int) -> float:
    """Return l - 1 + (1 - l/Z)^2 = l (1 + l/Z^2 - 2/Z) >= l (1 - 1/Z)^2, which Theorem 2 rests on."""
    return units * (1 + units / Z**2 - 2 / Z)


def equation_18_printed(units: int, Z: int) -> float:
    """Return l (1 + 1/Z^2 - 2/Z), which is printed for `equation_18`. Erratum: it is so for l = 1 only."""
    return units * (1 + 1 / Z**2 - 2 / Z)


def _law(weights: Sequence[float], k: int, M: int) -> list[float]:
    """Return P(l_1 = l) proportional to w(l) sum over l_2 + ... + l_M = k - l of w(l_2) ... w(l_M)."""
    _check(k, M * (len(weights) - 1), M)
    others: list[float] = [1]
    for _ in range(M - 1):
        longer: list[float] = [0] * (len(others) + len(weights) - 1)
        for i, a in enumerate(others):
            for j, b in enumerate(weights):
                longer[i + j] += a * b
        others = longer
    joint = [w * others[k - units] if 0 <= k - units < len(others) else 0 for units, w in enumerate(weights)]
    return [weight / sum(joint) for weight in joint]


def _check(k: int, most: int, M: int) -> None:
    if not 0 <= k <= most:
        raise ValueError(f"teacher_student: k must be from 0 to {most} for M = {M}, got {k}")
