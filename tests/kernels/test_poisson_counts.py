"""poisson_counts in Triton's interpreter against the reference, bit for bit."""

import pytest
import torch

from sparseprune.ops import reference

pytestmark = pytest.mark.interpreter


def check(kernels, whole, fraction, ids=None, seed=5, stream=6):
    whole, fraction = torch.tensor(whole), torch.tensor(fraction)
    ids = torch.arange(len(whole)) if ids is None else torch.tensor(ids)
    args = whole, fraction, ids, reference.poisson_table(whole.device), seed, stream
    got = kernels.poisson_counts(*args)
    assert got.dtype == torch.int64
    assert torch.equal(got, reference.poisson_counts(*args))
    return got.tolist()


def test_means_of_all_sizes(kernels):
    top = (1 << 62) - 1
    whole = [0, 0, 0, 1, 31, 32, 33, 63, 64, 100, 32 * 64, 32 * 64 - 1]
    fraction = [0, 1, top, 0, top, 0, 1 << 61, 12345, top, 0, 1 << 60, 1 << 61]
    assert check(kernels, whole, fraction)[0] == 0


def test_one_heavy_tile_is_shared_by_programs(kernels):
    (count,) = check(kernels, [32 * 64 * 5 + 7], [1 << 61], [123456789])
    assert abs(count - 32 * 64 * 5) < 1000


def test_thinning(kernels):
    """Means below 1: only the last variate, thinned."""
    counts = check(kernels, [0] * 40, [i * ((1 << 62) // 40) for i in range(40)], [7 * i for i in range(40)])
    assert 5 < sum(counts) < 40


@pytest.mark.parametrize(("seed", "stream"), [(-1, (1 << 32) - 1), (1 << 63, 1 << 31)])
def test_seeds_and_streams(kernels, seed, stream):
    check(kernels, [40, 3], [1 << 61, 5], [0, (1 << 28) - 1], seed, stream)


def test_nothing_to_draw(kernels):
    assert check(kernels, [0, 0], [0, 0]) == [0, 0]
