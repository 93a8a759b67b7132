"""What users of sparse layers ask for and did not get, in both layouts; each test says what it accepts.

Beside these: DDP and FSDP2 (test_ddp.py), the crossover curve with its losing region (bench).
"""

import copy
import itertools
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.func import functional_call, grad, jacrev, jvp, vmap

from sparseprune import ops
from sparseprune.nn import SparseConv2d, SparseLinear, sparsify

LAYOUTS = pytest.mark.parametrize("layout", ["masked", "csr"])
CONVS = [
    {"stride": s, "padding": p, "dilation": d, "groups": g, "padding_mode": m}
    for s, p, d, g, m in itertools.product((1, (3, 2)), (0, (2, 1)), (1, (2, 1)), (1, 3), ("zeros", "circular"))
]


def half(shape: torch.Size | tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Keep half of the weights, others for each seed."""
    size = torch.Size(shape).numel()
    return (torch.randperm(size, generator=torch.Generator().manual_seed(seed)) < size // 2).view(shape)


def net(layout: str, dtype: torch.dtype = torch.float64, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    )
    masks = {name: half(p.shape, seed) for name, p in model.named_parameters() if p.ndim > 1}
    return sparsify(model.to(dtype).eval(), masks, layout=layout)


def images(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(3, 1, 4, 4, dtype=dtype, generator=torch.Generator().manual_seed(1))


# Row 6: unstructured layers, forward, dX and dW of kept weights alone, all options, fp32, bf16 and fp64.


@LAYOUTS
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_row_6_every_convolution_equals_the_dense_one_with_masked_weights(layout, dtype):
    tolerance = {"rtol": 16 * torch.finfo(dtype).eps, "atol": 64 * torch.finfo(dtype).eps}
    for options in CONVS:
        dense = nn.Conv2d(3, 6, (3, 2), **options).to(dtype)
        mask = half(dense.weight.shape)
        sparse = SparseConv2d.from_dense(dense, mask, layout=layout)
        exact = copy.deepcopy(dense).double()
        with torch.no_grad():
            exact.weight.mul_(mask)
        x = torch.randn(2, 3, 7, 8, dtype=dtype, requires_grad=True)
        wide = x.detach().double().requires_grad_()
        y, expected = sparse(x), exact(wide)
        assert y.dtype == dtype
        torch.testing.assert_close(y.double(), expected, **tolerance)
        scale = 1 / expected[0].numel()  # gradients of order one
        (y.double().sum() * scale).backward()
        (expected.sum() * scale).backward()
        weight = sparse.weight if layout == "masked" else sparse.values
        got = weight.grad[mask] if layout == "masked" else weight.grad
        torch.testing.assert_close(got.double(), exact.weight.grad[mask], **tolerance)
        torch.testing.assert_close(x.grad.double(), wide.grad, **tolerance)


@LAYOUTS
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_row_6_gradcheck_in_fp64(layout, kind):
    torch.manual_seed(0)
    dense = (nn.Linear(5, 4) if kind == "linear" else nn.Conv2d(4, 4, 3, 2, 1, groups=2)).double()
    sparse = (SparseLinear if kind == "linear" else SparseConv2d).from_dense(
        dense, half(dense.weight.shape), layout=layout
    )
    x = torch.randn((3, 5) if kind == "linear" else (2, 4, 5, 5), dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in sparse.named_parameters()]
    values = [p.detach().requires_grad_() for p in sparse.parameters()]
    function = lambda x, *v: functional_call(sparse, dict(zip(names, v, strict=True)), (x,))  # noqa: E731
    assert torch.autograd.gradcheck(function, (x, *values))


def test_row_6_the_gradient_and_the_checkpoint_hold_kept_weights_alone_and_the_pattern():
    model = net("csr")
    model(images()).sum().backward()
    assert model[5].values.grad.shape == (int(half((3, 16)).sum()),)
    assert {"5.values", "5.row_offsets", "5.columns"} <= model.state_dict().keys()
    assert "5.weight" not in model.state_dict()


# Row 7: torch.compile, torch.func, vmap, double backward.


def of_linear() -> dict[str, tuple[Any, ...]]:
    layer = net("csr", torch.float32)[5]
    pattern, values, bias, mask = layer.pattern, layer.values.detach(), layer.bias.detach(), half((3, 16))
    by_output, by_input = pattern[:2], pattern[2:]
    weight, x, y = layer.weight.detach() + 0, torch.randn(16, 5), torch.randn(3, 5)
    return {
        "transpose": (x,),
        "spmm": (values, *by_output, None, x, bias),
        "sddmm": (*by_output, None, y, x),
        "spmm_backward": (values, *by_input, x, y),
        "ntk_gram": (*by_output, values.square(), x, torch.randn(3, 2, 5), None, None, False),
        "masked_linear": (x.t().contiguous(), weight, mask, bias),
        "masked_linear_dx": (y.t().contiguous(), weight, mask),
        "masked_linear_dw": (y.t().contiguous(), x.t().contiguous(), mask),
        "flow_forward": (weight, mask, x.t().contiguous(), 1),
        "flow_backward": (weight, mask, x.t().contiguous(), y, 1),
        "online_sgd": (x[None], x[None, :, 0], y[None], y[None, :, 0], 0, 3, 0.5, 0.1, 1, 0),
    }


def of_conv() -> dict[str, tuple[Any, ...]]:
    layer = net("csr", torch.float32)[0]
    pattern, values, bias, mask = layer.pattern, layer.values.detach(), layer.bias.detach(), half((4, 1, 3, 3))
    by_output, by_input = pattern[:2], pattern[2:]
    geometry = ops.Geometry((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1).numbers
    weight, x, y = layer.weight.detach() + 0, torch.randn(1, 4, 4, 5), torch.randn(4, 4, 4, 5)
    first, of_first = torch.randn(5, 1, 4, 4), torch.randn(5, 4, 4, 4)
    return {
        "spconv": (values, *by_output, x, bias, geometry),
        "spconv_dx": (values, *by_input, y, (4, 4), geometry),
        "spconv_dw": (*by_output, x, y, geometry),
        "spconv_backward": (values, *by_input, x, y, geometry),
        "spconv_nchw": (values, *by_output, first, bias, geometry),
        "spconv_nchw_dx": (values, *by_input, of_first, (4, 4), geometry),
        "spconv_nchw_dw": (*by_output, first, of_first, geometry),
        "spconv_nchw_backward": (values, *by_input, first, of_first, geometry),
        "spconv_dw_each": (*by_output, x, torch.randn(4, 4, 4, 2, 5), geometry),
        "masked_conv2d": (first, weight, mask, bias, geometry),
        "masked_conv2d_dx": (of_first, weight, mask, (4, 4), geometry),
        "masked_conv2d_dw": (of_first, first, mask, geometry),
    }


def of_blocks() -> dict[str, tuple[Any, ...]]:
    pattern = ops.Pattern.from_mask(half((2, 3)))
    blocks, x, y = torch.randn(3, 32, 32), torch.randn(96, 5), torch.randn(64, 5)
    return {"block_spmm": (blocks, *pattern[2:], y, True), "block_sddmm": (*pattern[:2], y, x, 32)}


# The sampler's operations come first, and have opchecks of their own.
@pytest.mark.parametrize("name", [*itertools.dropwhile(lambda name: name != "transpose", ops.backends())])
def test_row_7_opcheck_of_every_product(name):
    arguments = {**of_linear(), **of_conv(), **of_blocks()}[name]
    found = torch.library.opcheck(getattr(torch.ops.sparseprune, name).default, arguments)
    assert set(found.values()) == {"SUCCESS"}


@LAYOUTS
def test_row_7_compiles_into_one_graph_forward_and_backward(layout):
    torch.compiler.reset()
    model = net(layout)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(model(images()).square().sum(), list(model.parameters()))
    torch.testing.assert_close(
        torch.autograd.grad(compiled(images()).square().sum(), list(model.parameters())), expected
    )


@LAYOUTS
def test_row_7_jacrev_within_vmap(layout):
    model, x = net(layout), images()
    values = {name: p.detach() for name, p in model.named_parameters()}
    per_example = vmap(jacrev(lambda v, one: functional_call(model, v, (one[None],))[0]), (None, 0))(values, x)
    for i, output in itertools.product(range(3), range(3)):
        expected = torch.autograd.grad(model(x[i : i + 1])[0, output], list(model.parameters()))
        for name, gradient in zip(values, expected, strict=True):
            torch.testing.assert_close(per_example[name][i, output], gradient)


@LAYOUTS
def test_row_7_hessian_gradient_product_as_grasp_takes_it(layout):
    model, x = net(layout), images()
    values = {name: p.detach() for name, p in model.named_parameters()}
    gradients = torch.autograd.grad(model(x).pow(4).sum(), list(model.parameters()), create_graph=True)
    constant = [g.detach() for g in gradients]
    inner = sum((g * c).sum() for g, c in zip(gradients, constant, strict=True))
    double = torch.autograd.grad(inner, list(model.parameters()))
    loss = lambda v: functional_call(model, v, (x,)).pow(4).sum()  # noqa: E731
    _, over = jvp(grad(loss), (values,), (dict(zip(values, constant, strict=True)),))
    for name, product in zip(values, double, strict=True):
        torch.testing.assert_close(over[name], product)


# Row 8: optimizer-proof, without hooks, clean copies and checkpoints, optimizer state on kept weights alone.


OPTIMIZERS = {
    "Adam": lambda p: torch.optim.Adam(p, lr=1e-2, weight_decay=1e-2),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=1e-2, amsgrad=True),
    "SGD": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.9, nesterov=True, weight_decay=1e-2),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.9, weight_decay=1e-2),
}


@pytest.mark.parametrize("kind", ["linear", "conv"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_row_8_a_thousand_steps_with_weight_decay_leave_pruned_weights_exactly_zero(optimizer, kind):
    torch.manual_seed(0)
    dense = (nn.Linear(6, 4) if kind == "linear" else nn.Conv2d(3, 4, 3)).double()
    mask, start = half(dense.weight.shape), dense.weight.detach().clone()
    sparse = SparseLinear if kind == "linear" else SparseConv2d
    x = torch.randn((8, 6) if kind == "linear" else (2, 3, 4, 4)).double()
    trained = []
    for layout in ("masked", "csr"):
        layer = sparse.from_dense(dense, mask, layout=layout)
        step = OPTIMIZERS[optimizer](layer.parameters())
        for _ in range(1000 if optimizer == "Adam" else 100):
            step.zero_grad()
            (layer(x) - 1).square().mean().backward()
            step.step()
        assert layer.weight[~mask].eq(0).all() and layer.masked_weight()[~mask].eq(0).all()
        assert layer.weight[mask].ne(start[mask]).all()
        assert not any(vars(layer)[name] for name in vars(layer) if name.endswith("_hooks")), "no hook does the work"
        trained.append(layer.weight.detach() + 0)
    torch.testing.assert_close(*trained, rtol=1e-8, atol=1e-8)


@LAYOUTS
def test_row_8_an_optimizer_from_before_goes_on_with_masked_weights_and_has_nothing_of_csr_ones(layout):
    torch.manual_seed(0)
    model, mask, x = nn.Linear(6, 4), half((4, 6)), torch.randn(8, 6)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=1e-2)
    model(x).square().mean().backward()
    optimizer.step()
    sparsify(model, {"weight": mask}, layout=layout)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for _ in range(3):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    assert model.masked_weight()[~mask].eq(0).all() and model.bias.ne(before["bias"]).all()
    if layout == "masked":
        assert model.weight[mask].ne(before["weight"][mask]).all()
    else:
        assert torch.equal(model.values, before["values"]), "the new parameter is for a new optimizer"


@LAYOUTS
def test_row_8_round_trips_through_files_and_deepcopy(layout, tmp_path):
    model = net(layout)
    model(images()).sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    torch.save(model.state_dict(), tmp_path / "a.pt")
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    others = [net(layout, seed=seed) for seed in (1, 2)]
    assert not any(torch.equal(other[5].weight != 0, model[5].weight != 0) for other in others)
    others[0].load_state_dict(torch.load(tmp_path / "a.pt", weights_only=True))
    others[1].load_state_dict(load_file(tmp_path / "a.safetensors"))
    for twin in (*others, copy.deepcopy(model)):
        assert torch.equal(twin(images()), model(images()))
        assert torch.equal(twin[5].weight, model[5].weight), "the pattern came along"


def test_row_8_optimizer_state_exists_for_kept_weights_alone():
    model = net("csr")
    optimizer = torch.optim.Adam(model.parameters())
    model(images()).sum().backward()
    optimizer.step()
    assert optimizer.state[model[5].values]["exp_avg"].shape == (int(half((3, 16)).sum()),)
