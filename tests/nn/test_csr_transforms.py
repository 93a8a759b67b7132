"""Autograd to any order, torch.func, autocast, compile and export through csr layers, against the masked ones."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from sparseprune.nn import densify, sparsify

LAYERS = ("0", "4")


def nets(kind: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, nn.Module, dict[str, torch.Tensor]]:
    """A masked and a csr net of the same function, and the masks."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 2, padding=1), nn.AvgPool2d(2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3)
    ).to(dtype)  # fmt: skip
    counts = {f"{i}.weight": torch.randint(0, 3, model[int(i)].weight.shape, generator=generator) for i in LAYERS}
    masks = {name: c > 0 if kind == "bool" else c / 1.5 for name, c in counts.items()}
    csr = sparsify(copy.deepcopy(model), masks, layout="csr", scale="keep")
    return sparsify(model, masks, layout="masked", scale="keep"), csr, masks


def batch(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(3, 1, 3, 3, dtype=dtype, generator=torch.Generator().manual_seed(1))


def parameters(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in model.named_parameters()}


def kept(gradients: dict[str, torch.Tensor], masks: dict[str, torch.Tensor], leading: int) -> dict[str, torch.Tensor]:
    """What a masked net's gradients are in a csr net; `leading` dimensions come before those of the weight."""
    result = {}
    for name, gradient in gradients.items():
        if name in masks:
            flat = gradient.flatten(leading)[..., (masks[name] != 0).flatten()]
            result[name.replace("weight", "values")] = flat
        else:
            result[name] = gradient
    return result


def assert_same(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name in got:
        torch.testing.assert_close(got[name], expected[name])


kinds = pytest.mark.parametrize("kind", ["bool", "float"])


def outputs_of(model: nn.Module, x: torch.Tensor):
    return lambda values: functional_call(model, values, (x,))


@kinds
def test_gradcheck_gradgradcheck_and_forward_mode(kind):
    _, model, _ = nets(kind)
    weights = [p.detach().clone().requires_grad_() for p in model.parameters()]
    names = [name for name, _ in model.named_parameters()]

    def function(x, *weights):
        return functional_call(model, dict(zip(names, weights, strict=True)), (x,))

    arguments = (batch().requires_grad_(), *weights)
    assert torch.autograd.gradcheck(function, arguments, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, arguments)


@kinds
def test_per_example_gradients(kind):
    masked, csr, masks = nets(kind)

    def gradients(model):
        loss = lambda values, x: functional_call(model, values, (x[None],)).square().sum()  # noqa: E731
        return vmap(grad(loss), (None, 0))(parameters(model), batch())

    assert_same(gradients(csr), kept(gradients(masked), masks, 1))


@kinds
@pytest.mark.parametrize("transform", [jacrev, jacfwd])
def test_jacobians(kind, transform):
    masked, csr, masks = nets(kind)
    of_masked, of_csr = (transform(outputs_of(m, batch()))(parameters(m)) for m in (masked, csr))
    assert_same(of_csr, kept(of_masked, masks, 2))


@kinds
def test_jacobians_of_each_example(kind):
    """jacrev within vmap: the form in which tangent kernels ask for it."""
    masked, csr, masks = nets(kind)

    def jacobians(model):
        one = lambda values, x: functional_call(model, values, (x[None],))[0]  # noqa: E731
        return vmap(jacrev(one), (None, 0))(parameters(model), batch())

    assert_same(jacobians(csr), kept(jacobians(masked), masks, 2))


@kinds
def test_jvp_and_vjp_are_adjoint(kind):
    _, model, _ = nets(kind)
    values = parameters(model)
    direction = {name: torch.randn_like(p) for name, p in values.items()}
    y, forward = jvp(outputs_of(model, batch()), (values,), (direction,))
    cotangent = torch.randn_like(y)
    (backward,) = vjp(outputs_of(model, batch()), values)[1](cotangent)
    left = (forward * cotangent).sum()
    torch.testing.assert_close(left, sum((backward[name] * direction[name]).sum() for name in values))


@kinds
def test_hessian_vector_products_three_ways(kind):
    """As GraSP takes them (double backward), forward over reverse, and by the whole Hessian."""
    _, model, _ = nets(kind)
    values, x = parameters(model), batch()
    loss = lambda v: functional_call(model, v, (x,)).pow(4).sum()  # noqa: E731
    direction = {name: torch.randn_like(p) for name, p in values.items()}
    gradients = torch.autograd.grad(model(x).pow(4).sum(), list(model.parameters()), create_graph=True)
    inner = sum((g * direction[n]).sum() for g, n in zip(gradients, values, strict=True))
    double = dict(zip(values, torch.autograd.grad(inner, list(model.parameters())), strict=True))
    _, over = jvp(grad(loss), (values,), (direction,))
    assert_same(over, double)
    whole = hessian(loss)(values)["4.values"]["4.values"]
    only = {name: direction[name] if name == "4.values" else torch.zeros_like(p) for name, p in values.items()}
    torch.testing.assert_close(whole @ direction["4.values"], jvp(grad(loss), (values,), (only,))[1]["4.values"])


def test_an_ensemble_of_values_under_one_pattern():
    _, model, _ = nets("bool")
    several = {name: torch.stack([p, 2 * p]) for name, p in parameters(model).items()}
    x = batch()
    got = vmap(lambda values: functional_call(model, values, (x,)))(several)
    for i in range(2):
        expected = functional_call(model, {name: p[i] for name, p in several.items()}, (x,))
        torch.testing.assert_close(got[i], expected)


@kinds
def test_autocast(kind):
    _, model, _ = nets(kind, torch.float32)
    x = batch(torch.float32)
    expected = model(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = model(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), expected, rtol=0.05, atol=0.05)
    y.float().square().sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.ne(0).any() for p in model.parameters())


@kinds
def test_compile_fullgraph_forward_and_backward(kind):
    torch.compiler.reset()
    _, model, _ = nets(kind)
    x = batch().requires_grad_()
    arguments = [x, *model.parameters()]
    expected = model(x)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    y = compiled(x)
    torch.testing.assert_close(y, expected)
    gradients = torch.autograd.grad(y.square().sum(), arguments)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected.square().sum(), arguments))
    with torch.no_grad():
        model[4].values.mul_(2)
    torch.testing.assert_close(compiled(x), model(x))
    longer = torch.cat([x, x]).detach()
    torch.testing.assert_close(compiled(longer), model(longer))


def test_compile_of_the_dense_view():
    torch.compiler.reset()
    _, model, _ = nets("bool")
    compiled = torch.compile(lambda: model[4].weight.square().sum(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(), model[4].values.square().sum())


def test_inductor_trains_as_eager_does():
    torch.compiler.reset()
    _, model, _ = nets("float", torch.float32)
    x = batch(torch.float32)
    expected = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    got = torch.autograd.grad(torch.compile(model, fullgraph=True)(x).square().sum(), list(model.parameters()))
    torch.testing.assert_close(got, expected)


def test_a_change_of_layout_after_compile_is_seen():
    torch.compiler.reset()
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    compiled, x = torch.compile(model, backend="aot_eager"), torch.randn(3, 4)
    compiled(x)
    for change in (
        lambda: sparsify(model, {"0.weight": 2.0 * torch.eye(4)}, scale="keep", layout="csr"),
        lambda: sparsify(model, {"0.weight": torch.tril(torch.ones(4, 4))}, layout="masked"),
        lambda: densify(model),
    ):
        change()
        torch.testing.assert_close(compiled(x), model(x))
        compiled(x).sum().backward()


@pytest.mark.parametrize("layout", ["masked", "csr"])
def test_export_with_any_batch_and_size(layout):
    masked, csr, _ = nets("bool")
    model = (masked if layout == "masked" else csr).eval()
    batches, sides = torch.export.Dim("batch", min=2, max=64), torch.export.Dim("side", min=4, max=64)
    program = torch.export.export(model, (batch(),), dynamic_shapes=({0: batches},)).module()
    torch.testing.assert_close(program(batch()[:2]), model(batch()[:2]))
    x = torch.randn(3, 1, 6, 6, dtype=torch.float64)
    program = torch.export.export(model[0], (x,), dynamic_shapes=({0: batches, 2: sides, 3: sides},)).module()
    x = torch.randn(4, 1, 9, 9, dtype=torch.float64)
    torch.testing.assert_close(program(x), model[0](x))


@kinds
def test_export(kind):
    _, model, _ = nets(kind)
    program = torch.export.export(model, (batch(),))
    assert "4.values" in program.state_dict and "4.columns" in program.state_dict
    torch.testing.assert_close(program.module()(batch()), model(batch()))
