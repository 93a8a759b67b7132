"""Several calls timed in turn, and which of them are set side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from torch import Tensor

from sparseprune.measure import Row, alternate, row

Call = Callable[[], Any]


class Contest:
    """One alternation for one case, so that a dense peer is timed once beside all densities.

    Args:
        op, case: of the rows.
    """

    def __init__(self, op: str, case: str) -> None:
        self.op, self.case = op, case
        self.calls: dict[str, Call] = {}
        self._pairs: list[tuple[str, str, str, Sequence[str], bool, dict[str, Any]]] = []

    def offer(self, name: str, call: Call) -> list[str]:
        """Add a peer's call; one that does not run here, for its dtype or device, is left out, and told."""
        try:
            call()
        except (NotImplementedError, RuntimeError) as error:
            print(f"left out: {name} of {self.op}, {self.case}: {str(error).splitlines()[0]}")
            return []
        self.calls[name] = call
        return [name]

    def set_beside(
        self,
        ours: str,
        peers: Sequence[str],
        agrees: bool,
        *,
        density: float,
        detail: str = "",
        peer: str = "",
        **more: Any,
    ) -> None:
        """Ask for a row: the call `ours` beside the fastest of `peers`, said to be one of `peer`'s if that is given."""
        about = {"density": density, **more}
        self._pairs.append((ours, peer, f"density {density}{detail and ', '}{detail}", peers, agrees, about))

    def rows(self, repeats: int) -> list[Row]:
        """Time everything, then make the rows."""
        times = alternate(self.calls, repeats)
        rows = []
        for ours, peer, detail, peers, agrees, about in self._pairs:
            best = min(peers, key=lambda name: median(times[name]))
            name = best.removesuffix(f" {about['density']}")
            name = f"{peer} ({name})" if peer else name
            rows.append({**row(self.op, f"{self.case}, {detail}", name, times[ours], times[best], agrees), **about})
        return rows


def close(found: Tensor, wanted: Tensor, terms: int) -> bool:
    """Whether sums of `terms` products agree up to rounding: 8 eps sqrt(terms) of their root mean square."""
    if found.shape != wanted.shape or not found.numel():
        return found.shape == wanted.shape
    error = (found.double() - wanted.double()).abs().max()
    eps = 2.0**-8 if found.element_size() == 2 else 2.0**-23
    return bool(error <= 8 * eps * terms**0.5 * wanted.double().square().mean().sqrt())
