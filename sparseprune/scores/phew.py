"""PHEW: paths with higher edge weights, by random walks over the layers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..prunable import prunable
from ._graph import switched
from ._registry import register
from ._units import Layer, Origin, trace

_WALKS = 1 << 16  # walks taken side by side
_PATIENCE = 16  # rounds of walks without a new weight before giving up


@register
@dataclass(frozen=True)
class PHEW:
    """Score by how many random walks through the net visit a weight, until as many are visited as will be kept.

    Walks go forward from the input units and backward from the output units in turn, each kind taking its units round
    robin. At a unit a walk takes one of the unit's weights in a layer with probability |w| / sum |w|, which is unit by
    kernel norm and then position in the kernel. Where a unit feeds several layers, or is fed by a sum, each has equal
    chances; an identity shortcut is not taken, for what it adds to is computed from it. From a channel into a flattened
    layer each of its features has equal chances. Visits after a budget's last weight do not count: exactly as many
    scores are positive as are to be kept of all layers, or of each where each has its own count, and any selector
    keeps these.

    Any module of linear, convolutional and attention layers joined by sums, products, concatenations, pools and
    elementwise functions is walked, as one forward pass shows it; weights of layers that cannot be pruned (attention's
    input projection, Conv1d) lead walks and are not counted.

    Cost: one forward pass of one sample, then a round of 65,536 walks at a time: a few passes over the weights and a
    binary search a step. On the CPU, the same on every device.

    Reference: Patil & Dovrolis 2021, arXiv:2010.11354.
    """

    name: ClassVar[str] = "phew"
    iterations: ClassVar[int] = 1
    needs: ClassVar[str] = "inputs"
    inputs: ClassVar[str] = "ones"
    data_free: ClassVar[bool] = True
    needs_budgets: ClassVar[bool] = True

    def score(self, model, batches, *, loss, masks, seed, train=None, budgets) -> dict[str, Tensor]:
        """Return the number of visits of each weight in float32; 0 where masked.

        Args:
            budgets: pairs (names, count): how many weights are to be visited among those of these names together.

        Raises:
            ValueError: an operation whose units cannot be followed, or walks that do not reach so many weights.
        """
        masks = masks or {}
        weights = {n: w.detach() * masks[n] if n in masks else w.detach() for n, w in prunable(model).items()}
        x = next((x for x, *_ in batches), None)
        if x is None:
            raise ValueError("phew: batches must hold at least one sample, got none")
        with switched(model, "eval", seed):
            layers, outputs = trace("phew", model, weights, x[:1])
        sizes = [w.numel() for w in weights.values()]
        first = dict(zip(weights, itertools.accumulate([0, *sizes]), strict=False))
        walker = _Walker(layers, outputs, first, torch.Generator().manual_seed(seed))
        usable = torch.cat([w.flatten() for w in weights.values()]).cpu().ne(0)
        spans = {n: torch.arange(first[n], first[n] + w.numel()) for n, w in weights.items()}
        visits = _walk(walker, usable, [(torch.cat([spans[n] for n in names]), count) for names, count in budgets])
        parts = visits.float().split(sizes)
        return {n: part.view(w.shape).to(w.device) for (n, w), part in zip(weights.items(), parts, strict=True)}


def _walk(walker: _Walker, usable: Tensor, budgets: list[tuple[Tensor, int]]) -> Tensor:
    """Walk until each budget (flat indices of weights, count) is visited; return the visits of each weight."""
    visits = torch.zeros(len(usable), dtype=torch.int64)
    budget = torch.full((len(usable),), -1)
    missing = [count for _, count in budgets]
    for number, (places, count) in enumerate(budgets):
        budget[places] = number
        if count >= int(usable[places].count_nonzero()):  # walks would take long to find the last of them
            visits[places], missing[number] = usable[places].long(), 0
    start = idle = 0
    while any(missing):
        weights, keys = walker.round(start)
        weights = weights[keys.argsort()]
        before = list(missing)
        for number in (number for number, count in enumerate(missing) if count):
            mine = weights[budget[weights] == number]
            first = _first_visits(mine, visits)[: missing[number]]
            missing[number] -= len(first)
            end = len(mine) if missing[number] else int(first[-1]) + 1
            visits += torch.bincount(mine[:end], minlength=len(visits))
        start, idle = start + _WALKS, idle + 1 if missing == before else 0
        if idle > _PATIENCE:
            raise ValueError(f"phew: density must keep no more than walks reach, got {sum(missing)} more")
    return visits


def _first_visits(weights: Tensor, visits: Tensor) -> Tensor:
    """Where in a sequence of weights those without visits come up first, in order."""
    new = (visits[weights] == 0).nonzero().squeeze(1)
    distinct, which = weights[new].unique(return_inverse=True)
    return torch.full((len(distinct),), len(weights)).scatter_reduce_(0, which, new, "amin").sort().values


class _Rows:
    """Categorical distributions side by side: row r has the weights from offsets[r] to offsets[r + 1]."""

    def __init__(self, weights: Tensor, offsets: Tensor) -> None:
        self.cumulative = torch.cat([torch.zeros(1, dtype=torch.float64), weights.cumsum(0, dtype=torch.float64)])
        self.offsets = offsets

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Return the index of one weight of each row; -1 where the row has none above zero."""
        low, high = self.cumulative[self.offsets[rows]], self.cumulative[self.offsets[rows + 1]]
        at = low + torch.rand(len(rows), dtype=torch.float64, generator=generator) * (high - low)
        at = torch.minimum(at, high.nextafter(high.new_zeros(())))  # rounding must not lead into the next row
        found = torch.searchsorted(self.cumulative, at, right=True) - 1
        return torch.where(high > low, found, -1)


class _Walker:
    """Random walks over a graph of layers, many side by side."""

    def __init__(
        self, layers: Sequence[Layer], outputs: Sequence[Origin], offsets: dict[str, int], generator: torch.Generator
    ) -> None:
        self.layers, self.outputs, self.offsets, self.generator = layers, outputs, offsets, generator
        self.inputs = torch.tensor([0, *(len(layer.sources) for layer in layers)]).cumsum(0).tolist()  # first of each
        sources = [origin for layer in layers for origin in layer.sources] + list(outputs)
        self.entries = torch.tensor([i for i, origin in enumerate(sources[: self.inputs[-1]]) if not origin])
        self.exits = torch.arange(self.inputs[-1], len(sources))
        if not len(self.exits) or not any(layer.name for layer in layers):
            raise ValueError("phew: model must compute its output by layers that can be pruned, got none")
        self._connect(sources)

    def _connect(self, sources: Sequence[Origin]) -> None:
        """Connections from units to the inputs that are computed from them, in the two directions."""
        to = torch.tensor([i for i, origin in enumerate(sources) for _ in origin])
        unit = torch.tensor([u for origin in sources for u in origin])
        p = torch.tensor([p for origin in sources for p in origin.values()], dtype=torch.float64)
        counts = torch.tensor([len(origin) for origin in sources])
        self.unit, self.back = unit, _Rows(p, torch.cat([counts.new_zeros(1), counts.cumsum(0)]))
        # Forward: a layer first, then one of its inputs.
        layer = torch.bucketize(to, torch.tensor(self.inputs), right=True)
        _, pair = torch.stack([unit, layer]).unique(dim=1, return_inverse=True)
        p = p / torch.zeros(int(pair.max()) + 1, dtype=torch.float64).index_add_(0, pair, p)[pair]
        order = unit.argsort(stable=True)
        rows = unit.bincount(minlength=max(layer.first + layer.outputs for layer in self.layers))
        self.to, self.forth = to[order], _Rows(p[order], torch.cat([rows.new_zeros(1), rows.cumsum(0)]))

    def round(self, start: int) -> tuple[Tensor, Tensor]:
        """Take walks number start, start + 1, ...; return the weights visited and keys that order the visits."""
        walks = torch.arange(start, start + _WALKS)
        steps = [*self._forward(walks[::2]), *self._backward(walks[1::2])]
        weights, keys = (torch.cat(parts) for parts in zip(*steps, strict=True))
        return weights, keys

    def _forward(self, walks: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        at = self.entries[walks // 2 % len(self.entries)]
        for number, layer in enumerate(self.layers):
            here = ((at >= self.inputs[number]) & (at < self.inputs[number + 1])).nonzero().squeeze(1)
            groups, outs, ins, k = layer.weight.shape
            w = layer.weight.cpu().abs().transpose(1, 2).flatten()  # [groups, in, out, k]
            rows = _Rows(w, torch.arange(groups * ins + 1) * (outs * k))
            drawn = rows.draw(at[here] - self.inputs[number], self.generator)
            here, drawn = here[drawn >= 0], drawn[drawn >= 0]
            g, i, o, position = _unravel(drawn, (ins, outs, k))
            unit = g * outs + o
            yield from self._visit(layer, (unit * ins + i) * k + position, walks[here], number)
            step = self.forth.draw(unit + layer.first, self.generator)
            at[here] = torch.where(step >= 0, self.to[step], -1)

    def _backward(self, walks: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        at = self._up(self.exits[walks // 2 % len(self.exits)])
        for number, layer in reversed(list(enumerate(self.layers))):
            here = ((at >= layer.first) & (at < layer.first + layer.outputs)).nonzero().squeeze(1)
            groups, outs, ins, k = layer.weight.shape
            rows = _Rows(layer.weight.cpu().abs().flatten(), torch.arange(groups * outs + 1) * (ins * k))
            drawn = rows.draw(at[here] - layer.first, self.generator)
            here, drawn = here[drawn >= 0], drawn[drawn >= 0]
            yield from self._visit(layer, drawn, walks[here], len(self.layers) - number)
            g, _, i, _ = _unravel(drawn, (outs, ins, k))
            at[here] = self._up(self.inputs[number] + g * ins + i)

    def _up(self, inputs: Tensor) -> Tensor:
        step = self.back.draw(inputs, self.generator)
        return torch.where(step >= 0, self.unit[step], -1)

    def _visit(self, layer: Layer, weights: Tensor, walks: Tensor, step: int) -> Iterator[tuple[Tensor, Tensor]]:
        if layer.name is not None:
            yield weights + self.offsets[layer.name], walks * (len(self.layers) + 1) + step


def _unravel(index: Tensor, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    a, b, c = shape
    return index // (a * b * c), index // (b * c) % a, index // c % b, index % c
