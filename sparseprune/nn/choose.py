"""Which layout is expected to be faster."""

from __future__ import annotations

from typing import Any


def choose(kind: str, *, density: float, alone: bool = False, **what: Any) -> str:
    """Return "csr" or "masked"."""
    return "csr" if 0 < density <= (0.05 if alone else 0.1) else "masked"
