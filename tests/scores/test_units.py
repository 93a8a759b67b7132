"""The graph of units behind a module: what each input unit of each layer is computed from."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

from sparseprune.prunable import prunable
from sparseprune.scores._units import trace


def _trace(model, x):
    return trace("test", model.eval(), {n: w.detach() for n, w in prunable(model).items()}, x)


class Net(nn.Module):
    """Two 4-feature layers a and b, any function of them and the input, and a layer c on top."""

    def __init__(self, function, features=4):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(features, 2)
        self.function = function

    def forward(self, x):
        return self.c(self.function(self, x))


A, B = range(1, 5), range(5, 9)  # units are numbered as layers are called


def _each(*units):
    return [dict.fromkeys(several, 1 / len(several)) for several in zip(*units, strict=True)]


FUNCTIONS = {
    "chain": (lambda n, x: n.b(n.a(x).relu()), _each(B)),
    "sum": (lambda n, x: n.a(x) + n.b(x), _each(A, B)),
    "sum in place": (lambda n, x: F.relu(n.a(x).add_(n.b(x)), inplace=True), _each(A, B)),
    "sum with the input": (lambda n, x: x + n.a(x), _each(A)),
    "identity shortcut": (lambda n, x: (h := n.a(x)) + n.b(h), _each(B)),
    "identity shortcut, other order": (lambda n, x: n.b(h := n.a(x).sigmoid()) + h, _each(B)),
    "half a shortcut": (
        lambda n, x: (h := n.a(x)) + F.pad(n.b(F.pad(h[:, :2], (0, 2)))[:, :2], (2, 0)),
        [{1: 1.0}, {2: 1.0}, {3: 0.5, 5: 0.5}, {4: 0.5, 6: 0.5}],
    ),
    "difference": (lambda n, x: n.a(x) - 2 * n.b(x), _each(A, B)),
    "gate": (lambda n, x: (h := n.a(x)) * n.b(h).sigmoid(), _each(A, B)),
    "cat": (
        lambda n, x: torch.cat([n.a(x)[:, :1], x, n.b(x)[:, 3:]], 1)[:, [0, 1, 5, 5]],
        [{1: 1.0}, {}, {8: 1.0}, {8: 1.0}],
    ),
    "chunks": (lambda n, x: torch.cat(n.a(x).chunk(2, 1)[::-1], 1), [{3: 1.0}, {4: 1.0}, {1: 1.0}, {2: 1.0}]),
    "stack and max": (lambda n, x: torch.stack([n.a(x), n.b(x)]).max(0).values, _each(A, B)),
    "mean": (lambda n, x: n.a(x).mean(1, keepdim=True).expand(-1, 4), [dict.fromkeys(A, 0.25)] * 4),
    "norms": (lambda n, x: F.layer_norm(F.gelu(n.a(x)), (4,)).softmax(-1), _each(A)),
    "set item": (lambda n, x: _set(n.a(x), n.b(x)), [{1: 1.0}, {6: 1.0}, {}, {4: 1.0}]),
    "weight of no module": (lambda n, x: n.a(x) @ torch.ones(4, 4), _each(B)),
}  # fmt: skip


def _set(a, b):
    a = a.clone()
    a[:, 1], a[:, 2] = b[:, 1], 0.0
    return a


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_a_layer_on_top_is_computed_from(name):
    function, expected = FUNCTIONS[name]
    layers, outputs = _trace(Net(function), torch.ones(1, 4))
    assert layers[0].sources == [{}] * 4 and layers[-1].name == "c.weight"
    assert layers[-1].sources == expected
    assert outputs == [{layers[-1].first: 1.0}, {layers[-1].first + 1: 1.0}]


def test_terms_of_a_sum_of_three_are_chosen_two_by_two():
    layers, _ = _trace(Net(lambda n, x: n.a(x) + n.b(x) + n.a(2 * x)), torch.ones(1, 4))
    assert [layer.name for layer in layers] == ["a.weight", "b.weight", "a.weight", "c.weight"]
    assert layers[-1].sources == [{1 + j: 0.25, 5 + j: 0.25, layers[2].first + j: 0.5} for j in range(4)]


def test_convolutions_pools_and_flattening():
    model = nn.Sequential(
        nn.Conv2d(2, 4, (2, 3), padding=1, padding_mode="circular", groups=2), nn.BatchNorm2d(4), nn.ReLU(),
        nn.MaxPool2d(2), nn.ZeroPad2d(1), nn.Conv2d(4, 6, 3, bias=False), nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten(),
        nn.Linear(12, 3),
    )  # fmt: skip
    first, second, last = _trace(model, torch.ones(1, 2, 8, 8))[0]
    assert (
        first.weight.shape == (2, 2, 1, 6)
        and second.weight.shape == (1, 6, 4, 9)
        and last.weight.shape == (1, 3, 12, 1)
    )
    assert first.sources == [{}] * 2 and second.sources == [{u: 1.0} for u in range(1, 5)]
    assert last.sources == [{5 + feature // 2: 1.0} for feature in range(12)]
    assert torch.equal(first.weight.flatten(), model[0].weight.flatten())


def test_transposed_convolutions_and_images_without_batch():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 1), nn.ConvTranspose2d(4, 6, 2, groups=2), nn.Upsample(scale_factor=2), nn.Conv2d(6, 1, 1)
    )
    layers, _ = _trace(model, torch.ones(2, 3, 3))
    assert layers[1].name is None and layers[1].weight.shape == (2, 3, 2, 4)
    assert torch.equal(layers[1].weight[1, 2, 0], model[1].weight[2, 2].flatten())
    assert layers[2].sources == [{u: 1.0} for u in range(5, 11)]


def test_tokens_share_a_linear_layer():
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 5), nn.LayerNorm(5), nn.Flatten(), nn.Linear(15, 2))
    layers, _ = _trace(model, torch.tensor([[1, 2, 3]]))
    assert layers[0].sources == [{}] * 4
    assert layers[1].sources == [{5 - 4 + feature % 5: 1.0} for feature in range(15)]


def test_attention_comes_from_values_first_and_from_queries_and_keys_of_the_head():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v, self.o = (nn.Linear(4, 4) for _ in range(4))

        def forward(self, x):
            q, k, v = (f(x).unflatten(-1, (2, 2)).transpose(1, 2) for f in (self.q, self.k, self.v))
            h = F.scaled_dot_product_attention(q, k, v) if self.fused else (q @ k.mT).softmax(-1) @ v
            return self.o(h.transpose(1, 2).flatten(2))

    model = Attention()
    head = [{u: 0.125 for first in (1, 5) for u in (first + h, first + h + 1)} for h in (0, 0, 2, 2)]
    for model.fused in (False, True):
        layers, _ = _trace(model, torch.ones(1, 3, 4))
        assert layers[-1].sources == [{**qk, 9 + d: 0.5} for d, qk in enumerate(head)]


def test_transformer_encoder_layers():
    torch.manual_seed(0)
    model = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True), nn.Linear(8, 3))
    layers, _ = _trace(model, torch.randn(1, 5, 8))
    names = [layer.name for layer in layers]
    assert names == [
        None,
        None,
        None,
        "0.self_attn.out_proj.weight",
        "0.linear1.weight",
        "0.linear2.weight",
        "1.weight",
    ]
    out = layers[3].first
    assert layers[4].sources == [{out + d: 1.0} for d in range(8)]  # the residual is the net's input
    assert layers[6].sources == [{layers[5].first + d: 1.0} for d in range(8)]


def test_a_masked_weight_keeps_its_name():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    prune.random_unstructured(model[1], "weight", 0.5)  # a forward with weight = weight_orig * mask
    assert [layer.name for layer in _trace(model, torch.ones(1, 4))[0]] == ["0.weight", None]

    class Masked(nn.Linear):
        def forward(self, x):
            return F.linear(x, self.weight * torch.ones(3, 4))

    assert [layer.name for layer in _trace(Masked(4, 3), torch.ones(1, 4))[0]] == ["weight"]


@pytest.mark.parametrize(
    "function",
    [lambda n, x: torch.addmm(n.a(x), n.a(x), n.b.weight), lambda n, x: n.a(x @ n.b.weight.T)],
    ids=["addmm", "transposed"],
)
def test_a_weight_used_otherwise_than_in_a_layer_is_an_error(function):
    with pytest.raises(ValueError, match=r"test: weights must be used as linear .*, got other uses of \['b.weight'\]"):
        _trace(Net(function), torch.ones(1, 4))


@pytest.mark.parametrize(
    "function",
    [
        lambda n, x: torch.einsum("bi,ij->bj", n.a(x), torch.ones(4, 4)),
        lambda n, x: torch.linalg.norm(n.a(x), dim=1, keepdim=True).expand(-1, 4),
        lambda n, x: nn.LSTM(4, 4)(n.a(x))[0],
    ],
    ids=["einsum", "norm", "lstm"],
)
def test_what_cannot_be_followed_is_named(function):
    with pytest.raises(ValueError, match=r"test: model must be made of .*, got \w+ of \[\[.*cannot be followed"):
        _trace(Net(function), torch.ones(1, 4))
