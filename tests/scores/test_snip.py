"""SNIP against its published definition on a frozen tiny network; each known divergence is a test."""

import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparseprune.prunable import prunable
from sparseprune.scores import SNIP


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


def test_unknown_mode_is_an_error():
    with pytest.raises(ValueError, match="SNIP: mode must be 'eval' or 'train', got 'test'"):
        SNIP(mode="test")
