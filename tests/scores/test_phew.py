"""PHEW against its published definition on frozen tiny networks; each known divergence is a test."""

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparseprune import models
from sparseprune.prunable import prunable
from sparseprune.prune import prune
from sparseprune.scores import PHEW
from sparseprune.scores._units import trace
from sparseprune.scores.phew import _WALKS, _Walker


def _init(model, seed=0):
    g = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=g, dtype=p.dtype)
    return model


def _mlp():
    return _init(nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3)).double())


def _conv():
    return _init(
        nn.Sequential(
            nn.Conv2d(2, 3, (2, 3)), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 2), nn.Flatten(),
            nn.Linear(4 * 3 * 2, 3),
        ).double()
    )  # fmt: skip


def _phew(model, x, density, masks=None, seed=0):
    total = sum(w.numel() for w in prunable(model).values())
    budgets = [(list(prunable(model)), round(density * total))]
    return PHEW().score(model, [(x, None)], loss=F.cross_entropy, masks=masks, seed=seed, budgets=budgets)


def _visits(model, x, seed=0):
    """Visits of each weight by one round of walks."""
    weights = {n: w.detach() for n, w in prunable(model).items()}
    sizes = [w.numel() for w in weights.values()]
    offsets = dict(zip(weights, itertools.accumulate([0, *sizes]), strict=False))
    walker = _Walker(*trace("test", model.eval(), weights, x), offsets, torch.Generator().manual_seed(seed))
    counts = torch.bincount(walker.round(0)[0], minlength=sum(sizes)).double()
    return {n: c.view(w.shape) for (n, w), c in zip(weights.items(), counts.split(sizes), strict=True)}


def _published(weights, forward):
    """Chance of a visit of each weight by one walk through a chain of layers, unit by unit as published."""
    units = torch.ones(weights[0].shape[1] if forward else len(weights[-1]), dtype=torch.float64)
    units /= len(units)
    chances = []
    for w in weights if forward else weights[::-1]:
        kernels = w.abs().flatten(2).sum(2) if w.dim() == 4 else w.abs()  # [out, in]
        inside = w.abs() / kernels.view(*kernels.shape, *[1] * (w.dim() - 2))
        if forward:
            if len(units) < w.shape[1]:  # a channel is flattened: one of its positions, each with equal chances
                positions = w.shape[1] // len(units)
                units = units.repeat_interleave(positions) / positions
            step = units * kernels / kernels.sum(0)
            units = step.sum(1)
        else:
            if len(units) > len(w):  # back to the channel of a feature
                units = units.view(len(w), -1).sum(1)
            step = units[:, None] * kernels / kernels.sum(1, keepdim=True)
            units = step.sum(0)
        chances.append(step.view(*step.shape, *[1] * (w.dim() - 2)) * inside)
    return chances if forward else chances[::-1]


@pytest.mark.parametrize("model, shape", [(_mlp(), (1, 5)), (_conv(), (1, 2, 9, 8))], ids=["mlp", "conv"])
def test_weights_are_visited_as_published(model, shape):
    weights = [w.detach() for w in prunable(model).values()]
    visits = _visits(model, torch.ones(shape).double())
    assert all(int(v.sum()) == _WALKS for v in visits.values())
    both = zip(visits.values(), _published(weights, True), _published(weights, False), strict=True)
    for got, forward, backward in both:
        expected = _WALKS / 2 * (forward + backward)
        assert (
            float(((got - expected).abs() / (expected + 1).sqrt()).max()) < 6
        )  # of several hundred Poisson-like counts


def _walk_by_walk(model, x, kept, seed=0):
    """Weights enabled by walks taken one after another until there are enough."""
    weights = {n: w.detach() for n, w in prunable(model).items()}
    offsets = dict(zip(weights, itertools.accumulate([0, *(w.numel() for w in weights.values())]), strict=False))
    walker = _Walker(*trace("test", model.eval(), weights, x), offsets, torch.Generator().manual_seed(seed))
    visited, keys = walker.round(0)
    enabled: dict[int, int] = {}
    for i in keys.argsort().tolist():
        enabled[int(visited[i])] = enabled.get(int(visited[i]), 0) + 1
        if len(enabled) == kept:
            return enabled
    raise AssertionError


@pytest.mark.parametrize("density", [0.01, 0.1, 0.5])
def test_divergence_the_last_walk_is_cut_at_the_exact_count(density):
    model, x = _conv(), torch.ones(1, 2, 9, 8).double()
    scores = torch.cat([s.flatten() for s in _phew(model, x, density).values()])
    kept = round(density * len(scores))
    enabled = _walk_by_walk(model, x, kept)
    assert {i: int(scores[i]) for i in scores.nonzero().flatten().tolist()} == enabled and len(enabled) == kept


def test_the_hard_threshold_keeps_what_was_visited_and_all_of_it_is_on_paths():
    model = models.build("lenet-300-100", seed=0)
    masks = prune(model, 0.02, score="phew", seed=3)
    assert masks.kept == round(0.02 * masks.total)
    scores = _phew(model, torch.ones(1, *model.input_shape), 0.02, seed=0)
    assert sum(int((s > 0).sum()) for s in scores.values()) == masks.kept
    first, second, last = (masks[n] for n in masks)
    # a unit without input or output can only be one of the last walk, which is cut
    assert int((first.any(1) != second.any(0)).sum()) <= 1 and int((second.any(1) != last.any(0)).sum()) <= 1


def test_layers_with_counts_of_their_own_are_walked_until_each_is_full():
    model, x = _conv(), torch.ones(1, 2, 9, 8).double()
    budgets = [(["0.weight"], 9), (["4.weight"], 30)]
    scores = PHEW().score(model, [(x, None)], loss=F.cross_entropy, masks=None, seed=0, budgets=budgets)
    assert [int((s > 0).sum()) for s in scores.values()] == [9, 30, 0]
    masks = prune(model, 0.3, score="phew", modules=["4", "6"], input_shape=(2, 9, 8))
    assert list(masks) == ["4.weight", "6.weight"] and masks.kept == round(0.3 * masks.total)


def test_masks_of_a_higher_density_hold_those_of_a_lower_one():
    model, x = _mlp(), torch.ones(1, 5).double()
    low, high = _phew(model, x, 0.2), _phew(model, x, 0.6)
    assert all(bool((low[n] <= high[n]).all()) for n in low)


def test_a_density_of_one_takes_every_weight():
    assert all(bool((s > 0).all()) for s in _phew(_mlp(), torch.ones(1, 5).double(), 1.0).values())


def test_more_weights_than_walks_reach_are_an_error():
    model, x = _mlp(), torch.ones(1, 5).double()
    model[0].weight.data[2:4] = 0  # units that no walk forward comes to
    model[4].weight.data[:, 4] = 0  # and one that no walk back does: the two weights between them are never met
    reached = 95 - 10 - 3 - 2
    assert sum(int((s > 0).sum()) for s in _phew(model, x, reached / 95).values()) == reached
    with pytest.raises(ValueError, match="phew: density must keep no more than walks reach, got 1 more"):
        _phew(model, x, (reached + 1) / 95)


def test_divergence_walks_end_where_no_weight_leads_on_instead_of_taking_one_at_random():
    model, x = _mlp(), torch.ones(1, 5).double()
    model[2].weight.data[:, 3] = 0
    visits = _visits(model, x)
    assert int(visits["2.weight"][:, 3].sum()) == 0 and int(visits["0.weight"][3].sum()) > 0


def test_masked_weights_are_not_walked():
    model, x = _conv(), torch.ones(1, 2, 9, 8).double()
    masks = {n: w.detach() > 0 for n, w in prunable(model).items()}
    scores = _phew(model, x, 0.2, masks)
    assert all(bool((s[~masks[n]] == 0).all()) for n, s in scores.items())
    total = sum(m.numel() for m in masks.values())
    assert sum(int((s > 0).sum()) for s in scores.values()) == round(0.2 * total)


class Residual(nn.Module):
    """A stem, a block with an identity shortcut, and one with a convolution for a shortcut, as published nets have."""

    def __init__(self):
        super().__init__()
        self.stem, self.a1, self.a2 = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.b1, self.b2, self.short = nn.Conv2d(4, 5, 3), nn.Conv2d(5, 5, 3, padding=1), nn.Conv2d(4, 5, 1)
        self.top = nn.Linear(5, 2)

    def forward(self, x):
        x = self.stem(x).relu()
        x = (self.a2(self.a1(x).relu()) + x).relu()
        x = (self.b2(self.b1(x).relu()) + self.short(x)[..., 1:-1, 1:-1]).relu()
        return self.top(x.mean((2, 3)))


def test_walks_take_every_branch_with_weights_with_equal_chances_and_no_identity_shortcut():
    visits = {n: int(v.sum()) for n, v in _visits(_init(Residual()), torch.ones(1, 3, 8, 8)).items()}
    assert all(visits[f"{n}.weight"] == _WALKS for n in ("stem", "a1", "a2", "top"))
    assert visits["b1.weight"] == visits["b2.weight"] == _WALKS - visits["short.weight"]
    assert abs(visits["short.weight"] - _WALKS / 2) < 6 * (_WALKS / 4) ** 0.5


def test_groups_are_not_crossed():
    model = _init(nn.Sequential(nn.Conv2d(4, 6, 1, groups=2), nn.Conv2d(6, 4, 1, groups=2), nn.Flatten()))
    model[0].weight.data[:3] = 0  # the first group
    visits = _visits(model, torch.ones(1, 4, 1, 1))
    assert int(visits["0.weight"][:3].sum()) == 0 and int(visits["0.weight"][3:].sum()) == _WALKS // 2
    assert int(visits["1.weight"][:2].sum()) == _WALKS // 4  # backward walks, which end there


class Encoder(nn.Module):
    """Tokens in, classes out."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.top = nn.Linear(8, 3)

    def forward(self, x):
        return self.top(self.layers(self.embed(x)).mean(1))


def test_a_transformer_keeps_weights_of_every_layer():
    torch.manual_seed(0)
    masks = prune(Encoder(), 0.2, score="phew", inputs=torch.tensor([[1, 5, 2, 7]]))
    assert masks.kept == round(0.2 * masks.total) and all(bool(m.any()) for m in masks.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_model_and_the_global_generator_stay_as_they_are(dtype):
    model, x = _conv().to(dtype).train(), torch.ones(1, 2, 9, 8, dtype=dtype)
    before, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    scores = _phew(model, x, 0.1)
    again, other = _phew(model, x, 0.1), _phew(model, x, 0.1, seed=1)
    assert all(torch.equal(model.state_dict()[n], t) for n, t in before.items()) and model[1].training
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(s.dtype is torch.float32 and torch.equal(s, again[n]) for n, s in scores.items())
    assert any(not torch.equal(s, other[n]) for n, s in scores.items())


def test_bad_input_is_an_error():
    model = _mlp()
    with pytest.raises(ValueError, match="phew: batches must hold at least one sample, got none"):
        PHEW().score(model, [], loss=F.cross_entropy, masks=None, seed=0, budgets=[])
    model.forward = lambda x: x
    with pytest.raises(ValueError, match="phew: model must compute its output by layers that can be pruned, got none"):
        _phew(model, torch.ones(1, 5).double(), 0.1)
