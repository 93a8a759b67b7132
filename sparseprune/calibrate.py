"""Where csr layers win on this machine: the table of break-even densities that `nn.choose` reads."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from .files import write_whole
from .measure import alternate, environment
from .nn.choose import AXES, parse
from .speeds import Place, Progress, layer, random_mask, sparse, step

DENSITIES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7)
MARGIN = 1.1  # csr must be this much faster to be chosen
DTYPES = ("float32", "bfloat16")
FULL: dict[str, tuple[tuple[int, ...], ...]] = {
    "linear": ((32, 128, 512, 1024, 2048), (1, 4, 16, 64, 128, 512)),
    "conv2d": ((1, 3), (16, 64, 256), (4, 64, 256), (1, 16, 64)),
}
QUICK: dict[str, tuple[tuple[int, ...], ...]] = {
    "linear": ((64, 512), (1, 128)),
    "conv2d": ((3,), (16, 64), (64,), (16, 64)),
}


def calibrate(*, quick: bool = False, repeats: int = 3, progress: Progress | None = None) -> dict[str, Any]:
    """Measure the break-even density at every place of the grid.

    Args:
        quick: a coarse grid, float32 alone.
        repeats: alternating timings of which the least are compared, so that other work on the machine matters less.
        progress: called with the number of places done and of all.

    Returns:
        the content of a table for `nn.choose`: {"environment", "margin", "linear": [row, ...], "conv2d": [row, ...]}.

    Cost:
        about two minutes on two cores; quick: seconds.
    """
    places = list(_places(QUICK if quick else FULL, DTYPES[:1] if quick else DTYPES))
    content: dict[str, Any] = {"environment": environment(), "margin": MARGIN, **{kind: [] for kind in AXES}}
    for done, (kind, place) in enumerate(places):
        if progress is not None:
            progress(done, len(places))
        even = break_even(partial(_gain, kind, place, "chained", repeats))
        # The same work and the transposes: it cannot win where the other does not.
        alone = min(even, break_even(partial(_gain, kind, place, "alone", repeats))) if even else 0.0
        content[kind].append({**place, "chained": round(even, 4), "alone": round(alone, 4)})
    if progress is not None:
        progress(len(places), len(places))
    return content


def save(content: dict[str, Any], path: Path) -> None:
    """Write a table, one row a line, whole or not at all.

    Raises:
        ValueError: it is no table.
    """
    parse(content)
    parts = [f' "{key}": {json.dumps(value)}' for key, value in content.items() if key not in AXES]
    for kind in AXES:
        rows = ",\n".join(f"  {json.dumps(row)}" for row in content[kind])
        parts.append(f' "{kind}": [\n{rows}\n ]')
    text = "{\n" + ",\n".join(parts) + "\n}\n"
    write_whole(path, lambda stream: stream.write(text.encode()))


def _places(grid: dict[str, tuple[tuple[int, ...], ...]], dtypes: tuple[str, ...]) -> Iterator[tuple[str, Place]]:
    for kind, axes in AXES.items():
        for dtype in dtypes:
            for values in itertools.product(*grid[kind]):
                yield kind, {"dtype": dtype, **dict(zip(axes, values, strict=True))}


def break_even(gain: Callable[[float], float]) -> float:
    """Return the largest density at which `gain`, which falls with the density, reaches MARGIN; 0.0 for none.

    Bisects DENSITIES, then interpolates between the two around it.
    """
    wins, loses = -1, len(DENSITIES)
    gains: dict[int, float] = {}
    while loses - wins > 1:
        middle = (wins + loses) // 2
        gains[middle] = gain(DENSITIES[middle])
        if gains[middle] >= MARGIN:
            wins = middle
        else:
            loses = middle
    if wins < 0:
        return 0.0
    if loses == len(DENSITIES):
        return DENSITIES[-1]
    share = math.log(gains[wins] / MARGIN) / math.log(gains[wins] / gains[loses])
    return DENSITIES[wins] * (DENSITIES[loses] / DENSITIES[wins]) ** share


def _gain(kind: str, place: Place, neighbours: str, repeats: int, density: float) -> float:
    """How many times faster a csr layer's training step is than the masked one's."""
    dense, shape = layer(kind, place)
    mask = random_mask(dense.weight.shape, density)
    calls = {
        "masked": step(sparse(dense, mask, "masked"), shape, "batch_first"),
        "csr": step(sparse(dense, mask, "csr"), shape, "batch_last" if neighbours == "chained" else "batch_first"),
    }
    times = alternate(calls, repeats)
    return min(times["masked"]) / min(times["csr"])
