"""The tangent kernel of a model: gram equal to the definition, what the kernel is, what it leaves, what it refuses."""

import copy

import pytest
import torch
from torch import nn

from sparseprune import models, ntk
from sparseprune.nn import SparseConv2d, densify

from .nets import assert_agrees, lenet, normal, pruned, ready, vgg, worst

NETS = {
    "mlp": (lambda: models.build("mlp", input_shape=(1, 4, 4), hidden=(12, 9), classes=3), (1, 4, 4)),
    "lenet": (lenet, (1, 10, 10)),
    "resnet20": (lambda: models.build("resnet20", input_shape=(3, 8, 8), width=4, classes=2), (3, 8, 8)),
    "vgg": (vgg, (3, 4, 4)),
}
LAYOUTS = [("bool", "masked"), ("float", "masked"), ("bool", "csr"), ("float", "csr")]


def net(name: str, density: float = 1.0, kind: str = "bool", layout: str = "masked") -> tuple[nn.Module, torch.Tensor]:
    make, shape = NETS[name]
    model = ready(make())
    return model if density == 1 else pruned(model, density, kind, layout), normal(3, *shape, seed=2)


def by_hand(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The definition without torch.func: a backward pass for every example and output."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for example in x:
        for output in model(example[None])[0]:
            grads = torch.autograd.grad(output, parameters, retain_graph=True, materialize_grads=True)
            rows.append(torch.cat([grad.reshape(-1) for grad in grads]))
    jacobian = torch.stack(rows).view(len(x), -1, len(rows[0]))
    return torch.einsum("nok,mpk->nmop", jacobian, jacobian)


def test_two_layers_by_hand():
    """f = w2 relu(w1 x): K = w2^2 x x' [both active] + relu relu'."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False)).double()
    with torch.no_grad():
        model[0].weight.fill_(3)
        model[2].weight.fill_(2)
    x = torch.tensor([[1.0], [2.0], [-1.0]], dtype=torch.float64)
    expected = torch.tensor([[4.0 + 9, 8 + 18, 0], [8 + 18, 16 + 36, 0], [0, 0, 0]], dtype=torch.float64)
    for implementation in ("jacobian", "gram", "auto"):
        assert torch.equal(ntk.empirical(model, x, implementation=implementation), expected)


@pytest.mark.parametrize("kind, layout", LAYOUTS)
@pytest.mark.parametrize("implementation", ["jacobian", "gram"])
def test_both_are_the_definition(kind, layout, implementation):
    model, x = net("vgg", 0.5, kind, layout)
    expected = by_hand(model, x)
    assert worst(ntk.empirical(model, x, outputs="full", implementation=implementation), expected) < 1e-12
    trace = expected.diagonal(dim1=2, dim2=3).sum(2)
    assert worst(ntk.empirical(model, x, implementation=implementation), trace) < 1e-12


@pytest.mark.parametrize("outputs", ["trace", "full"])
@pytest.mark.parametrize("density", [0.02, 0.1, 0.5, 1])
@pytest.mark.parametrize("name", NETS)
def test_gram_equals_jacobian(name, density, outputs):
    for kind, layout in LAYOUTS if density < 1 else LAYOUTS[:1]:
        model, x = net(name, density, kind, layout)
        assert_agrees(model, x, outputs=outputs)
        if layout == "masked":
            assert_agrees(model, x, outputs=outputs, parameters="all")


@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("norms", [True, False])
@pytest.mark.parametrize("outputs", ["trace", "full"])
def test_biases_and_norms_count_or_not(biases, norms, outputs):
    model, x = net("resnet20", 0.3)
    found = assert_agrees(model, x, outputs=outputs, biases=biases, norms=norms)
    with_all = ntk.empirical(model, x, outputs=outputs)
    assert (worst(found, with_all) > 1e-6) == (not (biases and norms))


@pytest.mark.parametrize("outputs", ["trace", "full"])
@pytest.mark.parametrize("implementation", ["gram", "jacobian"])
def test_any_tile_gives_the_same(outputs, implementation):
    model, _ = net("lenet", 0.3)
    x1, x2 = normal(7, 1, 10, 10, seed=3), normal(5, 1, 10, 10, seed=4)
    for second in (None, x2):
        expected = ntk.empirical(model, x1, second, outputs=outputs)
        for chunk in (1, 2, 3, 7, 8) if implementation == "gram" else (3,):
            found = ntk.empirical(model, x1, second, chunk=chunk, outputs=outputs, implementation=implementation)
            assert worst(found, expected) < 1e-12


def test_two_batches_are_a_block_of_one_kernel():
    model, _ = net("vgg", 0.5, "float", "csr")
    x1, x2 = normal(3, 3, 4, 4, seed=3), normal(5, 3, 4, 4, seed=4)
    whole = ntk.empirical(model, torch.cat([x1, x2]), outputs="full")
    assert worst(ntk.empirical(model, x1, x2, outputs="full"), whole[:3, 3:]) < 1e-12
    assert torch.equal(ntk.empirical(model, x1, x1), ntk.empirical(model, x1))


@pytest.mark.parametrize("implementation", ["jacobian", "gram"])
@pytest.mark.parametrize("chunk", [None, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_symmetric_to_the_last_bit_and_positive_semi_definite(implementation, chunk, dtype):
    for name in ("mlp", "vgg"):
        model, x = net(name, 0.2)
        model, x = model.to(dtype), torch.cat([x, x + 1]).to(dtype)
        options = {"implementation": implementation, "chunk": chunk}
        trace = ntk.empirical(model, x, **options)
        full = ntk.empirical(model, x, outputs="full", **options)
        assert trace.dtype == dtype and torch.equal(trace, trace.t())
        assert torch.equal(full, full.permute(1, 0, 3, 2))
        flat = full.permute(0, 2, 1, 3).reshape(6 * 3, 6 * 3)
        for matrix in (trace, flat):
            values = torch.linalg.eigvalsh(matrix.double())
            assert values.min() > -100 * torch.finfo(dtype).eps * values.max()


def test_float32_is_near_float64():
    model, x = net("resnet20", 0.2)
    exact = ntk.empirical(model, x)
    assert worst(ntk.empirical(copy.deepcopy(model).float(), x.float()).double(), exact) < 1e-5


def test_all_counts_pruned_weights_as_trainable():
    """The kernel of the dense net with the same effective weights, and not that of the kept ones."""
    model, x = net("lenet", 0.3, "float")
    found = ntk.empirical(model, x, parameters="all")
    assert worst(found, ntk.empirical(densify(copy.deepcopy(model)), x)) < 1e-12
    assert worst(found, ntk.empirical(model, x)) > 0.1


def test_only_parameters_that_require_grad_count():
    model, x = net("vgg", 0.5)
    names = [name for name, _ in model.named_parameters()]
    total = ntk.empirical(model, x)
    parts = torch.zeros_like(total)
    for name in names:
        alone = copy.deepcopy(model)
        for other, parameter in alone.named_parameters():
            parameter.requires_grad_(other == name)
        parts += assert_agrees(alone, x)
    assert worst(parts, total) < 1e-12
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="empirical: model must have parameters that require grad"):
        ntk.empirical(model, x)


@pytest.mark.parametrize("implementation", ["auto", "jacobian", "gram"])
def test_the_model_is_left_as_it_is(implementation):
    model, x = net("resnet20", 0.3, "bool", "csr")
    model(x).sum().backward()
    before, grads = copy.deepcopy(model), [p.grad.clone() for p in model.parameters()]
    tables = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    with torch.no_grad():
        ntk.empirical(model, x, implementation=implementation, chunk=3)
    assert tables == [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    assert not any(module.training for module in model.modules()) and not x.requires_grad
    for old, grad, new in zip(before.parameters(), grads, model.parameters(), strict=True):
        assert torch.equal(old, new) and torch.equal(grad, new.grad) and new.requires_grad
    for old, new in zip(before.buffers(), model.buffers(), strict=True):
        assert torch.equal(old, new)


def test_hooks_are_gone_after_an_error():
    class Fails(nn.Module):
        def forward(self, x):
            raise ArithmeticError("no")

    model = nn.Sequential(nn.Linear(2, 2), nn.Identity()).double()
    found = ntk.empirical(model, normal(2, 2))
    model[1] = Fails()
    with pytest.raises(ArithmeticError):
        ntk.empirical(model, normal(2, 2))
    assert not model[0]._forward_hooks and found.shape == (2, 2)


def test_progress_counts_pairs_of_tiles():
    model, x = net("mlp")
    for implementation in ("gram", "jacobian"):
        seen: list[tuple[int, int]] = []
        ntk.empirical(
            model, x, implementation=implementation, chunk=2, progress=lambda *counts, to=seen: to.append(counts)
        )
        assert seen == [(1, 3), (2, 3), (3, 3)]
    seen = []
    ntk.empirical(model, x, x[:3], chunk=2, progress=lambda *counts: seen.append(counts))
    assert seen == [(i, 4) for i in range(1, 5)]


def test_outputs_without_a_dimension_are_one():
    model = ready(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0)))
    x = normal(4, 3)
    assert model(x).shape == (4,)
    assert torch.equal(assert_agrees(model, x), assert_agrees(model, x, outputs="full")[..., 0, 0])


def bad_mode() -> nn.Module:
    model = ready(vgg())
    model[1].train()
    return model


@pytest.mark.parametrize(
    ("model", "options", "reason"),
    [
        (bad_mode, {}, r"'1' \(BatchNorm2d\) in training mode"),
        (lambda: nn.Sequential(vgg(), nn.Dropout()).double(), {}, "in training mode"),
        (lambda: nn.Sequential(nn.Dropout(0.5)).append(ready(vgg())), {}, r"'0' \(Dropout\) in training mode"),
        (lambda: ready(vgg()).append(nn.Unflatten(1, (3, 1))), {}, r"must return \[N\] or \[N, O\], got \[1, 3, 1\]"),
        (lambda: ready(vgg()).half(), {}, "must be float32 or float64, got '0.weight' in torch.float16"),
        (lambda: pruned(ready(vgg()), 0.5, "bool", "csr"), {"parameters": "all"}, "in the csr layout"),
        (lambda: ready(vgg()), {"outputs": "mean"}, "outputs must be one of 'trace', 'full', got 'mean'"),
        (lambda: ready(vgg()), {"implementation": "fast"}, "implementation must be one of"),
        (lambda: ready(vgg()), {"parameters": "some"}, "parameters must be one of"),
        (lambda: ready(vgg()), {"chunk": 0}, "chunk must be a whole number of at least 1, got 0"),
        (lambda: ready(vgg()), {"chunk": True}, "chunk must be a whole number of at least 1, got True"),
        (lambda: ready(vgg()), {"x1": [1]}, "x1 must be a tensor, got list"),
        (lambda: ready(vgg()), {"x1": normal(0, 3, 4, 4)}, r"x1 must hold at least one example, got shape \[0"),
        (lambda: ready(vgg()), {"x2": normal(2, 3, 5, 5)}, r"x2 must be examples like those of x1, \[3, 4, 4\]"),
        (lambda: ready(vgg()), {"x2": normal(2, 3, 4, 4).float()}, "x2 must be examples like those of x1"),
    ],
)  # fmt: skip
def test_mistakes_are_told_at_once(model, options, reason):
    arguments = {"x1": normal(2, 3, 4, 4), **options}
    with pytest.raises(ValueError, match="^empirical: .*" + reason):
        ntk.empirical(model(), arguments.pop("x1"), arguments.pop("x2", None), **arguments)


def test_a_norm_without_running_statistics_mixes_examples():
    model = ready(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=False)))
    with pytest.raises(ValueError, match=r"'1' \(BatchNorm1d\) without running statistics"):
        ntk.empirical(model, normal(3, 3))


def test_a_fresh_sparse_layer_is_dense():
    assert_agrees(ready(nn.Sequential(SparseConv2d(2, 3, 2), nn.Flatten())), normal(3, 2, 3, 3))


@pytest.mark.parametrize("outputs", ["trace", "full"])
def test_integer_inputs_give_a_kernel_of_the_parameters_dtype(outputs):
    table = nn.Embedding(10, 4).requires_grad_(False)
    model = nn.Sequential(table, nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    x = torch.arange(12).reshape(4, 3) % 10
    wanted = ntk.empirical(model, x, outputs=outputs, implementation="jacobian")
    torch.testing.assert_close(ntk.empirical(model, x, outputs=outputs, implementation="gram"), wanted)
