"""Tangent kernels of pruned perceptrons on a GPU beside their Jacobians, by layer and in slices that fit into memory.

Activations and signals are given, so that what is timed is the contraction; torch.func has to make the Jacobian, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from sparseprune import ops
from sparseprune.measure import Row
from sparseprune.speeds import random_mask

from . import cases
from .contest import Contest, close

SLICE = 1 << 28  # elements of a Jacobian that are held at a time


class Layer(NamedTuple):
    """What a masked linear layer gives to the kernel: its inputs `[K, N]` and its outputs' signals `[M, O, N]`."""

    mask: Tensor
    pattern: ops.Pattern
    a: Tensor
    b: Tensor


def layer(inputs: int, outputs: int, classes: int, examples: int, density: float, device: str) -> Layer:
    mask = random_mask((outputs, inputs), density).to(device)
    a = torch.randn(inputs, examples, device=device)
    b = torch.randn(outputs, classes, examples, device=device)
    return Layer(mask, ops.Pattern.from_mask(mask), a, b)


def gram(layers: Sequence[Layer]) -> Tensor:
    parts = (
        torch.ops.sparseprune.ntk_gram(p.row_offsets, p.columns, None, a, b, None, None, False)
        for _, p, a, b in layers
    )  # fmt: skip
    return torch.stack(tuple(parts)).sum(0)


def by_jacobian(layers: Sequence[Layer], kept: bool) -> Tensor:
    """sum_o J_o J_o^T, of the kept weights' columns of J or of all, those of pruned ones 0."""
    examples = layers[0].a.shape[1]
    result = layers[0].a.new_zeros(examples, examples)
    for mask, _, a, b in layers:
        rows, columns = (mask if kept else torch.ones_like(mask)).nonzero(as_tuple=True)
        step = max(1, SLICE // b[0].numel())
        for i, j in zip(rows.split(step), columns.split(step), strict=True):
            inputs = a[j] if kept else a[j] * mask[i, j][:, None]
            jacobian = (inputs[:, None] * b[i]).flatten(0, 1)  # [weights O, N]
            result += jacobian.t() @ jacobian
    return result


def ntk(widths: Sequence[int], examples: int, density: float, repeats: int, device: str) -> list[Row]:
    name = "-".join(map(str, widths))
    contest = Contest("ntk_gram", f"MLP {name}, {examples} examples, {widths[-1]} outputs, fp32, {device}")
    sizes = pairwise(widths)
    layers = [layer(k, m, widths[-1], examples, density, device) for k, m in sizes]
    kept = sum(len(part.pattern.columns) for part in layers)
    contest.calls["ours"] = lambda: gram(layers)
    contest.calls["Jacobian of the kept weights"] = lambda: by_jacobian(layers, kept=True)
    contest.calls["dense Jacobian, masked"] = lambda: by_jacobian(layers, kept=False)
    agrees = close(contest.calls["ours"](), contest.calls["Jacobian of the kept weights"](), kept * widths[-1])
    for peer in ("Jacobian of the kept weights", "dense Jacobian, masked"):
        contest.set_beside("ours", [peer], agrees, density=density)
    return contest.rows(repeats)


def suites(
    repeats: int, device: str = "cuda", nets: Sequence[tuple[Sequence[int], int, float]] = cases.GPU_NTK
) -> Iterator[Callable[[], list[Row]]]:
    """One call a net, so that one that fails leaves the others."""
    for widths, examples, density in nets:
        yield partial(ntk, widths, examples, density, repeats, device)
