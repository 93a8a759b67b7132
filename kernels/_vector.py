"""A list of tensors as one logical vector in tiles of TILE elements, cut into launches: O(tensors) of them.

Tiles that lie in one tensor are read where they are, one launch a tensor (a run). Tiles that a boundary cuts are
gathered as fp64 values into one small scratch, the patch, which is the last run; its results are scattered back.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import _elements
from ._elements import read, write

TILE = _elements.TILE.value
GIVEN = _elements.GIVEN.value
M, COUNTS, WEIGHTS, BOOL = (c.value for c in (_elements.M, _elements.COUNTS, _elements.WEIGHTS, _elements.BOOL))


def launch(kernel: Any, programs: int, *args: Any, num_warps: int = 8, **options: Any) -> None:
    """Run a kernel on the device of its first argument; without fused multiply-adds, which would change the bits."""
    with torch.cuda.device_of(args[0]):
        kernel[(programs,)](*args, **options, num_warps=num_warps, enable_fp_fusion=False)


# Only `numel` may be specialised by Triton: a multiple of 16 lets whole vectors be loaded and stored.
@triton.jit(do_not_specialize=["skip", "period"])
def gather_kernel(
    score, factor, skip, numel, period, patch, TRANSFORM: tl.constexpr, FACTORED: tl.constexpr, SIZE: tl.constexpr
):
    at = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    live = at < numel
    v = read(score, factor, at, live, skip.to(tl.int64), period.to(tl.int64), TRANSFORM, FACTORED)
    tl.store(patch + at, v, mask=live)


@triton.jit
def scatter_kernel(values, weight, out, numel, OUTPUT: tl.constexpr, WIDE: tl.constexpr, SIZE: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    value = tl.load(values + at, mask=at < numel, other=-1.0)
    write(out, weight, at, value >= 0, value, OUTPUT, WIDE)


@dataclass(frozen=True)
class Run:
    """`tiles` whole tiles, from `first` on or as listed, whose elements are consecutive in `score`."""

    score: Tensor
    factor: Tensor
    listed: Tensor | None
    first: int
    tiles: int
    skip: int  # elements of the tensor before the run: where the factor stands
    numel: int
    transform: int
    factored: bool
    tensor: int | None  # which of the list; None: the patch

    @property
    def inputs(self) -> tuple[Any, ...]:
        listed = self.score if self.listed is None else self.listed
        return self.score, self.factor, listed, self.first, self.skip, self.numel, self.factor.numel()

    @property
    def options(self) -> dict[str, Any]:
        return {"TRANSFORM": self.transform, "FACTORED": self.factored, "LISTED": self.listed is not None}


@dataclass(frozen=True)
class Piece:
    """Elements [begin, end) of a tensor, which the patch holds from `at` on."""

    tensor: int
    begin: int
    end: int
    at: int


def plan(sizes: list[int]) -> tuple[list[tuple[int, int, int, int]], list[Piece], list[int]]:
    """Runs (tensor, elements to skip, first tile, tiles), pieces of cut tiles, and the cut tiles in order."""
    runs, pieces, cut = [], [], []
    total, begin = sum(sizes), 0

    def add(tensor: int, start: int, low: int, high: int) -> None:
        tiles = range(low // TILE, -(-high // TILE))
        cut.extend(tile for tile in tiles if not cut or tile > cut[-1])
        row = len(cut) - 1 - (cut[-1] - tiles[0])  # cut tiles of one piece are neighbours
        pieces.append(Piece(tensor, low - start, high - start, row * TILE + low % TILE))

    for i, size in enumerate(sizes):
        end = begin + size
        first, last = -(-begin // TILE), (-(-end // TILE) if end == total else end // TILE)
        if size and first < last:
            if begin < first * TILE:
                add(i, begin, begin, first * TILE)
            runs.append((i, first * TILE - begin, first, last - first))
            if last * TILE < end:
                add(i, begin, last * TILE, end)
        elif size:
            add(i, begin, begin, end)
        begin = end
    return runs, pieces, cut


class Vector:
    """The runs of a list of score tensors, and the outputs that belong to them."""

    def __init__(self, scores: list[Tensor], factors: list[Tensor], transform: int) -> None:
        self.scores = [score.view(-1) for score in scores]
        self.factors = [factor.view(-1) for factor in factors]
        self.transform = transform
        sizes = [score.numel() for score in scores]
        self.tiles = -(-sum(sizes) // TILE)
        whole, self.pieces, cut = plan(sizes)
        self.runs = [self._run(*run) for run in whole]
        if cut:
            self.runs.append(self._patch(cut, sum(sizes)))

    def _run(self, i: int, skip: int, first: int, tiles: int) -> Run:
        score = self.scores[i][skip : skip + tiles * TILE]
        factor = self.factors[i] if self.factors else score
        return Run(score, factor, None, first, tiles, skip, score.numel(), self.transform, bool(self.factors), i)

    def _patch(self, cut: list[int], total: int) -> Run:
        device = self.scores[0].device
        patch = torch.zeros(len(cut) * TILE, dtype=torch.float64, device=device)
        for piece in self.pieces:
            score = self.scores[piece.tensor][piece.begin : piece.end]
            factor = self.factors[piece.tensor] if self.factors else score
            launch(
                gather_kernel, -(-score.numel() // TILE), score, factor, piece.begin, score.numel(), factor.numel(),
                patch[piece.at :], TRANSFORM=self.transform, FACTORED=bool(self.factors), SIZE=TILE,
            )  # fmt: skip
        listed = torch.tensor(cut, dtype=torch.int64, device=device)
        numel = len(cut) * TILE - max(0, (cut[-1] + 1) * TILE - total)
        return Run(patch, patch, listed, 0, len(cut), 0, numel, GIVEN, False, None)


def flat_bytes(t: Tensor) -> Tensor:
    """A flat view; bool as the bytes it is."""
    return t.view(-1).view(torch.uint8) if t.dtype == torch.bool else t.view(-1)


@dataclass(frozen=True)
class Target:
    """Where a kernel writes, and as what."""

    out: Tensor
    weight: Tensor
    output: int
    wide: bool  # m in fp64

    @property
    def options(self) -> dict[str, Any]:
        return {"OUTPUT": self.output, "WIDE": self.wide}


class Outputs:
    """The output of every run of a vector; `scatter` completes the cut tiles."""

    def __init__(self, vector: Vector, output: int, weights: list[Tensor], out: list[Tensor]) -> None:
        self.vector = vector
        self.values = torch.empty(0)
        self.targets = []
        for i, t in enumerate(out):
            weight = weights[i].view(-1) if output == WEIGHTS else flat_bytes(t)
            wide = vector.scores[i].dtype == torch.float64
            self.targets.append(Target(flat_bytes(t), weight, output, wide))

    def of(self, run: Run) -> Target:
        if run.tensor is None:  # m or counts in fp64, which holds both exactly; -1 where nothing is written
            self.values = torch.full_like(run.score, -1.0)
            return Target(self.values, self.values, M if self.targets[0].output in (M, WEIGHTS) else COUNTS, True)
        return self._slice(run.tensor, run.skip, run.skip + run.numel)

    def _slice(self, tensor: int, begin: int, end: int) -> Target:
        target = self.targets[tensor]
        return replace(target, out=target.out[begin:end], weight=target.weight[begin:end])

    def scatter(self) -> None:
        for piece in self.vector.pieces:
            size = piece.end - piece.begin
            target = self._slice(piece.tensor, piece.begin, piece.end)
            launch(
                scatter_kernel, -(-size // TILE), self.values[piece.at :], target.weight, target.out, size,
                SIZE=TILE, **target.options,
            )  # fmt: skip
