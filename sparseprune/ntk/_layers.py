"""The part of one parameter in the tangent kernel, from what two tiles of examples captured."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F

from ._capture import Call
from ._kept import Kept

_BLOCK = 2**25  # bytes of the gradients that stand at a time, whatever the width
_RAW = torch.ops.sparseprune


def small_part(one: Tensor, two: Tensor, full: bool, squares: Tensor | None = None) -> Tensor:
    """Sum gradients `[R, O, N]` and `[R, O, N2]` over R (and over equal outputs): `[N, N2]`, or `[N, N2, O, O]`."""
    weighted = one if squares is None else one * squares[:, None, None]
    return torch.einsum("ron,rpm->nmop" if full else "ron,rom->nm", weighted, two)


def weight_part(one: list[Call], two: list[Call], kept: Kept, full: bool) -> Tensor:
    """Sum over the kept entries of a weight; `two is one` for a tile with itself."""
    parts = []
    for g in range(kept.groups):
        mine = _of_group(one, g, kept.groups)
        theirs = mine if two is one else _of_group(two, g, kept.groups)
        part = _by_position if _few_positions(mine, theirs, kept.group(g), full) else _by_entry
        parts.append(part(mine, theirs, kept.group(g), full))
    return reduce(torch.add, parts)


def _of_group(calls: list[Call], g: int, groups: int) -> list[Call]:
    """The channels that group g reads and writes."""
    if groups == 1:
        return calls
    return [Call(c.x.chunk(groups)[g], c.signals.chunk(groups)[g], c.geometry._replace(groups=1)) for c in calls]


def _few_positions(one: list[Call], two: list[Call], kept: Kept, full: bool) -> bool:
    """Whether pairs of positions cost less than the gradients of every entry."""
    here, there = (sum(call.positions for call in calls) for calls in (one, two))
    if here == there == 1:
        return True
    _, _, _, outputs, examples = one[0].signals.shape
    pairs = outputs * outputs if full else outputs
    inputs = kept.shape[1] if kept.columns is None else kept.entries
    each = kept.entries * (pairs + outputs * (here / two[0].x.shape[-1] + there / examples))
    return here * there * (inputs + kept.shape[0] * pairs) < each


def _by_position(one: list[Call], two: list[Call], kept: Kept, full: bool) -> Tensor:
    """Sum (inputs . inputs) (signals . signals) over pairs of positions."""
    here = list(_places(one))
    there = here if two is one else list(_places(two))
    total: Tensor | None = None
    for a, b in here:
        for a2, b2 in there:
            if kept.offsets is None or kept.columns is None:
                inner, outer = a.t() @ a2, small_part(b, b2, full)
                part = outer * (inner[..., None, None] if full else inner)
            else:
                others = (None, None) if a2 is a else (a2, b2)
                part = _RAW.ntk_gram(kept.offsets, kept.columns, kept.squares, a, b, *others, full)
            total = part if total is None else total.add_(part)
    assert total is not None  # a layer that ran has positions
    return total


def _places(calls: list[Call]) -> Iterator[tuple[Tensor, Tensor]]:
    """What every position reads `[K, N]` and the signals `[M, O, N]` at it."""
    for call in calls:
        patches, signals = _patches(call.x, call), call.signals.flatten(1, 2)
        for p in range(call.positions):
            yield patches[..., p].t().contiguous(), signals[:, p].contiguous()


def _by_entry(one: list[Call], two: list[Call], kept: Kept, full: bool) -> Tensor:
    """Sum products of per-example gradients `[R, O, N]`, a block of entries at a time."""
    make = _dense_gradients if kept.columns is None else _sparse_gradients
    examples = [calls[0].x.shape[-1] for calls in (one, two)]
    outputs, size = one[0].signals.shape[3], one[0].x.element_size()
    total = one[0].x.new_zeros(*examples, *((outputs, outputs) if full else ()))
    columns = sum(examples) * size  # bytes of a number for every example
    if two is one:
        for gradients, squares in make(one, kept, outputs * columns, columns):
            total += small_part(gradients, gradients, full, squares)
        return total
    pairs = zip(make(one, kept, outputs * columns, columns), make(two, kept, outputs * columns, columns), strict=True)
    for (gradients, squares), (others, _) in pairs:
        total += small_part(gradients, others, full, squares)
    return total


def _sparse_gradients(calls: list[Call], kept: Kept, entry: int, _: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Blocks of kept entries; one takes `entry` bytes."""
    assert kept.offsets is not None and kept.columns is not None
    step = max(1, _BLOCK // max(1, entry))
    for first in range(0, kept.entries, step):
        last = min(first + step, kept.entries)
        ends = torch.searchsorted(kept.offsets, torch.tensor([first, last - 1]).to(kept.offsets), right=True)
        top, bottom = (ends - 1).tolist()
        offsets = kept.offsets[top : bottom + 2].clamp(first, last) - first
        columns = kept.columns[first:last]
        parts = [
            _RAW.spconv_dw_each(offsets, columns, c.x, c.signals[top : bottom + 1], c.geometry.numbers) for c in calls
        ]
        yield reduce(torch.add, parts), None if kept.squares is None else kept.squares[first:last]


def _dense_gradients(calls: list[Call], kept: Kept, entry: int, number: int) -> Iterator[tuple[Tensor, None]]:
    """Blocks of inputs and outputs; an entry takes `entry` bytes, a number of a patch `number`."""
    taps = calls[0].geometry.kernel[0] * calls[0].geometry.kernel[1]
    positions = sum(call.positions for call in calls)
    channels = max(1, _BLOCK // max(1, taps * positions * number))
    signals = torch.cat([call.signals.flatten(1, 2) for call in calls], 1).permute(3, 1, 0, 2).contiguous()
    examples, _, outputs, _ = signals.shape
    for first in range(0, len(calls[0].x), channels):
        patches = torch.cat([_patches(call.x[first : first + channels], call) for call in calls], 2)
        rows = max(1, _BLOCK // max(1, patches.shape[1] * entry))
        for top in range(0, outputs, rows):
            gradients = torch.bmm(patches, signals[:, :, top : top + rows].flatten(2))
            yield gradients.view(examples, -1, signals.shape[3]).permute(1, 2, 0), None


def _patches(x: Tensor, call: Call) -> Tensor:
    """What each position of a result reads of some channels x `[C, H, W, N]`: `[N, C KH KW, positions]`."""
    g = call.geometry
    if g.kernel == g.stride == (1, 1) and not any(g.padding):
        return x.flatten(1, 2).permute(2, 0, 1)
    top, bottom, left, right = g.padding
    images = F.pad(x.permute(3, 0, 1, 2), (left, right, top, bottom))
    return F.unfold(images, g.kernel, g.dilation, 0, g.stride)
