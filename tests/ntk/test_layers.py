"""gram on every way to use a layer: options of convolutions, tokens, reuse, shared weights, writes in place."""

import pytest
import torch
from torch import nn

from sparseprune import ntk

from .nets import assert_agrees, normal, pruned, ready


def sparse(model: nn.Module, layout: str, kind: str = "float") -> nn.Module:
    ready(model)
    return model if layout == "dense" else pruned(model, 0.5, kind, layout)


layouts = pytest.mark.parametrize("layout", ["dense", "masked", "csr"])


@layouts
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("outputs", ["trace", "full"])
@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2, "padding": 1},
        {"stride": (1, 2), "padding": (2, 0), "dilation": (1, 2)},
        {"padding": "same", "dilation": 2},
        {"padding": "same", "kernel_size": (2, 3)},
        {"groups": 2, "padding": 1},
        {"groups": 4, "out_channels": 8},
        {"groups": 4, "out_channels": 4, "bias": False},
        {"padding": 1, "padding_mode": "reflect"},
        {"padding": (1, 2), "padding_mode": "circular"},
        {"padding": 2, "padding_mode": "replicate", "stride": 2},
        {"kernel_size": 1},
        {"kernel_size": 1, "stride": 2},
        {"kernel_size": (5, 6)},
    ],
    ids=str,
)
def test_convolutions(options, layout, outputs):
    options = {"in_channels": 4, "out_channels": 4, "kernel_size": 3, **options}
    conv = nn.Conv2d(**options)
    width = conv(torch.zeros(1, 4, 5, 6)).numel()
    model = sparse(
        nn.Sequential(nn.Conv2d(2, 4, 1), nn.Tanh(), conv, nn.Tanh(), nn.Flatten(), nn.Linear(width, 2)), layout
    )
    x = normal(3, 2, 5, 6)
    assert_agrees(model, x, outputs=outputs)
    assert_agrees(model, x, normal(2, 2, 5, 6, seed=1), outputs=outputs, chunk=2)
    if layout == "masked":
        assert_agrees(model, x, outputs=outputs, parameters="all")


class Tokens(nn.Module):
    """Linear layers and a layer norm on `[N, T, K]`, an attention by hand, a mean over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(4, 4, bias=name != "key") for name in ("query", "key", "value"))
        self.norm, self.out = nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, x):
        x = self.norm(x)
        weights = (self.query(x) @ self.key(x).mT).softmax(-1)
        return self.out(x + weights @ self.value(x)).mean(1)


class Recurrent(nn.Module):
    """One cell applied at every step, as an RNN is; its input layer reads single steps."""

    def __init__(self) -> None:
        super().__init__()
        self.inward, self.across, self.out = nn.Linear(3, 5), nn.Linear(5, 5), nn.Linear(5, 2)

    def forward(self, x):
        h = x.new_zeros(len(x), 5)
        for step in x.unbind(1):
            h = torch.tanh(self.inward(step) + self.across(h))
        return self.out(h)


class Shared(nn.Module):
    """Two layers with one weight (and biases of their own), one of which runs twice; a shared convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.twin = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=2, dilation=2)
        self.first, self.second, self.out = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.twin.weight, self.second.weight = self.conv.weight, self.first.weight

    def forward(self, x):
        x = torch.tanh(self.twin(torch.tanh(self.conv(x)))) + x
        x = x.flatten(1)
        return self.out(torch.tanh(self.second(torch.tanh(self.first(torch.tanh(self.first(x)))))))


class Residual(nn.Module):
    """Adds in place onto a layer's output, and a ReLU in place after it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        h = self.relu(self.first(x))
        y = self.second(h)
        y += h
        return self.out(self.relu(y))


@layouts
@pytest.mark.parametrize("outputs", ["trace", "full"])
@pytest.mark.parametrize(
    ("make", "shape"),
    [(Tokens, (5, 4)), (Recurrent, (4, 3)), (Shared, (2, 2, 2)), (Residual, (4,))],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_ways_to_use_a_layer(make, shape, layout, outputs):
    if make is Shared and layout != "dense":
        model = ready(make())
        from sparseprune.nn import sparsify

        masks = {
            name: torch.rand(p.shape, generator=torch.Generator().manual_seed(len(name))) < 0.5
            for name, p in model.named_parameters()
            if p.ndim > 1
        }
        sparsify(model, masks, layout=layout)
    else:
        model = sparse(make(), layout)
    x = normal(4, *shape)
    assert_agrees(model, x, outputs=outputs)
    assert_agrees(model, x, normal(3, *shape, seed=1), outputs=outputs, chunk=2)
    if layout == "masked":
        assert_agrees(model, x, outputs=outputs, parameters="all")


@layouts
def test_convolutions_written_over_in_place(layout):
    layers = [nn.Conv2d(2, 3, 3), nn.ReLU(inplace=True), nn.Conv2d(3, 3, 2), nn.BatchNorm2d(3), nn.ReLU(inplace=True)]
    model = sparse(nn.Sequential(*layers, nn.Flatten(), nn.Linear(12, 2)), layout)
    assert_agrees(model, normal(3, 2, 5, 5))


@pytest.mark.parametrize(
    "make", [lambda: nn.GroupNorm(2, 4), lambda: nn.LayerNorm([4, 3, 3]), lambda: nn.BatchNorm2d(4)]
)
def test_norms(make):
    layers = [nn.Conv2d(2, 4, 1), make(), nn.Tanh(), make(), nn.Flatten(), nn.BatchNorm1d(36), nn.Linear(36, 2)]
    model = ready(nn.Sequential(*layers))
    for outputs in ("trace", "full"):
        assert_agrees(model, normal(3, 2, 3, 3), outputs=outputs)
    model[1].weight.requires_grad_(False)
    assert_agrees(model, normal(3, 2, 3, 3))


def test_many_positions_and_entries_go_in_blocks(monkeypatch):
    x = normal(3, 4, 6, 6)
    expected = {}
    for size in (2**25, 500):
        monkeypatch.setattr("sparseprune.ntk._layers._BLOCK", size)
        for layout in ("dense", "masked", "csr"):
            conv = nn.Conv2d(4, 6, 3, groups=2)
            model = sparse(nn.Sequential(conv, nn.Tanh(), nn.Flatten(), nn.Linear(96, 2)), layout)
            found = assert_agrees(model, x, outputs="full", chunk=2)
            torch.testing.assert_close(found, expected.setdefault(layout, found))


def test_a_layer_that_only_some_tiles_use():
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.always, self.sometimes = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x):
            return self.always(x) + (self.sometimes(x) if len(x) == 2 else 0)

    model, x = ready(Gate()), normal(3, 3)
    found = ntk.empirical(model, x, chunk=2, implementation="jacobian")
    assert torch.equal(found, found.t())  # jacobian sees single examples: the gate is shut


def test_signals_that_never_come_back_are_zero():
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cut, self.blind, self.used = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x):
            with torch.no_grad():
                y = self.blind(x)
            return self.used(self.cut(x).detach() + y)

    assert_agrees(ready(Cut()), normal(4, 3))
