"""Where csr layers win on this machine: training steps of masked and csr layers, timed in turn over a grid.

The table of break-even densities is what `nn.choose` reads.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from . import ops
from .measure import alternate, environment
from .nn import SparseConv2d, SparseLinear
from .nn.choose import AXES, NEIGHBOURS

Progress = Callable[[int, int], None]
Place = dict[str, Any]

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


def calibrate(*, quick: bool = False, repeats: int = 5, progress: Progress | None = None) -> dict[str, Any]:
    """Measure the break-even density at every place of the grid.

    Args:
        quick: a coarse grid, float32 alone.
        repeats: alternating timings of which the medians are compared.
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
        found = {n: round(break_even(partial(_gain, kind, place, n, repeats)), 4) for n in NEIGHBOURS}
        content[kind].append({**place, **found})
    if progress is not None:
        progress(len(places), len(places))
    return content


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
    return median(times["masked"]) / median(times["csr"])


def layer(kind: str, place: Place) -> tuple[nn.Linear | nn.Conv2d, tuple[int, ...]]:
    """A dense layer at a place of the grid, and the shape of its input."""
    dtype, batch = getattr(torch, place["dtype"]), place["batch"]
    if kind == "linear":
        return nn.Linear(place["size"], place["size"], dtype=dtype), (batch, place["size"])
    side, kernel, channels = math.isqrt(place["pixels"]), place["kernel"], place["channels"]
    conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, dtype=dtype)
    return conv, (batch, channels, side, side)


def random_mask(shape: torch.Size, density: float) -> Tensor:
    """Keep each weight with probability `density`."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) < density


def sparse(dense: nn.Linear | nn.Conv2d, mask: Tensor, layout: Any) -> nn.Module:
    """The layer under a mask, in a layout."""
    kind = SparseLinear if isinstance(dense, nn.Linear) else SparseConv2d
    return kind.from_dense(dense, mask, layout=layout)


def step(module: nn.Module, shape: tuple[int, ...], memory: str) -> Callable[[], object]:
    """A training step of a layer: output, and the gradients of the input and the parameters.

    Args:
        module: a layer.
        shape: of its input.
        memory: of input, output and their gradients: "batch_last", or "batch_first", for which transposes are paid.
    """
    generator = torch.Generator().manual_seed(1)
    parameters = list(module.parameters())
    x = torch.randn(shape, generator=generator).to(parameters[0].dtype)
    with torch.no_grad():
        grad = torch.randn(module(x).shape, generator=generator).to(x.dtype)
    last = memory == "batch_last"
    if last:
        x, grad = ops.batch_last(x), ops.batch_last(grad)
    x.requires_grad_()

    def run() -> list[Tensor]:
        y = module(x)
        dx, *rest = torch.autograd.grad(y if last else y.contiguous(), (x, *parameters), grad)
        return [dx if last else dx.contiguous(), *rest]

    return run
