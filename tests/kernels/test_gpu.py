"""The operations on CUDA tensors against the same operations on the CPU, bit for bit, at sizes that fill a GPU."""

import pytest
import torch

from sparseprune.ops import reference
from sparseprune.ops.sketch import align, sketch_multinomial
from sparseprune.ops.top_k import top_k

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
OPS = torch.ops.sparseprune
LARGE = [1 << 20, 1 << 24]
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
OUTPUTS = {"m": reference.M, "counts": reference.COUNTS, "weights": reference.WEIGHTS, "bool": reference.BOOL}
MIXED = [20000, 3, 0, 700001, 4096, 1, 64 * 27, 64] * 3


def cuda(tensors):
    return [t.cuda() for t in tensors]


def both(function, same, scores, dtypes, *, factors=(), weights=(), poison, **arguments):
    """Run on the CPU and on the GPU into poisoned outputs; the CPU's."""
    results = []
    for move in (list, cuda):
        moved = move(scores)
        out = poison(moved, dtypes)
        function(moved, factors=move(factors), weights=move(weights), out=out, **arguments)
        results.append(out)
    same(results[1], results[0])
    return results[0]


@pytest.mark.parametrize("numel", LARGE)
@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0])
def test_stages_of_the_sketch(make, same, numel, spread):
    scores = make([numel - 5], (torch.float32,), spread=spread)
    exponents, masses, bad = OPS.score_tiles(scores, [], 0)
    same(OPS.score_tiles(cuda(scores), [], 0), (exponents, masses, bad))
    aligned = align(exponents, masses)
    assert torch.equal(align(exponents.cuda(), masses.cuda()).cpu(), aligned)
    for draws in (1, 1000, numel // 10, 1 << 28):
        same([OPS.split_draws(aligned.cuda(), draws, 3, 1)], [OPS.split_draws(aligned, draws, 3, 1)])


@pytest.mark.parametrize("numel", LARGE)
@pytest.mark.parametrize("output", OUTPUTS)
def test_multinomial(make, same, poison, numel, output):
    scores, weights = make([numel], (torch.float32,)), make([numel], (torch.bfloat16,), signed=True, seed=1)
    dtype = {"m": torch.float32, "counts": torch.int32, "weights": torch.bfloat16, "bool": torch.bool}[output]
    both(
        sketch_multinomial, same, scores, [dtype], weights=weights, poison=poison, draws=numel // 10, seed=-7, stream=1,
        transform=reference.GIVEN, output=OUTPUTS[output],
    )  # fmt: skip


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("transform", [reference.ABS, reference.SQUARE])
def test_multinomial_of_a_list_with_factors(make, same, poison, output, transform):
    signed = transform == reference.ABS
    scores = make(MIXED, signed=True)
    factors = [f.abs() if not signed else f for f in make(MIXED, (torch.float32, torch.bfloat16), spread=1.0, seed=2)]
    weights = make(MIXED, (torch.float16, torch.float64, torch.float32), spread=0.3, signed=True, seed=3)
    fixed = {"counts": torch.int32, "bool": torch.bool}
    dtypes = [fixed.get(output, torch.float32 if output == "m" else w.dtype) for w in weights]
    both(
        sketch_multinomial, same, scores, dtypes, factors=factors, weights=weights, poison=poison, draws=3 << 17,
        seed=1, stream=(1 << 32) - 1, transform=transform, output=OUTPUTS[output],
    )  # fmt: skip


@pytest.mark.parametrize("dtype", FLOATS)
def test_multinomial_of_every_type(make, same, poison, dtype):
    scores = make([(1 << 20) + 1], (dtype,), spread=2.0)
    both(
        sketch_multinomial, same, scores, [torch.float64], poison=poison, draws=1 << 18, seed=0, stream=0,
        transform=reference.GIVEN, output=reference.M,
    )  # fmt: skip


def test_a_heavy_tile_takes_millions_of_draws(same, poison):
    scores = torch.full((1 << 20,), 1e-30)
    scores[4096 * 100 : 4096 * 101] = torch.rand(4096)
    both(
        sketch_multinomial, same, [scores], [torch.int32], poison=poison, draws=1 << 24, seed=5, stream=0,
        transform=reference.GIVEN, output=reference.COUNTS,
    )  # fmt: skip


@pytest.mark.parametrize("numel", LARGE)
@pytest.mark.parametrize("density", [0.001, 0.1, 0.9])
@pytest.mark.parametrize("dtype", FLOATS)
def test_top_k(make, same, poison, numel, density, dtype):
    scores, k = make([numel - 3], (dtype,), signed=True), int(density * numel)
    (mask,) = both(
        top_k, same, scores, [torch.bool], poison=poison, k=k, transform=reference.GIVEN, output=reference.BOOL
    )  # fmt: skip
    assert int(mask.sum()) == k


@pytest.mark.parametrize("k", [1, 4095, 1 << 23, (1 << 24) - 1])
def test_top_k_of_equal_scores(same, poison, k):
    scores = [torch.ones(1 << 23), torch.ones(1 << 23)]
    masks = both(
        top_k, same, scores, [torch.bool] * 2, poison=poison, k=k, transform=reference.GIVEN, output=reference.BOOL
    )  # fmt: skip
    assert int(torch.cat(masks).nonzero().max()) == k - 1


@pytest.mark.parametrize("k", [1, 100000, 2000000])
def test_top_k_of_a_list_with_factors(make, same, poison, k):
    scores, factors = make(MIXED, signed=True), make(MIXED, spread=1.0, seed=2)
    weights = make(MIXED, (torch.float16, torch.bfloat16, torch.float32), signed=True, seed=3)
    both(
        top_k, same, scores, [w.dtype for w in weights], factors=factors, weights=weights, poison=poison, k=k,
        transform=reference.ABS, output=reference.WEIGHTS,
    )  # fmt: skip


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_the_first_bad_score(same, value):
    scores = torch.rand(1 << 20)
    scores[[777777, 900000]] = value
    *_, bad = OPS.score_tiles([scores.cuda()], [], 0)
    assert int(bad) == 777777


def test_repeats_give_the_same_bits(make, same, poison):
    scores = cuda(make(MIXED))
    results = []
    for _ in range(3):
        out = poison(scores, [torch.int32] * len(scores))
        sketch_multinomial(
            scores, 1 << 20, seed=1, stream=0, transform=0, factors=[], output=reference.COUNTS, weights=[], out=out
        )
        results.append(out)
    same(results[1], results[0])
    same(results[2], results[0])
