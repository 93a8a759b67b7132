"""prune(score="synflow") against the published loop on a frozen tiny network; each known divergence is a test."""

import copy
import math

import pytest
import torch
from torch import nn

from sparseprune.prunable import prunable
from sparseprune.prune import prune

SHAPE = (2, 6, 6)


def _model() -> nn.Sequential:
    g = torch.Generator().manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(128, 5),
    ).double()  # fmt: skip
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=g, dtype=torch.float64)
    return model


def _published(model, density, iterations, count):
    """Absolute values of the whole state, one image of ones, |dR/dw w|, a global threshold; `count` rounds d_t N."""
    work = copy.deepcopy(model).eval()
    for t in work.state_dict().values():
        t.abs_()
    weights = prunable(work)
    dense = {n: w.detach().clone() for n, w in weights.items()}
    masks = {n: torch.ones_like(w, dtype=torch.bool) for n, w in weights.items()}
    total = sum(w.numel() for w in weights.values())
    for step in range(1, iterations + 1):
        for name, w in weights.items():
            w.data = dense[name] * masks[name]
        grads = torch.autograd.grad(work(torch.ones(1, *SHAPE, dtype=torch.float64)).sum(), list(weights.values()))
        scores = {n: (g * w.detach()).abs() for (n, w), g in zip(weights.items(), grads, strict=True)}
        ranked = torch.cat([s.flatten() for s in scores.values()]).sort().values
        removed = total - count(density ** (step / iterations) * total)
        masks = {n: s > ranked[removed - 1] for n, s in scores.items()}
    return masks


@pytest.mark.parametrize("iterations", [1, 7, 100])
def test_the_published_loop_gives_the_same_masks(iterations):
    masks = prune(_model(), 0.1, score="synflow", input_shape=SHAPE, iterations=iterations)
    published = _published(_model(), 0.1, iterations, round)
    assert all(torch.equal(masks[n], published[n]) for n in published)


def test_divergence_counts_are_rounded_where_the_published_cut_rounds_up():
    density = 0.1002  # 118.236 of 1,180
    masks = prune(_model(), density, score="synflow", input_shape=SHAPE, iterations=1)
    published = sum(int(m.sum()) for m in _published(_model(), density, 1, math.ceil).values())
    assert (masks.total, masks.kept, published) == (1180, 118, 119)


def test_divergence_ties_at_the_threshold_are_cut_by_index_not_all_removed():
    model = nn.Linear(4, 3).double()
    nn.init.ones_(model.weight)
    masks = prune(model, 0.5, score="synflow", iterations=1)
    assert masks["weight"].flatten().tolist() == [True] * 6 + [False] * 6  # the published loop keeps none
