"""Per-layer counts by uniform, Erdos-Renyi-Kernel or balanced rules: integers that sum to the total asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

Shapes = Mapping[str, Sequence[int]]


def uniform(shapes: Shapes, density: float) -> dict[str, int]:
    """Keep the same fraction of every layer: n_l = density * N_l.

    Args:
        shapes: layer name -> shape of its weight.
        density: fraction kept, in (0, 1].

    Returns:
        Layer name -> count; the counts sum to round(density * sum N_l).

    Raises:
        ValueError: density outside (0, 1].
    """
    _check("uniform", density)
    sizes = _sizes(shapes)
    return _rounded({name: density * size for name, size in sizes.items()}, sizes, density)


def erk(shapes: Shapes, density: float) -> dict[str, int]:
    """Keep of layer l a fraction min(1, eps * sum(shape_l)/prod(shape_l)), with eps solving for the total.

    The layers that would pass 1 become dense, the largest first, and eps is solved again over the others, so that the
    density reached is the one asked for.

    Args:
        shapes: layer name -> shape of its weight ([out, in] or [out, in/groups, kh, kw]).
        density: fraction kept, in (0, 1].

    Returns:
        Layer name -> count; the counts sum to round(density * sum N_l).

    Raises:
        ValueError: density outside (0, 1].

    Reference: Mocanu et al. 2018, arXiv:1707.04780; Evci et al. 2020, arXiv:1911.11134.
    """
    _check("erk", density)
    sizes = _sizes(shapes)
    raw = {name: sum(shape) / max(math.prod(shape), 1) for name, shape in shapes.items()}
    dense: set[str] = set()
    target = density * sum(sizes.values())
    while open_ := [name for name in sizes if name not in dense]:
        eps = (target - sum(sizes[name] for name in dense)) / sum(raw[name] * sizes[name] for name in open_)
        top = max(raw[name] for name in open_)
        if eps * top <= 1:
            return _rounded(
                {n: float(sizes[n]) if n in dense else eps * raw[n] * sizes[n] for n in sizes}, sizes, density
            )
        dense |= {name for name in open_ if raw[name] == top}
    return dict(sizes)


def balanced(shapes: Shapes, density: float) -> dict[str, int]:
    """Keep the same number of weights in every layer: n_l = min(N_l, X), with X solving for the total.

    Args:
        shapes: layer name -> shape of its weight.
        density: fraction kept, in (0, 1].

    Returns:
        Layer name -> count; the counts sum to round(density * sum N_l).

    Raises:
        ValueError: density outside (0, 1].

    Reference: Gadhikar et al. 2023, arXiv:2210.02412.
    """
    _check("balanced", density)
    sizes = _sizes(shapes)
    left, shares = density * sum(sizes.values()), {}
    ascending = sorted(sizes, key=lambda name: sizes[name])
    for i, name in enumerate(ascending):
        shares[name] = min(float(sizes[name]), left / (len(ascending) - i))
        left -= shares[name]
    return _rounded({name: shares[name] for name in sizes}, sizes, density)


RULES: dict[str, Callable[[Shapes, float], dict[str, int]]] = {"uniform": uniform, "erk": erk, "balanced": balanced}


def largest_remainder(shares: Mapping[str, float], total: int, caps: Mapping[str, int]) -> dict[str, int]:
    """Round shares to integers that sum to total: floors first, then one more to the largest fractional parts.

    Args:
        shares: name -> non-negative real share.
        total: the sum to reach, at most the sum of the caps.
        caps: name -> the most that this name can take.

    Returns:
        Name -> integer in [0, cap]; equal remainders go to the earlier name.

    Raises:
        ValueError: total is outside [0, sum of the caps].
    """
    if not 0 <= total <= sum(caps[name] for name in shares):
        raise ValueError(f"largest_remainder: total must be in [0, {sum(caps[name] for name in shares)}], got {total}")
    counts = {name: min(math.floor(share), caps[name]) for name, share in shares.items()}
    order = sorted(shares, key=lambda name: counts[name] - shares[name])
    while (missing := total - sum(counts.values())) != 0:
        step = 1 if missing > 0 else -1
        movable = [n for n in (order if step > 0 else reversed(order)) if 0 <= counts[n] + step <= caps[n]]
        for name in movable[: abs(missing)]:
            counts[name] += step
    return counts


def _rounded(shares: Mapping[str, float], sizes: Mapping[str, int], density: float) -> dict[str, int]:
    return largest_remainder(shares, round(density * sum(sizes.values())), sizes)


def _sizes(shapes: Shapes) -> dict[str, int]:
    return {name: math.prod(shape) for name, shape in shapes.items()}


def _check(rule: str, density: float) -> None:
    if not 0 < density <= 1:
        raise ValueError(f"{rule}: density must be in (0, 1], got {density}")
