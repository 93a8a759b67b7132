"""NTK-SAP against its published definition on a frozen tiny network."""

import copy
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparseprune.prunable import prunable
from sparseprune.prune import prune
from sparseprune.scores import NTKSAP


def _model():
    g = torch.Generator().manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(16, 5), nn.BatchNorm1d(5), nn.Tanh(),
        nn.Linear(5, 3),
    ).double()  # fmt: skip
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=g, dtype=p.dtype)
    return model


def _x(n=6, seed=1):
    return torch.randn(n, 2, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _masks(model):
    g = torch.Generator().manual_seed(2)
    return {n: torch.rand(w.shape, generator=g) > 0.4 for n, w in prunable(model).items()}


def _score(model, *xs, masks=None, seed=0, **options):
    return NTKSAP(**options).score(model, [(x, None) for x in xs], loss=F.cross_entropy, masks=masks, seed=seed)


def _sensitivity(model, x, masks, weights, moved):
    """d sum ||f(m w) - f(m moved)||^2 / dm, batch norms with the statistics of this batch under m w."""
    model = copy.deepcopy(model)
    masks = {n: masks[n].double() for n in masks}
    for norm in (m for m in model if isinstance(m, nn.modules.batchnorm._BatchNorm)):
        norm.momentum = 1.0

    def run(masks, weights):
        return torch.func.functional_call(model, {n: masks[n] * weights[n] for n in weights}, (x,))

    model.train()
    run(masks, weights)  # buffers are those of the copy
    model.eval()
    return torch.func.grad(lambda m: (run(m, weights) - run(m, moved)).square().sum())(masks)


def _redraw(model, generator):
    """As drawn by the score: inputs before weights, weights before their perturbation."""
    return {n: torch.randn(w.shape, generator=generator).double() for n, w in prunable(model).items()}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("new", [False, True])
def test_is_the_sensitivity_of_the_kernels_trace_to_the_masks(masked, new):
    model, epsilon = _model(), 0.01
    masks = _masks(model) if masked else {n: torch.ones(w.shape) for n, w in prunable(model).items()}
    got = _score(model, _x(), _x(5, 3), masks=masks, samples=2, new_weights=new, new_inputs=new)
    if new:
        for norm in (model[1], model[5]):
            norm.weight.data.fill_(1), norm.bias.data.zero_()
    g = torch.Generator().manual_seed(0)
    total = {n: torch.zeros_like(w) for n, w in prunable(model).items()}
    for x in (_x(), _x(5, 3)) * 2:
        if new:
            x = torch.randn(x.shape, generator=g).double()
        weights = {n: w.detach() for n, w in prunable(model).items()}
        if new:
            weights = {n: z * (2 / z[0].numel()) ** 0.5 for n, z in _redraw(model, g).items()}
        moved = {n: weights[n] + epsilon * z for n, z in _redraw(model, g).items()}
        total = {n: total[n] + s for n, s in _sensitivity(model, x, masks, weights, moved).items()}
    for name in total:
        torch.testing.assert_close(got[name], total[name].abs() * (masks[name] != 0), rtol=1e-9, atol=1e-12)
        assert (got[name] > 0).double().mean() > 0.5


def test_estimates_the_trace_of_the_tangent_kernel():
    """For a net linear in its weights R / epsilon^2 has the mean sum_x sum_i m_i x_i^2, whose derivative is 2 m x^2."""
    layer, x = nn.Linear(4, 3, bias=False).double(), torch.tensor([[1.0, 2.0, 0.5, 0.0]]).double()
    got = _score(layer, x, samples=4000, new_inputs=False)["weight"] / 0.01**2 / 4000
    deviation = 2 * x * (x.square().sum() + x.square()).sqrt()  # of 2 z_i x_i sum_j z_j x_j
    assert ((got - 2 * x.square()).abs() <= 6 * deviation / 4000**0.5).all()


def test_the_models_own_weights_play_no_part():
    model = _model()
    other = copy.deepcopy(model)
    for p in other.parameters():
        if p.dim() > 1 or p is other[1].weight:
            p.data *= 3
    assert all(torch.equal(s, _score(other, _x())[n]) for n, s in _score(model, _x()).items())
    assert any(not torch.equal(s, _score(other, _x(), new_weights=False)[n]) for n, s in _score(model, _x()).items())


def test_inputs_are_drawn_anew_and_tokens_are_kept():
    model = _model()
    assert all(torch.equal(s, _score(model, _x(seed=9))[n]) for n, s in _score(model, _x()).items())
    words = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3))
    a, b = (_score(words, torch.tensor([t]))["1.weight"] for t in ([1, 2], [3, 4]))
    assert not torch.equal(a, b) and bool((a > 0).all())


def test_masks_of_prune_and_what_stays_as_it_was():
    model = _model().float().train()
    before, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    masks = prune(model, 0.3, score="ntk_sap", iterations=3, input_shape=(2, 4, 4), seed=4)
    again = prune(model, 0.3, score="ntk_sap", iterations=3, input_shape=(2, 4, 4), seed=4)
    assert masks.kept == round(0.3 * masks.total) and all(torch.equal(masks[n], again[n]) for n in masks)
    _score(model, _x().float())
    assert all(torch.equal(model.state_dict()[n], t) for n, t in before.items())
    assert all(m.training for m in model.modules()) and model[1].momentum == 0.1
    assert torch.equal(state, torch.random.get_rng_state())


def test_memory_does_not_grow_with_the_number_of_samples():
    held, seen = weakref.WeakSet(), []

    class Saved:
        def __init__(self, tensor):
            self.tensor = tensor
            held.add(self)

    class Spy(nn.Module):
        def forward(self, x):
            seen.append(len(held))
            return x

    with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
        _score(nn.Sequential(Spy(), _model()), *[_x(4)] * 3, samples=2)
    rounds = [seen[i : i + 3] for i in range(0, 18, 3)]
    assert len(seen) == 18 and all(r == rounds[0] for r in rounds) and not held


@pytest.mark.parametrize(
    "options, message",
    [({"epsilon": 0.0}, "epsilon must be positive, got 0.0"), ({"samples": 0}, "samples must be at least 1, got 0")],
)
def test_bad_options_are_an_error(options, message):
    with pytest.raises(ValueError, match=f"NTKSAP: {message}"):
        NTKSAP(**options)


def test_no_batch_is_an_error():
    with pytest.raises(ValueError, match="ntk_sap: batches must hold at least one sample, got none"):
        _score(_model())
