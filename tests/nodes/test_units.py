"""Units removed: what is kept, how it is re-weighted, on which nets, and what is refused."""

import copy

import pytest
import torch
from torch import nn

import sparseprune as sp
from sparseprune.nodes import DPP, Importance, Nodes, Random, prune_nodes


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mlp(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 3))


DATA = [(draw(16, 6, seed=s), None) for s in range(4)]
IMAGES = [(draw(5, 3, 8, 8, seed=s), None) for s in range(3)]


def conv_net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    block = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2))
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), *block, nn.Flatten(), nn.Dropout(), nn.Linear(6, 10)
    )
    for x, _ in IMAGES:
        net(x)  # moves the running statistics
    return net


def hidden(model: nn.Module, upto: int, data) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([model[:upto](x) for x, _ in data])


@pytest.mark.parametrize("method", ["dpp", "random", "importance"])
@pytest.mark.parametrize("reweight", [False, True])
def test_a_smaller_net_and_the_model_untouched(method, reweight):
    model = mlp().train()
    before = copy.deepcopy(model.state_dict())
    smaller = prune_nodes(model, "1", 0.5, data=DATA, method=method, reweight=reweight, seed=1)
    assert (smaller[1].out_features, smaller[3].in_features) == (4, 4) and smaller[1].weight.shape == (4, 6)
    assert smaller.training and smaller[1].weight.requires_grad and not any(m._forward_hooks for m in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    smaller(DATA[0][0]).sum().backward()


def test_without_reweighting_units_are_sliced():
    model = mlp()
    nodes = Nodes(model, "1", DATA)
    kept = torch.tensor([1, 4, 5])
    smaller = nodes.remove(kept, reweight=False)
    assert torch.equal(smaller[1].weight, model[1].weight[kept]) and torch.equal(smaller[1].bias, model[1].bias[kept])
    assert torch.equal(smaller[3].weight, model[3].weight[:, kept])


def test_reweighting_is_the_least_squares_of_divnet_written_out():
    model = mlp().double()
    data = [(x.double(), y) for x, y in DATA]
    kept, dropped = [0, 2, 3, 7], [1, 4, 5, 6]
    smaller = Nodes(model, "1", data).remove(torch.tensor(kept))
    a, w2 = hidden(model, 3, data), model[3].weight.detach()
    expected = w2[:, kept].clone()
    for i in dropped:
        alpha = torch.linalg.lstsq(a[:, kept], a[:, [i]]).solution
        expected += w2[:, [i]] @ alpha.T
    torch.testing.assert_close(smaller[3].weight, expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", ["0", "3"])
def test_reweighting_channels_is_least_squares_over_positions(name):
    """The first convolution feeds a convolution, the second a Linear after pooling and flattening."""
    model = conv_net().double().eval()
    data = [(x.double(), y) for x, y in IMAGES]
    nodes = Nodes(model, name, data)
    following = model[{"0": 3, "3": 9}[name]]
    a = hidden(model, {"0": 3, "3": 7}[name], data).movedim(1, -1).flatten(0, -2)
    kept, dropped = [0, 2], [i for i in range(nodes.units) if i not in (0, 2)]
    smaller = nodes.remove(torch.tensor(kept))
    w2 = following.weight.detach().unflatten(1, (nodes.units, -1)).flatten(2)
    alpha = torch.linalg.lstsq(a[:, kept], a[:, dropped]).solution
    expected = w2[:, kept] + torch.einsum("kd,odr->okr", alpha, w2[:, dropped])
    found = smaller[{"0": 3, "3": 9}[name]].weight
    torch.testing.assert_close(found.flatten(1), expected.flatten(1), rtol=1e-6, atol=1e-7)
    assert smaller(data[0][0]).shape == (5, 10)


def test_copies_of_a_unit_cost_nothing_once_reweighted():
    """DIVNET keeps one of each group of copies and computes what the whole net did: (f) of the paper's claims."""
    model = mlp().double()
    data = [(x.double(), y) for x, y in DATA]
    with torch.no_grad():
        for group in range(4):
            model[1].weight[2 * group + 1], model[1].bias[2 * group + 1] = (
                model[1].weight[2 * group],
                model[1].bias[2 * group],
            )
    smaller = prune_nodes(model, "1", 0.5, data=data, method=DPP(kernel="linear", epsilon=0.0))
    torch.testing.assert_close(smaller(data[0][0]), model(data[0][0]), rtol=1e-5, atol=1e-5)


def test_reweighting_never_moves_the_next_layer_further_than_plain_removal():
    model = mlp()
    nodes = Nodes(model, "1", DATA)
    for seed in range(3):
        kept = nodes.choose(0.5, method="random", seed=seed)
        whole = hidden(model, 4, DATA)
        errors = [(hidden(nodes.remove(kept, reweight=r), 4, DATA) - whole).square().sum() for r in (True, False)]
        assert errors[0] < errors[1]


def test_importance_is_the_mean_size_of_outgoing_weights_not_their_signed_mean():
    model = mlp()
    with torch.no_grad():
        model[3].weight[:] = torch.arange(8.0) * torch.tensor([1.0, -1.0, 1, 1, 1])[:, None]
        model[3].weight[:, 2] = -20.0  # the signed ranking would drop it first
        model[3].weight[:, 6] = model[3].weight[:, 5]
    nodes = Nodes(model, model[1], DATA)
    assert nodes.choose(0.25, method="importance").tolist() == [2, 7]
    assert nodes.choose(0.375, method=Importance()).tolist() == [2, 5, 7]  # 5 and 6 are equal: the first


def test_random_units_are_uniform_and_seeded():
    nodes = Nodes(mlp(), "1", DATA)
    draws = [nodes.choose(0.5, method="random", seed=seed) for seed in range(800)]
    shares = torch.bincount(torch.cat(draws), minlength=8) / 800
    assert (shares - 0.5).abs().max() < 0.1 and torch.equal(draws[3], nodes.choose(0.5, method=Random(), seed=3))


def test_kernels_are_of_activations_or_of_preactivations_without_bias():
    model = mlp().double()
    data = [(x.double(), y) for x, y in DATA]
    nodes = Nodes(model, "1", data)
    a = hidden(model, 3, data)
    h = hidden(model, 2, data) - model[1].bias.detach()
    torch.testing.assert_close(nodes.activations.matrix, a.T @ a)
    torch.testing.assert_close(nodes.preactivations.matrix, h.T @ h)
    kinds = [DPP(kernel, features) for kernel in ("rbf", "linear") for features in ("activations", "preactivations")]
    assert len({tuple(nodes.choose(0.5, method=m, seed=s).tolist() for s in range(9)).__repr__() for m in kinds}) == 4


def test_any_net_whose_units_go_one_way():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.last = nn.Linear(6, 8), nn.Linear(8, 6), nn.Linear(6, 2)

        def forward(self, x):
            return self.last(x + self.second(torch.tanh(self.first(x))))

    torch.manual_seed(0)
    model = Residual()
    smaller = prune_nodes(model, "first", 0.5, data=DATA)
    assert smaller.first.out_features == smaller.second.in_features == 4
    with pytest.raises(ValueError, match="outputs of the layer must go to one other layer alone"):
        prune_nodes(model, "second", 0.5, data=DATA)
    tokens = [(draw(4, 7, 6), None)]
    assert prune_nodes(model, "first", 0.25, data=tokens)(tokens[0][0]).shape == (4, 7, 2)


def test_resnet_block_and_sequences():
    model = sp.models.build("resnet20", seed=0, width=4)
    images = [(draw(4, 3, 32, 32), None)]
    name = next(n for n, _ in model.named_modules() if n.endswith("first.0"))
    smaller = prune_nodes(model, name, 0.5, data=images)
    first = smaller.get_submodule(name)
    assert first.out_channels == 2 and smaller.eval()(images[0][0]).shape == (4, 10)
    with pytest.raises(ValueError, match="must go to one other layer alone"):
        prune_nodes(model, name.replace("first.0", "second.0"), 0.5, data=images)


def test_a_norm_over_units_is_refused():
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8, elementwise_affine=False), nn.Linear(8, 3))
    with pytest.raises(ValueError, match="unit by unit"):
        prune_nodes(model, "0", 0.5, data=DATA)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"density": 1.5}, r"density must be in \(0, 1\], got 1.5"),
        ({"density": 0.01}, "density must keep at least one of 8 units, got 0.01"),
        ({"layer": "nope"}, "layer must be one of '1', '3', '5', got 'nope'"),
        ({"layer": "5"}, "layer must feed another nn.Linear or nn.Conv2d, got the last one, '5'"),
        ({"method": "best"}, "method must be one of 'dpp', 'random', 'importance'"),
        ({"data": []}, "data must hold at least one batch"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        prune_nodes(mlp(), **{"layer": "1", "density": 0.5, "data": DATA} | change)


def test_bad_kernels_sparse_and_grouped_layers_are_refused():
    with pytest.raises(ValueError, match="DPP: kernel must be one of rbf, linear, got 'cubic'"):
        DPP(kernel="cubic")
    model = mlp()
    sparse = sp.sparsify(model, sp.prune(model, 0.5), layout="masked")
    with pytest.raises(ValueError, match="layers must be dense"):
        prune_nodes(sparse, "1", 0.5, data=DATA)
    grouped = nn.Sequential(nn.Conv2d(3, 6, 3, groups=3), nn.Conv2d(6, 4, 3))
    with pytest.raises(ValueError, match="groups=1"):
        prune_nodes(grouped, "0", 0.5, data=IMAGES)


def test_density_one_gives_the_same_function():
    model = conv_net().eval()
    same = prune_nodes(model, "0", 1.0, data=IMAGES)
    assert torch.equal(same(IMAGES[0][0]), model(IMAGES[0][0]))
