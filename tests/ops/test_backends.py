"""Operations of the sketches against `reference.<op>`, byte for byte, on fresh random inputs; what the dispatcher asks.

Each run draws new inputs; a failure prints the seed that repeats it (SEED in fresh.py).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from sparseprune import ops, sampling
from sparseprune.ops import reference
from sparseprune.ops.sketch import align, gains

from .fresh import (
    FLOATS,
    OUTPUTS,
    all_same,
    chance,
    factors,
    integer,
    numbers,
    outputs,
    same_bytes,
    weights_like,
)

OPS = torch.ops.sparseprune
SIZES = ([1], [4096], [4097], [5, 4096, 0, 4091], [12_289], [3, 20_000, 1, 1, 777])


def vector(rng: torch.Generator, sizes: list[int], signed: bool, kinds: Sequence[torch.dtype] = FLOATS) -> list[Tensor]:
    """Scores of mixed dtypes: wide log-normals (fp64: near any power of two) with zeros, ties and subnormals."""
    result = []
    for size in sizes:
        x = torch.exp(torch.randn(size, generator=rng, dtype=torch.float64) * 3.0)
        dtype = kinds[integer(rng, 0, len(kinds))]
        x = torch.ldexp(x, torch.tensor(integer(rng, -400, 400))) if dtype == torch.float64 else x.clamp(max=6e4)
        x[chance(rng, size, 0.2)] = 0.0
        x[chance(rng, size, 0.1)] = 0.375
        x[chance(rng, size, (0.02, 1.0)[integer(rng, 0, 8) == 0])] = torch.finfo(dtype).tiny * torch.finfo(dtype).eps
        result.append((torch.where(chance(rng, size, 0.5), -x, x) if signed else x).to(dtype))
    return result


def some_seed(rng: torch.Generator) -> tuple[int, int]:
    """(seed, stream)."""
    return integer(rng, -(1 << 62), 1 << 62), integer(rng, 0, 1 << 32)


def any_source(rng: torch.Generator, sizes: list[int]) -> tuple[list[Tensor], list[Tensor], int]:
    """(scores, factors, transform); half of the time all that fp32 holds."""
    plain = bool(integer(rng, 0, 2))
    transform = integer(rng, 0, 2 if plain else 3)
    scores = vector(rng, sizes, transform != reference.GIVEN, FLOATS[:3] if plain else FLOATS)
    return scores, [] if plain else factors(rng, scores), transform


def exponents_and_masses(rng: torch.Generator, source: tuple[list[Tensor], list[Tensor], int]) -> tuple[Tensor, Tensor]:
    """Half of the time with exponents too large: then q is 1 or 2, and r often equals a sum of q."""
    exponents, masses, _, _ = reference.score_tiles(*source)
    if integer(rng, 0, 2):
        exponents = exponents + 30
        blocks = reference.tile_blocks(*source)
        masses = torch.cat([reference.quantize(v, exponents[b : b + len(v)]).sum(dim=1) for b, v in blocks])
    return exponents, masses


def agree(name: str, arguments: tuple[Any, ...], out: list[Tensor]) -> None:
    expected = [t.clone() for t in out]
    getattr(OPS, name)(*arguments, out)
    getattr(reference, name)(*arguments, expected)
    assert all_same(out, expected)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("wrong", [False, True])
def test_score_tiles(rng, sizes, wrong) -> None:
    for _ in range(3):
        source = any_source(rng, sizes)
        if wrong:
            for score in source[0]:
                for bad in (torch.nan, -torch.nan, torch.inf, -torch.inf, -1.0):
                    score[chance(rng, len(score), 0.001)] = bad
        assert all_same(OPS.score_tiles(*source), reference.score_tiles(*source))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -1e-45, -1.0, -float("inf"), -float("nan")])
def test_score_tiles_names_the_first_bad_element(rng, wrong) -> None:
    scores = vector(rng, [5000, 7, 9000], False, FLOATS[:3])
    places = [integer(rng, 0, 14_007) for _ in range(3)]
    flat = torch.cat([s.double() for s in scores])
    flat[places] = wrong
    scores = [part.to(torch.float32) for part in flat.split([5000, 7, 9000])]
    for op in (OPS.score_tiles, reference.score_tiles):
        assert op(scores, [], reference.GIVEN)[3].tolist() == [min(places)]


def random_alignment(rng: torch.Generator, tiles: int) -> Tensor:
    exponents = torch.randint(-30, 30, (tiles,), generator=rng, dtype=torch.int32)
    masses = torch.randint(0, 1 << 43, (tiles,), generator=rng) >> integer(rng, 0, 40)
    masses[chance(rng, tiles, 0.2)] = 0
    masses[integer(rng, 0, tiles)] = 12345
    return align(exponents, masses)


@pytest.mark.parametrize("tiles", [1, 2, 3, 64, 1000])
@pytest.mark.parametrize("draws", [1, 5, 40_000, 300_000])
def test_split_draws(rng, tiles, draws) -> None:
    a, (seed, stream) = random_alignment(rng, tiles), some_seed(rng)
    full = OPS.split_draws(a, torch.empty(0, dtype=torch.bool), draws, seed, stream)
    assert same_bytes(full, reference.split_draws(a, torch.empty(0, dtype=torch.bool), draws, seed, stream))
    assert int(full.sum()) == draws
    assert not bool(full[a == 0].any())
    for share in (0.0, 1 / tiles, 0.3, 1.0):
        wanted = chance(rng, tiles, share)
        assert same_bytes(OPS.split_draws(a, wanted, draws, seed, stream), full.where(wanted, 0))
    wanted = chance(rng, tiles, 1 / tiles)
    assert same_bytes(reference.split_draws(a, wanted, draws, seed, stream), full.where(wanted, 0))


def test_poisson_counts(rng) -> None:
    tails, (seed, stream) = reference.poisson_table(torch.device("cpu")), some_seed(rng)
    edges = torch.tensor([0, 1, 30, 31, 32, 33, 63, 64, 32 * 63, 32 * 64, 32 * 64 + 31, 32 * 65 + 7, 40_000])
    whole = torch.cat([edges, edges, edges, torch.randint(0, 3000, (200,), generator=rng)])
    fraction = torch.randint(0, 1 << 62, whole.shape, generator=rng)
    fraction[: len(edges)] = 0
    fraction[len(edges) : 2 * len(edges)] = (1 << 62) - 1
    ids = torch.randint(0, 1 << 28, whole.shape, generator=rng)
    arguments = (whole, fraction, ids, tails, seed, stream)
    found = OPS.poisson_counts(*arguments)
    assert same_bytes(found, reference.poisson_counts(*arguments))
    assert found[0] == 0 and found[len(edges)] <= 20


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("draws", [1, 64, 2049, 30_000])
def test_draw_tiles(rng, sizes, draws, output) -> None:
    source = any_source(rng, sizes)
    exponents, masses = exponents_and_masses(rng, source)
    per_tile = torch.where((masses > 0) & chance(rng, len(masses), 0.8), draws - integer(rng, 0, min(draws, 3)), 0)
    scales = torch.rand(masses.shape, generator=rng, dtype=torch.float64) * masses
    w = weights_like(rng, source[0])
    table = (numbers(rng, len(masses)), exponents, scales, per_tile)
    agree("draw_tiles", (*source, *table, *some_seed(rng), output, w), outputs(rng, source[0], output))


def test_a_rejected_draw() -> None:
    """One number in 2^21 is rejected at worst; of this tile and seed, that of draw 183583."""
    seed, j = 13, torch.tensor([183_583])
    score = 1 - torch.arange(1, 4097) * (15 * 2.0**-24)
    exponents, masses, _, _ = reference.score_tiles([score], [], 0)
    mass, no_ids = int(masses), torch.empty(0, dtype=torch.int64)
    first, second = (int(reference.random_bits(j, 0 * j, reference.DRAW, a, seed, 0)) % (1 << 64) for a in (0, 1))
    assert first * mass % (1 << 64) < (1 << 64) % mass <= second * mass % (1 << 64)
    counts = []
    for n in (j, j + 1):
        out = [torch.zeros(4096, dtype=torch.int32)]
        OPS.draw_tiles([score], [], 0, no_ids, exponents, masses.double(), n, seed, 0, reference.COUNTS, [], out)
        counts.append(out[0])
    sums = reference.quantize(score.double().view(1, -1), exponents).view(-1).cumsum(0)
    place = int((sums <= second * mass >> 64).sum())
    assert (counts[1] - counts[0]).nonzero().tolist() == [[place]]


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("draws", [1, 3000, 1 << 30])
def test_systematic_tiles(rng, sizes, draws, output) -> None:
    """Lengths as the driver's, and tiny ones, whose shift is large."""
    source = any_source(rng, sizes)
    exponents, masses = exponents_and_masses(rng, source)
    bits = 60 - draws.bit_length()
    for size in ((draws << bits) // len(masses) >> 1, 1000, 0):
        length = [integer(rng, size // 2, size + 1) if mass else 0 for mass in masses.tolist()]
        gain, shift = (torch.tensor(x) for x in gains(length, masses.clamp(min=1).tolist()))
        lengths = torch.tensor(length)
        begins = lengths.cumsum(0) - lengths + 4096 * torch.arange(len(lengths))
        table = (exponents, begins, lengths, gain, shift, integer(rng, 0, 1 << bits), bits)
        agree(
            "systematic_tiles", (*source, *table, output, weights_like(rng, source[0])), outputs(rng, source[0], output)
        )


def calls(rng: torch.Generator, sizes: list[int], kinds: Sequence[torch.dtype] = FLOATS) -> dict[str, tuple[Any, ...]]:
    """One valid call of every operation."""
    scores = vector(rng, sizes, False, kinds)
    scores[0][0] = 1.0
    w, no_ids = weights_like(rng, scores), torch.empty(0, dtype=torch.int64)
    exponents, masses, _, _ = reference.score_tiles(scores, [], 0)
    a, per_tile, out = align(exponents, masses), torch.where(masses > 0, 900, 0), [torch.zeros(s.shape) for s in scores]
    gain, shift = (torch.tensor(x) for x in gains(per_tile.tolist(), masses.clamp(min=1).tolist()))
    result, ids = (reference.WEIGHTS, w, out), torch.arange(len(masses))
    return {
        "score_tiles": (scores, [], 0),
        "split_draws": (a, a % 2 == 0, 70_000, 3, 1),
        "poisson_counts": (per_tile, a, ids, reference.poisson_table(a.device), 3, 1),
        "draw_tiles": (scores, [], 0, no_ids, exponents, masses.double(), per_tile, 3, 1, *result),
        "systematic_tiles": (scores, [], 0, exponents, 5000 * ids, per_tile, gain, shift, 7, 3, *result),
    }


NAMES = tuple(calls(torch.Generator().manual_seed(1), [3]))


@pytest.mark.parametrize("name", NAMES)
def test_opcheck(name) -> None:
    arguments = calls(torch.Generator().manual_seed(1), [5000, 3])[name]
    torch.library.opcheck(getattr(OPS, name).default, arguments)


def run(name: str, arguments: tuple[Any, ...]) -> list[Tensor]:
    """Results of an operation, then its outputs."""
    result = getattr(OPS, name)(*arguments)
    result = [] if result is None else [result] if isinstance(result, Tensor) else list(result)
    return result + (arguments[-1] if isinstance(arguments[-1], list) else [])


@pytest.mark.parametrize("name", NAMES)
def test_bits_do_not_depend_on_threads(name, threads) -> None:
    results = []
    for n in (1, 2, 4):
        torch.set_num_threads(n)
        results.append(run(name, calls(torch.Generator().manual_seed(2), [200_000, 70_001])[name]))
    for other in results[1:]:
        assert all_same(results[0], other)


@pytest.mark.skipif(ops.extension_error() is not None, reason="plain torch obeys the processor's flags")
@pytest.mark.parametrize("name", ["score_tiles", "draw_tiles", "systematic_tiles"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("n", [1, 2])
def test_subnormal_scores_count_under_flush_to_zero(name, dtype, n, threads) -> None:
    """Flags that flush subnormals to zero hold for the caller's arithmetic, not for ours."""
    torch.set_num_threads(n)
    results = []
    for flush in (False, True):
        arguments = calls(torch.Generator().manual_seed(4), [40_000], (dtype,))[name]
        tiny = torch.finfo(dtype).tiny * torch.finfo(dtype).eps
        arguments[0][0][8192:].fill_(5 * tiny)
        if not torch.set_flush_denormal(flush):
            pytest.skip("this processor has no such flag")
        try:
            results.append(run(name, arguments))
            assert not flush or float(torch.tensor([1e-45]) * 1.0) == 0.0  # the caller's flag still stands
        finally:
            torch.set_flush_denormal(False)
    assert all_same(*results)


@pytest.mark.skipif(ops.extension_error() is not None, reason="plain torch obeys the processor's flags")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_subnormal_scores_keep_their_order_under_flush_to_zero(dtype) -> None:
    scores = torch.arange(9000, dtype=dtype) * torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    found = []
    for flush in (False, True):
        if not torch.set_flush_denormal(flush):
            pytest.skip("this processor has no such flag")
        try:
            found.append(sampling.top_k(scores, 700, output="indices"))
        finally:
            torch.set_flush_denormal(False)
    assert [f.tolist() for f in found] == [list(range(8300, 9000))] * 2


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
def test_memory_does_not_grow_over_2000_calls() -> None:
    arguments = calls(torch.Generator().manual_seed(3), [4100])

    def grown(repeats: int) -> int:
        before = resident_bytes()
        for _ in range(repeats):
            for name in NAMES:
                getattr(OPS, name)(*arguments[name])
        return resident_bytes() - before

    grown(200)
    assert grown(2000) < 8 << 20  # one leaked 32 KiB tile a call would be 64 MiB
