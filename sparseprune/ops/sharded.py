"""A logical vector spread over ranks, with the face of `vector.Vector`: each rank works on the elements it holds.

Whole tiles are used where they lie. A tile that is shared with other ranks, or put together from several runs, is
gathered as fp64 values into a patch; where other ranks have elements the patch holds fillers that leave this rank's
results those of the whole: zeros, the lowest value, or scores with the mass and the number of what they stand for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, Literal, NamedTuple, NoReturn

import torch
from torch import Tensor

from .layout import CHUNK, Layout, Runs
from .reference import BOOL, COUNTS, GIVEN, TILE, FlatWriter, quantize, score_values
from .reference.scores import power_of_two
from .vector import Absent, BadScore, NoPositiveScore, Part, Table

NOTHING = -(1 << 20)  # below the exponent of every positive score
SUBNORMAL = -1074  # the exponent of the least positive fp64
FAR = 1 << 62
Results = Literal["home", "scratch", "none"]  # where those of a part go


class Holding(NamedTuple):
    """What this rank holds of the vector.

    scores, factors, weights, out: as in `vector.Vector`, local tensors. runs: where they lie in the logical vector.
    owned: for each local tensor whether this rank answers for it; other ranks may hold copies.
    """

    scores: list[Tensor]
    factors: list[Tensor]
    weights: list[Tensor]
    out: list[Tensor]
    runs: Runs
    owned: list[bool]


def keeping_subnormals(method: Callable[..., Any]) -> Callable[..., Any]:
    """Let torch's own arithmetic see subnormal numbers where torch.set_flush_denormal is on, as raw operations do.

    The flag belongs to a thread: the work is done in this one then.
    """

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        if bool(torch.tensor(5e-324, dtype=torch.float64) * 1.0 > 0):
            return method(*args, **kwargs)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        torch.set_flush_denormal(False)
        try:
            return method(*args, **kwargs)
        finally:
            torch.set_flush_denormal(True)
            torch.set_num_threads(threads)

    return call


class Gather(NamedTuple):
    """Elements of some cut tiles: where they lie in a patch of these tiles, and in which local tensor where.

    fillers: how many lanes of each tile are none of them. spans: tensor, elements of `lane`, elements of the tensor.
    """

    ids: Tensor
    lane: Tensor
    fillers: Tensor
    spans: list[tuple[int, slice, slice]]


def ranges(start: Tensor, length: Tensor) -> Tensor:
    """start[0], start[0] + 1, ... (length[0] of them), start[1], ..."""
    end = length.cumsum(0)
    size = int(end[-1]) if len(end) else 0
    before = torch.repeat_interleave(start - end + length, length, output_size=size)
    return before.add_(torch.arange(size, device=start.device))


class ShardedVector:
    """The logical vector of several ranks; see `vector.Vector` for what the methods promise.

    Args:
        ranks: the collectives.
        held: this rank's share.
        numel: of the logical vector.
        transform, output: the codes of `reference`.
        wide, narrow: as in `vector.Vector`, of the scores of all ranks.
        copies: whether some rank holds what another one owns.
    """

    def __init__(
        self,
        ranks: Any,
        held: Holding,
        *,
        numel: int,
        transform: int,
        output: int,
        wide: bool,
        narrow: bool,
        copies: bool,
        device: torch.device,
    ) -> None:
        self.ranks, self.held, self.numel, self.transform, self.output = ranks, held, numel, transform, output
        self.wide, self.narrow, self.copies, self.device = wide, narrow, copies, device
        self.tiles = -(-numel // TILE)
        self._all = Layout(held.runs, self.tiles)
        owned = torch.tensor(held.owned, dtype=torch.bool)
        self._own = self._all if all(held.owned) else Layout(held.runs.where(owned[held.runs.tensor]), self.tiles)
        self._table: Table | None = None
        self._foreign = torch.empty((0, 4), dtype=torch.int64)

    # ------------------------------------------------------------ parts
    def empty(self, dtype: torch.dtype) -> Tensor:
        return torch.empty(0, dtype=dtype, device=self.device)

    def parts(self, absent: Absent = "zero", *, once: bool = False, step: int = 1) -> Iterator[Part]:
        """Parts that together hold this rank's elements; what operations write is complete after the loop.

        once: only elements that this rank owns, and no outputs: to count each element on one rank.
        step: tiles whose number is no multiple of it may be left out.
        """
        yield from self._parts((self._own if once else self._all).every(step), absent, "none" if once else "home")

    def _parts(self, layout: Layout, absent: Absent, results: Results) -> Iterator[Part]:
        yield from self._whole(layout, results)
        for begin, end in layout.chunks:
            gather = self._gather(layout, begin, end)
            part = self._patch(gather, absent, results)
            yield part
            if results == "home":
                self._scatter(gather, part)

    def _whole(self, layout: Layout, results: Results) -> Iterator[Part]:
        """The long rows of whole tiles, as slices; a few tiles at a time where factors or outputs are made for them."""
        together: list[tuple[int, int, int, int]] = []
        for s in layout.slices:
            factor = self.held.factors[s.tensor] if self.held.factors else None
            ready = factor is None or factor.numel() in (1, self.held.scores[s.tensor].numel())
            if ready and results != "scratch":
                together.append(s)
                continue
            for first in range(0, s.tiles, CHUNK):
                tiles = min(CHUNK, s.tiles - first)
                yield self._slices([(s.tensor, s.offset + first * TILE, s.tile + first, tiles)], results)
        if together:
            yield self._slices(together, results)

    def _slices(self, rows: list[tuple[int, int, int, int]], results: Results) -> Part:
        def cut(tensors: list[Tensor]) -> list[Tensor]:
            return [tensors[t].view(-1)[at : at + tiles * TILE] for t, at, _, tiles in rows] if tensors else []

        factors = [self._factor(t, at, tiles * TILE) for t, at, _, tiles in rows] if self.held.factors else []
        ids = torch.cat([torch.arange(tile, tile + tiles) for _, _, tile, tiles in rows]).to(self.device)
        out = [] if results == "none" else cut(self.held.out)
        if results == "scratch":
            out = [torch.empty_like(o) for o in out]
        return Part(
            cut(self.held.scores), factors, self.transform, ids, cut(self.held.weights), out, self.empty(torch.int64)
        )

    def _factor(self, tensor: int, at: int, size: int) -> Tensor:
        """The factors of elements at ... at + size - 1 of a local tensor."""
        factor = self.held.factors[tensor].view(-1)
        if factor.numel() == 1:
            return factor
        if factor.numel() == self.held.scores[tensor].numel():
            return factor[at : at + size]
        return factor[torch.arange(at, at + size, device=factor.device) % factor.numel()]

    def _gather(self, layout: Layout, begin: int, end: int) -> Gather:
        rows = slice(begin, end)
        tile = layout.tile_of_piece[rows]
        ids, row = tile.unique_consecutive(return_inverse=True)
        return self._gather_pieces(ids, row, layout.pieces.where(rows))

    def _gather_pieces(self, ids: Tensor, row: Tensor, pieces: Runs) -> Gather:
        """Pieces in rows of a patch whose tiles are `ids`."""
        lane = ranges((row * TILE + pieces.start % TILE).to(self.device), pieces.length.to(self.device))
        fillers = torch.full_like(ids, TILE).index_add_(0, row, pieces.length, alpha=-1)
        # Pieces that follow each other in the local tensor, as those of a shard all do, are copied together.
        joined = (pieces.tensor[1:] == pieces.tensor[:-1]) & (pieces.offset[1:] == (pieces.offset + pieces.length)[:-1])
        first = torch.cat([torch.ones(min(len(row), 1), dtype=torch.bool), ~joined]).nonzero().view(-1)
        ends = torch.cat([pieces.length.new_zeros(1), pieces.length.cumsum(0)])
        begins = [*ends[first].tolist(), int(ends[-1])]
        rows = zip(pieces.tensor[first].tolist(), pieces.offset[first].tolist(), pairwise(begins), strict=True)
        spans = [(tensor, slice(a, b), slice(at, at + b - a)) for tensor, at, (a, b) in rows]
        return Gather(ids.to(self.device), lane, fillers.to(self.device), spans)

    def _values(self, gather: Gather, patch: Tensor) -> Tensor:
        """Write the transformed scores into the patch."""
        for i, span, place in gather.spans:
            factor = self._factor(i, place.start, place.stop - place.start) if self.held.factors else None
            patch[gather.lane[span]] = score_values(self.held.scores[i].view(-1)[place], factor, self.transform)
        return patch

    @keeping_subnormals
    def _patch(self, gather: Gather, absent: Absent, results: Results) -> Part:
        size, f64 = len(gather.ids) * TILE, torch.float64
        patch = torch.full((size,), -torch.inf if absent == "lowest" else 0.0, dtype=f64, device=self.device)
        if absent == "mass":
            self._fill(gather.ids, patch)
        self._values(gather, patch)
        out, weights = [], []
        if results != "none" and self.output == COUNTS:
            out = [torch.zeros_like(patch, dtype=torch.int32)]
        elif results != "none" and self.output == BOOL:
            out = [torch.zeros_like(patch, dtype=torch.bool)]
            for i, span, place in gather.spans:  # what an operation leaves alone goes back as it was
                out[0][gather.lane[span]] = self.held.out[i].view(-1)[place]
        elif results != "none":  # m itself, and NaN where an operation leaves it alone
            out, weights = [torch.full_like(patch, torch.nan)], [torch.ones_like(patch)]
        return Part([patch], [], GIVEN, gather.ids, weights, out, gather.fillers)

    @keeping_subnormals
    def _scatter(self, gather: Gather, part: Part) -> None:
        """Bring a patch of results home, rounded as the raw operations do."""
        writer = FlatWriter(self.held.scores, self.output, self.held.weights, self.held.out)
        for i, span, place in gather.spans:
            found, target = part.out[0][gather.lane[span]], self.held.out[i].view(-1)[place]
            result = writer.finish(i, place, found, found).to(target.dtype)
            target.copy_(torch.where(found.isnan(), target, result) if found.is_floating_point() else result)

    def _fill(self, ids: Tensor, patch: Tensor) -> None:
        """Write scores that quantise to the masses and positive numbers of other ranks' runs in these tiles.

        q_j >= 1 with the right sum: k or k + 1 units each. A unit is 1, more where fp64 ends (v = q 2^(e-31)).
        """
        assert self._table is not None  # masses are known after `table` only
        ends = torch.stack([ids[0] * TILE, (ids[-1] + 1) * TILE]).cpu()
        begin, end = torch.searchsorted(self._foreign[:, 0].contiguous(), ends).tolist()
        start, _, mass, positives = self._foreign[begin:end].to(self.device).unbind(1)
        row = torch.searchsorted(ids, start // TILE)
        exponent = self._table.exponents[ids[row]].to(torch.int64)
        unit = (31 - exponent + SUBNORMAL).clamp(min=0)
        mass, power = mass >> unit, exponent - 31 + unit
        k, more = mass // positives, mass % positives
        lane = ranges(row * TILE + start % TILE, positives)
        number = torch.stack([more, positives - more], dim=1)
        values = torch.stack([k + 1, k], dim=1).to(torch.float64) * power_of_two(power >> 1).unsqueeze(1)
        values = values * power_of_two(power - (power >> 1)).unsqueeze(1)
        patch[lane] = torch.repeat_interleave(values.view(-1), number.view(-1), output_size=len(lane))

    # ------------------------------------------------------------ tables and reductions
    def table(self) -> Table:
        """Exponent, mass and positive scores of every tile; raises BadScore, or NoPositiveScore where all are zero."""
        if self._table is None:
            self._table = self._make_table()
        if not bool(self._table.masses.any()):
            raise NoPositiveScore("no positive score")
        return self._table

    def _make_table(self) -> Table:
        top = torch.full((self.tiles + 1,), NOTHING, dtype=torch.int64, device=self.device)
        top[-1] = -FAR  # minus the first bad index
        sums = torch.zeros((2, self.tiles), dtype=torch.int64, device=self.device)
        for part in self.parts(once=True):
            exponents, masses, positives, bad = torch.ops.sparseprune.score_tiles(*part.source)
            part.put(top, exponents.to(torch.int64).where(masses > 0, NOTHING))
            if not part.fillers.numel():
                part.put(sums[0], masses)
                part.put(sums[1], positives.to(torch.int64))
            if int(bad) >= 0:
                tile, lane = divmod(int(bad), TILE)
                top[-1] = torch.maximum(top[-1], -(part.ids[tile] * TILE + lane))
        top = self.ranks.max(top)
        if int(top[-1]) > -FAR:
            raise BadScore(-int(top[-1]))
        exponents = top[:-1].where(top[:-1] > NOTHING, 0).to(torch.int32)
        rows = [self._masses(begin, end, exponents, sums) for begin, end in self._own.chunks]
        self._foreign = self._share(torch.cat([self._foreign, *rows]))
        sums = self.ranks.sum(sums)
        return Table(exponents, sums[0], sums[1].to(torch.int32))

    @keeping_subnormals
    def _masses(self, begin: int, end: int, exponents: Tensor, sums: Tensor) -> Tensor:
        """Add up pieces of cut tiles, each quantised by the exponent of its whole tile; (start, length, mass, n+)."""
        gather = self._gather(self._own, begin, end)
        patch = self._values(gather, torch.zeros(len(gather.ids) * TILE, dtype=torch.float64, device=self.device))
        q = quantize(patch.view(-1, TILE), exponents[gather.ids])
        sums[0][gather.ids] = q.sum(dim=1)
        sums[1][gather.ids] = (q > 0).sum(dim=1)
        pieces = self._own.pieces.where(slice(begin, end))
        stops = pieces.length.cumsum(0).to(self.device) - 1
        own = q.view(-1)[gather.lane]
        both = torch.stack([own.cumsum(0)[stops], (own > 0).cumsum(0)[stops]], dim=1).cpu()  # < 2^31 2^20
        both = both.diff(dim=0, prepend=both.new_zeros((1, 2)))
        return torch.cat([torch.stack([pieces.start, pieces.length], dim=1), both], dim=1)

    def _share(self, rows: Tensor) -> Tensor:
        """Exchange runs of cut tiles that others may share; keep what others have in tiles of one's own."""
        tile = rows[:, 0] // TILE
        if not self.copies:
            size = torch.zeros(self.tiles, dtype=torch.int64).index_add_(0, tile, rows[:, 1])
            whole = torch.full((self.tiles,), TILE)
            whole[-1] = self.numel - (self.tiles - 1) * TILE
            rows = rows[(size < whole)[tile]]
        rows = self.ranks.rows(rows)
        mine = torch.zeros(self.tiles, dtype=torch.bool)
        mine[self._all.tile_of_piece] = True
        other = mine[rows[:, 0] // TILE] & (rows[:, 3] > 0) & ~torch.isin(rows[:, 0], self._all.pieces.start)
        return rows[other][rows[other][:, 0].argsort()]

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all ranks."""
        return self.ranks.sum(values)

    def wanted(self) -> Tensor:
        """A flag for each tile of which this rank has elements."""
        return self._all.wanted.to(self.device)

    @keeping_subnormals
    def raise_bad(self, *, signed: bool) -> NoReturn:
        """Raise BadScore for the first score that is NaN or infinite, or negative where scores are not `signed`."""
        if not signed:
            self.table()
        first = FAR
        for part in self.parts(once=True):
            place = part.first_not_finite()
            if place is not None:
                first = min(first, int(part.ids[place // TILE]) * TILE + place % TILE)
        first = -int(self.ranks.max(torch.tensor([-first], device=self.device)))
        if first < FAR:
            raise BadScore(first, "finite")
        raise AssertionError("a bad score was counted")

    # ------------------------------------------------------------ ties
    def quota(self, ties: Tensor, need: int, write: Callable[[Part, Tensor], Tensor], absent: Absent) -> Tensor:
        """How many ties a tile may keep so that the first `need` of all are kept; -1 where it keeps all of its own.

        Only in one tile some ties are kept and some not: there the ranks tell each other which lanes tie.
        """
        if self.copies:
            ties = torch.zeros_like(ties)
            for part in self._parts(self._own, absent, "scratch"):
                part.put(ties, write(part, torch.full((part.tiles,), TILE, device=self.device)))
        total = self.ranks.sum(ties)
        quota = (need - (total.cumsum(0) - total)).clamp(min=0)
        cut = ((quota > 0) & (quota < total)).nonzero().view(-1)
        quota = torch.where(quota < total, quota, -1)
        for tile in cut.tolist():  # one, or none
            lanes = self.ranks.sum(self._tying(tile, write, absent).to(torch.int64))
            kept = (lanes > 0) & (lanes.cumsum(0) <= quota[tile])
            quota[tile] = kept[self._tile(self._all, tile).lane].sum()
        return quota

    def _tile(self, layout: Layout, tile: int) -> Gather:
        """The elements of one tile, wherever they lie."""
        pieces = layout.pieces.where(layout.tile_of_piece == tile)
        whole = [
            Runs(*(torch.tensor([x]) for x in (s.tensor, s.offset + (tile - s.tile) * TILE, tile * TILE, TILE)))
            for s in layout.slices
            if s.tile <= tile < s.tile + s.tiles
        ]
        pieces = Runs.join([pieces, *whole])
        return self._gather_pieces(torch.tensor([tile]), torch.zeros_like(pieces.start), pieces)

    def _tying(self, tile: int, write: Callable[[Part, Tensor], Tensor], absent: Absent) -> Tensor:
        """Flags of the lanes of a tile that this rank owns and that tie: kept with a full quota, not with none."""
        gather, kept = self._tile(self._own, tile), []
        if not gather.spans:
            return torch.zeros(TILE, dtype=torch.bool, device=self.device)
        for quota in (TILE, 0):
            part = self._patch(gather, absent, "scratch")
            write(part, torch.tensor([quota], device=self.device))
            kept.append(part.out[0] != 0)
        return kept[0] & ~kept[1]
