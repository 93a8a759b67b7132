"""draw_tiles in Triton's interpreter against the reference, bit for bit."""

import pytest
import torch

from sparseprune.ops import reference
from sparseprune.ops.sketch import align

pytestmark = pytest.mark.interpreter
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
EMPTY = torch.empty(0, dtype=torch.int64)
REJECTED = 9727, 88  # a seed and a draw of tile 0 whose first 64 bits are refused: one in 2^22
OUTPUTS = {"m": reference.M, "counts": reference.COUNTS, "weights": reference.WEIGHTS, "bool": reference.BOOL}


@pytest.fixture
def check(kernels, poison, same):
    def run(
        scores, total, output, dtypes, *, factors=(), transform=0, weights=(), draws=None, seed=5, stream=2, ids=EMPTY
    ):
        exponents, masses, _, bad = reference.score_tiles(scores, list(factors), transform)
        assert int(bad) < 0
        aligned = align(exponents, masses)
        if draws is None:
            draws = reference.split_draws(aligned, torch.empty(0, dtype=torch.bool), total, seed, stream)
        f64 = torch.float64
        scales = (aligned.sum().to(f64) / aligned.to(f64)) * masses.to(f64) / torch.tensor(total, dtype=f64)
        results = []
        for backend in (kernels, reference):
            out = poison(scores, dtypes)
            backend.draw_tiles(
                scores, list(factors), transform, ids, exponents, scales, draws, seed, stream, OUTPUTS[output],
                list(weights), out,
            )  # fmt: skip
            results.append(out)
        same(*results)
        return results[1]

    return run


def default_types(scores, output):
    if output == "m":
        return [torch.float64 if s.dtype == torch.float64 else torch.float32 for s in scores]
    if output == "weights":
        return [s.dtype for s in scores]
    return [torch.int32 if output == "counts" else torch.bool] * len(scores)


@pytest.mark.parametrize("output", OUTPUTS)
def test_lists(check, make, sizes, output):
    scores = make(sizes, zeros=0.0 if sum(sizes) == 1 else 0.2)
    weights = make(sizes, spread=0.3, signed=True, seed=9)
    check(scores, 1 + sum(sizes) // 10, output, default_types(scores, output), weights=weights)


@pytest.mark.parametrize("out", FLOATS)
@pytest.mark.parametrize("weight", FLOATS)
def test_weights_and_outputs_of_all_types(check, make, weight, out):
    scores = make([600] * 4, zeros=0.0)
    weights = [t.to(weight) for t in make([600] * 4, (torch.float64,), spread=0.3, signed=True, seed=3)]
    check(scores, 500, "weights", [out] * 4, weights=weights)


@pytest.mark.parametrize("out", [torch.bfloat16, torch.float32, torch.float64])
def test_m_in_all_types(check, make, out):
    check(make([4096, 100, 4096, 100]), 700, "m", [out] * 4)


@pytest.mark.parametrize("transform", [reference.GIVEN, reference.ABS, reference.SQUARE])
def test_factors(check, make, transform):
    signed = transform == reference.ABS
    scores = make([5 * 1000, 2 * 2100], signed=signed)
    factors = make([1000, 4200], (torch.bfloat16, torch.float32), spread=1.0, signed=signed, seed=1)
    check(scores, 500, "m", [torch.float32, torch.float32], factors=factors, transform=transform)


def test_tiles_of_a_share_draw_by_their_numbers(check, make):
    scores = make([5000, 4096, 3000])
    ids = torch.tensor([7, 1 << 20, (1 << 28) - 1])
    given = check(scores, 500, "counts", [torch.int32] * 3, ids=ids)
    plain = check(scores, 500, "counts", [torch.int32] * 3)
    assert not torch.equal(torch.cat(given), torch.cat(plain))


def test_elements_without_draws_get_signed_zeros(check, make):
    weights = [-torch.ones(5000)]
    (out,) = check([torch.rand(5000)], 3, "weights", [torch.float32], weights=weights)
    assert bool(torch.signbit(out[out == 0]).all())


def test_more_draws_than_lanes_in_one_tile(check, make):
    check(make([9000], (torch.float32,)), 2000, "counts", [torch.int32], draws=torch.tensor([1500, 0, 500]))


def test_a_heavy_tile_among_floored_ones(check):
    scores = torch.full((5 * 4096,), 1e-30)
    scores[8200] = 1e30
    (out,) = check([scores], 700, "counts", [torch.int32])
    assert int(out[8200]) == 700


def test_a_tile_whose_scores_span_everything(check):
    scores = torch.ldexp(torch.ones(4096, dtype=torch.float64), torch.arange(4096) // 2 - 1070)
    check([scores], 300, "m", [torch.float64])


@pytest.mark.parametrize(("seed", "stream"), [(-1, (1 << 32) - 1), (-(1 << 63), 1 << 31)])
def test_seeds_and_streams(check, make, seed, stream):
    check(make([3000]), 64, "counts", [torch.int32], seed=seed, stream=stream)


def test_a_rejected_draw_is_made_again(check):
    seed, draw = REJECTED
    mass = 4096 * 3 << 29  # of 4096 scores of 0.75; 2^64 mod mass = 2^42
    u = reference.random_bits(torch.tensor([draw]), torch.tensor([0]), reference.DRAW, 0, seed, 0)
    assert bool(reference.unsigned_less(u * mass, torch.tensor([1 << 42])))
    check([torch.full((4096,), 0.75)], draw + 1, "counts", [torch.int32], seed=seed, stream=0)
