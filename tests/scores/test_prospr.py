"""ProsPr against its published first-order algorithm on a frozen tiny network; each known divergence is a test."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparseprune.prunable import prunable
from sparseprune.prune import prune
from sparseprune.scores import SNIP, ProsPr

from .tiny import LiveBytes, batch, net, some_masks


def _prospr(model, batches, masks=None, **options):
    return ProsPr(**options).score(model, batches, loss=F.cross_entropy, masks=masks, seed=0)


def _published(model, batches, masks=None, steps=3, lr=0.5, momentum=0.9, first_order=True):
    """dL_M/dm with the inner steps written out, through the graph of m (and of the steps, if not first order)."""
    m = {n: torch.ones_like(w) if masks is None else masks[n].double() for n, w in prunable(model).items()}
    m = {n: v.requires_grad_() for n, v in m.items()}
    theta = {n: p.detach() * m[n] if n in m else p.detach().requires_grad_() for n, p in model.named_parameters()}

    def loss(x, y):
        return F.cross_entropy(torch.func.functional_call(model, theta, (x,)), y)

    velocity = {}
    for x, y in batches[:steps]:
        g = torch.autograd.grad(loss(x, y), list(theta.values()), create_graph=not first_order)
        for n, step in zip(theta, g, strict=True):
            step = step * (masks[n] if masks and n in masks else 1)  # what is pruned is not trained
            velocity[n] = step if n not in velocity else momentum * velocity[n] + step
            theta[n] = theta[n] - lr * velocity[n]
    g = torch.autograd.grad(loss(*batches[steps]), list(m.values()))
    return {n: v.abs() * (masks[n] if masks else 1) for n, v in zip(m, g, strict=True)}


FOUR = [batch(12, seed) for seed in range(4)]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("options", [{}, {"steps": 1}, {"steps": 2, "lr": 0.1, "momentum": 0.5}])
def test_is_the_published_first_order_meta_gradient(options, masked):
    model = net()
    masks = some_masks(model) if masked else None
    expected = _published(model, FOUR, masks, **options)
    got = _prospr(model, FOUR, masks, **{"inner_steps" if k == "steps" else k: v for k, v in options.items()})
    for n in expected:
        torch.testing.assert_close(got[n], expected[n], rtol=1e-10, atol=1e-14)


def test_biases_train_too():
    model, frozen = net(), net()
    for n, p in frozen.named_parameters():
        p.requires_grad_("bias" not in n)
    free, fixed = _prospr(model, FOUR), _prospr(frozen, FOUR)
    assert not torch.allclose(free["0.weight"], fixed["0.weight"])


def test_without_steps_it_is_snip_of_the_first_batch():
    model = net()
    got = _prospr(model, FOUR, inner_steps=0)
    expected = SNIP().score(model, FOUR[:1], loss=F.cross_entropy, masks=None, seed=0)
    assert all(torch.equal(got[n], expected[n]) for n in expected)


def test_divergence_the_published_default_differentiates_through_the_steps():
    model = net()
    got, full = _prospr(model, FOUR), _published(model, FOUR, first_order=False)
    assert not torch.allclose(got["0.weight"], full["0.weight"], rtol=0.1)


def test_batches_begin_again_where_they_end():
    model = net()
    got, expected = _prospr(model, FOUR[:2]), _prospr(model, FOUR[:2] * 2)
    assert all(torch.equal(got[n], expected[n]) for n in expected)


@pytest.mark.parametrize("sizes", [[6, 6], [5, 4, 3], [1] * 12])
def test_micro_batches_give_the_scores_of_whole_ones(sizes):
    model = net()
    whole = _prospr(model, FOUR)
    parts = [part for x, y in FOUR for part in zip(x.split(sizes), y.split(sizes), strict=True)]
    got = _prospr(model, parts, accumulate=len(sizes))
    for n in whole:
        torch.testing.assert_close(got[n], whole[n], rtol=1e-9, atol=1e-13)


def test_batch_statistics_of_the_steps_stay_out_of_the_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).double()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    train, in_eval = _prospr(model, FOUR), _prospr(model, FOUR, mode="eval")
    assert all(torch.equal(model.state_dict()[n], t) for n, t in before.items())
    assert not torch.allclose(train["0.weight"], in_eval["0.weight"])


def test_prune_takes_it():
    masks = prune(net(), 0.3, score="prospr", data=FOUR)
    scores = torch.cat([s.flatten() for s in _prospr(net(), FOUR).values()])
    kept = torch.cat([m.flatten() for m in masks.values()])
    assert masks.kept == 21 and scores[kept].min() > scores[~kept].max()


class Stream:
    """Batches made as they are asked for, so that none is held."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return (batch(8, seed) for seed in range(self.batches))


def _peak(score, batches):
    with LiveBytes() as live:
        score.score(net(), Stream(batches), loss=F.cross_entropy, masks=None, seed=0)
    return live.peak


def test_memory_depends_neither_on_the_samples_nor_on_the_steps():
    peaks = {_peak(ProsPr(inner_steps=m, accumulate=a), m * a + a) for m, a in ((2, 2), (2, 16), (6, 2), (6, 16))}
    assert len(peaks) == 1 and peaks.pop() > 0


@pytest.mark.parametrize(
    "options, message",
    [
        ({"mode": "test"}, "mode must be 'eval' or 'train', got 'test'"),
        ({"inner_steps": -1}, "inner_steps must be an integer >= 0, got -1"),
        ({"accumulate": 0}, "accumulate must be an integer >= 1, got 0"),
        ({"accumulate": 1.5}, "accumulate must be an integer >= 1, got 1.5"),
        ({"lr": 0.0}, "lr must be positive, got 0.0"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
    ],
)
def test_bad_options_are_an_error(options, message):
    with pytest.raises(ValueError, match=f"ProsPr: {message}"):
        ProsPr(**options)


def test_no_batch_is_an_error():
    with pytest.raises(ValueError, match="batches must hold at least one sample"):
        _prospr(net(), [])
