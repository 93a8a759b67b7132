"""One logical vector as the drivers see it: a table of its tiles, and parts on which raw operations run.

For one process there is one part, the tensors themselves. A vector that is spread over ranks has the same face.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, NoReturn

import torch
from torch import Tensor

from . import _library  # noqa: F401  (registers torch.ops.sparseprune)
from .reference import SQUARE, TILE, tile_blocks

Absent = Literal["zero", "mass", "lowest"]  # what stands in a part for elements of other ranks


class BadScore(ValueError):
    """A score that is NaN, infinite or (where that matters) negative, at a flat index of the logical vector."""

    def __init__(self, index: int, expected: str = "finite and non-negative") -> None:
        super().__init__(f"bad score at flat index {index}")
        self.index, self.expected = index, expected


class NoPositiveScore(ValueError):
    """Every score is zero: there is nothing to draw."""


class Table(NamedTuple):
    """Of every tile: exponent int32 [T], mass int64 [T], number of positive scores int32 [T]."""

    exponents: Tensor
    masses: Tensor
    positives: Tensor


@dataclass(frozen=True)
class Part:
    """Some tiles: tensors that raw operations read and write, and the numbers of the tiles (empty: 0, 1, ...).

    fillers: of each tile, how many elements only stand in for those of other ranks; empty: none.
    """

    scores: list[Tensor]
    factors: list[Tensor]
    transform: int
    ids: Tensor
    weights: list[Tensor]
    out: list[Tensor]
    fillers: Tensor

    @property
    def source(self) -> tuple[list[Tensor], list[Tensor], int]:
        return self.scores, self.factors, self.transform

    @property
    def tiles(self) -> int:
        return -(-sum(score.numel() for score in self.scores) // TILE)

    def first_not_finite(self) -> int | None:
        """Where in these tiles a score is NaN or infinite; few of them at a time are looked at."""
        for first, v in tile_blocks(*self.source):
            wrong = (~v.isfinite()).view(-1).nonzero()
            if len(wrong):
                return first * TILE + int(wrong[0])
        return None

    def pick(self, table: Tensor) -> Tensor:
        """The rows of these tiles."""
        return table[self.ids] if self.ids.numel() else table

    def put(self, table: Tensor, rows: Tensor) -> None:
        """Write the rows of these tiles."""
        table[self.ids if self.ids.numel() else slice(None)] = rows


class Vector:
    """The logical vector of one process.

    Args:
        scores, weights, out: lists of contiguous tensors of equal sizes, one device (`weights` only for WEIGHTS).
        factors: empty, or one contiguous tensor a score, repeated along its leading dimensions.
        transform, output: the codes of `reference`.
    """

    def __init__(
        self,
        scores: list[Tensor],
        factors: list[Tensor],
        transform: int,
        output: int,
        weights: list[Tensor],
        out: list[Tensor],
    ) -> None:
        self.output = output
        self.numel = sum(score.numel() for score in scores)
        self.tiles = -(-self.numel // TILE)
        self.device = scores[0].device
        self.wide = any(t.dtype == torch.float64 for t in (*scores, *factors))  # v may be anything that fp64 holds
        self.narrow = not (self.wide or factors or transform == SQUARE)  # fp32 holds every transformed score exactly
        ids = fillers = self.empty(torch.int64)
        self._part = Part(scores, factors, transform, ids, weights, out, fillers)

    def empty(self, dtype: torch.dtype) -> Tensor:
        return torch.empty(0, dtype=dtype, device=self.device)

    def parts(self, absent: Absent = "zero", *, once: bool = False, step: int = 1) -> Iterator[Part]:
        """Parts that together hold this process's elements; what operations write is complete after the loop.

        once: every element on one process only, where several hold copies; for counting, not for writing.
        step: tiles whose number is no multiple of it may be left out.
        """
        yield self._part

    def table(self) -> Table:
        """Exponent, mass and positive scores of every tile; raises BadScore, or NoPositiveScore where all are zero."""
        *table, bad = torch.ops.sparseprune.score_tiles(*self._part.source)
        if int(bad) >= 0:
            raise BadScore(int(bad))
        if not bool(table[1].any()):
            raise NoPositiveScore("no positive score")
        return Table(*table)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all ranks."""
        return values

    def wanted(self) -> Tensor:
        """A flag for each tile of which this process has elements; empty: all."""
        return self.empty(torch.bool)

    def quota(self, ties: Tensor, need: int, write: Callable[[Part, Tensor], Tensor], absent: Absent) -> Tensor:
        """How many ties a tile may keep so that the first `need` of all are kept; -1 where it keeps all of its own.

        `write` marks a part (made with `absent`) and returns its ties: a tile of several ranks is asked again.
        """
        quota = ties.cumsum(0).sub_(ties).neg_().add_(need).clamp_(min=0)
        return quota.masked_fill_(quota >= ties, -1)

    def raise_bad(self, *, signed: bool) -> NoReturn:
        """Raise BadScore for the first score that is NaN or infinite, or negative where scores are not `signed`."""
        if not signed:
            self.table()
        first = self._part.first_not_finite()
        assert first is not None  # a bad score was counted
        raise BadScore(first, "finite")


def exponent(vector: Vector) -> int:
    """The power of two that races and histograms divide by: the largest score's where fp64 takes part, else 0."""
    if not vector.wide:
        return 0
    table = vector.table()
    return int(table.exponents[table.masses > 0].max())
