"""key_histogram and key_mark for races in Triton's interpreter against the reference, bit for bit."""

import math
import struct

import pytest
import torch

from sparseprune.ops import reference

pytestmark = pytest.mark.interpreter
LOWEST = -(1 << 63)
NONE = torch.empty(0, dtype=torch.int64)
RACES = {"priority": reference.PRIORITY_RACE, "successive": reference.SUCCESSIVE_RACE}
EDGE = 13351, 903  # a tile and a lane whose u lies between sqrt(1/2) in fp32 and in fp64
OUTPUTS = {"m": reference.M, "counts": reference.COUNTS, "weights": reference.WEIGHTS, "bool": reference.BOOL}


@pytest.fixture(params=RACES)
def race(request):
    return RACES[request.param]


def bits_of(number):
    return struct.unpack("<q", struct.pack("<d", number))[0]


def histogram(kernels, same, scores, race, *window, ids=NONE, exponent=0, seed=7, stream=1, factors=(), transform=0):
    args = scores, list(factors), transform, race, ids, exponent, seed, stream, *window
    expected = reference.key_histogram(*args)
    same(kernels.key_histogram(*args), expected)
    return expected


def mark(kernels, same, poison, scores, race, threshold, shift, tau, output, dtypes, **options):
    """Mark with quotas that differ from tile to tile, some -1; what was written, and the ties."""
    tiles = -(-sum(s.numel() for s in scores) // reference.TILE)
    quota = options.get("quota", torch.tensor([2, 4096, 0, -1, 1, 3, 9][:tiles]))
    ids, exponent, seed = options.get("ids", NONE), options.get("exponent", 0), options.get("seed", 7)
    results = []
    for backend in (kernels, reference):
        out = poison(scores, dtypes)
        ties = backend.key_mark(
            scores, [], reference.GIVEN, race, ids, exponent, seed, 1, threshold, shift, tau, quota,
            OUTPUTS[output], options.get("weights", []), out,
        )  # fmt: skip
        results.append([*out, ties])
    same(*results)
    return results[1]


def types_of_m(scores):
    return [torch.float64 if s.dtype == torch.float64 else torch.float32 for s in scores]


def test_lists(kernels, make, same, poison, sizes, race):
    scores = make(sizes, zeros=0.0 if sum(sizes) == 1 else 0.2)
    whole, sums = histogram(kernels, same, scores, race, LOWEST, 52, 12, 1)
    assert int(whole[:-1].sum()) == sum(sizes)
    assert bool(sums.any())
    window, _ = histogram(kernels, same, scores, race, bits_of(1.0), 45, 10, 1)
    assert int(window[:-1].sum()) > 0
    *_, ties = mark(
        kernels, same, poison, scores, race, bits_of(4.0) >> 52, 52, bits_of(3.0), "m", types_of_m(scores)
    )  # fmt: skip
    assert len(ties) == -(-sum(sizes) // reference.TILE)


def test_tiles_of_a_share_race_by_their_numbers(kernels, make, same, poison, race):
    scores, ids = make([5000, 9000]), torch.tensor([1, 6, 4096, (1 << 28) - 2])
    own, _ = histogram(kernels, same, scores, race, LOWEST, 52, 12, 1)
    given, _ = histogram(kernels, same, scores, race, LOWEST, 52, 12, 1, ids=ids)
    assert not torch.equal(own, given)
    some, _ = histogram(kernels, same, scores, race, LOWEST, 52, 12, 2, ids=ids)
    assert int(some[:-1].sum()) == 14000 - 4096
    mark(kernels, same, poison, scores, race, bits_of(4.0) >> 52, 52, 0, "bool", [torch.bool] * 2, ids=ids)


def test_bad_scores_are_counted_and_race_as_zeros(kernels, same, race):
    scores = [torch.tensor([math.nan, math.inf, -math.inf, -1.0, 2.0, 0.0]), torch.ones(4100)]
    found, _ = histogram(kernels, same, scores, race, 0, 0, 1, 1)
    assert found.tolist() == [5, 0, 4101, 4]


def test_factors(kernels, make, same, race):
    scores, factors = make([5 * 300, 700], signed=True), make([300, 700], spread=1.0, signed=True, seed=4)
    options = {"factors": factors, "transform": reference.ABS}
    assert int(histogram(kernels, same, scores, race, bits_of(0.5), 40, 12, 1, **options)[0][:-2].sum()) > 0


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("tau", [0.0, 2.5, 40.0])
def test_outputs(kernels, make, same, poison, output, tau):
    sizes = [3000, 2500, 4000, 2700]
    scores = make(sizes, zeros=0.1)
    weights = make(
        sizes, (torch.bfloat16, torch.float32, torch.float16, torch.float64), spread=0.3, signed=True, seed=2
    )
    fixed = {"counts": torch.int32, "bool": torch.bool}
    dtypes = types_of_m(scores) if output == "m" else [fixed.get(output, w.dtype) for w in weights]
    result = mark(
        kernels, same, poison, scores, reference.PRIORITY_RACE, bits_of(tau or 2.5), 0, bits_of(tau), output, dtypes,
        weights=weights, quota=torch.full((3,), 1),
    )  # fmt: skip
    if output == "m":
        kept = torch.cat([t.double() for t in result[:-1]])
        assert float(kept.max()) > 1 if tau else set(kept.tolist()) == {0.0, 1.0}


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
@pytest.mark.parametrize("exponent", [-900, 0, 1, 700, 1024])
def test_rescaled_scores(kernels, same, poison, race, exponent):
    ladder = torch.linspace(-1074, min(exponent, 960), 5000, dtype=torch.float64).round()
    scores = [torch.ldexp(torch.full_like(ladder, 1.25), ladder).clamp(min=5e-324)]
    histogram(kernels, same, scores, race, LOWEST, 52, 12, 1, exponent=exponent)
    tau = bits_of(2.0**-500)
    mark(kernels, same, poison, scores, race, tau >> 52, 52, tau, "m", [torch.float64], exponent=exponent)


@pytest.mark.parametrize("seed", [-1, 1 << 63, (1 << 64) - 1, -(1 << 63)])
def test_seeds(kernels, same, race, seed):
    histogram(kernels, same, [torch.ones(3000)], race, bits_of(1.0), 46, 10, 1, seed=seed, stream=(1 << 32) - 1)


def test_the_logarithm_where_its_argument_is_halved(kernels, same):
    """An fp32 sqrt(1/2) would take the other branch of the logarithm for one number of this tile."""
    ids, lane = torch.tensor([EDGE[0]]), EDGE[1]
    bits = reference.random_bits(torch.tensor([lane]), ids, reference.SUCCESSIVE, 0, 7, 0)
    u = float(reference.uniforms(bits))
    assert float(torch.tensor(0.5).sqrt()) < u < math.sqrt(0.5)
    scores = [torch.zeros(4096)]
    scores[0][lane] = 1.0
    histogram(
        kernels, same, scores, reference.SUCCESSIVE_RACE, bits_of(2.0), 36, 16, 1, ids=ids, stream=0
    )  # the sum of the keys tells every bit
