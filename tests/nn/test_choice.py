"""layout="auto" asks `choose` with what is known of each layer, and says what it chose."""

import pytest
import torch
from torch import nn

from sparseprune.nn import SparseLinear, _choice, densify, layouts, sparsify


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(36, 8), nn.ReLU(),
        nn.Linear(8, 3),
    )  # fmt: skip


@pytest.fixture
def asked(monkeypatch):
    """Every question, answered csr for weights of the shapes in `csr`."""
    questions = []
    csr = {False: set(), True: set()}

    def choose(kind, *, shape, alone, **what):
        questions.append({"kind": kind, "shape": tuple(shape), "alone": alone, **what})
        return "csr" if tuple(shape) in csr[alone] else "masked"

    monkeypatch.setattr(_choice, "choose", choose)
    return questions, csr


MASKS = {"0.weight": torch.ones(4, 2, 3, 3), "4.weight": torch.ones(8, 36) > 0, "6.weight": torch.eye(3, 8) > 0}


def test_without_an_example_the_defaults_are_asked_for(asked):
    questions, _ = asked
    sparsify(net(), MASKS, batch_size=7)
    common = {"dtype": torch.float32, "device": torch.device("cpu"), "batch": 7, "alone": False}
    geometry = {"size": (16, 16), "stride": (2, 2), "groups": 1, "dilation": (1, 1)}
    assert questions == [
        {"kind": "conv2d", "shape": (4, 2, 3, 3), "density": 1.0, **common, **geometry},
        {"kind": "linear", "shape": (8, 36), "density": 1.0, **common},
        {"kind": "linear", "shape": (3, 8), "density": 0.125, **common},
    ]


def test_an_example_tells_sizes_and_batches_and_leaves_no_trace(asked):
    questions, _ = asked
    model = net()
    model[2].eval()
    state, hooks = torch.get_rng_state(), []
    model[4].register_forward_hook(lambda *_: hooks.append(torch.is_grad_enabled()))
    sparsify(model, MASKS, inputs=torch.randn(5, 2, 6, 6, generator=torch.Generator().manual_seed(0)))
    assert [q["batch"] for q in questions] == [5, 5, 5] and questions[0]["size"] == (6, 6)
    assert model.training and not model[2].training and model[0].training
    assert torch.equal(torch.get_rng_state(), state) and hooks == [False]
    assert not model[4]._forward_pre_hooks
    questions.clear()
    sparsify(densify(model), MASKS, layout="csr", inputs=torch.zeros(1))
    assert questions == [], "an example is for auto alone"


def test_a_layer_called_by_keyword_is_seen(asked):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 3)

        def forward(self, x):
            return self.layer(input=x)

    sparsify(Net(), {"layer.weight": MASKS["6.weight"]}, inputs=torch.zeros(9, 8))
    assert asked[0][0]["batch"] == 9


def test_a_failing_example_changes_nothing():
    model = net()
    with pytest.raises(RuntimeError):
        sparsify(model, MASKS, inputs=torch.randn(5, 3, 6, 6))
    assert type(model[0]) is nn.Conv2d and model.training and not model[0]._forward_pre_hooks


def test_a_layer_without_a_csr_neighbour_is_chosen_with_its_transposes_paid(asked):
    _, csr = asked
    conv, first, last = (4, 2, 3, 3), (8, 36), (3, 8)
    csr[False] = {conv, first}
    chosen = {name: layer.layout for name, layer in layouts(sparsify(net(), MASKS)).items()}
    assert chosen == {"0": "csr", "4": "csr", "6": "masked"}
    csr[False] = {conv, last}
    assert all(layer.layout == "masked" for layer in layouts(sparsify(net(), MASKS)).values())
    csr[True] = {last}
    model = sparsify(net(), MASKS)
    assert [layer.layout for layer in layouts(model).values()] == ["masked", "masked", "csr"]
    csr[False], csr[True] = {first}, set()
    sparsify(model, {"4.weight": MASKS["4.weight"]})
    assert model[4].layout == "csr", "its neighbour was csr before"


def test_the_choice_is_told(asked):
    _, csr = asked
    csr[False], csr[True] = {(8, 36), (3, 8)}, set()
    model = sparsify(net(), MASKS)
    assert "density=1, layout=csr (auto)" in repr(model[4]) and "layout=masked (auto)" in repr(model[0])
    assert "auto" in str(layouts(model)).splitlines()[1]
    sparsify(model, {"4.weight": MASKS["4.weight"]}, layout="masked")
    assert "(auto)" not in repr(model[4]) and not layouts(model)["4"].auto


def test_from_dense_is_alone(asked):
    questions, csr = asked
    csr[False] = csr[True] = {(3, 8)}
    layer = SparseLinear.from_dense(nn.Linear(8, 3), MASKS["6.weight"], batch_size=9)
    assert layer.layout == "csr" and [q["alone"] for q in questions] == [False, True]
    assert questions[0]["batch"] == 9
