"""GraSP against its published definition on a frozen tiny network; each known divergence is a test."""

import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparseprune.prunable import prunable
from sparseprune.prune import prune
from sparseprune.scores import GraSP

from .tiny import LiveBytes


def _model() -> nn.Sequential:
    g = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=g, dtype=torch.float64)
    return model


def _batch(n=12):
    g = torch.Generator().manual_seed(1)
    return torch.randn(n, 4, generator=g, dtype=torch.float64), torch.randint(3, (n,), generator=g)


def _grasp(model, batches, masks=None, **options):
    return GraSP(**options).score(model, batches, loss=F.cross_entropy, masks=masks, seed=0)


def _hessian_gradient(model, x, y, temperature, masks=None, loss=F.cross_entropy):
    """theta and H g, with the Hessian written out in full."""
    weights = {n: w.detach() for n, w in prunable(model).items()}
    sizes = [w.numel() for w in weights.values()]
    theta = torch.cat([w.flatten() for w in weights.values()])

    def of(flat):
        pieces = dict(zip(weights, flat.split(sizes), strict=True))
        state = {n: pieces[n].view_as(w) * (masks[n] if masks else 1) for n, w in weights.items()}
        return loss(torch.func.functional_call(model, state, (x,)) / temperature, y)

    hg = torch.func.hessian(of)(theta) @ torch.func.grad(of)(theta)
    return {n: (weights[n], h.view_as(weights[n])) for n, h in zip(weights, hg.split(sizes), strict=True)}


@pytest.mark.parametrize("temperature", [200.0, 1.0])
@pytest.mark.parametrize("masked", [False, True])
def test_is_the_weight_times_the_hessian_gradient_product(temperature, masked):
    model, (x, y) = _model(), _batch()
    masks = {n: w.detach() > -0.5 for n, w in prunable(model).items()} if masked else None
    got = _grasp(model, [(x, y)], masks, temperature=temperature)
    for name, (theta, hg) in _hessian_gradient(model, x, y, temperature, masks).items():
        torch.testing.assert_close(got[name], theta * hg, rtol=1e-9, atol=1e-18)


def test_is_half_the_change_of_the_squared_gradient_norm_when_a_weight_fades():
    model, (x, y) = _model(), _batch()
    got = _grasp(model, [(x, y)], temperature=1.0)

    def squared_norm():
        grads = torch.autograd.grad(F.cross_entropy(model(x), y), list(prunable(model).values()))
        return float(torch.stack([g.square().sum() for g in grads]).sum())

    before, h = squared_norm(), 1e-6
    for name, w in prunable(model).items():
        w.data[1, 2] *= 1 - h
        assert (before - squared_norm()) / (2 * h) == pytest.approx(float(got[name][1, 2]), rel=1e-3)
        w.data[1, 2] /= 1 - h


@pytest.mark.parametrize("sizes", [[12], [6, 6], [5, 4, 3], [1] * 12])
def test_micro_batches_of_any_sizes_give_the_scores_of_one_batch(sizes):
    model, (x, y) = _model(), _batch()
    whole = _grasp(model, [(x, y)])
    parts = _grasp(model, list(zip(x.split(sizes), y.split(sizes), strict=True)))
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-9, atol=1e-18)


def test_divergence_the_sign_larger_is_kept_as_removing_the_largest_published_score():
    model, batch = _model(), _batch()
    published = {n: -theta * hg for n, (theta, hg) in _hessian_gradient(model, *batch, 200.0).items()}
    flat = torch.cat([s.flatten() for s in published.values()])
    masks = prune(model, 0.4, score="grasp", data=[batch])
    cut = flat.sort(descending=True).values[flat.numel() - masks.kept - 1]  # the last that is removed
    assert all(torch.equal(masks[n], published[n] < cut) for n in masks)


def test_divergence_scores_are_not_divided_by_the_absolute_sum():
    model, batch = _model(), _batch()
    ours = torch.cat([s.flatten() for s in _grasp(model, [batch]).values()])
    published = ours / (ours.sum().abs() + 1e-10)
    assert torch.equal(ours.argsort(), published.argsort())
    assert not torch.allclose(ours, published)


def test_divergence_gradients_are_averaged_over_samples_not_summed_over_batches():
    model, (x, y) = _model(), _batch()
    once, twice = _grasp(model, [(x, y)]), _grasp(model, [(x, y), (x, y)])
    for name in once:
        torch.testing.assert_close(twice[name], once[name], rtol=1e-9, atol=1e-18)


def test_divergence_synaptic_flow_removes_the_smallest_of_the_other_sign():
    model, batch = _model(), _batch()
    scores = {n: theta * hg for n, (theta, hg) in _hessian_gradient(model, *batch, 200.0).items()}
    flat = torch.cat([s.flatten() for s in scores.values()])
    masks = prune(model, 0.4, score=GraSP(reference="synflow"), data=[batch])
    cut = flat.kthvalue(flat.numel() - masks.kept).values
    assert all(torch.equal(masks[n], scores[n] > cut) for n in masks)


def test_divergence_the_codes_sum_over_batches_of_any_sizes():
    model, (x, y) = _model(), _batch()
    split = [(x[:9], y[:9]), (x[9:], y[9:])]
    got = _grasp(model, split, reference="synflow")

    def total(output, target):  # the Hessian and the gradient of the sum of the batches' losses
        return F.cross_entropy(output[:9], target[:9]) + F.cross_entropy(output[9:], target[9:])

    for name, (theta, hg) in _hessian_gradient(model, x, y, 200.0, loss=total).items():
        torch.testing.assert_close(got[name], theta * hg, rtol=1e-9, atol=1e-18)
    halves = [(x[:6], y[:6]), (x[6:], y[6:])]
    for name, s in _grasp(model, halves, reference="synflow").items():  # equal sizes: four times our scores
        torch.testing.assert_close(s, 4 * _grasp(model, halves)[name], rtol=1e-9, atol=1e-18)


def test_divergence_the_authors_code_draws_the_linear_layers_anew():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)).double()
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(8, 1, 3, 3, generator=g, dtype=torch.float64), torch.randint(3, (8,), generator=g)
    got = _grasp(model, [(x, y)], reference="authors")
    drawn = torch.randn(3, 12, generator=torch.Generator().manual_seed(0)).double() * (2 / 15) ** 0.5
    model[3].weight.data = drawn
    for name, (theta, hg) in _hessian_gradient(model, x, y, 200.0).items():
        torch.testing.assert_close(got[name], theta * hg, rtol=1e-4, atol=1e-12)


def test_divergence_eval_mode_is_the_default_and_train_mode_a_switch():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)).double()
    x, y = _batch()
    for mode in ("eval", "train"):
        got = _grasp(model, [(x, y)], mode=mode, temperature=1.0)
        twin = nn.Sequential(model[0], nn.BatchNorm1d(6, track_running_stats=False), model[2], model[3]).double()
        expected = _hessian_gradient(twin if mode == "train" else model.eval(), x, y, 1.0)
        for name, (theta, hg) in expected.items():
            torch.testing.assert_close(got[name], theta * hg, rtol=1e-8, atol=1e-15)


def test_dropout_of_both_passes_is_the_same_in_train_mode():
    seen = []

    class Spy(nn.Module):
        def forward(self, x):
            seen.append(x.detach() == 0)
            return x

    model = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), Spy(), nn.Linear(64, 3)).double()
    _grasp(model, [_batch()], mode="train")
    assert torch.equal(seen[0], seen[1]) and seen[0].any()


def test_a_loss_that_is_linear_in_the_weights_has_no_curvature():
    model = nn.Linear(4, 3).double()
    batch = _batch()
    got = GraSP().score(model, [batch], loss=lambda output, target: output.mean(), masks=None, seed=0)
    assert (got["weight"] == 0).all()


def test_memory_does_not_grow_with_the_number_of_batches():
    held, seen = weakref.WeakSet(), []

    class Saved:
        def __init__(self, tensor):
            self.tensor = tensor
            held.add(self)

    def loss(output, target):
        seen.append(len(held))
        return F.cross_entropy(output, target)

    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        GraSP().score(_model(), [_batch(4)] * 6, loss=loss, masks=None, seed=0)
    assert len(seen) == 12 and len(set(seen)) == 1 and seen[0] > 0  # this batch's graph and no other
    assert not held


def test_memory_does_not_depend_on_the_number_of_samples():
    class Stream:
        def __init__(self, batches):
            self.batches = batches

        def __iter__(self):
            return (_batch(4) for _ in range(self.batches))

    def peak(batches):
        with LiveBytes() as live:
            _grasp(_model(), Stream(batches))
        return live.peak

    assert peak(2) == peak(32) > 0


@pytest.mark.parametrize(
    "options, message",
    [
        ({"mode": "test"}, "mode must be 'eval' or 'train', got 'test'"),
        ({"reference": "other"}, "reference must be 'paper' or 'authors' or 'synflow', got 'other'"),
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
        ({"temperature": float("nan")}, "temperature must be positive, got nan"),
    ],
)
def test_bad_options_are_an_error(options, message):
    with pytest.raises(ValueError, match=f"GraSP: {message}"):
        GraSP(**options)
