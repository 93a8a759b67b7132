"""The operations on CUDA tensors against the same operations on the CPU, bit for bit, at sizes that fill a GPU."""

import struct

import pytest
import torch

from sparseprune import ops
from sparseprune.ops import reference
from sparseprune.ops.sketch import align

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
OPS = torch.ops.sparseprune
LARGE = [1 << 20, 1 << 24]
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
OUTPUTS = {"m": reference.M, "counts": reference.COUNTS, "weights": reference.WEIGHTS, "bool": reference.BOOL}
FIXED = {"counts": torch.int32, "bool": torch.bool}
MIXED = [20000, 3, 0, 700001, 4096, 1, 64 * 27, 64] * 3
PRIORITY, SUCCESSIVE = reference.PRIORITY_RACE, reference.SUCCESSIVE_RACE
LOWEST = -(1 << 63)
EMPTY = torch.empty(0, dtype=torch.int64)


def cuda(tensors):
    return [t.cuda() for t in tensors]


def both(driver, same, scores, dtypes, *arguments, poison, output, factors=(), weights=(), transform=reference.GIVEN):
    """Run a driver on the CPU and on the GPU into poisoned outputs; the CPU's."""
    results = []
    for move in (list, cuda):
        moved = move(scores)
        out = poison(moved, dtypes)
        driver(ops.Vector(moved, move(factors), transform, OUTPUTS[output], move(weights), out), *arguments)
        results.append(out)
    same(results[1], results[0])
    return results[0]


def equal(same, function, *arguments):
    """Call a raw operation with CPU tensors and with their copies on the GPU; the CPU's result."""
    moved = [
        cuda(a) if isinstance(a, list) else a.cuda() if isinstance(a, torch.Tensor) else a for a in arguments
    ]  # fmt: skip
    expected, got = function(*arguments), function(*moved)
    same(got if isinstance(got, tuple) else [got], expected if isinstance(expected, tuple) else [expected])
    return expected


def bits_of(number):
    return struct.unpack("<q", struct.pack("<d", number))[0]


# ---------------------------------------------------------------- raw operations
@pytest.mark.parametrize("numel", LARGE)
@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0])
def test_stages_of_the_sketch(make, same, numel, spread):
    scores = make([numel - 5], (torch.float32,), spread=spread)
    exponents, masses, _, _ = equal(same, OPS.score_tiles, scores, [], 0)
    aligned = align(exponents, masses)
    assert torch.equal(align(exponents.cuda(), masses.cuda()).cpu(), aligned)
    some = torch.arange(len(aligned)) % 5 == 0
    for draws in (1, 1000, numel // 10, 1 << 28):
        whole = equal(same, OPS.split_draws, aligned, EMPTY.bool(), draws, 3, 1)
        assert torch.equal(equal(same, OPS.split_draws, aligned, some, draws, 3, 1), torch.where(some, whole, 0))


@pytest.mark.parametrize("race", [reference.PLAIN, PRIORITY, SUCCESSIVE])
@pytest.mark.parametrize("ids", ["own", "given"])
def test_histograms_of_keys(make, same, race, ids):
    scores = make(MIXED)
    tiles = -(-sum(MIXED) // reference.TILE)
    numbers = EMPTY if ids == "own" else torch.arange(tiles) * 1001 + 7
    for low, shift, bits, step in ((LOWEST, 52, 12, 1), (LOWEST, 52, 12, 16), (bits_of(2.0**-30), 40, 18, 1)):
        args = race, numbers, 30, -5, 3, low, shift, bits, step
        found, _ = equal(same, OPS.key_histogram, scores, [], 0, *args)
        assert int(found.sum()) > 0


@pytest.mark.parametrize("spread", [0.0, 3.0])
def test_histogram_of_masses(make, same, spread):
    scores = make([*MIXED, 1 << 22], spread=spread)
    scores[3][[5, 700]] = float("nan")
    found, bad = equal(same, OPS.mass_histogram, scores, [], reference.GIVEN, 30)
    assert int(bad) == 2
    assert int(found[0].sum()) == sum(int((s > 0).sum()) for s in scores)


def test_poisson_counts(same):
    tails = reference.poisson_table(torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)
    whole = torch.randint(0, 3000, (20000,), generator=generator)
    whole[::7], whole[5] = 0, 1 << 24  # one heavy tile
    fraction = torch.randint(0, 1 << 62, (20000,), generator=generator)
    fraction[::14] = 0
    counts = equal(same, OPS.poisson_counts, whole, fraction, torch.arange(20000) * 13, tails, 9, 1)
    assert int(counts[0]) == 0
    assert abs(int(counts[5]) - (1 << 24)) < 6 << 12


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_the_first_bad_score(same, value):
    scores = torch.rand(1 << 20)
    scores[[777777, 900000]] = value
    *_, bad = OPS.score_tiles([scores.cuda()], [], 0)
    assert int(bad) == 777777


def test_tiles_of_a_share(make, same, poison):
    """draw_tiles, bernoulli_tiles and key_mark by the numbers of a rank's tiles."""
    scores = make(MIXED)
    ids = torch.arange(-(-sum(MIXED) // reference.TILE)) * 3 + 1
    exponents = OPS.score_tiles(scores, [], 0)[0]
    quota = torch.arange(len(ids)) % 5 - 1
    key, m = bits_of(4.0), [torch.float64 if s.dtype == torch.float64 else torch.float32 for s in scores]
    calls = [
        (OPS.draw_tiles, [ids, exponents, torch.rand(len(ids)).double(), torch.arange(len(ids)), 1, 2]),
        (OPS.bernoulli_tiles, [ids, 30, bits_of(0.5), 1, 2]),
        (OPS.key_mark, [PRIORITY, ids, 0, 1, 2, key >> 40, 40, key, quota]),
        (OPS.key_mark, [SUCCESSIVE, ids, 30, 1, 2, key >> 52, 52, 0, quota]),
    ]
    for operation, arguments in calls:
        results = []
        for move in (list, cuda):
            moved, out = move(scores), poison(move(scores), m)
            given = [move([a])[0] if isinstance(a, torch.Tensor) else a for a in arguments]
            operation(moved, [], 0, *given, reference.M, [], out)
            results.append(out)
        same(results[1], results[0])


# ---------------------------------------------------------------- whole methods
DRIVERS = {
    "multinomial": (ops.sketch_multinomial,),
    "poisson": (ops.sketch_poisson,),
    "systematic": (ops.sketch_systematic,),
    "bernoulli": (ops.bernoulli,),
    "priority": (ops.race, PRIORITY),
    "successive": (ops.race, SUCCESSIVE),
}


@pytest.mark.parametrize(("numel", "output"), [(1 << 24, "weights"), *((1 << 20, output) for output in OUTPUTS)])
@pytest.mark.parametrize("method", DRIVERS)
def test_methods(make, same, poison, method, numel, output):
    scores, weights = make([numel], (torch.float32,)), make([numel], (torch.bfloat16,), signed=True, seed=1)
    dtype = {**FIXED, "m": torch.float32, "weights": torch.bfloat16}[output]
    driver, *kind = DRIVERS[method]
    both(driver, same, scores, [dtype], numel // 10, *kind, -7, 1, weights=weights, poison=poison, output=output)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("transform", [reference.ABS, reference.SQUARE])
@pytest.mark.parametrize("method", DRIVERS)
def test_methods_on_a_list_with_factors(make, same, poison, method, output, transform):
    signed = transform == reference.ABS
    scores = make(MIXED, signed=True)
    factors = [f.abs() if not signed else f for f in make(MIXED, (torch.float32, torch.bfloat16), spread=1.0, seed=2)]
    weights = make(MIXED, (torch.float16, torch.float64, torch.float32), spread=0.3, signed=True, seed=3)
    dtypes = [FIXED.get(output, torch.float32 if output == "m" else w.dtype) for w in weights]
    driver, *kind = DRIVERS[method]
    both(
        driver, same, scores, dtypes, 3 << 17, *kind, 1, (1 << 32) - 1, factors=factors, weights=weights, poison=poison,
        transform=transform, output=output,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("method", DRIVERS)
def test_methods_on_every_type(make, same, poison, method, dtype):
    scores = make([(1 << 20) + 1], (dtype,), spread=2.0)
    driver, *kind = DRIVERS[method]
    both(driver, same, scores, [torch.float64], 1 << 18, *kind, 0, 0, poison=poison, output="m")


@pytest.mark.parametrize("method", ["multinomial", "poisson", "systematic"])
def test_a_heavy_tile_takes_millions_of_draws(same, poison, method):
    scores = torch.full((1 << 20,), 1e-30)
    scores[4096 * 100 : 4096 * 101] = torch.rand(4096)
    (driver,) = DRIVERS[method]
    both(driver, same, [scores], [torch.int32], 1 << 24, 5, 0, poison=poison, output="counts")


@pytest.mark.parametrize("method", DRIVERS)
def test_repeats_give_the_same_bits(make, same, poison, method):
    scores = cuda(make(MIXED))
    driver, *kind = DRIVERS[method]
    results = []
    for _ in range(3):
        out = poison(scores, [torch.int32] * len(scores))
        driver(ops.Vector(scores, [], reference.GIVEN, reference.COUNTS, [], out), 1 << 19, *kind, 1, 0)
        results.append(out)
    same(results[1], results[0])
    same(results[2], results[0])


@pytest.mark.parametrize("numel", LARGE)
@pytest.mark.parametrize("density", [0.001, 0.1, 0.9])
@pytest.mark.parametrize("dtype", FLOATS)
def test_top_k(make, same, poison, numel, density, dtype):
    scores, k = make([numel - 3], (dtype,), signed=True), int(density * numel)
    (mask,) = both(ops.top_k, same, scores, [torch.bool], k, poison=poison, output="bool")
    assert int(mask.sum()) == k


@pytest.mark.parametrize("k", [1, 4095, 1 << 23, (1 << 24) - 1])
def test_top_k_of_equal_scores(same, poison, k):
    scores = [torch.ones(1 << 23), torch.ones(1 << 23)]
    masks = both(ops.top_k, same, scores, [torch.bool] * 2, k, poison=poison, output="bool")
    assert int(torch.cat(masks).nonzero().max()) == k - 1


@pytest.mark.parametrize("k", [1, 100000, 2000000])
def test_top_k_of_a_list_with_factors(make, same, poison, k):
    scores, factors = make(MIXED, signed=True), make(MIXED, spread=1.0, seed=2)
    weights = make(MIXED, (torch.float16, torch.bfloat16, torch.float32), signed=True, seed=3)
    both(
        ops.top_k, same, scores, [w.dtype for w in weights], k, factors=factors, weights=weights, poison=poison,
        transform=reference.ABS, output="weights",
    )  # fmt: skip
