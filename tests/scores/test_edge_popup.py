"""Edge-popup against its update written out; each known divergence is a test."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparseprune import prune
from sparseprune.data import load
from sparseprune.models import build
from sparseprune.nn import sparsify
from sparseprune.prunable import prunable
from sparseprune.scores import EdgePopup
from sparseprune.training import Trainer, evaluate


def _model() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        conv = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        return nn.Sequential(*conv, nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)).double()


def _batch():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(12, 1, 4, 4, generator=generator, dtype=torch.float64)
    return x, torch.randint(3, (12,), generator=generator)


def _score(model, train, density=0.4, masks=None, seed=0, **options):
    return EdgePopup(**options).score(
        model, [], loss=F.cross_entropy, masks=masks, seed=seed, train=train, density=density
    )


def _sgd(steps, seen=None):
    """Full-batch SGD of lr 0.5, which notes what the net gives before each step."""
    x, y = _batch()

    def train(net, count, *_):
        assert count is None
        optimizer = torch.optim.SGD(net.train().parameters(), lr=0.5)
        for _ in range(steps):
            output = net(x)
            if seen is not None:
                seen.append((output, net))
            optimizer.zero_grad()
            F.cross_entropy(output, y).backward()
            optimizer.step()

    return train


def _top(s, density):
    """The published mask: the first int((1 - density) numel) in ascending order of |s| are zero."""
    order = s.abs().flatten().argsort()
    h = torch.ones(s.numel(), dtype=s.dtype)
    h[order[: int((1 - density) * s.numel())]] = 0
    return h.view(s.shape)


def test_the_update_is_the_published_one():
    """s <- s - lr dL/dI w Z sign(s), the straight-through gradient, for two steps in float64."""
    model, (x, y) = _model(), _batch()
    start, got = _score(model, _sgd(0)), _score(model, _sgd(2))
    signs = _signs(model)
    s = {name: value * signs[name] for name, value in start.items()}
    for _ in range(2):
        state = {name: (w.detach() * _top(s[name], 0.4)).requires_grad_() for name, w in prunable(model).items()}
        state_dict = {**{n: b.clone() for n, b in model.named_buffers()}, **state}
        output = torch.func.functional_call(model.train(), state_dict, (x,))
        grads = torch.autograd.grad(F.cross_entropy(output, y), list(state.values()))
        for (name, w), g in zip(prunable(model).items(), grads, strict=True):
            s[name] = s[name] - 0.5 * g * w.detach() * s[name].sign()
    for name, value in got.items():
        torch.testing.assert_close(value, s[name].abs(), rtol=1e-10, atol=1e-12)
        assert not torch.equal(value, start[name])


def _signs(model):
    """The signs of the scores at the start, which are drawn in the order of the layers."""
    generator = torch.Generator().manual_seed(0)
    return {
        n: nn.init.kaiming_uniform_(torch.empty(w.shape), a=math.sqrt(5), generator=generator).sign().double()
        for n, w in prunable(model).items()
    }


def test_the_gradient_of_a_2_by_2_layer_by_hand():
    """dL/ds_uv = dL/dI_v w_uv Z_u sign(s_uv), for kept and for dropped edges alike."""
    layer = nn.Linear(2, 2, bias=False).double()
    z, grads = torch.tensor([[0.5, -2.0]], dtype=torch.float64), {}

    def train(net, *_):
        net(z).square().sum().div(2).backward()
        grads.update({n: (p.grad, p.detach()) for n, p in net.named_parameters() if p.grad is not None})

    _score(layer, train, density=0.5)
    (grad, s) = next(iter(grads.values()))
    w = layer.weight.detach()
    h = _top(s, 0.5)
    assert h.sum() == 2 and len(grads) == 1
    torch.testing.assert_close(grad, (z @ (w * h).T).T * w * z * s.sign())


@pytest.mark.parametrize("density", [0.05, 0.3, 0.5, 0.9, 1.0])
def test_the_share_kept_is_the_published_one_exactly(density):
    model, seen = _model(), []
    _score(model, _sgd(1, seen), density=density)
    net = seen[0][1]
    for name, module in zip(prunable(model), [net[0], net[4], net[6]], strict=True):
        numel = prunable(model)[name].numel()
        assert int((module.weight != 0).sum()) == numel - int((1 - density) * numel)


def test_the_weights_stay_as_they_are_to_the_bit():
    model, seen = _model(), []
    before = copy.deepcopy(model.state_dict())
    result = _score(model, _sgd(3, seen))
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in before.items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    net = seen[0][1]
    trained = {n.replace("parametrizations.weight.original", "weight"): p for n, p in net.named_parameters()}
    for name, p in model.named_parameters():
        assert torch.equal(trained[name], p), "nor do biases, batch norms or the copy's weights move"
    assert not any(r.requires_grad for r in result.values())


def test_scores_begin_uniform_between_the_bounds_of_kaiming():
    model = nn.Linear(100, 200)
    first, other = (_score(model, _sgd(0), seed=seed)["weight"] for seed in (0, 1))
    assert first.max() <= 0.1 and abs(float(first.mean()) - 0.05) < 0.001
    assert not torch.equal(first, other) and torch.equal(first, _score(model, _sgd(0))["weight"])


def test_signed_constant_weights():
    model = _model()
    for scaled, factor in ((False, 1), (True, 0.4)):
        score = EdgePopup(weights="signed_constant", scale_fan=scaled)
        prepared = prunable(score.prepared(model, density=0.4))
        for name, w in prunable(model).items():
            constant = math.sqrt(2 / (w[0].numel() * factor))
            torch.testing.assert_close(prepared[name].detach(), w.detach().sign() * constant)
    seen = []
    _score(model, _sgd(1, seen), weights="signed_constant")
    torch.testing.assert_close(seen[0][1][4].weight.detach().abs().max(), torch.tensor(math.sqrt(2 / 16)).double())
    assert torch.equal(prunable(EdgePopup().prepared(model, density=0.4))["0.weight"], prunable(model)["0.weight"])


def test_divergence_the_fan_is_scaled_by_the_share_kept():
    """The published code multiplies it by 1 - prune_rate, while its layers read prune_rate as the share kept."""
    layer = nn.Linear(8, 2)
    kept = prunable(EdgePopup("signed_constant", scale_fan=True).prepared(layer, density=0.3))["weight"]
    assert float(kept.detach().abs()[0, 0]) == pytest.approx(math.sqrt(2 / (8 * 0.3)))
    assert float(kept.detach().abs()[0, 0]) != pytest.approx(math.sqrt(2 / (8 * 0.7)))


def test_divergence_prune_shares_the_roundings_between_layers():
    model = _model()
    masks = prune(model, 0.3, score="edge_popup", train=lambda net, *_: None)
    published = [w.numel() - int(0.7 * w.numel()) for w in prunable(model).values()]
    kept = [int(mask.sum()) for mask in masks.values()]
    assert masks.kept == round(0.3 * masks.total) < sum(published)
    assert all(0 <= more - count <= 1 for more, count in zip(published, kept, strict=True))


def test_masked_weights_take_no_part():
    model, seen = _model(), []
    generator = torch.Generator().manual_seed(2)
    masks = {name: torch.rand(w.shape, generator=generator) > 0.4 for name, w in prunable(model).items()}
    for name, s in _score(model, _sgd(1, seen), masks=masks).items():
        assert torch.equal(s == 0, ~masks[name])
    effective = seen[0][1][4].weight
    assert not effective[~masks["4.weight"]].any() and int((effective != 0).sum()) == 128 - int(0.6 * 128)


def test_a_subnetwork_of_untrained_weights_learns_the_digits():
    dataset = load("digits")
    model = build("mlp", seed=0)
    trainer = Trainer(dataset, epochs=6, batch_size=64, schedule="cosine")
    accuracy = []
    for train in (lambda net, *_: None, trainer):
        masks = prune(model, 0.5, score="edge_popup", train=train, seed=1)
        net = sparsify(copy.deepcopy(model), masks, layout="masked")
        accuracy.append(evaluate(net, dataset.test_inputs, dataset.test_targets))
    assert accuracy[0] < 0.3 and accuracy[1] > 0.9


def test_errors():
    with pytest.raises(ValueError, match="EdgePopup: weights must be 'given' or 'signed_constant', got 'ones'"):
        EdgePopup(weights="ones")
    with pytest.raises(ValueError, match=r"EdgePopup: scale_fan must be False unless .*, got True"):
        EdgePopup(scale_fan=True)
    with pytest.raises(ValueError, match=r"EdgePopup: train must be a callable .*, got None"):
        _score(_model(), None)
