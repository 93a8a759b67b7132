"""Exact selection against a stable sort: the order is larger value first, then lower flat index."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparseprune import sampling
from sparseprune.ops.threshold import ENOUGH, STEP

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def by_sorting(scores: Tensor, k: int) -> Tensor:
    """The k largest by a stable descending sort, which keeps equal scores in index order (and -0 equal to 0)."""
    mask = torch.zeros(scores.numel(), dtype=torch.bool)
    mask[scores.double().sort(descending=True, stable=True).indices[:k]] = True
    return mask


def vector(name: str, size: int, dtype: torch.dtype) -> Tensor:
    g = torch.Generator().manual_seed(size)
    x = torch.randn(size, generator=g, dtype=torch.float64)
    if name == "few values":
        x = torch.randint(-2, 3, (size,), generator=g).double()
    elif name == "99 % ties":
        x = torch.where(torch.rand(size, generator=g) < 0.99, 0.5, x)
    elif name == "both zeros":
        x = torch.where(torch.rand(size, generator=g) < 0.5, 0.0, -0.0)
        x[::97] = 1.0
        x[::89] = -1.0
    elif name == "subnormals":
        smallest = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
        x = torch.randint(-20, 21, (size,), generator=g).double() * smallest
    elif name == "equal":
        x = torch.full((size,), -3.5, dtype=torch.float64)
    return x.to(dtype)


NAMES = ("normal", "few values", "99 % ties", "both zeros", "subnormals", "equal")


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1, 4096, 12_301])
def test_equals_a_stable_sort(name, size, dtype) -> None:
    scores = vector(name, size, dtype)
    for k in sorted({1, max(1, size // 10), max(1, size // 2), max(1, size - 1), size}):
        mask = sampling.top_k(scores, k)
        assert isinstance(mask, Tensor)
        assert int(mask.sum()) == k
        assert torch.equal(mask, by_sorting(scores, k))


@given(
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False, width=64), min_size=1, max_size=40),
    k=st.integers(1, 40),
)
@settings(max_examples=150, deadline=None)
def test_any_fp64_values(values, k) -> None:
    scores = torch.tensor(values, dtype=torch.float64)
    k = min(k, len(values))
    assert torch.equal(sampling.top_k(scores, k), by_sorting(scores, k))


def test_values_agree_with_torch_topk() -> None:
    scores = torch.randn(300_001, generator=torch.Generator().manual_seed(1))
    kept = scores[sampling.top_k(scores, 30_000)]
    assert torch.equal(kept.sort(descending=True).values, scores.topk(30_000).values)


@pytest.mark.parametrize("transform", ["given", "abs", "square"])
@pytest.mark.parametrize("with_factor", [False, True])
def test_fused_scores_over_a_list(transform, with_factor) -> None:
    g = torch.Generator().manual_seed(2)
    shapes = [(30, 40), (0, 5), (7,), (3, 4, 5, 6), (4096,)]
    scores = [
        (torch.randn(s, generator=g) * 4).round().to(d) for s, d in zip(shapes, (*FLOATS, FLOATS[2]), strict=True)
    ]
    factor = [torch.randn(s[-1], generator=g).abs().double() for s in shapes] if with_factor else None
    v = [s.double() if transform == "given" else s.double().abs() for s in scores]
    v = [x * x for x in v] if transform == "square" else v
    flat = torch.cat([(x * factor[i] if factor else x).reshape(-1) for i, x in enumerate(v)])
    for k in (1, 500, flat.numel() - 1):
        masks = sampling.top_k(scores, k, transform=transform, factor=factor)
        assert [m.shape for m in masks] == [s.shape for s in scores]
        assert torch.equal(torch.cat([m.reshape(-1) for m in masks]), by_sorting(flat, k))


def test_control_dropping_the_tie_rule_is_rejected() -> None:
    """torch.topk fixes no order among ties: keeping the last of them is as many, but not the same."""
    scores = vector("99 % ties", 5000, torch.float32)
    last_ties = by_sorting(scores.flip(0), 2500).flip(0)
    assert int(last_ties.sum()) == 2500
    assert not torch.equal(last_ties, sampling.top_k(scores, 2500))


# ---------------------------------------------------------------- long vectors: a sample of tiles guesses the threshold
LONG = (ENOUGH + 76) * 4096 + 123


def tiled(sampled: float, others: float) -> Tensor:
    """Uniform scores whose sampled tiles are scaled otherwise: the sample knows nothing of the rest."""
    scores = torch.rand(LONG, generator=torch.Generator().manual_seed(3))
    tile = torch.arange(LONG) // 4096
    return scores * torch.where(tile % STEP == 0, sampled, others)


LONG_VECTORS = {
    "uniform": tiled(1, 1),
    "sample too low": tiled(1e-3, 1),
    "sample too high": tiled(1e3, 1),
    "sample all zero": tiled(0, 1),
    "only the sample": tiled(1, 0),
    "negative sample": tiled(-1, 1),
    "ties": (tiled(1, 1) * 50).round(),
    "one value": torch.ones(LONG),
    "sorted": tiled(1, 1).sort().values,
}


@pytest.mark.parametrize("name", LONG_VECTORS)
def test_a_sample_that_misleads_costs_time_only(name) -> None:
    scores = LONG_VECTORS[name]
    order = scores.sort(descending=True, stable=True).indices
    for k in (1, 5000, LONG // 20, LONG // 2, LONG - 1):
        expected = torch.zeros(LONG, dtype=torch.bool)
        expected[order[:k]] = True
        assert torch.equal(sampling.top_k(scores, k), expected)


@pytest.mark.parametrize("tile", [0, STEP - 1, STEP, ENOUGH + 76])
def test_a_bad_score_is_found_in_and_out_of_the_sample(tile) -> None:
    scores = torch.ones(LONG)
    scores[tile * 4096 + 7] = float("nan")
    with pytest.raises(ValueError, match=f"got nan at flat index {tile * 4096 + 7}$"):
        sampling.top_k(scores, 1000)


def test_ties_are_taken_back_from_weights_in_place() -> None:
    w = vector("few values", 9000, torch.float32)
    expected = torch.where(by_sorting(w.abs(), 3000), w, 0.0)
    out = w.clone()
    sampling.top_k(out, 3000, transform="abs", output="weights", out=out)
    assert torch.equal(out, expected)


def test_the_scores_may_be_written_over() -> None:
    """Ties at a negative threshold, where a zero that was just written would count as a larger score."""
    scores = -vector("few values", 9000, torch.float32).abs() - 1
    weights = torch.randn(9000)
    expected = sampling.top_k(scores, 4000, output="weights", weights=weights)
    sampling.top_k(scores, 4000, output="weights", weights=weights, out=scores)
    assert torch.equal(scores, expected)
