"""Masked or csr: which layout of a layer is the faster, by a table of measured break-even densities.

`crossover.json` beside this file was measured on one machine; `sparseprune bench --calibrate` measures another, and the
environment variable SPARSEPRUNE_CROSSOVER names the file to use in its place.
"""

from __future__ import annotations

import json
import math
import os
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from .. import ops

VARIABLE = "SPARSEPRUNE_CROSSOVER"
SHIPPED = Path(__file__).with_name("crossover.json")
# What a break-even depends on. size and channels are geometric means of inputs (a group's) and outputs, kernel of
# height and width; pixels are those of an output image.
AXES: dict[str, tuple[str, ...]] = {
    "linear": ("size", "batch"),
    "conv2d": ("kernel", "channels", "pixels", "batch"),
}

NEIGHBOURS = ("chained", "alone")  # activations batch-last, as between csr layers; or transposed on the way in and out

Kind = Literal["linear", "conv2d"]


class Grid(NamedTuple):
    """Break-even densities at every combination of the axes' values."""

    axes: tuple[tuple[float, ...], ...]
    points: Mapping[tuple[float, ...], float]

    def at(self, place: Sequence[float]) -> float:
        """Interpolate linearly in the logarithms of `place`; constant above the largest values, 0 below the least."""
        corners: list[tuple[tuple[float, ...], float]] = [((), 1.0)]
        for values, x in zip(self.axes, place, strict=True):
            if x < values[0]:
                return 0.0  # calls cost more there than products do, by how much was not measured
            low = bisect_right(values, x) - 1
            high = min(low + 1, len(values) - 1)
            share = math.log(x / values[low]) / math.log(values[high] / values[low]) if high > low else 0.0
            ends = ((values[low], 1 - share), (values[high], share))
            corners = [((*corner, v), weight * s) for corner, weight in corners for v, s in ends]
        return sum(weight * self.points[corner] for corner, weight in corners)


Table = Mapping[tuple[str, str, str], Grid]  # by kind, dtype and neighbours


def choose(
    kind: Kind,
    *,
    shape: Sequence[int],
    density: float,
    batch: int,
    dtype: torch.dtype,
    device: torch.device | str,
    size: tuple[int, int] | None = None,
    stride: tuple[int, int] = (1, 1),
    groups: int = 1,
    dilation: tuple[int, int] = (1, 1),
    alone: bool = False,
) -> Literal["masked", "csr"]:
    """Return the layout whose training step (forward and backward) is expected to be the faster.

    csr where `density <= break_even(...)`, masked everywhere else.

    Args:
        kind: "linear" or "conv2d".
        shape: of the dense weight, `[out, in]` or `[O, C / groups, KH, KW]`.
        density: fraction of the weights that is kept.
        batch: examples that the layer is given at a time.
        dtype, device: of the weight.
        size: height and width of a convolution's input.
        stride, groups, dilation: of a convolution.
        alone: whether its neighbours are not csr layers, so that its input, output and their gradients are transposed;
            otherwise activations are taken to be batch-last.

    Raises:
        ValueError: an unknown kind, a shape that does not fit it, or a file in SPARSEPRUNE_CROSSOVER that is no table.
    """
    place = {"shape": shape, "batch": batch, "dtype": dtype, "device": device}
    geometry = {"size": size, "stride": stride, "groups": groups, "dilation": dilation}
    return "csr" if 0 < density <= break_even(kind, **place, **geometry, alone=alone) else "masked"


def break_even(
    kind: Kind,
    *,
    shape: Sequence[int],
    batch: int,
    dtype: torch.dtype,
    device: torch.device | str,
    size: tuple[int, int] | None = None,
    stride: tuple[int, int] = (1, 1),
    groups: int = 1,
    dilation: tuple[int, int] = (1, 1),
    alone: bool = False,
) -> float:
    """Return the largest density at which csr is expected to win by the table's margin; arguments as for `choose`.

    0.0 (never) where nothing was measured: off the CPU, in another dtype, without the compiled extension, for dilated
    or grouped convolutions, and below the smallest layer and batch of the table.
    """
    place = _place(kind, shape, batch, size, stride)
    if torch.device(device).type != "cpu" or ops.extension_error() is not None:
        return 0.0
    if groups != 1 or max(dilation) != 1:
        return 0.0
    grid = table().get((kind, str(dtype).removeprefix("torch."), "alone" if alone else "chained"))
    return grid.at(place) if grid is not None else 0.0


def table() -> Table:
    """Return the break-evens of the file that SPARSEPRUNE_CROSSOVER names, else of the one shipped.

    Raises:
        ValueError: the file cannot be read, or is no table.
    """
    path = os.environ.get(VARIABLE) or str(SHIPPED)
    try:
        return _load(path, os.stat(path).st_mtime_ns)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"choose: {VARIABLE} must name a table made by sparseprune bench --calibrate, got {path} ({reason})"
        ) from None


@lru_cache(maxsize=4)
def _load(path: str, changed: int) -> Table:
    del changed  # a file written again is read again
    return parse(json.loads(Path(path).read_text()))


def parse(content: Mapping[str, Any]) -> Table:
    """Read `{kind: [{"dtype", *axes, "chained", "alone"}, ...]}`; other keys tell where it was measured.

    Raises:
        ValueError: densities outside [0, 1], places that are not positive, or combinations that are missing.
    """
    found: dict[tuple[str, str, str], dict[tuple[float, ...], float]] = {}
    for kind, names in AXES.items():
        for row in content[kind]:
            place = tuple(float(row[name]) for name in names)
            if not all(0 < x < math.inf for x in place):
                raise ValueError(f"{kind}: {', '.join(names)} must be positive, got {row}")
            for neighbours in NEIGHBOURS:
                density = float(row[neighbours])
                if not 0 <= density <= 1:
                    raise ValueError(f"{kind}: {neighbours} must be in [0, 1], got {row}")
                found.setdefault((kind, row["dtype"], neighbours), {})[place] = density
    return {key: _grid(key, points) for key, points in found.items()}


def _grid(key: tuple[str, str, str], points: dict[tuple[float, ...], float]) -> Grid:
    axes = tuple(tuple(sorted(set(values))) for values in zip(*points, strict=True))
    if len(points) != math.prod(map(len, axes)):
        raise ValueError(f"{key} must hold every combination of {axes}, got {len(points)} of them")
    return Grid(axes, points)


def _place(
    kind: str, shape: Sequence[int], batch: int, size: tuple[int, int] | None, stride: tuple[int, int]
) -> tuple[float, ...]:
    """Where a layer stands on the axes of its kind."""
    if kind not in AXES:
        raise ValueError(f"choose: kind must be 'linear' or 'conv2d', got {kind!r}")
    if len(shape) != {"linear": 2, "conv2d": 4}[kind]:
        raise ValueError(f"choose: shape must be that of the weight of a {kind}, got {list(shape)}")
    features = math.sqrt(shape[0] * shape[1])
    if kind == "linear":
        return (features, batch)
    if size is None:
        raise ValueError("choose: size must be the height and width of the images, got None")
    # As with the padding that keeps a size, which most convolutions have.
    pixels = math.prod(-(-side // step) for side, step in zip(size, stride, strict=True))
    return (math.sqrt(shape[2] * shape[3]), features, pixels, batch)
