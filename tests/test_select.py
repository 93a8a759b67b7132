"""Selectors: exact counts, unbiased masks, the papers' recipes."""

import dataclasses
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseprune import select
from sparseprune.select import (
    Bernoulli,
    Multinomial,
    Poisson,
    Priority,
    Systematic,
    Threshold,
    ThresholdRescaled,
    WithoutReplacement,
)

EXACT = [Threshold(), WithoutReplacement(), WithoutReplacement(per_layer=False), Priority(), Priority(rescale=False)]
SKETCHES = [Multinomial(), Poisson(), Systematic(), Bernoulli(), Priority()]


def _scores(seed=0, *, signed=False):
    g = torch.Generator().manual_seed(seed)
    scores = {"a": torch.randn(6, 5, generator=g).exp(), "b": torch.randn(4, 2, 3, 3, generator=g).exp() * 3}
    return {n: s * (torch.randn(s.shape, generator=g).sign() if signed else 1) for n, s in scores.items()}


def _kept(masks):
    return sum(int(m.count_nonzero()) for m in masks.values())


@pytest.mark.parametrize("selector", EXACT, ids=repr)
@settings(max_examples=25, deadline=None)
@given(k=st.integers(0, 102), seed=st.integers(0, 2**63), levels=st.integers(1, 3), signed=st.booleans())
def test_counts_are_exact_whatever_the_ties(selector, k, seed, levels, signed):
    scores = {n: s.abs().clamp(max=levels).ceil() * s.sign() for n, s in _scores(seed % 97, signed=signed).items()}
    masks = selector.select(scores, k, seed=seed)
    assert _kept(masks) == k
    assert all(masks[n].shape == scores[n].shape for n in scores)
    per_layer = {"a": k // 5, "b": k // 3}
    counts = {n: int(m.count_nonzero()) for n, m in selector.select(scores, per_layer, seed=seed).items()}
    assert counts == per_layer


def test_threshold_ranks_signed_scores_and_gives_ties_to_the_lower_index():
    scores = {"a": torch.tensor([[-1.0, 2.0], [0.0, 2.0]]), "b": torch.tensor([[2.0, -3.0]])}
    masks = Threshold().select(scores, 2)
    assert masks["a"].tolist() == [[False, True], [False, True]] and masks["b"].tolist() == [[False, False]]
    assert Threshold().select(scores, 5)["b"].tolist() == [[True, False]]


@pytest.mark.parametrize("selector", [*SKETCHES, Multinomial(target="draws")], ids=repr)
@pytest.mark.parametrize("kept", [12, {"a": 5, "b": 7}], ids=["global", "layer"])
def test_rescaled_masks_are_unbiased(selector, kept):
    scores = _scores(3, signed=True)
    draws = [selector.select(scores, kept, seed=seed) for seed in range(300)]
    for name in scores:
        m = torch.stack([masks[name] for masks in draws]).double()
        # groups of like scores: single weights are too skewed for a normal bound
        order = scores[name].abs().flatten().argsort()
        groups = m.flatten(1)[:, order].view(300, -1, 6).mean(2)
        z = (groups.mean(0) - 1) / (groups.std(0) / math.sqrt(300))
        assert z.abs().max() < 5.5, (name, z)


HEAVY = {"a": (torch.randn(4000, generator=torch.Generator().manual_seed(0)) * 2).exp()}


@pytest.mark.parametrize("selector", SKETCHES, ids=repr)
def test_sketches_reach_the_count_on_average(selector):
    nnz = [_kept(selector.select(HEAVY, 400, seed=s)) for s in range(40)]
    assert abs(sum(nnz) / 40 - 400) < 6 * math.sqrt(400 / 40)


@pytest.mark.parametrize("sketch", [Multinomial, Poisson, Systematic])
def test_as_many_draws_fall_short(sketch):
    draws = [_kept(sketch(target="draws").select(HEAVY, 400, seed=s)) for s in range(40)]
    assert sum(draws) / 40 < 320  # heavy tails repeat their largest weights


def test_multinomial_masks_are_counts_over_s_p():
    scores = {"a": torch.tensor([1.0, 2.0, 5.0])}
    m = Multinomial(target="draws").select(scores, 3, seed=1)["a"].double()
    counts = m * 3 * scores["a"].double() / 8
    torch.testing.assert_close(counts, counts.round(), atol=1e-4, rtol=0)
    assert float(counts.sum()) == pytest.approx(3, abs=1e-4)


def test_binary_and_rescaled_masks_keep_the_same_weights():
    for rescaled in SKETCHES:
        binary = dataclasses.replace(rescaled, rescale=False)
        a, b = binary.select(_scores(), 20, seed=5), rescaled.select(_scores(), 20, seed=5)
        assert all(a[n].dtype is torch.bool and torch.equal(a[n], b[n] != 0) for n in a)


def test_without_replacement_keeps_the_layer_counts_of_the_hard_threshold():
    scores = _scores(7)
    hard = {n: int(m.sum()) for n, m in Threshold().select(scores, 31).items()}
    for seed in range(20):
        assert {n: int(m.sum()) for n, m in WithoutReplacement().select(scores, 31, seed=seed).items()} == hard
    loose = WithoutReplacement(per_layer=False)
    assert len({int(loose.select(scores, 31, seed=seed)["a"].sum()) for seed in range(20)}) > 1


def test_without_replacement_ranks_signed_scores_but_never_a_zero():
    scores = {"a": torch.tensor([3.0, -1.0, -2.0]), "b": torch.tensor([0.0, 0.0, 1.0])}
    masks = WithoutReplacement().select(scores, 3, seed=0)
    # the zeros outrank -1 by sign, but no draw can give them
    assert masks["a"].sum() == 2 and masks["b"].tolist() == [False, False, True]


def test_without_replacement_follows_the_law_of_successive_draws():
    p, n = torch.tensor([0.5, 0.3, 0.15, 0.05]), 2000
    hits = dict.fromkeys(itertools.combinations(range(4), 2), 0)
    for seed in range(n):
        mask = WithoutReplacement().select({"a": p}, 2, seed=seed)["a"]
        hits[tuple(mask.nonzero().flatten().tolist())] += 1
    law = {(i, j): float(p[i] * p[j] * (1 / (1 - p[i]) + 1 / (1 - p[j]))) for i, j in hits}
    chi2 = sum((hits[pair] - n * law[pair]) ** 2 / (n * law[pair]) for pair in hits)
    assert chi2 < 36  # 5 degrees of freedom: p < 1e-6


@pytest.mark.parametrize("selector", [*SKETCHES, WithoutReplacement()], ids=repr)
def test_deterministic_in_the_seed_and_layers_are_independent(selector):
    a, b, c = (selector.select(_scores(), 30, seed=s) for s in (1, 1, 2))
    assert all(torch.equal(a[n], b[n]) for n in a) and not all(torch.equal(a[n], c[n]) for n in a)
    same = {"a": torch.ones(200), "b": torch.ones(200)}
    twins = selector.select(same, {"a": 40, "b": 40}, seed=0)
    assert not torch.equal(twins["a"], twins["b"])


@pytest.mark.parametrize("selector", [*SKETCHES, WithoutReplacement()], ids=repr)
@pytest.mark.parametrize("kept", [3, {"a": 3}], ids=["global", "layer"])
def test_more_than_the_non_zero_scores_can_give_is_an_error(selector, kept):
    with pytest.raises(ValueError, match="kept must be at most 2, the number of non-zero scores, got 3"):
        selector.select({"a": torch.tensor([0.0, 1.0, 2.0, 0.0])}, kept, seed=0)


@pytest.mark.parametrize("selector", [*EXACT, *SKETCHES, Multinomial(rescale=False)], ids=repr)
def test_all_and_none_need_no_draw(selector):
    scores = {"a": torch.tensor([0.0, 1.0])}
    all_, none = selector.select(scores, 2, seed=0)["a"], selector.select(scores, 0, seed=0)["a"]
    assert all_.tolist() == [1, 1] and none.tolist() == [0, 0]
    assert all_.dtype == (torch.float32 if getattr(selector, "rescale", False) else torch.bool)


@pytest.mark.parametrize("selector", [*EXACT[1:], *SKETCHES, Multinomial(rescale=False)], ids=repr)
def test_every_weight_that_can_be_drawn_needs_no_draw(selector):
    """What is left of a small layer at the last of many iterations; no number of draws is sure to reach all of them."""
    mask = selector.select({"a": torch.tensor([0.0, 1.0, -5.0, 1e-20])}, 3, seed=0)["a"]
    assert mask.tolist() == [0, 1, 1, 1]


def test_the_threshold_does_not_skip_zeros():
    assert Threshold().select({"a": torch.tensor([0.0, -1.0])}, 1)["a"].tolist() == [True, False]


def test_the_rescaled_threshold_keeps_the_same_weights_and_the_sum_of_squares():
    scores = {"a": torch.randn(10, 10, dtype=torch.float64), "b": torch.randn(60)}
    hard, masks = (selector.select(scores, 40) for selector in (Threshold(), ThresholdRescaled()))
    assert all(torch.equal(masks[name] != 0, hard[name]) for name in scores)
    assert [masks[name].dtype for name in scores] == [torch.float64, torch.float32]
    assert all(masks[name][hard[name]].allclose(torch.tensor(2.0, dtype=masks[name].dtype)) for name in scores)
    by_layer = ThresholdRescaled().select(scores, {"a": 25, "b": 0})
    assert float(by_layer["a"].max()) == 2 and not by_layer["b"].any()


@pytest.mark.parametrize("kept", [-1, 3, {"a": 3}])
def test_counts_out_of_range_are_an_error(kept):
    with pytest.raises(ValueError, match=r"select: kept must be in \[0, 2\], the number of scores, got"):
        Threshold().select({"a": torch.ones(2)}, kept)


def test_counts_of_other_layers_are_an_error():
    with pytest.raises(ValueError, match=r"kept must have the layers of scores, \['a'\], got \['b'\]"):
        Threshold().select({"a": torch.ones(2)}, {"b": 1})


def test_registry():
    assert select.names() == [
        "bernoulli", "multinomial", "poisson", "priority", "systematic", "threshold", "threshold_rescaled",
        "without_replacement",
    ]  # fmt: skip
    assert select.get("multinomial") == Multinomial() and select.get(own := Priority(rescale=False)) is own
    for wrong in ("best", Priority, 3):
        with pytest.raises(ValueError, match=r"prune: select must be one of .*'threshold'.* got"):
            select.get(wrong)  # pyright: ignore[reportArgumentType]


def test_unknown_target_is_an_error():
    with pytest.raises(ValueError, match="Multinomial: target must be 'nnz' or 'draws', got 'n'"):
        Multinomial(target="n")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("selector", [Poisson(per_layer=True), Multinomial(per_layer=True, rescale=False)], ids=repr)
def test_sketches_per_layer_draw_the_thresholds_counts_from_each_layers_own_scores(selector):
    scores = _scores()
    hard = {name: int(mask.sum()) for name, mask in Threshold().select(scores, 40).items()}
    alone = dataclasses.replace(selector, per_layer=False)
    masks = selector.select(scores, 40, seed=5)
    expected = alone.select(scores, hard, seed=5)
    assert all(torch.equal(masks[name], expected[name]) for name in scores)
    assert {name: int(m.count_nonzero()) for name, m in alone.select(scores, 40, seed=5).items()} != hard
