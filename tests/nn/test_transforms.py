"""Autograd, torch.func, autocast, compile and export through the masked layers."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, vmap

from sparseprune.nn import densify, sparsify


def sparse_net(kind: str, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)).to(dtype)
    counts = {n: torch.randint(0, 3, p.shape, generator=generator) for n, p in model.named_parameters() if p.ndim > 1}
    masks = {name: c > 0 if kind == "bool" else c / 1.5 for name, c in counts.items()}
    return sparsify(model, masks, scale="keep")


def batch(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(3, 1, 3, 3, dtype=dtype, generator=torch.Generator().manual_seed(1))


def loss_of(model: nn.Module):
    """The loss as a function of the trainable weights and of one image."""
    return lambda parameters, x: functional_call(model, parameters, (x[None],)).square().sum()


kinds = pytest.mark.parametrize("kind", ["bool", "float"])


@kinds
def test_gradcheck_and_gradgradcheck(kind):
    model, x = sparse_net(kind), batch().requires_grad_()
    weights = [p.detach().clone().requires_grad_() for p in model.parameters()]
    names = [name for name, _ in model.named_parameters()]

    def function(x, *weights):
        return functional_call(model, dict(zip(names, weights, strict=True)), (x,))

    assert torch.autograd.gradcheck(function, (x, *weights), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, (x, *weights))


@kinds
def test_double_backward_stays_zero_where_pruned(kind):
    model = sparse_net(kind)
    weight, mask = model[3].weight, model[3].weight_mask
    (first,) = torch.autograd.grad(model(batch()).pow(4).sum(), weight, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), weight)
    assert first[mask == 0].eq(0).all() and second[mask == 0].eq(0).all()
    assert second[mask != 0].ne(0).all()


@kinds
def test_per_example_gradients_equal_a_loop(kind):
    model = sparse_net(kind)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    got = vmap(grad(loss_of(model)), (None, 0))(parameters, batch())
    for i, x in enumerate(batch()):
        model.zero_grad()
        model(x[None]).square().sum().backward()
        for name, p in model.named_parameters():
            torch.testing.assert_close(got[name][i], p.grad)


@kinds
def test_jacobians_agree_in_both_modes_and_with_jvp(kind):
    model = sparse_net(kind)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    x = batch()

    def outputs(parameters):
        return functional_call(model, parameters, (x,))

    reverse, forward = jacrev(outputs)(parameters), jacfwd(outputs)(parameters)
    direction = {name: torch.randn_like(p) for name, p in parameters.items()}
    _, derivative = jvp(outputs, (parameters,), (direction,))
    expected = torch.zeros_like(derivative)
    for name, mask in (("0.weight", model[0].weight_mask), ("3.weight", model[3].weight_mask)):
        torch.testing.assert_close(reverse[name], forward[name])
        assert reverse[name][:, :, mask == 0].eq(0).all() and reverse[name][:, :, mask != 0].ne(0).any()
    for name, p in parameters.items():
        expected += (reverse[name] * direction[name]).flatten(-p.ndim).sum(-1)
    torch.testing.assert_close(derivative, expected)


@kinds
def test_an_ensemble_by_stacked_state(kind):
    models = [sparse_net(kind) for _ in range(2)]
    parameters, buffers = torch.func.stack_module_state(models)
    x = batch()
    got = vmap(lambda p, b: functional_call(models[0], (p, b), (x,)))(parameters, buffers)
    torch.testing.assert_close(got, torch.stack([model(x) for model in models]))


@kinds
def test_autocast(kind):
    model, x = sparse_net(kind, torch.float32), batch(torch.float32)
    expected = model(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = model(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), expected, rtol=0.05, atol=0.05)
    y.float().square().sum().backward()
    gradient = model[3].weight.grad
    assert gradient.dtype == torch.float32 and gradient[model[3].weight_mask == 0].eq(0).all()


@kinds
def test_compile_fullgraph_forward_and_backward(kind):
    torch.compiler.reset()
    model, x = sparse_net(kind), batch()
    expected = model(x)
    expected_gradients = torch.autograd.grad(expected.square().sum(), list(model.parameters()))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    y = compiled(x)
    torch.testing.assert_close(y, expected)
    gradients = torch.autograd.grad(y.square().sum(), list(model.parameters()))
    torch.testing.assert_close(gradients, expected_gradients)
    with torch.no_grad():
        model[3].weight.mul_(2)
        model[3].weight_mask[0] = 0
    torch.testing.assert_close(compiled(x), model(x))


def test_sparsify_after_compile_is_seen():
    torch.compiler.reset()
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    compiled, x = torch.compile(model, backend="aot_eager"), torch.randn(3, 4)
    compiled(x)
    sparsify(model, {"0.weight": 2.0 * torch.eye(4)}, scale="keep")
    torch.testing.assert_close(compiled(x), model(x))
    compiled(x).sum().backward()
    assert model[0].weight.grad[~torch.eye(4, dtype=torch.bool)].eq(0).all()
    densify(model)
    torch.testing.assert_close(compiled(x), model(x))


@kinds
def test_export(kind):
    model, x = sparse_net(kind), batch()
    program = torch.export.export(model, (x,))
    assert "3.weight_mask" in program.state_dict
    torch.testing.assert_close(program.module()(x), model(x))


@kinds
def test_a_densified_model_forgets_the_mask(kind):
    model = sparse_net(kind)
    densify(model)
    (gradient,) = torch.autograd.grad(model(batch()).square().sum(), model[3].weight)
    assert gradient.ne(0).all()
