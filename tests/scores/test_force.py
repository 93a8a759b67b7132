"""FORCE against its published loop on a frozen tiny network; pruned weights come back."""

import copy
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparseprune.prunable import prunable
from sparseprune.prune import prune
from sparseprune.scores import FORCE

from .tiny import batch, counts, gradients, net, skeletonize, some_masks


def _force(model, masks, batches=None):
    return FORCE().score(model, batches or [batch()], loss=F.cross_entropy, masks=masks, seed=0)


def _saliency(dense, pruned, g):
    return {n: (w * g[n]).abs() for n, w in dense.items()}


@pytest.mark.parametrize("steps", [1, 2, 10])
@pytest.mark.parametrize("density", [0.5, 0.2])
def test_is_the_published_loop(steps, density):
    model, batches = net(), [batch(6, seed=3), batch(6, seed=4)]
    expected = skeletonize(model, batches, counts(69, density, steps), _saliency, revive=True)
    masks = prune(model, density, score="force", iterations=steps, data=batches)
    assert all(torch.equal(masks[n], expected[n]) for n in expected)


def test_pruned_weights_come_back():
    model = net()
    masks, kept = [], counts(69, 0.2, 10)
    score = FORCE()
    for t in range(1, 11):
        masks.append(skeletonize(model, [batch()], kept[:t], _saliency, revive=True))
    back = sum(int((new[n] & ~old[n]).sum()) for old, new in pairwise(masks) for n in new)
    assert back > 0
    final = prune(model, 0.2, score=score, iterations=10, data=[batch()])
    assert all(torch.equal(final[n], masks[-1][n]) for n in final)


@pytest.mark.parametrize("scaled", [False, True])
def test_a_pruned_weight_is_scored_by_its_dense_value_and_the_pruned_nets_gradient(scaled):
    model = net()
    masks = {n: m.double() * 1.7 if scaled else m for n, m in some_masks(model).items()}
    got = _force(model, masks)
    dense = {n: w.detach() for n, w in prunable(model).items()}
    g = gradients(model, {n: w * masks[n] for n, w in dense.items()}, *batch())
    for n, w in dense.items():
        torch.testing.assert_close(got[n], (w * g[n]).abs(), rtol=1e-12, atol=1e-15)
    assert all((got[n][masks[n] == 0] > 0).any() for n in got)


@pytest.mark.parametrize("select", ["multinomial", "without_replacement"])
def test_weights_come_back_under_sketches_at_each_iteration(select):
    seen = []

    class Spy(FORCE):
        def score(self, model, batches, *, masks, **rest):
            seen.append(masks)
            return super().score(model, batches, masks=masks, **rest)

    masks = prune(net(), 0.4, score=Spy(), iterations=5, select=select, select_at="each", data=[batch()])
    back = sum(int(((new[n] != 0) & (old[n] == 0)).sum()) for old, new in pairwise(seen[1:]) for n in new)
    assert back > 0 and 0 < masks.kept <= 69 and all(m.isfinite().all() for m in masks.values())


def test_the_pruned_net_is_more_sensitive_than_snips():
    torch.manual_seed(0)
    model, data = (
        nn.Sequential(nn.Linear(4, 60), nn.ReLU(), nn.Linear(60, 40), nn.ReLU(), nn.Linear(40, 3)),
        [batch(40)],
    )
    model.double()

    def sensitivity(score):
        masks = prune(model, 0.05, score=score, data=data)
        kept = {n: w.detach() * masks[n] for n, w in prunable(model).items()}
        return sum(float((kept[n] * g).abs().sum()) for n, g in gradients(model, kept, *data[0]).items())

    assert min(sensitivity("force"), sensitivity("iter_snip")) > sensitivity("snip")


def test_the_model_keeps_its_dense_weights():
    model = net()
    before = copy.deepcopy(model.state_dict())
    _force(model, some_masks(model))
    assert all(torch.equal(model.state_dict()[n], t) for n, t in before.items())


def test_unknown_mode_is_an_error():
    with pytest.raises(ValueError, match="FORCE: mode must be 'eval' or 'train', got 'test'"):
        FORCE(mode="test")
