"""Runs against brute force: every element a rank holds is found once, where it is."""

import itertools

import pytest
import torch

from sparseprune.ops.layout import CHUNK, FEW, Layout, Runs, runs_of_grid
from sparseprune.ops.reference import TILE

SHAPES = [(), (7,), (5, 6), (4, 3, 5), (2, 3, 4, 2), (1, 9), (3, 1, 2)]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def elements(runs: Runs) -> list[tuple[int, int, int]]:
    """(tensor, offset, place in the logical vector) of every element."""
    rows = zip(*(column.tolist() for column in runs), strict=True)
    return [(t, offset + j, start + j) for t, offset, start, length in rows for j in range(length)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_runs_of_a_grid(shape, seed):
    g = generator(seed)
    index = [torch.rand(n, generator=g).lt(0.8 if seed else 2.0).nonzero().view(-1) for n in shape]
    places = torch.arange(torch.Size(shape).numel()).view(shape)
    for dim, i in enumerate(index):
        places = places.index_select(dim, i)
    runs = runs_of_grid(index, shape, 3, 100)
    assert elements(runs) == [(3, j, 100 + place) for j, place in enumerate(places.reshape(-1).tolist())]


def test_shards_of_rows_are_one_run_and_of_columns_one_a_row():
    rows, columns = torch.arange(3, 8), torch.arange(4, 9)
    assert len(runs_of_grid([rows, torch.arange(10)], (20, 10), 0, 0).start) == 1
    assert len(runs_of_grid([torch.arange(20), columns], (20, 10), 0, 0).start) == 20
    assert len(runs_of_grid([rows, torch.arange(0), columns], (20, 5, 10), 0, 0).start) == 0


@pytest.mark.parametrize("longest", [5, TILE, 3 * TILE, 2 * FEW * TILE])
@pytest.mark.parametrize("seed", range(3))
def test_layout_covers_every_element_once(longest, seed):
    g = generator(seed)
    lengths = torch.randint(1, longest + 1, (20,), generator=g)
    gaps = torch.randint(0, longest + 1, (20,), generator=g) * torch.randint(0, 2, (20,), generator=g)
    start = (lengths + gaps).cumsum(0) - lengths
    tensor = torch.arange(20)
    runs = Runs(tensor, torch.randint(0, 9, (20,), generator=g), start, lengths)
    tiles = int(start[-1] + lengths[-1] - 1) // TILE + 1
    layout = Layout(runs.where(torch.randperm(20, generator=g)), tiles)
    pieces = layout.pieces
    assert bool((pieces.start // TILE == (pieces.start + pieces.length - 1) // TILE).all())
    assert pieces.start.tolist() == sorted(pieces.start.tolist())
    found = [
        *zip(*(column.tolist() for column in pieces), strict=True),
        *((s.tensor, s.offset, s.tile * TILE, s.tiles * TILE) for s in layout.slices),
    ]
    found.sort(key=lambda row: row[2])
    joined = []
    for row in found:  # adjacent pieces of one run are one run again
        if joined and joined[-1][0] == row[0] and joined[-1][2] + joined[-1][3] == row[2]:
            t, offset, begin, length = joined.pop()
            assert offset + length == row[1]
            row = (t, offset, begin, length + row[3])
        joined.append(row)
    assert joined == list(zip(*(column.tolist() for column in runs), strict=True))
    held = torch.zeros(tiles * TILE, dtype=torch.bool)
    for begin, length in zip(start.tolist(), lengths.tolist(), strict=True):
        held[begin : begin + length] = True
    assert torch.equal(layout.wanted, held.view(-1, TILE).any(dim=1))


def test_chunks_hold_few_tiles_and_divide_none():
    length = torch.full((5000,), 1000)
    runs = Runs(torch.zeros_like(length), length.cumsum(0), length.cumsum(0) + 17, length)
    layout = Layout(runs.where(torch.arange(5000) % 7 > 0), 2000)
    assert len(layout.chunks) > 3
    assert [a for a, _ in layout.chunks] == [0, *(b for _, b in layout.chunks[:-1])]
    assert layout.chunks[-1][1] == len(layout.pieces.start)
    chunks = [layout.tile_of_piece[a:b] for a, b in layout.chunks]
    assert all(len(tile.unique()) <= CHUNK for tile in chunks)
    assert all(int(a[-1]) < int(b[0]) for a, b in itertools.pairwise(chunks))


def test_no_runs():
    layout = Layout(Runs.none(), 3)
    assert (layout.slices, layout.chunks, layout.wanted.tolist()) == ([], [], [False] * 3)
