"""Selections by key, masses, coins: each raw operation against `reference.<op>`, byte for byte, on fresh random inputs.

Each run draws new inputs; a failure prints the seed that repeats it (SEED in fresh.py).
"""

from __future__ import annotations

import os
import struct
from typing import Any

import pytest
import torch
from torch import Tensor

from sparseprune import ops
from sparseprune.ops import reference
from sparseprune.ops.reference import PLAIN, PRIORITY_RACE, SUCCESSIVE_RACE

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
SIZES = ([1], [4096], [4097], [5, 4096, 0, 4091], [3, 20_000, 1, 1, 777])
RACES = (PRIORITY_RACE, SUCCESSIVE_RACE)
LOWEST, TILE = -(1 << 63), 4096
DEFINITION: Any = reference  # called with unpacked arguments, which pyright cannot count


def vector(rng: torch.Generator, sizes: list[int], spread: float = 3.0, scale: int = 0) -> list[Tensor]:
    """Non-negative scores of mixed dtypes (fp64 near 2^scale): wide log-normals with zeros, ties and subnormals."""
    result = []
    for size in sizes:
        x = torch.exp(torch.randn(size, generator=rng, dtype=torch.float64) * spread)
        x[chance(rng, size, 0.1)] = 0.375
        dtype = FLOATS[integer(rng, 0, 4)]
        x = torch.ldexp(x, torch.tensor(scale)) if dtype == torch.float64 else x.clamp(max=6e4)
        x[chance(rng, size, 0.02)] = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
        x[chance(rng, size, 0.2)] = 0.0
        result.append(x.to(dtype))
    return result


def spoil(rng: torch.Generator, scores: list[Tensor]) -> None:
    """Put in a few bad scores."""
    for score in scores:
        flat = score.view(-1)
        for bad in (torch.nan, torch.inf, -torch.inf, -1.0, -0.0):
            flat[chance(rng, len(flat), 0.001)] = bad


def fp64_bits(x: float) -> int:
    return struct.unpack("<q", struct.pack("<d", x))[0]


def race_arguments(rng: torch.Generator, scores: list[Tensor], race: int, scale: int) -> tuple[Any, ...]:
    """(race, ids, exponent, seed, stream)."""
    exponent = (0, scale, scale + 7, scale - 900)[integer(rng, 0, 4)]
    seed, stream = integer(rng, -(1 << 62), 1 << 62), integer(rng, 0, 1 << 32)
    return (
        race,
        numbers(rng, -(-sum(score.numel() for score in scores) // TILE)),
        max(-1000, min(1000, exponent)),
        seed,
        stream,
    )


def race_keys(scores: list[Tensor], f: list[Tensor], transform: int, arguments: tuple[Any, ...]) -> Tensor:
    """The keys of all elements, by the reference."""
    race, ids, exponent, seed, stream = arguments
    v = torch.cat([reference.score_values(s, f[i] if f else None, transform) for i, s in enumerate(scores)])
    v = torch.cat([v, v.new_zeros(-len(v) % TILE)]).view(-1, TILE)
    tile = ids if ids.numel() else torch.arange(len(v))
    v = v.where((v >= 0) & v.isfinite(), 0.0)
    return reference.order_keys(reference.race_values(v, race, tile, exponent, seed, stream)[1]).view(-1)


def window_low(rng: torch.Generator, keys: Tensor, span: int) -> int:
    """Below all keys, at zero, just above it, at or near a random key, or above all keys."""
    near = int(keys[integer(rng, 0, len(keys))])
    choices = (LOWEST, 0, 1, -5, near, near - integer(rng, 0, min(1 << 62, max(1, span // 2))), near + 1, (1 << 63) - 1)
    return max(LOWEST, choices[integer(rng, 0, len(choices))])


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("race", RACES)
@pytest.mark.parametrize(("shift", "bits"), [(52, 12), (47, 12), (36, 16), (29, 16), (14, 14), (0, 12), (5, 1)])
def test_key_histogram(rng, sizes, race, shift, bits) -> None:
    transform, scale = integer(rng, 0, 3), integer(rng, -900, 900)
    scale *= transform != reference.SQUARE
    scores = vector(rng, sizes, spread=(3.0, 0.1)[integer(rng, 0, 2)], scale=scale)
    if integer(rng, 0, 2):
        spoil(rng, scores)
    f, arguments = factors(rng, scores), race_arguments(rng, scores, race, scale)
    keys = race_keys(scores, f, transform, arguments)
    for step in (1, 1, 1, 2, 16):
        low = window_low(rng, keys, 1 << (shift + bits))
        call = [scores, f, transform, *arguments, low, shift, bits, step]
        assert all_same(OPS.key_histogram(*call), DEFINITION.key_histogram(*call))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("step", [1, 2, 16])
@pytest.mark.parametrize(("shift", "bits"), [(52, 12), (29, 16), (0, 12)])
def test_plain_key_histogram_with_tile_numbers(rng, sizes, step, shift, bits) -> None:
    scores = vector(rng, sizes)
    spoil(rng, scores)
    f, transform = factors(rng, scores), integer(rng, 0, 3)
    arguments = race_arguments(rng, scores, PLAIN, 0)
    low = window_low(rng, race_keys(scores, f, transform, arguments), 1 << (shift + bits))
    call = [scores, f, transform, *arguments, low, shift, bits, step]
    assert all_same(OPS.key_histogram(*call), DEFINITION.key_histogram(*call))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("race", [PLAIN, *RACES])
@pytest.mark.parametrize("shift", [52, 44, 29, 0])
def test_key_mark(rng, sizes, race, shift) -> None:
    transform, scale = integer(rng, 0, 3), integer(rng, -900, 900)
    scale *= transform != reference.SQUARE
    scores = vector(rng, sizes, scale=scale)
    f, w, arguments = factors(rng, scores), weights_like(rng, scores), race_arguments(rng, scores, race, scale)
    keys = race_keys(scores, f, transform, arguments)
    threshold = window_low(rng, keys, 1) >> shift
    tau = (0, int(keys[integer(rng, 0, len(keys))]), fp64_bits(1.5))[integer(rng, 0, 3)]
    tiles = -(-sum(sizes) // TILE)
    everything = torch.full((tiles,), TILE)
    for quota in (everything, 0 * everything, torch.randint(-1, 30, (tiles,), generator=rng)):
        output = OUTPUTS[integer(rng, 0, 4)]
        found = outputs(rng, scores, output)
        expected = [t.clone() for t in found]
        call = [scores, f, transform, *arguments, threshold, shift, tau, quota, output, w]
        ties = OPS.key_mark(*call, found)
        assert same_bytes(ties, DEFINITION.key_mark(*call, expected))
        assert all_same(found, expected)


@pytest.mark.parametrize("race", RACES)
def test_every_window_finds_what_lies_in_it(rng, race) -> None:
    """Windows around single keys, which are told by bounds of the random times: not one may be missed."""
    scores = [torch.rand(40 * TILE, generator=rng) + 1e-3]
    arguments = (race, torch.empty(0, dtype=torch.int64), 0, integer(rng, 0, 1 << 40), 3)
    keys = race_keys(scores, [], 0, arguments).sort().values
    ends = torch.cat([torch.randint(0, len(keys), (60,), generator=rng), torch.tensor([0, 1, len(keys) - 1])])
    for i in ends.tolist():
        counts, sums = OPS.key_histogram(scores, [], 0, *arguments, int(keys[i]), 0, 1, 1)
        inside = keys[(keys >= keys[i]) & (keys < keys[i] + 2)]
        assert [int(counts[0]), int(counts[1])] == [int((inside == keys[i]).sum()), int((inside != keys[i]).sum())]
        assert int(counts[2]) == int((keys > keys[i] + 1).sum())
        assert sums.tolist() == [0, int(counts[1])]


@pytest.mark.parametrize("sizes", [*SIZES, [900_000]], ids=str)
def test_mass_histogram(rng, sizes) -> None:
    transform, scale = integer(rng, 0, 3), integer(rng, -900, 900)
    scale *= transform != reference.SQUARE
    scores = vector(rng, sizes, scale=scale)
    f = factors(rng, scores)
    for exponent in (0, scale, -1000, 1000):
        call = [scores, f, transform, exponent]
        assert all_same(OPS.mass_histogram(*call), DEFINITION.mass_histogram(*call))
    spoil(rng, scores)
    call = [scores, f, transform, scale]
    assert all_same(OPS.mass_histogram(*call), DEFINITION.mass_histogram(*call))


@pytest.mark.parametrize("value", [1.0, 2.0 - 2.0**-23, 0.0])
def test_mass_histogram_of_equal_scores(value, threads) -> None:
    """The counters of one thread hold count and sum in 64 bits: neither may overflow."""
    torch.set_num_threads(1)
    n = (1 << 24) + 5
    total, bad = OPS.mass_histogram([torch.full((n,), value)], [], 0, 0)
    place = fp64_bits(value) >> 45
    assert int(bad) == 0
    assert int(total[0, place]) == (n if value else 0)
    assert total.sum(dim=1).tolist() == [n * (value > 0), n * ((fp64_bits(value) >> 29) & 65535)]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("rates", [(1e-300, 2.0**-66, 1e300), (1e-12, 0.01, 0.5, 3.0)], ids=str)
def test_bernoulli_tiles(rng, sizes, output, rates) -> None:
    transform, scale = integer(rng, 0, 3), integer(rng, -900, 900)
    scale *= transform != reference.SQUARE
    scores = vector(rng, sizes, scale=scale)
    f, w = factors(rng, scores), weights_like(rng, scores)
    _, ids, exponent, seed, stream = race_arguments(rng, scores, PLAIN, scale)
    rate = rates[integer(rng, 0, len(rates))]
    found = outputs(rng, scores, output)
    expected = [t.clone() for t in found]
    call = [scores, f, transform, ids, exponent, fp64_bits(rate), seed, stream, output, w]
    OPS.bernoulli_tiles(*call, found)
    DEFINITION.bernoulli_tiles(*call, expected)
    assert all_same(found, expected)


def test_coins_at_the_very_edge(rng) -> None:
    """Scores whose probability equals the element's own number in the leading bits, or differs in the last one."""
    n, seed, stream = 3 * TILE, integer(rng, 0, 1 << 40), 5
    lane, tile = torch.arange(n) % TILE, torch.arange(n) // TILE
    coin = (reference.random_bits(lane, tile, reference.BERNOULLI, 0, seed, stream) >> 2) & ((1 << 62) - 1)
    coin = coin.where(torch.arange(n) % 2 == 0, coin & ~0x3FFFFFFF)  # on the grid of 32 bits, or between
    scores = [(coin.double() * 2.0**-62).nextafter(torch.full((n,), x, dtype=torch.float64)) for x in (0.0, 2.0)]
    kept = []
    for v in [*scores, coin.double() * 2.0**-62]:
        found, expected = [torch.zeros(n, dtype=torch.float64)], [torch.zeros(n, dtype=torch.float64)]
        call = [[v], [], 0, lane[:0], 0, fp64_bits(1.0), seed, stream, reference.M, []]
        OPS.bernoulli_tiles(*call, found)
        DEFINITION.bernoulli_tiles(*call, expected)
        assert all_same(found, expected)
        kept.append(int((found[0] > 0).sum()))
    assert 0 == kept[0] < kept[2] < kept[1] < n  # in the middle it depends on how the 62 bits round to fp64


def calls(rng: torch.Generator, sizes: list[int], dtype: torch.dtype | None = None) -> dict[str, tuple[Any, ...]]:
    """Valid calls of the operations, by a name that begins with the operation's."""
    scores = vector(rng, sizes)
    scores = [s.to(dtype) for s in scores] if dtype else scores
    w, out = weights_like(rng, scores), [torch.zeros(s.shape) for s in scores]
    tiles = -(-sum(sizes) // TILE)
    no_ids, quota = torch.empty(0, dtype=torch.int64), torch.full((tiles,), 3)
    cut = fp64_bits(2.0)
    result: dict[str, tuple[Any, ...]] = {
        "mass_histogram": (scores, [], 0, 1),
        "bernoulli_tiles": (scores, [], 0, no_ids, 1, fp64_bits(0.2), 3, 1, reference.WEIGHTS, w, out),
    }
    for race in (PLAIN, *RACES):
        run = (scores, [], 0, race, no_ids, 0, 3, 1)
        result[f"key_histogram {race} wide"] = (*run, LOWEST, 52, 12, 1)
        result[f"key_histogram {race} narrow"] = (*run, cut, 36, 12, 1)
        for output in (reference.WEIGHTS, reference.BOOL):
            fresh = [t.to(torch.bool if output == reference.BOOL else t.dtype).clone() for t in out]
            result[f"key_mark {race} {output}"] = (*run, cut >> 48, 48, cut + 99, quota, output, w, fresh)
    return result


NAMES = tuple(calls(torch.Generator().manual_seed(1), [3]))


def run(name: str, arguments: tuple[Any, ...]) -> list[Tensor]:
    """Results of an operation, then its outputs."""
    result = getattr(OPS, name.split()[0])(*arguments)
    result = [] if result is None else [result] if isinstance(result, Tensor) else list(result)
    return result + (arguments[-1] if isinstance(arguments[-1], list) else [])


@pytest.mark.parametrize("name", NAMES)
def test_opcheck(name) -> None:
    arguments = calls(torch.Generator().manual_seed(1), [5000, 3])[name]
    torch.library.opcheck(getattr(OPS, name.split()[0]).default, arguments)


@pytest.mark.parametrize("name", NAMES)
def test_bits_do_not_depend_on_threads(name, threads) -> None:
    results = []
    for n in (1, 2, 4):
        torch.set_num_threads(n)
        results.append(run(name, calls(torch.Generator().manual_seed(2), [200_000, 70_001])[name]))
    assert all(all_same(results[0], other) for other in results[1:])


@pytest.mark.skipif(ops.extension_error() is not None, reason="plain torch obeys the processor's flags")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_subnormal_scores_count_under_flush_to_zero(name, dtype, threads) -> None:
    """Flags that flush subnormals to zero hold for the caller's arithmetic, not for ours."""
    torch.set_num_threads(2)
    tiny = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    results = []
    for flush in (False, True):
        arguments = calls(torch.Generator().manual_seed(4), [50_000, 777], dtype)[name]
        for score in arguments[0]:
            score[::3] = 5 * tiny
        if not torch.set_flush_denormal(flush):
            pytest.skip("this processor has no such flag")
        try:
            results.append(run(name, arguments))
        finally:
            torch.set_flush_denormal(False)
    assert all_same(*results)


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
def test_memory_does_not_grow_over_2000_calls() -> None:
    arguments = calls(torch.Generator().manual_seed(3), [4100])
    before = 0
    for repeat in range(2200):
        for name in NAMES:
            if "histogram" not in name or repeat % 20 == 0:  # their bins cost more than everything else here
                run(name, arguments[name])
        if repeat == 200:
            before = resident_bytes()
    assert resident_bytes() - before < 8 << 20  # one leaked 32 KiB tile a call would be 64 MiB
