"""Iterative SNIP against its published loop on a frozen tiny network; each known divergence is a test."""

import pytest
import torch
import torch.nn.functional as F

from sparseprune.prune import prune
from sparseprune.scores import SNIP, IterSNIP

from .tiny import batch, counts, gradients, net, skeletonize, some_masks


def _saliency(dense, pruned, g):
    return {n: (w * g[n]).abs() for n, w in pruned.items()}


@pytest.mark.parametrize("schedule", ["exponential", "linear"])
@pytest.mark.parametrize("steps", [1, 2, 10])
def test_is_the_published_loop(steps, schedule):
    model, batches = net(), [batch(6, seed=3), batch(6, seed=4)]
    kept = counts(69, 0.2, steps)
    if schedule == "linear":
        kept = [round(69 * (1 - 0.8 * t / steps)) for t in range(1, steps + 1)]
    expected = skeletonize(model, batches, kept, _saliency)
    masks = prune(model, 0.2, score="iter_snip", iterations=steps, schedule=schedule, data=batches)
    assert all(torch.equal(masks[n], expected[n]) for n in expected)


def test_a_step_is_snip_of_the_masked_net_in_train_mode():
    model, masks = net(), some_masks(net())
    got, expected = (
        score.score(model, [batch()], loss=F.cross_entropy, masks=masks, seed=0)
        for score in (IterSNIP(), SNIP(mode="train"))
    )
    assert all(torch.equal(got[n], expected[n]) for n in expected)


def test_divergence_gradients_are_averaged_over_samples_not_over_batches():
    model, batches = net(), [batch(9, seed=3), batch(3, seed=4)]
    got = IterSNIP().score(model, batches, loss=F.cross_entropy, masks=None, seed=0)
    weights = {n: p.detach() for n, p in model.named_parameters() if n in got}
    first, second = (gradients(model, weights, x, y) for x, y in batches)
    for n, w in weights.items():
        torch.testing.assert_close(got[n], (w * (0.75 * first[n] + 0.25 * second[n])).abs())
        assert not torch.allclose(got[n], (w * (first[n] + second[n]) / 2).abs())


def test_divergence_counts_are_rounded_not_cut_off():
    model = net()
    masks = prune(model, 0.2, score="iter_snip", iterations=2, data=[batch()])
    assert masks.kept == 14 != int(69 * 0.2)


def test_unknown_mode_is_an_error():
    with pytest.raises(ValueError, match="IterSNIP: mode must be 'eval' or 'train', got 'test'"):
        IterSNIP(mode="test")
