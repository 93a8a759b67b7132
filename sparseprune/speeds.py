"""What the layouts of a layer cost on this machine: dense, masked and csr, timed in turn."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from . import ops
from .measure import alternate
from .nn import SparseConv2d, SparseLinear

if TYPE_CHECKING:
    from rich.table import Table

Progress = Callable[[int, int], None]
Place = dict[str, Any]  # "dtype" and the values of `nn.choose.AXES`
MEMORY: dict[str, Callable[[Tensor], Tensor]] = {
    "batch_first": ops.batch_first,
    "batch_last": ops.batch_last,
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
}

SHOWN: tuple[tuple[str, str, Place], ...] = (
    ("linear 1024x1024, batch 128", "linear", {"dtype": "float32", "size": 1024, "batch": 128}),
    (
        "conv2d 64x64x3x3, 16x16 images, batch 64",
        "conv2d",
        {"dtype": "float32", "kernel": 3, "channels": 64, "pixels": 256, "batch": 64},
    ),
)
DENSITIES = (0.5, 0.2, 0.1, 0.05, 0.02)


def speeds(*, repeats: int = 5, progress: Progress | None = None) -> list[dict[str, Any]]:
    """Time the forward and the training step of a linear and a convolutional layer, dense, masked and csr.

    Args:
        repeats: alternating timings of which the medians are taken.
        progress: called with the number of rows done and of all.

    Returns:
        rows {"layer", "density", "work", "dense", "masked", "csr"}, times in milliseconds; csr among csr layers (its
        activations batch-last).

    Cost:
        about ten seconds on two cores.
    """
    works: dict[str, Callable[..., Callable[[], object]]] = {"forward": forward, "forward + backward": step}
    cases = list(itertools.product(SHOWN, works, DENSITIES))
    rows = []
    for done, ((name, kind, place), work, density) in enumerate(cases):
        if progress is not None:
            progress(done, len(cases))
        dense, shape = layer(kind, place)
        mask = random_mask(dense.weight.shape, density)
        make = works[work]
        calls = {"dense": make(dense, shape, "batch_first")}
        calls["masked"] = make(sparse(dense, mask, "masked"), shape, "batch_first")
        calls["csr"] = make(sparse(dense, mask, "csr"), shape, "batch_last")
        times = {layout: 1e3 * median(t) for layout, t in alternate(calls, repeats).items()}
        rows.append({"layer": name, "density": density, "work": work, **times})
    if progress is not None:
        progress(len(cases), len(cases))
    return rows


def table(rows: list[dict[str, Any]]) -> Table:
    """Return the rows as a rich table, with the ratios of dense and masked to csr."""
    from rich import box
    from rich.table import Table

    result = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("layer", "work", "density", "dense ms", "masked ms", "csr ms", "dense / csr", "masked / csr"):
        result.add_column(name, justify="left" if name in ("layer", "work") else "right", no_wrap=True)
    before = None
    for row in rows:
        case = (row["layer"], row["work"])
        if before is not None and case != before:
            result.add_section()
        times = [row[layout] for layout in ("dense", "masked", "csr")]
        ratios = (f"{time / row['csr']:.2f}x" for time in times[:2])
        result.add_row(
            *(("", "") if case == before else case), f"{row['density']:g}", *map("{:.3f}".format, times), *ratios
        )
        before = case
    return result


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


def step(module: nn.Module, shape: tuple[int, ...], memory: str) -> Callable[[], list[Tensor]]:
    """A training step of a layer: output, and the gradients of the input and the parameters.

    Args:
        module: a layer.
        shape: of its input.
        memory: of the input, the output and their gradients: "batch_last" (as between csr layers), "batch_first" (as
            dense neighbours have it: csr layers transpose) or "channels_last".
    """
    parameters, x, laid_out = list(module.parameters()), _input(module, shape, memory), MEMORY[memory]
    with torch.no_grad():
        y = module(x)
    grad = laid_out(torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).to(y))
    x.requires_grad_()

    def run() -> list[Tensor]:
        y = laid_out(module(x))
        dx, *rest = torch.autograd.grad(y, (x, *parameters), grad)
        return [y.detach(), laid_out(dx), *rest]

    return run


def forward(module: nn.Module, shape: tuple[int, ...], memory: str) -> Callable[[], Tensor]:
    """The output of a layer without a graph; arguments as for `step`."""
    x, laid_out = _input(module, shape, memory), MEMORY[memory]
    return torch.no_grad()(lambda: laid_out(module(x)))


def _input(module: nn.Module, shape: tuple[int, ...], memory: str) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return MEMORY[memory](x.to(next(module.parameters())))
