"""Where the elements that one rank holds lie in the logical vector: runs, the whole tiles in them, and the cut ones."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from .reference import TILE

# Runs with fewer whole tiles than this are gathered like cut tiles: a slice costs more than so many elements.
FEW = 16
# Cut tiles gathered at once.
CHUNK = 64


class Runs(NamedTuple):
    """Consecutive elements of the logical vector that lie consecutively in one local tensor; int64 on the CPU.

    tensor: which local tensor; offset: where in it, flat; start: where in the logical vector; length: > 0.
    """

    tensor: Tensor
    offset: Tensor
    start: Tensor
    length: Tensor

    @classmethod
    def none(cls) -> Runs:
        return cls(*(torch.empty(0, dtype=torch.int64) for _ in cls._fields))

    @classmethod
    def join(cls, parts: list[Runs]) -> Runs:
        return cls(*(torch.cat(columns) for columns in zip(cls.none(), *parts, strict=True)))

    def where(self, rows: Tensor | slice) -> Runs:
        """The runs of a bool mask, of row numbers or of a slice."""
        return Runs(*(column[rows] for column in self))

    def within(self, begin: Tensor, length: Tensor) -> Runs:
        """The part of every run that begins `begin` elements after its start."""
        return Runs(self.tensor, self.offset + begin, self.start + begin, length).where(length > 0)


def runs_of_grid(index: list[Tensor], shape: tuple[int, ...], tensor: int, start: int) -> Runs:
    """The runs of a local tensor that holds the rows index[0], columns index[1], ... of a global one.

    Args:
        index: for each dimension the ascending indices held, int64; the local tensor is their outer product.
        shape: of the global tensor, which begins at `start` of the logical vector.
        tensor: the number of the local tensor.
    Cost: O(runs): rows where the last dimension is cut, 1 where only the first is.
    """
    if any(len(i) == 0 for i in index):
        return Runs.none()
    strides = [1]
    for size in reversed(shape[1:]):
        strides.insert(0, strides[0] * size)
    cut = [d for d, i in enumerate(index) if len(i) < shape[d]]
    if not cut:
        numel = shape[0] * strides[0] if shape else 1
        return Runs(*(torch.tensor([x]) for x in (tensor, 0, start, numel)))
    last = cut[-1]
    inner, own = strides[last], index[last]
    first = torch.cat([torch.ones(1, dtype=torch.bool), own.diff() != 1]).nonzero().view(-1)
    ends = torch.cat([first[1:], torch.tensor([len(own)])])
    outer = torch.zeros(1, dtype=torch.int64)
    for i, stride in zip(index[:last], strides[:last], strict=True):
        outer = (outer.unsqueeze(1) + i * stride).view(-1)
    rows = torch.arange(len(outer)).unsqueeze(1) * (len(own) * inner)
    length = ((ends - first) * inner).repeat(len(outer))
    begin = (start + outer.unsqueeze(1) + own[first] * inner).view(-1)
    return Runs(torch.full_like(length, tensor), (rows + first * inner).view(-1), begin, length)


class Slice(NamedTuple):
    """Whole tiles tile ... tile + tiles - 1, which lie in `tensor` from `offset` on."""

    tensor: int
    offset: int
    tile: int
    tiles: int


class Layout:
    """The runs of one rank, as whole tiles that are used where they lie and as pieces of other tiles.

    slices: long rows of whole tiles. pieces: all else, runs that lie in one tile each, by ascending start.
    chunks: (first piece, one past the last) of groups of pieces with at most CHUNK tiles; tiles are never divided.
    """

    def __init__(self, runs: Runs, tiles: int) -> None:
        runs = runs.where(runs.start.argsort())
        low, high = (runs.start + TILE - 1) // TILE, (runs.start + runs.length) // TILE
        long = high - low >= FEW
        rows = torch.stack([runs.tensor, runs.offset + low * TILE - runs.start, low, high - low], dim=1)[long]
        self.slices = [Slice(*row) for row in rows.tolist()]
        some = runs.where(long)
        head = some.within(torch.zeros_like(some.start), (low * TILE - runs.start)[long])
        skip = (high * TILE - runs.start)[long]
        self._take(_cut(Runs.join([runs.where(~long), head, some.within(skip, some.length - skip)])))
        self._samples: dict[int, Layout] = {1: self}
        self.wanted = torch.zeros(tiles, dtype=torch.bool)
        self.wanted[self.tile_of_piece] = True
        for s in self.slices:
            self.wanted[s.tile : s.tile + s.tiles] = True

    def _take(self, pieces: Runs) -> None:
        self.pieces, self.tile_of_piece = pieces, pieces.start // TILE
        self.chunks = _chunks(self.tile_of_piece)

    def every(self, step: int) -> Layout:
        """The same with pieces of only those tiles whose number is a multiple of `step`."""
        if step not in self._samples:
            sample = self._samples[step] = copy.copy(self)
            sample._take(self.pieces.where(self.tile_of_piece % step == 0))
        return self._samples[step]


def _cut(runs: Runs) -> Runs:
    """The runs divided at the borders of tiles, by ascending start."""
    runs = runs.where(runs.start.argsort())
    first = runs.start // TILE
    number = (runs.start + runs.length - 1) // TILE - first + 1
    row = torch.repeat_interleave(torch.arange(len(first)), number)
    tile = torch.arange(len(row)) - (number.cumsum(0) - number)[row] + first[row]
    whole = runs.where(row)
    begin = torch.maximum(tile * TILE, whole.start)
    end = torch.minimum((tile + 1) * TILE, whole.start + whole.length)
    return whole.within(begin - whole.start, end - begin)


def _chunks(tile: Tensor) -> list[tuple[int, int]]:
    if not len(tile):
        return []
    number = torch.cat([torch.zeros(1, dtype=torch.int64), (tile.diff() != 0).cumsum(0)])
    borders = (number // CHUNK).diff().nonzero().view(-1) + 1
    ends = [0, *borders.tolist(), len(tile)]
    return list(pairwise(ends))
