"""systematic_tiles in Triton's interpreter against the reference, bit for bit."""

from itertools import pairwise

import pytest
import torch

from sparseprune.ops import reference
from sparseprune.ops.sketch import align

pytestmark = pytest.mark.interpreter
OUTPUTS = {"m": reference.M, "counts": reference.COUNTS, "weights": reference.WEIGHTS, "bool": reference.BOOL}


def lengths(scores, total):
    """The tables and `bits` for `total` draws: the law of docs/sampler.md in Python integers."""
    exponents, masses, positives, _ = reference.score_tiles(scores, [], reference.GIVEN)
    aligned, bits = align(exponents, masses), 60 - total.bit_length()
    spare, whole = (total << bits) - int(positives.sum()), int(aligned.sum())
    ends = [spare * end // whole for end in (0, *aligned.cumsum(0).tolist())]
    parts = [high - low for low, high in pairwise(ends)]
    begins = torch.tensor(ends[:-1]) + positives.cumsum(0) - positives
    gains, shifts = [], []
    for part, mass in zip(parts, masses.tolist(), strict=True):
        gain, shift = 0, 0
        while part and gain < 1 << 62:
            shift += 1
            gain = (part << shift) // mass
        gains.append(gain)
        shifts.append(shift)
    return exponents, begins, *(torch.tensor(table) for table in (parts, gains, shifts)), bits


def check(kernels, same, poison, scores, total, output, dtypes, weights=()):
    *tables, bits = lengths(scores, total)
    for start in (0, 0x5DEECE66D1234567 >> (64 - bits), (1 << bits) - 1):
        results = []
        for backend in (kernels, reference):
            out = poison(scores, dtypes)
            backend.systematic_tiles(
                scores, [], reference.GIVEN, *tables, start, bits, OUTPUTS[output], list(weights), out
            )  # fmt: skip
            results.append(out)
        same(*results)
        if output == "counts":
            assert sum(int(t.sum()) for t in results[1]) == total
    return results[1]


@pytest.mark.parametrize("draws", ["few", "many"])
def test_counts_of_lists(kernels, make, same, poison, sizes, draws):
    scores = make(sizes, zeros=0.0 if sum(sizes) == 1 else 0.2)
    total = 1 + sum(sizes) // 10 if draws == "few" else (1 << 31) - 1
    check(kernels, same, poison, scores, total, "counts", [torch.int32] * len(scores))


@pytest.mark.parametrize("output", ["m", "weights", "bool"])
def test_outputs(kernels, make, same, poison, output):
    sizes = [3000, 2500, 4000, 2700]
    scores = make(sizes, zeros=0.1)
    weights = make(
        sizes, (torch.bfloat16, torch.float32, torch.float16, torch.float64), spread=0.3, signed=True, seed=2
    )
    m = [torch.float64 if s.dtype == torch.float64 else torch.float32 for s in scores]
    dtypes = {"m": m, "weights": [w.dtype for w in weights], "bool": [torch.bool] * 4}[output]
    check(kernels, same, poison, scores, 2000, output, dtypes, weights)


def test_tiles_without_mass_and_floored_scores(kernels, same, poison):
    scores = [torch.zeros(3 * 4096), torch.full((5000,), 1e-30), torch.zeros(4096)]
    scores[1][17] = 1e30
    counts = check(kernels, same, poison, scores, 1000, "counts", [torch.int32] * 3)
    assert int(counts[1][17]) >= 999


@pytest.mark.parametrize("shift", [0, 1, 63, 64, 65, 105])
def test_every_shift(kernels, same, poison, shift):
    scores = [torch.ones(4096)]
    gain = min((1 << 63) - 1, (1 << (58 + shift)) // (1 << 43)) if shift else 0
    tables = [torch.tensor([n]) for n in (123, 1 << 58, gain, shift)]
    exponent = torch.tensor([1], dtype=torch.int32)
    results = []
    for backend in (kernels, reference):
        out = poison(scores, [torch.float64])
        backend.systematic_tiles(
            scores, [], reference.GIVEN, exponent, *tables, 1 << 61, 40, reference.M, [], out
        )  # fmt: skip
        results.append(out)
    same(*results)
