"""Checks that pruning nodes and edges share."""

from __future__ import annotations

import numbers


def count(who: str, density: float, total: int, what: str) -> int:
    """Return round(density * total).

    Raises:
        ValueError: a density outside (0, 1], or one that keeps nothing.
    """
    if isinstance(density, bool) or not isinstance(density, numbers.Real) or not 0 < density <= 1:
        raise ValueError(f"{who}: density must be in (0, 1], got {density!r}")
    kept = round(density * total)
    if kept < 1:
        raise ValueError(f"{who}: density must keep at least one of {total} {what}, got {density!r}")
    return kept
