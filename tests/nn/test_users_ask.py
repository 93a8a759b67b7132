"""What users of sparse layers ask for and did not get, in both layouts; each test says what it accepts.

Beside these: DDP and FSDP2 (test_ddp.py), the crossover curve with its losing region (bench).
"""

import copy
import io
import itertools

import pytest
import torch
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
    return torch.rand(tuple(shape), generator=torch.Generator().manual_seed(seed)) < 0.5


def net(layout: str, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    )
    masks = {name: half(p.shape) for name, p in model.named_parameters() if p.ndim > 1}
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


def test_row_7_opcheck_of_what_csr_layers_call():
    model = net("csr")
    linear, conv = model[5], model[0]
    pattern, values = linear.pattern, linear.values.detach()
    by_input = (pattern.column_offsets, pattern.rows, pattern.order)
    x, y = torch.randn(16, 5).double(), torch.randn(3, 5).double()
    geometry = ops.Geometry((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1).numbers
    image, grad_of = torch.randn(1, 4, 4, 5).double(), torch.randn(4, 4, 4, 5).double()
    of_conv, taps = conv.pattern, conv.values.detach()
    conv_by_input = (of_conv.column_offsets, of_conv.rows, of_conv.order)
    raw = torch.ops.sparseprune
    for op, arguments in (
        (raw.spmm, (values, pattern.row_offsets, pattern.columns, None, x, linear.bias.detach())),
        (raw.sddmm, (pattern.row_offsets, pattern.columns, None, y, x)),
        (raw.spmm_backward, (values, *by_input, x, y)),
        (raw.spconv, (taps, of_conv.row_offsets, of_conv.columns, image, None, geometry)),
        (raw.spconv_backward, (taps, *conv_by_input, image, grad_of, geometry)),
        (raw.transpose, (x,)),
    ):
        torch.library.opcheck(op.default, arguments)


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


@LAYOUTS
def test_row_8_a_thousand_steps_of_adam_and_weight_decay_leave_pruned_weights_exactly_zero(layout):
    dense = nn.Linear(6, 4)
    mask = half(dense.weight.shape)
    layer = SparseLinear.from_dense(dense, mask, layout=layout)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=1e-2, weight_decay=1e-2)
    x = torch.randn(8, 6)
    for _ in range(1000):
        optimizer.zero_grad()
        (layer(x) - 1).square().mean().backward()
        optimizer.step()
    assert layer.weight[~mask].eq(0).all() and layer.masked_weight()[~mask].eq(0).all()
    assert layer.weight[mask].ne(dense.weight[mask]).all()
    tables = [vars(layer)[name] for name in vars(layer) if name.endswith("_hooks")]
    assert not any(tables), "no hook does the work"


@LAYOUTS
def test_row_8_round_trips_through_files_and_deepcopy(layout):
    model, fresh = net(layout), net(layout)
    model(images()).sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    for twin in (fresh, copy.deepcopy(model)):
        assert torch.equal(twin(images()), model(images()))


def test_row_8_optimizer_state_exists_for_kept_weights_alone():
    model = net("csr")
    optimizer = torch.optim.Adam(model.parameters())
    model(images()).sum().backward()
    optimizer.step()
    assert optimizer.state[model[5].values]["exp_avg"].shape == (int(half((3, 16)).sum()),)
