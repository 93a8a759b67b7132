"""Every raw operation against `reference.<op>`, byte for byte, on fresh random inputs; what the dispatcher asks of it.

Each run draws new inputs; a failure prints the seed that repeats it (set SEED below).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from sparseprune import ops, sampling
from sparseprune.ops import reference
from sparseprune.ops.sketch import align

SEED = int.from_bytes(os.urandom(4), "little")
OPS = torch.ops.sparseprune
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SIZES = ([1], [4096], [4097], [5, 4096, 0, 4091], [12_289], [3, 20_000, 1, 1, 777])


@pytest.fixture(params=range(2))
def rng(request: pytest.FixtureRequest) -> torch.Generator:
    seed = SEED + request.param
    print(f"SEED = {SEED}", file=sys.stderr)
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def integer(rng: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high, (), generator=rng))


def vector(rng: torch.Generator, sizes: list[int], signed: bool) -> list[Tensor]:
    """Scores of mixed dtypes: wide log-normals with zeros, ties, both zeros and subnormals."""
    result = []
    for size in sizes:
        x = torch.exp(torch.randn(size, generator=rng, dtype=torch.float64) * 3.0)
        x[torch.rand(size, generator=rng) < 0.2] = 0.0
        x[torch.rand(size, generator=rng) < 0.1] = 0.375
        x[torch.rand(size, generator=rng) < 0.02] = 1e-45
        if signed:
            x = torch.where(torch.rand(size, generator=rng) < 0.5, -x, x)
        result.append(x.to(FLOATS[integer(rng, 0, 4)]).clamp(-6e4, 6e4))
    return result


def factors(rng: torch.Generator, scores: list[Tensor]) -> list[Tensor]:
    """None, one number each, or a factor that repeats along the leading dimension."""
    kind = integer(rng, 0, 3)
    if kind == 0:
        return []
    result = []
    for score in scores:
        n = score.numel()
        period = 1 if kind == 1 else max(p for p in (1, 2, 3, 4, 7) if n % p == 0)
        result.append((torch.rand(period, generator=rng) * 3).to(FLOATS[integer(rng, 1, 4)]))
    return result


def same_bytes(a: Tensor, b: Tensor) -> bool:
    """Equal dtype, shape and bytes: unlike torch.equal, -0 differs from 0 and NaN equals itself."""
    view: Callable[[Tensor], Tensor] = lambda t: t.contiguous().reshape(-1).view(torch.uint8)  # noqa: E731
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(view(a), view(b))


def outputs(scores: list[Tensor], output: int, rng: torch.Generator) -> list[Tensor]:
    """Poisoned outputs of random floating types (float16 only for w m, which need not overflow)."""
    if output in (reference.COUNTS, reference.BOOL):
        dtype = torch.int32 if output == reference.COUNTS else torch.bool
        return [torch.ones(s.shape, dtype=dtype) for s in scores]
    low = 0 if output == reference.WEIGHTS else 1
    return [torch.full(s.shape, torch.nan, dtype=FLOATS[integer(rng, low, 4)]) for s in scores]


def weights_like(scores: list[Tensor], rng: torch.Generator) -> list[Tensor]:
    return [torch.randn(s.shape, generator=rng).to(FLOATS[integer(rng, 0, 4)]) for s in scores]


def table(scores: list[Tensor], f: list[Tensor], transform: int, draws: int, seed: int) -> tuple[Tensor, ...]:
    """(exponents, scales, draws per tile) by the reference."""
    exponents, masses, _ = reference.score_tiles(scores, f, transform)
    a = align(exponents, masses)
    scales = a.sum().double() / a.double() * masses.double() / draws
    return exponents, scales, reference.split_draws(a, draws, seed, 1)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("transform", [reference.GIVEN, reference.ABS, reference.SQUARE])
def test_score_tiles(rng, sizes, transform) -> None:
    scores = vector(rng, sizes, signed=transform != reference.GIVEN)
    f = factors(rng, scores)
    for found, expected in zip(
        OPS.score_tiles(scores, f, transform), reference.score_tiles(scores, f, transform), strict=True
    ):
        assert same_bytes(found, expected)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -1e-45, -1.0, -float("inf"), -float("nan")])
def test_score_tiles_names_the_first_bad_element(rng, wrong) -> None:
    scores = vector(rng, [5000, 7, 9000], signed=False)
    places = [integer(rng, 0, 14_007) for _ in range(3)]
    flat = torch.cat([s.double() for s in scores])
    flat[places] = wrong
    scores = [part.to(torch.float32) for part in flat.split([5000, 7, 9000])]
    for op in (OPS.score_tiles, reference.score_tiles):
        assert op(scores, [], reference.GIVEN)[2].tolist() == [min(places)]


@pytest.mark.parametrize("tiles", [1, 2, 3, 64, 1000])
@pytest.mark.parametrize("draws", [1, 5, 40_000, 300_000])
def test_split_draws(rng, tiles, draws) -> None:
    exponents = torch.randint(-30, 30, (tiles,), generator=rng, dtype=torch.int32)
    masses = torch.randint(0, 1 << 43, (tiles,), generator=rng) >> integer(rng, 0, 40)
    masses[torch.rand(tiles, generator=rng) < 0.2] = 0
    masses[integer(rng, 0, tiles)] = 12345
    a = align(exponents, masses)
    seed, stream = integer(rng, -(1 << 62), 1 << 62), integer(rng, 0, 1 << 32)
    found = OPS.split_draws(a, draws, seed, stream)
    assert same_bytes(found, reference.split_draws(a, draws, seed, stream))
    assert int(found.sum()) == draws
    assert not bool(found[a == 0].any())


@pytest.mark.parametrize("output", [reference.M, reference.COUNTS, reference.WEIGHTS, reference.BOOL])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("draws", [1, 3000, 200_000])
def test_draw_tiles(rng, sizes, draws, output) -> None:
    transform = integer(rng, 0, 3)
    scores = vector(rng, sizes, signed=transform != reference.GIVEN)
    scores[0].view(-1)[:1] = 1.0
    f, w, seed = factors(rng, scores), weights_like(scores, rng), integer(rng, -(1 << 62), 1 << 62)
    exponents, scales, per_tile = table(scores, f, transform, draws, seed)
    exponents += integer(rng, 0, 2) * 30  # half of the time q is 1 or 2, so that r often equals a sum of q
    arguments = (scores, f, transform, exponents, scales, per_tile, seed, 1, output, w)
    found = outputs(scores, output, rng)
    expected = [t.clone() for t in found]
    OPS.draw_tiles(*arguments, found)
    reference.draw_tiles(*arguments, expected)
    assert all(same_bytes(a, b) for a, b in zip(found, expected, strict=True))


def keys_of(scores: list[Tensor], f: list[Tensor], transform: int) -> Tensor:
    values = [reference.score_values(s, f[i] if f else None, transform) for i, s in enumerate(scores)]
    return reference.order_keys(torch.cat(values))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize(("shift", "bits"), [(52, 12), (40, 12), (29, 16), (14, 14), (0, 12), (5, 1)])
@pytest.mark.parametrize("step", [1, 2, 32])
def test_key_histogram(rng, sizes, shift, bits, step) -> None:
    transform = integer(rng, 0, 3)
    scores = vector(rng, sizes, signed=True)
    f = factors(rng, scores)
    keys = keys_of(scores, f, transform)
    low = (
        -(1 << 63) if shift == 52 else int(keys[integer(rng, 0, len(keys))]) - integer(rng, 0, 1 << (shift + bits - 1))
    )
    if shift == 52:  # NaN and infinities are counted apart
        scores[-1].view(-1)[-1] = (torch.nan, torch.inf, -torch.inf, -torch.nan)[integer(rng, 0, 4)]
    found = OPS.key_histogram(scores, f, transform, low, shift, bits, step)
    assert same_bytes(found, reference.key_histogram(scores, f, transform, low, shift, bits, step))
    if step == 1:
        assert int(found[-1]) == (shift == 52)
        assert int(found[:-1].sum()) == (len(keys) if shift == 52 else int((keys >= low).sum()))


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("shift", [52, 29, 0])
@pytest.mark.parametrize("output", [reference.BOOL, reference.WEIGHTS])
def test_key_mark(rng, sizes, shift, output) -> None:
    transform = integer(rng, 0, 3)
    scores = vector(rng, sizes, signed=True)
    f, w = factors(rng, scores), weights_like(scores, rng)
    keys = keys_of(scores, f, transform)
    threshold = int(keys[integer(rng, 0, len(keys))]) >> shift
    tiles = -(-len(keys) // 4096)
    all_ties = torch.full((tiles,), 4096)
    for quota in (all_ties, 0 * all_ties, torch.randint(-1, 300, (tiles,), generator=rng)):
        found = outputs(scores, output, rng)
        expected = [t.clone() for t in found]
        ties = OPS.key_mark(scores, f, transform, threshold, shift, quota, output, w, found)
        assert same_bytes(ties, reference.key_mark(scores, f, transform, threshold, shift, quota, output, w, expected))
        assert all(same_bytes(a, b) for a, b in zip(found, expected, strict=True))
        assert int(ties.sum()) <= int(((keys >> shift) == threshold).sum())


def calls(rng: torch.Generator, sizes: list[int]) -> dict[str, tuple[Any, ...]]:
    """One valid call of every operation."""
    scores = vector(rng, sizes, signed=False)
    scores[0][0] = 1.0
    w = weights_like(scores, rng)
    exponents, masses, _ = reference.score_tiles(scores, [], 0)
    out = [torch.zeros(s.shape) for s in scores]
    draw = (*table(scores, [], 0, 500, 3), 3, 1, reference.WEIGHTS, w, out)
    quota = torch.full((len(masses),), 4096)
    return {
        "score_tiles": (scores, [], 0),
        "split_draws": (align(exponents, masses), 70_000, 3, 1),
        "draw_tiles": (scores, [], 0, *draw),
        "key_histogram": (scores, [], 0, -(1 << 63), 52, 12, 1),
        "key_mark": (scores, [], 0, 1 << 60, 0, quota, reference.WEIGHTS, w, [t.clone() for t in out]),
    }


NAMES = ("score_tiles", "split_draws", "draw_tiles", "key_histogram", "key_mark")


@pytest.mark.parametrize("name", NAMES)
def test_opcheck(name) -> None:
    arguments = calls(torch.Generator().manual_seed(1), [5000, 3])[name]
    torch.library.opcheck(getattr(OPS, name).default, arguments)


@pytest.mark.parametrize("name", NAMES)
def test_bits_do_not_depend_on_threads(name, threads) -> None:
    results = []
    for n in (1, 2, 4):
        torch.set_num_threads(n)
        arguments = calls(torch.Generator().manual_seed(2), [200_000, 70_001])[name]
        result = getattr(OPS, name)(*arguments)
        result = [] if result is None else [result] if isinstance(result, Tensor) else list(result)
        results.append(result + arguments[-1] if isinstance(arguments[-1], list) else result)
    for other in results[1:]:
        assert all(same_bytes(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.skipif(ops.extension_error() is not None, reason="plain torch obeys the processor's flags")
@pytest.mark.parametrize("n", [1, 2])
def test_subnormal_scores_count_under_flush_to_zero(n, threads) -> None:
    """Flags that flush subnormals to zero hold for the caller's arithmetic, not for ours."""
    torch.set_num_threads(n)
    scores = [torch.full((40_000,), 1e-45), torch.full((40_000,), 5e-324, dtype=torch.float64)]
    out = [torch.zeros(40_000, dtype=torch.int32) for _ in scores]
    exponents, masses, _ = OPS.score_tiles(scores, [], 0)
    per_tile = torch.full_like(masses, 5000)
    flushed = [t.clone() for t in out]
    OPS.draw_tiles(scores, [], 0, exponents, masses.double(), per_tile, 1, 0, reference.COUNTS, [], out)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor has no such flag")
    try:
        tables = OPS.score_tiles(scores, [], 0)
        OPS.draw_tiles(scores, [], 0, exponents, masses.double(), per_tile, 1, 0, reference.COUNTS, [], flushed)
        assert float(torch.tensor([1e-45]) * 1.0) == 0.0  # the caller's flag still stands
    finally:
        torch.set_flush_denormal(False)
    assert int(masses.min()) > 0
    assert same_bytes(tables[0], exponents)
    assert same_bytes(tables[1], masses)
    assert all(same_bytes(a, b) for a, b in zip(flushed, out, strict=True))


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
    for repeat in range(2200):
        for name in NAMES:
            if name != "key_histogram" or repeat % 10 == 0:  # 4096 bins cost more than everything else here
                getattr(OPS, name)(*arguments[name])
        if repeat == 200:
            before = resident_bytes()
    assert resident_bytes() - before < 8 << 20  # one leaked 32 KiB tile a call would be 64 MiB
