"""split_draws in Triton's interpreter against the reference, bit for bit."""

import pytest
import torch

from sparseprune.ops import reference

pytestmark = pytest.mark.interpreter


ALL = torch.empty(0, dtype=torch.bool)


def check(kernels, aligned, draws, seed=0, stream=0):
    aligned = torch.tensor(aligned, dtype=torch.int64)
    got = kernels.split_draws(aligned, ALL, draws, seed, stream)
    assert got.dtype == torch.int64
    assert int(got.sum()) == draws
    assert torch.equal(got, reference.split_draws(aligned, ALL, draws, seed, stream))
    return got


@pytest.mark.parametrize("wanted", [[0], [4], [1, 2], [0, 3, 4], []])
def test_only_wanted_tiles(kernels, wanted):
    aligned = [3 << 55, 1 << 55, 0, 5 << 55, 7 << 50]
    whole = check(kernels, aligned, 400, seed=3)
    flags = torch.zeros(5, dtype=torch.bool)
    flags[wanted] = True
    got = kernels.split_draws(torch.tensor(aligned), flags, 400, 3, 0)
    assert torch.equal(got, torch.where(flags, whole, 0))
    assert torch.equal(got, reference.split_draws(torch.tensor(aligned), flags, 400, 3, 0))


@pytest.mark.parametrize("tiles", [1, 2, 3, 5])
@pytest.mark.parametrize("draws", [1, 130])
def test_tiles_and_draws(kernels, tiles, draws):
    generator = torch.Generator().manual_seed(tiles)
    check(kernels, torch.randint(0, 1 << 55, (tiles,), generator=generator).tolist(), draws, seed=tiles)


@pytest.mark.parametrize("draws", [127, 128, 129, 16384])
def test_edges_of_calls_and_chunks(kernels, draws):
    check(kernels, [1 << 57, (1 << 58) + 12345], draws)


def test_several_chunks_in_one_node(kernels):
    check(kernels, [1 << 58, 3 << 57], 3 * 16384 + 1, seed=7)


def test_one_heavy_tile_among_floored_ones(kernels):
    check(kernels, [1, 1, (1 << 59) - 5, 1, 1], 300)


def test_tiles_without_mass_get_no_draws(kernels):
    check(kernels, [0, 0, 1 << 58, 0, 0, 0], 1000)
    check(kernels, [0, 1 << 58, 0, 1 << 58], 100)


@pytest.mark.parametrize(
    ("seed", "stream"), [(-1, 0), (1 << 31, 1), ((1 << 63) - 1, (1 << 32) - 1), (-(1 << 63), 1 << 31)]
)
def test_seeds_and_streams(kernels, seed, stream):
    check(kernels, [3 << 56, 5 << 56], 200, seed, stream)
