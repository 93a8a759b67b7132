"""SNIP against its published definition on a frozen tiny network; each known divergence is a test."""

import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparseprune.prunable import prunable
from sparseprune.prune import prune
from sparseprune.scores import SNIP

from .tiny import gradients


def _model(dtype=torch.float64) -> nn.Sequential:
    g = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 7), nn.Tanh(), nn.Linear(7, 3)).to(dtype)
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=g, dtype=dtype)
    return model


def _batch(n=12):
    g = torch.Generator().manual_seed(1)
    return torch.randn(n, 5, generator=g, dtype=torch.float64), torch.randint(3, (n,), generator=g)


def _snip(model, batches, masks=None, loss=F.cross_entropy, **options):
    return SNIP(**options).score(model, batches, loss=loss, masks=masks, seed=0)


def _published(model, x, y, masks=None):
    """|dL/dc| for connection indicators c that multiply the weights, at c = 1 (and 0 where pruned)."""
    weights = prunable(model)
    c = {n: torch.ones_like(w) for n, w in weights.items()}

    def loss(c):
        state = {n: w.detach() * c[n] * (masks[n] if masks else 1) for n, w in weights.items()}
        return F.cross_entropy(torch.func.functional_call(model, state, (x,)), y)

    return {n: g.detach().abs() for n, g in torch.func.grad(loss)(c).items()}


@pytest.mark.parametrize("masked", [False, True])
def test_is_the_sensitivity_to_the_connection_indicators(masked):
    model, (x, y) = _model(), _batch()
    masks = {n: w.detach() > -0.5 for n, w in prunable(model).items()} if masked else None
    got, expected = _snip(model, [(x, y)], masks), _published(model, x, y, masks)
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-12, atol=1e-15)


def test_is_the_change_of_the_loss_when_a_connection_fades():
    model, (x, y) = _model(), _batch()
    got = _snip(model, [(x, y)])

    @torch.no_grad()
    def loss():
        return float(F.cross_entropy(model(x), y))

    before, h = loss(), 1e-6
    for name, w in prunable(model).items():
        w.data[1, 2] *= 1 - h
        assert abs(before - loss()) / h == pytest.approx(float(got[name][1, 2]), rel=1e-4)
        w.data[1, 2] /= 1 - h


@pytest.mark.parametrize("sizes", [[12], [6, 6], [5, 4, 3], [1] * 12])
def test_micro_batches_of_any_sizes_give_the_scores_of_one_batch(sizes):
    model, (x, y) = _model(), _batch()
    split = list(zip(x.split(sizes), y.split(sizes), strict=True))
    whole, parts = _snip(model, [(x, y)]), _snip(model, split)
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-11, atol=1e-14)


def test_divergence_gradients_are_summed_over_batches_before_the_absolute_value():
    model, (x, y) = _model(), _batch()
    split = [(x[:6], y[:6]), (x[6:], y[6:])]
    apart = [_snip(model, [pair]) for pair in split]
    ours, per_batch = _snip(model, split), {n: (apart[0][n] + apart[1][n]) / 2 for n in apart[0]}
    assert all((ours[n] <= per_batch[n] + 1e-12).all() for n in ours)  # signs cancel
    assert any((ours[n] < 0.5 * per_batch[n]).any() for n in ours)


def test_divergence_scores_are_not_divided_by_their_sum():
    model, batch = _model(), _batch()
    ours, published = _snip(model, [batch]), _published(model, *batch)
    total = sum(float(s.sum()) for s in published.values())
    assert sum(float(s.sum()) for s in ours.values()) == pytest.approx(total)
    assert total != pytest.approx(1, rel=0.01)


def test_divergence_eval_mode_is_the_default_and_train_mode_a_switch():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 3)).double()
    x, y = _batch()
    ours, train = _snip(model, [(x, y)]), _snip(model, [(x, y)], mode="train")
    in_eval = _published(model.eval(), x, y)
    batch_statistics = nn.Sequential(
        model[0], nn.BatchNorm1d(7, track_running_stats=False), model[2], model[3]
    ).double()
    in_train = _published(batch_statistics, x, y)
    for name in ours:
        torch.testing.assert_close(ours[name], in_eval[name])
        torch.testing.assert_close(train[name], in_train[name])
    assert not torch.allclose(ours["0.weight"], train["0.weight"])


def test_biases_are_not_scored():
    assert set(_snip(_model(), [_batch()])) == {"0.weight", "2.weight", "4.weight"}


def test_divergence_the_tensorflow_version_scores_biases_too():
    model, (x, y) = _model(), _batch()
    got = _snip(model, [(x, y)], reference="tensorflow")
    c = {n: torch.ones_like(p) for n, p in model.named_parameters()}

    def loss(c):
        state = {n: p.detach() * c[n] for n, p in model.named_parameters()}
        return F.cross_entropy(torch.func.functional_call(model, state, (x,)), y)

    expected = torch.func.grad(loss)(c)
    assert set(got) == set(expected)
    for name, g in expected.items():
        torch.testing.assert_close(got[name], g.abs(), rtol=1e-12, atol=1e-15)


def test_divergence_the_tensorflow_versions_biases_take_part_of_the_budget():
    model, batch = _model(), _batch()
    scores = torch.cat([s.flatten() for s in _snip(model, [batch], reference="tensorflow").values()])
    cut = scores.sort(descending=True).values[round(0.3 * scores.numel()) - 1]  # N counts the biases
    masks = prune(model, 0.3, score=SNIP(reference="tensorflow"), data=[batch])
    kept = {n: s >= cut for n, s in _snip(model, [batch]).items()}
    assert set(masks) == set(kept) and all(torch.equal(masks[n], kept[n]) for n in kept)
    assert masks.kept != round(0.3 * masks.total)


def test_only_biases_of_the_layers_that_are_pruned_compete():
    model, batch = _model(), _batch()
    masks = prune(model, 0.3, score=SNIP(reference="tensorflow"), data=[batch], modules=iter(["0"]))
    scores = _snip(model, [batch], reference="tensorflow")
    cut = torch.cat([scores["0.weight"].flatten(), scores["0.bias"]]).sort(descending=True).values[round(0.3 * 42) - 1]
    assert torch.equal(masks["0.weight"], scores["0.weight"] >= cut) and list(masks) == ["0.weight"]


def test_biases_at_zero_are_never_kept_in_the_tensorflow_version():
    model, batch = _model(), _batch()
    for name, p in model.named_parameters():
        p.data *= "bias" not in name
    masks = prune(model, 0.3, score=SNIP(reference="tensorflow"), data=[batch])
    assert masks.kept == round(0.3 * (masks.total + 17))


def test_divergence_the_pytorch_version_scores_weights_drawn_anew_in_train_mode():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 2), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(64, 3)).double()
    g = torch.Generator().manual_seed(1)
    x, y = torch.randn(8, 1, 5, 5, generator=g, dtype=torch.float64), torch.randint(3, (8,), generator=g)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    got = _snip(model, [(x, y)], reference="pytorch")
    assert all(torch.equal(model.state_dict()[n], t) for n, t in before.items())
    generator = torch.Generator().manual_seed(0)
    for w in prunable(model).values():
        fan_in, fan_out = w[0].numel(), w.shape[0] * w[0, 0].numel()
        w.data = torch.randn(w.shape, generator=generator).double() * (2 / (fan_in + fan_out)) ** 0.5
    batch_statistics = nn.BatchNorm2d(4, track_running_stats=False)
    expected = _published(nn.Sequential(model[0], batch_statistics, *model[2:]).double(), x, y)
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-5, atol=1e-8)


def test_divergence_the_synflow_version_sums_over_batches_of_any_sizes():
    model, (x, y) = _model(), _batch()
    split = [(x[:9], y[:9]), (x[9:], y[9:])]
    got, ours = _snip(model, split, reference="synflow"), _snip(model, split)
    weights = {n: w.detach() for n, w in prunable(model).items()}
    for name, w in weights.items():
        g = [gradients(model, weights, *pair)[name] for pair in split]
        torch.testing.assert_close(got[name], (w * (g[0] + g[1])).abs())
        torch.testing.assert_close(ours[name], (w * (0.75 * g[0] + 0.25 * g[1])).abs())
    halves = [(x[:6], y[:6]), (x[6:], y[6:])]
    for name, s in _snip(model, halves, reference="synflow").items():  # equal sizes: twice our scores
        torch.testing.assert_close(s, 2 * _snip(model, halves)[name])


def test_l1_loss_and_rows_with_one_non_zero_give_the_sketching_distribution():
    # In the linear model with l1 loss |g_j| = |w_j|/n |sum_i sign(x_i w - y_i) x_ij| = |w_j| r_j / n for such data
    model = nn.Linear(4, 1, bias=False).double()
    x = torch.diag(torch.tensor([1.0, -2.0, 0.5, 3.0])).double()
    y = torch.randn(4, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    got = _snip(model, [(x, y)], loss=F.l1_loss)["weight"]
    torch.testing.assert_close(got, model.weight.detach().abs() * x.norm(dim=0) / 4)


def test_a_layer_that_the_loss_does_not_see_scores_zero():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(5, 3), nn.Linear(5, 3)

        def forward(self, x):
            return self.used(x)

    x, y = _batch()
    got = _snip(Unused(), [(x.float(), y)])
    assert (got["unused.weight"] == 0).all() and (got["used.weight"] != 0).any()


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
        _snip(_model(), [_batch()] * 6, loss=loss)
    assert len(seen) == 6 and len(set(seen)) == 1 and seen[0] > 0  # this batch's graph and no other
    assert not held


def test_no_batch_is_an_error():
    with pytest.raises(ValueError, match="batches must hold at least one sample"):
        _snip(_model(), [])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"mode": "test"}, "mode must be 'eval' or 'train', got 'test'"),
        ({"reference": "other"}, "reference must be 'paper' or 'tensorflow' or 'pytorch' or 'synflow', got 'other'"),
    ],
)
def test_bad_options_are_an_error(options, message):
    with pytest.raises(ValueError, match=f"SNIP: {message}"):
        SNIP(**options)
