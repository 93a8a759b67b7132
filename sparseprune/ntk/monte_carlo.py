"""The tangent kernel of randomly pruned ReLU nets of finite width, draw by draw, without autograd."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..results import Results, identity
from ..theory.random_ntk import Gradients
from ._checks import check_density, check_inputs, check_whole

# Of the weights of the draws that are worked on at once; never fewer than two draws.
_BYTES = 2**27

# Weights [draws, to, from] and their mask, None: nothing is pruned.
Layer = tuple[Tensor, Tensor | None]


def monte_carlo(
    x1: Tensor,
    x2: Tensor,
    *,
    depth: int,
    width: int,
    density: float,
    draws: int | range,
    rescaled: bool = True,
    input_pruned: bool = False,
    gradients: Gradients = "kept",
    layers: bool = False,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
    out: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Return the empirical kernel of random nets, pruned at random (the net of `theory.random_ntk`), a draw each.

    Theta_h(x, x') = s_h^2 (b_h * b'_h)^T M_h (g_{h-1} * g'_{h-1}), b_h = dF/df_h, s_h the scale of layer h.

    Args:
        x1, x2: one input `[d0]` each, or `[N1, d0]` and `[N2, d0]`.
        depth, width: hidden layers L and their units n.
        density: alpha, the chance of a weight to be kept.
        draws: how many, or which: a draw is known by its number, whatever others are asked for with it.
        rescaled: whether each pruned layer is divided by sqrt(alpha).
        input_pruned: whether the input layer is pruned too.
        gradients: with respect to the "kept" weights, or to "all", pruned ones counted as trainable.
        layers: give each layer's part; their sum is the kernel.
        seed: of everything random. Draws differ between depths, widths, densities and numbers of inputs.
        dtype: float32 or float64, of weights and products.
        device: to compute on; None: that of the inputs. The CPU and a GPU have different draws.
        out: a file of JSON lines that gets the draws as they come; those there already are not drawn again.
        progress: called with (draws done, draws).

    Returns: `[draws]`, for matrices of inputs `[draws, N1, N2]`; with `layers` a last dimension of L + 1. In `dtype`.
    Raises: ValueError on bad inputs or arguments, before anything is drawn; on an `out` that is not such a file.
    Cost: a draw writes and reads twice L - 1 matrices [n, n]; as many draws at once as fit into 128 MiB, at least two.
    """
    check_inputs("monte_carlo", x1, x2, dimensions=(1, 2))
    check_whole("monte_carlo", "depth", depth, 1)
    check_whole("monte_carlo", "width", width, 1)
    check_density("monte_carlo", density)
    numbers = draws if isinstance(draws, range) else range(draws)
    _check_choices(gradients, dtype, numbers)
    where = torch.device(device) if device is not None else x1.device
    a, b = (x.to(where, dtype).reshape(-1, x.shape[-1]) for x in (x1, x2))
    sizes = [a.shape[1], *[width] * depth, 1]
    pruned = [input_pruned and density < 1, *[density < 1] * depth]
    scales = [1.0, *[math.sqrt(2 / width)] * depth]
    if rescaled:
        scales = [s / math.sqrt(density) if layer else s for s, layer in zip(scales, pruned, strict=True)]
    net = {"inputs": sizes[0], "depth": depth, "width": width, "density": density, "input_pruned": input_pruned}
    net |= {"seed": seed}

    def compute(some: list[int]) -> Tensor:
        generators = [_generator(net, draw, where) for draw in some]
        drawn = _layers(generators, sizes, pruned, density, a)
        return kernels(a, b, drawn, scales, gradients)

    at_once = max(2, _BYTES // (a.element_size() * (width * sizes[0] + (depth - 1) * width**2)))
    key = net | {"x": _digest(x1, x2), "rescaled": rescaled, "gradients": gradients}
    key |= {"dtype": str(dtype), "device": where.type}
    found = _collect(list(numbers), at_once, compute, key, out, progress)
    shape = (len(numbers), *x1.shape[:-1], *x2.shape[:-1], depth + 1)
    parts = torch.stack([found[draw] for draw in numbers]).to(where, dtype).reshape(shape)
    return parts if layers else parts.sum(-1)


def kernels(a: Tensor, b: Tensor, layers: Iterable[Layer], scales: list[float], gradients: Gradients) -> Tensor:
    """Return each layer's part of the kernels `[draws, N1, N2, L+1]` of given nets.

    Args:
        a, b: `[N1, d0]`, `[N2, d0]`.
        layers: weights `[draws, to, from]` and masks of the weights' dtype; taken one by one, the weights are masked
            in place.
        scales: of each layer's input, after the activation.
    """
    count = len(a)
    g = torch.cat([a, b]).mT[None]
    passed: list[tuple[Tensor, Tensor, Tensor]] = []
    for (weights, mask), scale in zip(layers, scales, strict=True):
        g = scale * g
        pairs = (g[..., :count, None] * g[..., None, count:]).flatten(2)
        gram = pairs.sum(1, keepdim=True) if mask is None or gradients == "all" else mask @ pairs
        if mask is not None:
            weights *= mask
        f = weights @ g
        passed.append((weights, f, gram))
        g = f.relu()
    parts = []
    back = torch.ones_like(passed[-1][1])
    for (weights, _, gram), scale, before in zip(
        reversed(passed), reversed(scales), [*(f for _, f, _ in passed[-2::-1]), None], strict=True
    ):
        pairs = (back[..., :count, None] * back[..., None, count:]).flatten(2)
        parts.append((pairs * gram).sum(1))
        if before is not None:
            back = scale * (weights.mT @ back) * (before > 0)
    return torch.stack(parts[::-1], dim=-1).unflatten(1, (count, len(b)))


def _layers(
    generators: list[torch.Generator], sizes: list[int], pruned: list[bool], density: float, like: Tensor
) -> Iterator[Layer]:
    """Draw layer after layer, a thread a draw: a generator knows no other."""
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for before, after, prune in zip(sizes, sizes[1:], pruned, strict=False):
            weights = like.new_empty(len(generators), after, before)
            mask = torch.empty_like(weights) if prune else None
            list(threads.map(lambda w, generator: w.normal_(generator=generator), weights, generators))
            if mask is not None:
                list(threads.map(lambda m, generator: m.uniform_(generator=generator), mask, generators))
                mask.lt_(density)
            yield weights, mask


def _generator(net: dict[str, Any], draw: int, device: torch.device) -> torch.Generator:
    """Return the generator of one draw of one net: torch's takes 32 bits on the CPU, so that draws count up from a
    place that depends on the net, and no two of one net meet.
    """
    start = int.from_bytes(hashlib.sha256(identity(net).encode()).digest()[:4], "big")
    return torch.Generator(device).manual_seed((start + draw) % 2**32)


def _collect(
    draws: list[int],
    at_once: int,
    compute: Callable[[list[int]], Tensor],
    key: dict[str, Any],
    out: Path | None,
    progress: Callable[[int, int], None] | None,
) -> dict[int, Tensor]:
    """Return every draw's `[N1, N2, L+1]`, from the file what it has; append to it what it lacks, a line a block."""
    results = Results(out) if out is not None else None
    found: dict[int, Tensor] = {}
    with results.writing() if results is not None else nullcontext():
        for row in results.load().values() if results is not None else ():
            if row["key"] == key | {"draws": row["key"].get("draws")}:
                found |= zip(row["key"]["draws"], torch.tensor(row["layers"], dtype=torch.float64), strict=True)
        missing = [draw for draw in draws if draw not in found]
        for start in range(0, len(missing), at_once):
            some = missing[start : start + at_once]
            parts = compute(some).cpu()
            found |= zip(some, parts, strict=True)
            if results is not None:
                results.append({"key": key | {"draws": some}, "layers": parts.tolist()})
            if progress is not None:
                progress(len(draws) - len(missing) + start + len(some), len(draws))
    return found


def _digest(*inputs: Tensor) -> str:
    """Return what tells inputs from others in a file of draws."""
    content = json.dumps([x.double().tolist() for x in inputs])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _check_choices(gradients: str, dtype: torch.dtype, draws: range) -> None:
    if gradients not in ("kept", "all"):
        raise ValueError(f"monte_carlo: gradients must be kept or all, got {gradients!r}")
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"monte_carlo: dtype must be float32 or float64, got {dtype}")
    if len(draws) == 0 or min(draws) < 0:
        raise ValueError(f"monte_carlo: draws must be at least 1, from 0 on, got {draws}")
