"""GRASP-It against its published loop on a frozen tiny network; each known divergence is a test."""

import pytest
import torch
import torch.nn.functional as F

from sparseprune.prunable import prunable
from sparseprune.prune import prune
from sparseprune.scores import GRASPIt

from .tiny import batch, counts, gradients, net, skeletonize, some_masks


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_is_the_published_loop(steps):
    model, batches = net(), [batch(6, seed=3), batch(6, seed=4)]
    expected = skeletonize(
        model, batches, counts(69, 0.2, steps), lambda dense, pruned, g: {n: v.square() for n, v in g.items()}
    )
    masks = prune(model, 0.2, score="grasp_it", iterations=steps, data=batches)
    assert all(torch.equal(masks[n], expected[n]) for n in expected)


def test_is_the_squared_gradient_of_the_masked_net():
    model = net()
    masks = some_masks(model)
    got = GRASPIt().score(model, [batch()], loss=F.cross_entropy, masks=masks, seed=0)
    g = gradients(model, {n: w.detach() * masks[n] for n, w in prunable(model).items()}, *batch())
    for n, m in masks.items():
        torch.testing.assert_close(got[n], g[n].square() * m, rtol=1e-12, atol=1e-18)


def test_divergence_from_grasp_a_weight_at_zero_has_a_score():
    model = net()
    model[0].weight.data[:, 0] = 0  # GraSP's w * (H g) is zero there
    got = GRASPIt().score(model, [batch()], loss=F.cross_entropy, masks=None, seed=0)
    assert (got["0.weight"][:, 0] > 0).all()


def test_unknown_mode_is_an_error():
    with pytest.raises(ValueError, match="GRASPIt: mode must be 'eval' or 'train', got 'test'"):
        GRASPIt(mode="test")
