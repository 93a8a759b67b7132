"""A vector split at random over ranks gives the bits of the vector in one process."""

from __future__ import annotations

import threading
from itertools import pairwise

import pytest
import torch

from sparseprune import ops
from sparseprune.ops import reference, sharded, threshold
from sparseprune.ops.layout import Runs
from sparseprune.ops.reference import TILE
from sparseprune.ops.sharded import Holding, ShardedVector
from sparseprune.ops.threshold import LOWEST, Race, counter

from ..threads import on_ranks

F32, F64 = torch.float32, torch.float64
DTYPES = {reference.COUNTS: torch.int32, reference.BOOL: torch.bool}
DRIVERS = {
    "multinomial": lambda v: ops.sketch_multinomial(v, 3000, 5, 1),
    "poisson": lambda v: ops.sketch_poisson(v, 3000, 5, 1),
    "systematic": lambda v: ops.sketch_systematic(v, 3000, 5, 1),
    "bernoulli": lambda v: ops.bernoulli(v, 700, 5, 1),
    "priority": lambda v: ops.race(v, 700, reference.PRIORITY_RACE, 5, 1),
    "successive": lambda v: ops.race(v, 700, reference.SUCCESSIVE_RACE, 5, 1),
    "top_k": lambda v: ops.top_k(v, 5000),
}


class Whole:
    """Scores of some tensors in one process."""

    def __init__(self, sizes: list[int], kind: str, seed: int, output: int) -> None:
        g = self.g = torch.Generator().manual_seed(seed)
        self.transform, self.output, self.factors = reference.ABS, output, []
        dtypes = [F32, torch.bfloat16, torch.float16] if kind != "wide" else [F32, F64, torch.bfloat16]
        scores = [torch.randn(n, generator=g) for n in sizes]
        if kind == "ties":
            scores = [s.mul(2).round() for s in scores]
        if kind == "wide":
            scores = [s.double() * 2.0 ** (-1030 if i % 2 else -1000) for i, s in enumerate(scores)]
            dtypes = [F64]
        if kind == "tiny":  # quantised units of more than 1: fp64 ends here
            scores, dtypes = [s.double() * 2.0**-1060 for s in scores], [F64]
        if kind == "sparse":
            scores = [s * (torch.rand(len(s), generator=g) < 0.01) for s in scores]
        if kind == "factor":
            self.transform = reference.SQUARE
            self.factors = [
                torch.rand(n if i % 3 == 0 else 1 if i % 3 == 1 else period(n), generator=g)
                for i, n in enumerate(sizes)
            ]
        self.scores = [s.to(dtypes[i % len(dtypes)]) for i, s in enumerate(scores)]
        self.weights = [torch.randn(n, generator=g).to([F32, torch.bfloat16][i % 2]) for i, n in enumerate(sizes)]
        self.wide = any(t.dtype == F64 for t in (*self.scores, *self.factors))
        self.numel = sum(sizes)

    def fresh(self, i: int) -> torch.Tensor:
        dtype = DTYPES.get(self.output, F64 if self.scores[i].dtype == F64 else F32)
        return torch.zeros(len(self.scores[i]), dtype=torch.bfloat16 if self.output == reference.WEIGHTS else dtype)

    def alone(self, driver) -> torch.Tensor:
        out = [self.fresh(i) for i in range(len(self.scores))]
        driver(ops.Vector(self.scores, self.factors, self.transform, self.output, self.weights, out))
        return torch.cat([o.double() for o in out])

    def spread(self, driver, plan: list[list[tuple[int, int, int]]], owned: list[list[bool]] | None = None):
        """Run with plan[rank] = [(tensor, begin, end), ...]; what every rank wrote, in the place where it belongs."""
        starts = torch.tensor([0, *(len(s) for s in self.scores)]).cumsum(0).tolist()

        def work(ranks):
            mine = plan[ranks.rank]
            flags = owned[ranks.rank] if owned else [True] * len(mine)
            factors = [self.factors[t] for t, _, _ in mine] if self.factors else []
            factors = [
                f if len(f) == 1 else f[torch.arange(a, b) % len(f)] for f, (_, a, b) in zip(factors, mine, strict=True)
            ] if factors else []  # fmt: skip
            out = [self.fresh(t)[a:b].clone() for t, a, b in mine]
            runs = torch.tensor([[i, 0, starts[t] + a, b - a] for i, (t, a, b) in enumerate(mine)], dtype=torch.int64)
            held = Holding(
                [self.scores[t][a:b].clone() for t, a, b in mine], factors,
                [self.weights[t][a:b].clone() for t, a, b in mine], out,
                Runs(*runs.view(-1, 4).unbind(1)), flags,
            )  # fmt: skip
            narrow = not (self.wide or self.factors or self.transform == reference.SQUARE)
            driver(
                ShardedVector(
                    ranks, held, numel=self.numel, transform=self.transform, output=self.output, wide=self.wide,
                    narrow=narrow, copies=owned is not None, device=torch.device("cpu"),
                )
            )  # fmt: skip
            return [(starts[t] + a, o.double()) for (t, a, _), o in zip(mine, out, strict=True)]

        return on_ranks(len(plan), work)


def period(n: int) -> int:
    return next((d for d in (7, 5, 3, 2) if n % d == 0), n)


def random_plan(whole: Whole, size: int, pieces: int, g: torch.Generator) -> list[list[tuple[int, int, int]]]:
    """Every tensor cut at random places, every piece given to a random rank."""
    plan: list[list[tuple[int, int, int]]] = [[] for _ in range(size)]
    for t, score in enumerate(whole.scores):
        cuts = torch.randint(0, len(score) + 1, (pieces,), generator=g).tolist()
        ends = sorted({0, len(score), *cuts})
        for a, b in pairwise(ends):
            plan[int(torch.randint(size, (1,), generator=g))].append((t, a, b))
    return plan


def check(whole: Whole, driver, plan, owned=None) -> None:
    expected = whole.alone(driver)
    seen = torch.zeros(whole.numel, dtype=torch.bool)
    results = whole.spread(driver, plan, owned)
    errors = [r for r in results if isinstance(r, Exception)]
    for error in sorted(errors, key=lambda e: isinstance(e, threading.BrokenBarrierError)):
        raise error
    for result in results:
        for start, values in result:
            assert torch.equal(values, expected[start : start + len(values)])
            seen[start : start + len(values)] = True
    assert bool(seen.all())


@pytest.mark.parametrize("name", DRIVERS)
@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("kind", ["plain", "ties", "wide", "tiny", "sparse", "factor"])
def test_any_split_gives_the_same_bits(name, size, kind):
    seed = size * 100 + len(kind)
    outputs = range(4) if kind == "plain" else (reference.M, reference.WEIGHTS)
    if name in ("top_k", "successive"):
        outputs = reference.BOOL, reference.WEIGHTS
    for output in outputs:
        whole = Whole([5000, 1, 9002, 333, 12], kind, seed, output)
        check(whole, DRIVERS[name], random_plan(whole, size, 1 + size, whole.g))


@pytest.mark.parametrize("name", DRIVERS)
@pytest.mark.parametrize("kind", ["ties", "factor"])
def test_long_rows_of_whole_tiles(name, kind):
    whole = Whole([70 * TILE, 20 * TILE + 7], kind, 3, reference.WEIGHTS)
    middle = 33 * TILE + 100
    plan = [[(0, 0, middle), (1, 18 * TILE, 20 * TILE + 7)], [(0, middle, 70 * TILE)], [(1, 0, 18 * TILE)]]
    check(whole, DRIVERS[name], plan)


@pytest.mark.parametrize("name", ["top_k", "priority", "successive"])
@pytest.mark.parametrize("kind", ["plain", "ties", "wide"])
def test_the_window_that_a_sample_guesses(name, kind, monkeypatch):
    """As in vectors of many tiles, in a short one."""
    monkeypatch.setattr(threshold, "ENOUGH", 16)
    monkeypatch.setattr(threshold, "STEP", 3)
    guesses, guess = [], threshold.window
    monkeypatch.setattr(threshold, "window", lambda *args: guesses.append(guess(*args)) or guesses[-1])
    whole = Whole([60 * TILE, 5000, 25 * TILE + 9], kind, 7, reference.WEIGHTS)
    middle = 31 * TILE + 100
    long = [[(0, 0, middle), (1, 10, 5000)], [(0, middle, 60 * TILE)], [(1, 0, 10), (2, 0, 25 * TILE + 9)]]
    check(whole, DRIVERS[name], random_plan(whole, 3, 6, whole.g))
    check(whole, DRIVERS[name], long)
    assert len(set(guesses)) == 1 and guesses[0] is not None


@pytest.mark.parametrize("name", DRIVERS)
def test_columns(name):
    whole = Whole([96 * 96, 40 * 500], "ties", 4, reference.WEIGHTS)
    plan = [[], [], []]
    for t, (rows, columns) in enumerate([(96, 96), (40, 500)]):
        for rank in range(3):
            low, high = columns * rank // 3, columns * (rank + 1) // 3
            plan[rank] += [(t, r * columns + low, r * columns + high) for r in range(rows)]
    check(whole, DRIVERS[name], plan)


@pytest.mark.parametrize("name", DRIVERS)
@pytest.mark.parametrize("kind", ["ties", "wide"])
def test_copies_count_once(name, kind):
    whole = Whole([5000, 30 * TILE, 9000], kind, 5, reference.WEIGHTS)
    first, last = (
        [(0, 0, 5000)],
        [(2, 0, 4000)],
    )
    plan = [
        [*first, (1, 0, 17 * TILE + 5), *last],
        [*first, (1, 17 * TILE + 5, 30 * TILE), (2, 4000, 9000)],
        [*first, (1, 0, 17 * TILE + 5), *last],
    ]
    owned = [[True, True, False], [False, True, True], [False, False, True]]
    check(whole, DRIVERS[name], plan, owned)


def test_scratch_outputs_of_copies_are_small(monkeypatch):
    monkeypatch.setattr(sharded, "CHUNK", 5)
    sizes = []

    def select(vector) -> None:
        if isinstance(vector, ShardedVector):
            sizes.extend(part.tiles for part in vector._parts(vector._own, "lowest", "scratch"))
        DRIVERS["top_k"](vector)

    whole = Whole([32 * TILE, 9000], "ties", 5, reference.BOOL)
    plan = [[(0, 0, 32 * TILE)], [(0, 0, 32 * TILE), (1, 0, 9000)]]
    check(whole, select, plan, [[True], [False, True]])
    assert max(sizes) == 5


@pytest.mark.parametrize("kind", [reference.PLAIN, reference.PRIORITY_RACE])
@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("place", [(LOWEST, 52, 12), (0, 50, 13), (-3 << 52, 50, 4), (1000 << 52, 40, 14)])
def test_fillers_are_not_counted(kind, step, place):
    """Else samples would mislead: a wrong guess costs passes, which no result shows."""
    whole = Whole([5000, 1, 9002, 333], "sparse", 9, reference.BOOL)
    found = []

    def look(vector) -> None:
        found.append(counter(vector, Race(kind, 0, 5, 1))(*place, step))

    whole.alone(look)
    assert [e for e in whole.spread(look, random_plan(whole, 3, 9, whole.g)) if isinstance(e, Exception)] == []
    for other in found[1:]:
        assert other[:2] == found[0][:2] and other.above == found[0].above
        assert (other.bins == found[0].bins).all() and (other.sums == found[0].sums).all()


@pytest.mark.parametrize("kind", ["plain", "wide"])
@pytest.mark.parametrize("name", DRIVERS)
def test_a_bad_score_is_found_by_all(name, kind):
    for bad in (torch.nan, torch.inf):
        whole = Whole([5000, 9000], kind, 6, reference.BOOL)
        whole.scores[1][[8000, 3001]] = bad
        plan = random_plan(whole, 3, 3, whole.g)
        errors = whole.spread(DRIVERS[name], plan)
        assert [type(e) for e in errors] == [ops.BadScore] * 3
        assert [e.index for e in errors] == [8001] * 3
        with pytest.raises(ops.BadScore) as alone:
            whole.alone(DRIVERS[name])
        assert (alone.value.index, alone.value.expected) == (8001, errors[0].expected)


@pytest.mark.parametrize("kind", ["plain", "factor"])
def test_a_bad_score_is_found_in_long_rows(kind, monkeypatch):
    monkeypatch.setattr(reference.scores, "BLOCK", 3)
    whole = Whole([5, 21 * TILE, 40 * TILE], kind, 6, reference.BOOL)
    first = 5 + 20 * TILE + 17
    whole.scores[1][20 * TILE + 17], whole.scores[2][[7, 9]] = torch.nan, torch.inf
    plan = [[(2, 0, 40 * TILE)], [(0, 0, 5), (1, 0, 21 * TILE)]]
    errors = whole.spread(DRIVERS["top_k"], plan)
    assert [(type(e), e.index, e.expected) for e in errors] == [(ops.BadScore, first, "finite")] * 2


@pytest.mark.parametrize("name", [name for name in DRIVERS if name != "top_k"])
def test_all_zero_is_found_by_all(name):
    whole = Whole([5000, 9000], "plain", 6, reference.BOOL)
    for s in whole.scores:
        s.zero_()
    errors = whole.spread(DRIVERS[name], random_plan(whole, 3, 3, whole.g))
    assert [type(e) for e in errors] == [ops.NoPositiveScore] * 3


@pytest.mark.skipif(ops.extension_error() is not None, reason="the reference does not promise it")
@pytest.mark.parametrize("name", DRIVERS)
def test_subnormal_scores_under_flush_to_zero(name):
    whole = Whole([5000, 9000], "plain", 8, reference.WEIGHTS)
    whole.scores = [s.float() * 2.0**-140 for s in whole.scores]
    plan, expected = random_plan(whole, 2, 3, whole.g), whole.alone(DRIVERS[name])
    if not torch.set_flush_denormal(True):
        pytest.skip("no such flag here")
    try:
        results = whole.spread(lambda v: (torch.set_flush_denormal(True), DRIVERS[name](v)), plan)
    finally:
        torch.set_flush_denormal(False)
    for start, values in [row for result in results for row in result]:
        assert torch.equal(values, expected[start : start + len(values)])
