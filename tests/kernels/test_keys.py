"""key_histogram and key_mark in Triton's interpreter against the reference, bit for bit."""

import math

import pytest
import torch

from sparseprune.ops import reference

pytestmark = pytest.mark.interpreter
LOWEST = -(1 << 63)
PLAIN = reference.PLAIN, torch.empty(0, dtype=torch.int64), 0, 0, 0  # race, ids, exponent, seed, stream
TRANSFORMS = {"given": reference.GIVEN, "abs": reference.ABS, "square": reference.SQUARE}


def some_key(scores, factors=(), transform=reference.GIVEN):
    """The key of a typical non-zero element."""
    v = [
        reference.score_values(s, factors[i] if factors else None, transform) for i, s in enumerate(scores) if s.numel()
    ]
    v = torch.cat(v)
    return int(reference.order_keys(v[v != 0].sort().values[(v != 0).sum() // 2].view(1)))


def histogram(kernels, same, scores, low, shift, bits, step=1, factors=(), transform=reference.GIVEN):
    args = list(scores), list(factors), transform, *PLAIN, low, shift, bits, step
    expected = reference.key_histogram(*args)
    same(kernels.key_histogram(*args), expected)
    assert expected[1].numel() == 0
    return expected[0]


@pytest.mark.parametrize("step", [1, 2])
def test_histogram_of_lists(kernels, make, same, sizes, step):
    scores = make(sizes, signed=True, zeros=0.0 if sum(sizes) == 1 else 0.2)
    assert int(histogram(kernels, same, scores, LOWEST, 52, 12, step).sum()) > 0
    assert int(histogram(kernels, same, scores, some_key(scores) >> 45 << 45, 45, 8, step).sum()) > 0


def test_histogram_visits_tiles_by_their_numbers(kernels, make, same):
    scores, (race, _, *rest) = make([5000, 9000]), PLAIN
    ids = torch.tensor([3, 8, 9, 16])
    args = scores, [], reference.GIVEN, race, ids, *rest, LOWEST, 52, 12, 8
    expected = reference.key_histogram(*args)
    same(kernels.key_histogram(*args), expected)
    assert int(expected[0].sum()) == 4096 + 14000 - 3 * 4096


def test_histogram_of_ties(kernels, same):
    scores = [torch.tensor([0.0, -0.0, 0.0, 3.0, 5.0, -2.0, 3.0] * 1000), torch.ones(5000)]
    assert int(histogram(kernels, same, scores, LOWEST, 52, 12).max()) >= 5000
    assert int(histogram(kernels, same, scores, 0, 29, 12)[0]) == 3000
    assert int(histogram(kernels, same, scores, some_key(scores), 0, 16).max()) >= 2000


@pytest.mark.parametrize("shift", [52, 40, 29, 5, 0])
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_histogram_of_windows(kernels, make, same, transform, shift):
    scores, factors = make([5 * 300, 700], signed=True), make([300, 700], spread=1.0, signed=True, seed=4)
    code = TRANSFORMS[transform]
    low = some_key(scores, factors, code) - (3 << shift)
    found = histogram(kernels, same, scores, low, shift, 4, factors=factors, transform=code)
    assert int(found[3]) > 0
    assert int(found[-2]) > 0


@pytest.mark.parametrize("low", [LOWEST, -(1 << 62), -1, 0, 1, 1 << 62, (1 << 63) - 1])
def test_histogram_from_extreme_keys(kernels, same, low):
    scores = [torch.tensor([0.0, -0.0, 1e-320, -1e-320, 1.0, -1.0, 1.7e308, -1.7e308] * 600, dtype=torch.float64)]
    for shift, bits in ((0, 3), (52, 12), (62, 1)):
        histogram(kernels, same, scores, low, shift, bits)


def test_histogram_of_what_is_not_finite(kernels, same):
    scores = [torch.tensor([math.inf, -math.inf, math.nan, 1.0, 0.0]), torch.full((5000,), math.inf)]
    assert int(histogram(kernels, same, scores, LOWEST, 52, 12)[-1]) == 5003


def mark(kernels, same, poison, scores, threshold, shift, quotas, output, weights, dtypes):
    """One call for each of `quotas` into the same outputs: what they hold, and the ties of the last call."""
    results = []
    for backend in (kernels, reference):
        out, ties = poison(scores, dtypes), torch.empty(0)
        for quota in quotas:
            ties = backend.key_mark(
                scores, [], reference.GIVEN, *PLAIN, threshold, shift, 0, quota, output, weights, out
            )
        results.append([*out, ties])
    same(*results)
    return results[1]


@pytest.mark.parametrize("output", ["bool", "weights"])
@pytest.mark.parametrize("shift", [52, 40, 0])
def test_mark_of_lists(kernels, make, same, poison, sizes, output, shift):
    code = {"bool": reference.BOOL, "weights": reference.WEIGHTS}[output]
    scores = make(sizes, signed=True, spread=0.3, zeros=0.0)
    weights = make(sizes, (torch.float32, torch.bfloat16, torch.float64, torch.float16), signed=True, seed=8)
    dtypes = [torch.bool if output == "bool" else w.dtype for w in weights]
    tiles = -(-sum(sizes) // reference.TILE)
    threshold = some_key(scores) >> shift
    args = scores, threshold, shift
    full = torch.full((tiles,), reference.TILE)
    ties = mark(kernels, same, poison, *args, [full], code, weights, dtypes)[-1]
    assert int(ties.sum()) > 0
    half = torch.where(torch.arange(tiles) % 2 == 0, ties // 2, -1)
    mark(kernels, same, poison, *args, [full, half], code, weights, dtypes)


def test_mark_keeps_the_first_ties(kernels, same, poison):
    scores = [torch.ones(6000), torch.ones(3000)]
    quota = torch.tensor([4096, 3, 0])
    args = scores, some_key(scores), 0, [quota], reference.BOOL, [], [torch.bool] * 2
    first, second, ties = mark(kernels, same, poison, *args)
    assert (int(first.sum()), int(second.sum())) == (4099, 0)
    assert ties.tolist() == [4096, 4096, 808]


def test_the_padding_is_no_tie(kernels, same, poison):
    scores = [torch.zeros(4090), torch.ones(10), torch.zeros(4100)]
    args = scores, 0, 0, [torch.full((3,), 4096)], reference.BOOL, [], [torch.bool] * 3
    assert int(mark(kernels, same, poison, *args)[-1].sum()) == 8190


def test_tiles_of_quota_minus_one_are_left_alone(kernels, same, poison):
    scores = [torch.rand(4000), torch.rand(5000)]
    quota = torch.tensor([-1, 5, -1])
    args = scores, some_key(scores) >> 52, 52, [quota], reference.WEIGHTS, scores, [torch.float32] * 2
    first, second, ties = mark(kernels, same, poison, *args)
    assert bool(first.isnan().all())
    assert int(second.isnan().sum()) == 96 + 9000 - 8192
    assert int(ties[0]) == int(ties[2]) == 0
