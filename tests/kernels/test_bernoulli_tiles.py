"""mass_histogram and bernoulli_tiles in Triton's interpreter against the reference, bit for bit."""

import math
import struct

import pytest
import torch

from sparseprune.ops import reference

pytestmark = pytest.mark.interpreter
NONE = torch.empty(0, dtype=torch.int64)
OUTPUTS = {"m": reference.M, "counts": reference.COUNTS, "weights": reference.WEIGHTS, "bool": reference.BOOL}


def masses(kernels, same, scores, factors=(), transform=reference.GIVEN, exponent=0):
    args = scores, list(factors), transform, exponent
    expected = reference.mass_histogram(*args)
    same(kernels.mass_histogram(*args), expected)
    return expected


def check(kernels, same, poison, scores, rate, output, dtypes, *, ids=NONE, exponent=0, seed=3, weights=()):
    """Keep with probability min(1, rate v); what the reference wrote."""
    (bits,) = struct.unpack("<q", struct.pack("<d", rate))
    results = []
    for backend in (kernels, reference):
        out = poison(scores, dtypes)
        backend.bernoulli_tiles(
            scores, [], reference.GIVEN, ids, exponent, bits, seed, 1, OUTPUTS[output], list(weights), out
        )
        results.append(out)
    same(*results)
    return results[1]


def test_histogram_of_lists(kernels, make, same, sizes):
    scores = make(sizes)
    found, bad = masses(kernels, same, scores)
    assert int(found[0].sum()) == sum(int((s > 0).sum()) for s in scores)
    assert int(bad) == 0


@pytest.mark.parametrize("transform", [reference.ABS, reference.SQUARE])
def test_histogram_with_factors(kernels, make, same, transform):
    signed = transform == reference.ABS
    masses(kernels, same, make([1500, 700], signed=True), make([300, 700], signed=signed, seed=4), transform)


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize("exponent", [-900, 0, 1024])
def test_histogram_of_the_whole_range(kernels, same, exponent):
    ladder = torch.linspace(-1074, min(exponent, 960), 5000, dtype=torch.float64).round()
    masses(kernels, same, [torch.ldexp(torch.full_like(ladder, 1.6), ladder).clamp(min=5e-324)], exponent=exponent)


def test_bad_scores_are_left_out(kernels, same):
    found, bad = masses(
        kernels, same, [torch.tensor([math.nan, math.inf, -1.0, -math.inf, 3.0, 0.0]), torch.ones(5000)]
    )
    assert (int(bad), int(found[0].sum())) == (4, 5001)


def test_coins_of_lists(kernels, make, same, poison, sizes):
    scores = make(sizes, zeros=0.0 if sum(sizes) == 1 else 0.2)
    kept = check(kernels, same, poison, scores, 0.2, "counts", [torch.int32] * len(scores))
    assert all(bool((s[c > 0] > 0).all()) for s, c in zip(scores, kept, strict=True))


@pytest.mark.parametrize("output", ["m", "weights", "bool"])
def test_outputs(kernels, make, same, poison, output):
    sizes = [3000, 2500, 4000, 2700]
    scores = make(sizes, zeros=0.1)
    weights = make(
        sizes, (torch.bfloat16, torch.float32, torch.float16, torch.float64), spread=0.3, signed=True, seed=2
    )
    m = [torch.float64 if s.dtype == torch.float64 else torch.float32 for s in scores]
    dtypes = {"m": m, "weights": [w.dtype for w in weights], "bool": [torch.bool] * 4}[output]
    check(kernels, same, poison, scores, 0.3, output, dtypes, weights=weights)


def test_tiles_of_a_share_toss_by_their_numbers(kernels, same, poison):
    scores, ids = [torch.full((5000,), 0.5), torch.full((4000,), 0.5)], torch.tensor([2, 77, (1 << 28) - 1])
    given = check(kernels, same, poison, scores, 1.0, "bool", [torch.bool] * 2, ids=ids)
    own = check(kernels, same, poison, scores, 1.0, "bool", [torch.bool] * 2)
    assert not torch.equal(given[0], own[0])


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize("rate", [5e-324, 1e-19, 0.75, 1.7e308])
def test_extreme_rates(kernels, same, poison, rate):
    scores = [torch.tensor([1.0, 3.0, 0.0, 1e-30]).repeat(1000)]
    (m,) = check(kernels, same, poison, scores, rate, "m", [torch.float32])
    if rate > 1e300:
        assert set(m.tolist()) == {0.0, 1.0}


@pytest.mark.parametrize(("exponent", "seed"), [(1024, -1), (-1000, 1 << 63)])
def test_rescaled_scores(kernels, same, poison, exponent, seed):
    ladder = torch.linspace(exponent - 1100, exponent, 5000, dtype=torch.float64).round().clamp(min=-1074, max=1023)
    scores = [torch.ldexp(torch.ones_like(ladder), ladder)]
    (kept,) = check(kernels, same, poison, scores, 8.0, "m", [torch.float64], exponent=exponent, seed=seed)
    assert bool((kept > 0).any())
