"""Edges removed: as many for each unit, re-weighted by least squares, linear layers and convolutions."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparseprune.nodes import Edges, prune_edges


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 8), nn.Sigmoid(), nn.Linear(8, 3)).double()


DATA = [(draw(30, 10, seed=s) + 0.3, None) for s in range(3)]


@pytest.mark.parametrize("method", ["random", "importance"])
def test_as_many_edges_for_each_unit_and_the_model_untouched(method):
    model = mlp().train()
    before = copy.deepcopy(model.state_dict())
    pruned = prune_edges(model, "0", 0.3, data=DATA, method=method, seed=2)
    assert (pruned[0].weight_mask.sum(1) == 3).all() and ((pruned[0].weight != 0) == pruned[0].weight_mask).all()
    assert pruned.training and all(torch.equal(v, before[n]) for n, v in model.state_dict().items())
    plain = prune_edges(model, "0", 0.3, data=DATA, method=method, seed=2, reweight=False)
    assert torch.equal(plain[0].weight, model[0].weight * plain[0].weight_mask)
    assert torch.equal(plain[0].weight_mask, pruned[0].weight_mask)


def test_importance_keeps_the_largest_of_each_unit_the_first_of_equal_ones():
    model = mlp()
    with torch.no_grad():
        model[0].weight[0] = torch.tensor([1.0, -3, 2, 2, 0, 0, 0, 2, 0, 0])
    mask = Edges(model, "0", DATA).choose(0.3, method="importance")
    assert mask[0].nonzero().flatten().tolist() == [1, 2, 3]
    sizes = model[0].weight.detach().abs()
    assert all(sizes[i][mask[i]].min() >= sizes[i][~mask[i]].max() for i in range(8))


def test_random_edges_are_uniform_and_seeded():
    edges = Edges(mlp(), "0", DATA)
    masks = torch.stack([edges.choose(0.3, seed=seed) for seed in range(400)])
    assert (masks.double().mean(0) - 0.3).abs().max() < 0.14  # 6 standard errors
    assert torch.equal(masks[7], edges.choose(0.3, seed=7)) and not torch.equal(masks[7], masks[8])


def expected_weights(x: torch.Tensor, w: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """delta = argmin ||X_S delta - X_D w_D|| for every unit, by lstsq."""
    found = torch.where(mask, w, 0.0)
    for i, kept in enumerate(mask):
        found[i, kept] += torch.linalg.lstsq(x[:, kept], x[:, ~kept] @ w[i, ~kept]).solution
    return found


@pytest.mark.parametrize("method", ["random", "importance"])
def test_reweighting_is_least_squares_written_out(method):
    model, x = mlp(), torch.cat([x for x, _ in DATA])
    pruned = prune_edges(model, model[0], 0.4, data=DATA, method=method)
    expected = expected_weights(x, model[0].weight.detach(), pruned[0].weight_mask)
    torch.testing.assert_close(pruned[0].weight.detach(), expected, rtol=1e-7, atol=1e-9)


def test_a_few_units_at_a_time_change_nothing(monkeypatch):
    whole = prune_edges(mlp(), "0", 0.4, data=DATA)
    monkeypatch.setattr("sparseprune.nodes.edges._NUMBERS", 3 * 16)
    assert torch.equal(prune_edges(mlp(), "0", 0.4, data=DATA)[0].weight, whole[0].weight)


@pytest.mark.parametrize(
    "options",
    [{"padding": 1, "stride": 2}, {"padding": "same", "dilation": 2}, {"padding": (2, 1), "padding_mode": "circular"}],
)
def test_convolutions_are_linear_layers_over_patches(options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, (3, 2), **options), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)).double()
    images = [(draw(4, 2, 9, 8, seed=s), None) for s in range(2)]
    for x, _ in images:
        model(x)
    pruned = prune_edges(model, "0", 0.5, data=images)
    conv, mask = model[0], pruned[0].weight_mask
    basis = torch.eye(12, dtype=torch.float64).view(12, 2, 3, 2)
    plain = copy.deepcopy(conv)
    plain.weight, plain.bias, plain.out_channels = nn.Parameter(basis), None, 12  # gives the patches themselves
    with torch.no_grad():
        patches = torch.cat([plain(x).movedim(1, -1).flatten(0, -2) for x, _ in images])
    expected = expected_weights(patches, conv.weight.detach().flatten(1), mask.flatten(1))
    torch.testing.assert_close(pruned[0].weight.detach().flatten(1), expected, rtol=1e-7, atol=1e-9)


def test_for_isotropic_inputs_reweighting_has_no_effect():
    """As in the teacher-student model: dropped inputs tell nothing of those kept."""
    model = mlp()
    x = torch.linalg.qr(draw(400, 10)).Q * 20
    plain, moved = (prune_edges(model, "0", 0.5, data=[(x, None)], reweight=r)[0].weight for r in (False, True))
    torch.testing.assert_close(plain, moved)
    moved = prune_edges(model, "0", 0.5, data=[(x[:20], None)])[0].weight
    assert (moved - plain).abs().max() > 0.05  # few examples are not isotropic


def test_equal_and_constant_inputs_are_no_obstacle():
    x = draw(50, 10)
    x[:, 3:7], x[:, 8] = 1.0, x[:, 9]
    model = mlp()
    pruned = prune_edges(model, "0", 0.6, data=[(x, None)])
    assert pruned[0].weight.isfinite().all()
    errors = [
        F.mse_loss(net[0](x), model[0](x))
        for net in (pruned, prune_edges(model, "0", 0.6, data=[(x, None)], reweight=False))
    ]
    assert errors[0] < errors[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"density": 0.0}, r"prune_edges: density must be in \(0, 1\], got 0.0"),
        ({"density": 0.01}, "prune_edges: density must keep at least one of 10 edges of a unit, got 0.01"),
        ({"layer": "1"}, "prune_edges: layer must be one of '0', '2', got '1'"),
        ({"method": "dpp"}, "prune_edges: method must be one of 'random', 'importance', got 'dpp'"),
        ({"data": []}, "data must hold at least one batch"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        prune_edges(mlp(), **{"layer": "0", "density": 0.5, "data": DATA} | change)


def test_masks_that_are_not_as_many_for_each_unit_are_refused():
    edges = Edges(mlp(), "0", DATA)
    mask = edges.choose(0.5)
    for bad in (mask.double(), mask[:, :4], mask & (torch.arange(8) > 0)[:, None]):
        with pytest.raises(ValueError, match="prune_edges: mask must be bool"):
            edges.remove(bad)
