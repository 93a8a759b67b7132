"""Every form under autograd, torch.func and torch.compile: one test serves all, in fp64 with the raw operations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap

from sparseprune import ops
from sparseprune.ops import Geometry, Pattern

GEOMETRY = Geometry((3, 2), (2, 1), (1, 2, 0, 1), (1, 2), 2)


@pytest.fixture(autouse=True)
def one_thread(threads):
    """Thousands of products too small to share: where the processor is busy, each would wait for its threads."""
    torch.set_num_threads(1)


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def mask_of(*shape: int) -> Tensor:
    kept = torch.rand(shape, generator=torch.Generator().manual_seed(7)) < 0.5
    kept[1] = False  # an output without inputs
    return kept


def linear() -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    pattern = Pattern.from_mask(mask_of(4, 5))
    return lambda v, x, b: ops.spmm(pattern, v, x, b), (seeded(len(pattern.columns)), seeded(5, 3), seeded(4))


def wide() -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """A batch whose two gradients are taken in one walk."""
    pattern = Pattern.from_mask(mask_of(2, 3))
    return lambda v, x, b: ops.spmm(pattern, v, x, b), (seeded(len(pattern.columns)), seeded(3, 64), seeded(2))


def transposed() -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    pattern = Pattern.from_mask(mask_of(4, 5))
    return lambda v, x: ops.spmm_t(pattern, v, x), (seeded(len(pattern.columns)), seeded(4, 3))


def sampled() -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    pattern = Pattern.from_mask(mask_of(4, 5))
    return lambda left, right: ops.sddmm(pattern, left, right), (seeded(4, 3), seeded(5, 3, seed=1))


def convolution() -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    pattern = Pattern.from_mask(mask_of(4, 2, 3, 2), groups=2)
    inputs = (seeded(len(pattern.columns)), seeded(4, 5, 4, 2), seeded(4))
    return lambda v, x, b: ops.spconv(pattern, v, x, GEOMETRY, b), inputs


def convolution_nchw() -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    pattern = Pattern.from_mask(mask_of(4, 2, 3, 2), groups=2)
    inputs = (seeded(len(pattern.columns)), seeded(2, 4, 5, 4), seeded(4))
    return lambda v, x, b: ops.spconv_nchw(pattern, v, x, GEOMETRY, b), inputs


def masked_linear() -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    mask = mask_of(4, 5)
    return lambda w, x, b: ops.masked_linear(x, w, mask, b), (seeded(4, 5), seeded(3, 5), seeded(4))


def masked_convolution() -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    mask = mask_of(4, 2, 3, 2)
    inputs = (seeded(4, 2, 3, 2), seeded(2, 4, 5, 4), seeded(4))
    return lambda w, x, b: ops.masked_conv2d(x, w, mask, GEOMETRY, b), inputs


CASES = [linear, wide, transposed, sampled, convolution, convolution_nchw, masked_linear, masked_convolution]
each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)


def quartic(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A scalar with derivatives of every order."""
    return lambda *inputs: function(*inputs).sin().pow(2).sum()


@each
def test_first_and_second_order_in_both_modes(case):
    function, inputs = case()
    inputs = tuple(t.requires_grad_() for t in inputs)
    assert torch.autograd.gradcheck(function, inputs, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(function, inputs, check_fwd_over_rev=True)


@each
def test_a_single_input_may_need_its_gradient(case):
    function, inputs = case()
    for i in range(len(inputs)):
        at = [t.clone().requires_grad_(i == j) for j, t in enumerate(inputs)]
        (got,) = torch.autograd.grad(quartic(function)(*at), at[i])
        everything = [t.clone().requires_grad_() for t in inputs]
        torch.testing.assert_close(got, torch.autograd.grad(quartic(function)(*everything), everything[i])[0])


@each
def test_jacobians_hessian_and_jvp_agree(case):
    function, inputs = case()
    everywhere = tuple(range(len(inputs)))
    reverse, forward = jacrev(function, everywhere)(*inputs), jacfwd(function, everywhere)(*inputs)
    tangents = tuple(seeded(*t.shape, seed=3) for t in inputs)
    _, derivative = jvp(function, inputs, tangents)
    expected = torch.zeros_like(derivative)
    for r, f, t in zip(reverse, forward, tangents, strict=True):
        torch.testing.assert_close(r, f)
        expected += torch.tensordot(r, t, t.ndim)
    torch.testing.assert_close(derivative, expected)
    scalar = quartic(function)
    h = hessian(scalar)(*inputs)
    product = jvp(lambda first: grad(scalar)(first, *inputs[1:]), inputs[:1], tangents[:1])[1]
    torch.testing.assert_close(product, torch.tensordot(h, tangents[0], tangents[0].ndim))


@each
def test_vmap_over_each_input_and_over_all_equals_a_loop(case):
    function, inputs = case()
    several = [torch.stack([seeded(*t.shape, seed=s) for s in range(3)], dim=-1) for t in inputs]
    choices = [tuple(i == j for j in range(len(inputs))) for i in range(len(inputs))] + [(True,) * len(inputs)]
    for chosen in choices:
        dims = tuple(-1 if c else None for c in chosen)
        at = [s if c else t for s, t, c in zip(several, inputs, chosen, strict=True)]

        def loop(f: Callable[..., Tensor], at=at, chosen=chosen) -> Tensor:
            return torch.stack([f(*(t[..., i] if c else t for t, c in zip(at, chosen, strict=True))) for i in range(3)])

        torch.testing.assert_close(vmap(function, dims)(*at), loop(function))
        torch.testing.assert_close(vmap(grad(quartic(function)), dims)(*at), loop(grad(quartic(function))))


def test_vmap_over_masks_equals_a_loop():
    """An ensemble of masks on one weight."""
    masks, weight, x = torch.stack([mask_of(4, 5), ~mask_of(4, 5)], -1), seeded(4, 5), seeded(3, 5, seed=1)

    def both(mask: Tensor) -> tuple[Tensor, Tensor]:
        return ops.masked_linear(x, weight, mask), grad(quartic(lambda w: ops.masked_linear(x, w, mask)))(weight)

    for got, *expected in zip(vmap(both, -1)(masks), *(both(m) for m in masks.unbind(-1)), strict=True):
        torch.testing.assert_close(got, torch.stack(expected))


@each
def test_compiles_whole_forward_and_backward(case):
    function, inputs = case()
    at = [t.clone().requires_grad_() for t in inputs]
    compiled = torch.compile(quartic(function), fullgraph=True, backend="aot_eager")
    expected = torch.autograd.grad(quartic(function)(*at), at)
    for got, wanted in zip(torch.autograd.grad(compiled(*at), at), expected, strict=True):
        torch.testing.assert_close(got, wanted)


def test_compile_of_a_jvp_is_refused_rather_than_wrong():
    function, inputs = linear()

    @torch.compile(backend="eager")
    def tangent(*inputs):
        return jvp(function, inputs, inputs)[1]

    try:
        got = tangent(*inputs)
    except Exception as error:
        assert "jvp" in str(error)
    else:
        torch.testing.assert_close(got, jvp(function, inputs, inputs)[1])


@pytest.mark.parametrize("size", [32, 64])
def test_blocks_under_autograd(size):
    pattern = Pattern.from_mask(torch.tensor([[1, 0, 1], [0, 0, 0]]))
    blocks, dense = seeded(2, size, size).requires_grad_(), seeded(3 * size, 5, seed=1).requires_grad_()
    weight = torch.zeros(2 * size, 3 * size, dtype=torch.float64)
    weight[:size, :size], weight[:size, 2 * size :] = blocks.detach()
    weight.requires_grad_()
    got = ops.block_spmm(pattern, blocks, dense)
    expected = weight @ dense
    torch.testing.assert_close(got, expected)
    d_blocks, d_dense = torch.autograd.grad(got.sin().sum(), (blocks, dense), create_graph=True)
    w_weight, w_dense = torch.autograd.grad(expected.sin().sum(), (weight, dense), create_graph=True)
    torch.testing.assert_close(d_dense, w_dense)
    torch.testing.assert_close(d_blocks, torch.stack([w_weight[:size, :size], w_weight[:size, 2 * size :]]))
    (second,) = torch.autograd.grad(d_blocks.square().sum(), dense)
    (wanted,) = torch.autograd.grad(
        w_weight[:size, :size].square().sum() + w_weight[:size, 2 * size :].square().sum(), dense
    )
    torch.testing.assert_close(second, wanted)


def test_the_gradient_of_a_masked_weight_is_zero_where_pruned():
    mask = mask_of(4, 5)
    weight = seeded(4, 5).requires_grad_()
    ops.masked_linear(seeded(3, 5), weight, mask).sum().backward()
    assert weight.grad is not None and weight.grad[~mask].eq(0).all() and weight.grad[mask].ne(0).all()


def test_autocast_casts_as_torch_does():
    pattern = Pattern.from_mask(torch.ones(4, 5))
    layer = torch.nn.Linear(5, 4)
    x = torch.randn(3, 5)
    with torch.autocast("cpu", torch.bfloat16):
        y = ops.spmm(pattern, layer.weight.flatten(), x.t(), layer.bias)
        assert y.dtype == layer(x).dtype == torch.bfloat16
        assert ops.spmm(pattern, seeded(20), seeded(5, 3)).dtype == torch.float64
    y.float().sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.dtype == torch.float32
    half = ops.spmm(pattern, layer.weight.detach().flatten().half(), x.t().half())
    torch.testing.assert_close(half.float(), layer.weight.detach() @ x.t(), atol=1e-2, rtol=1e-2)


def test_inference_needs_no_function_and_functional_call_works():
    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pattern = Pattern.from_mask(mask_of(4, 5))
            self.values = torch.nn.Parameter(seeded(len(self.pattern.columns)))

        def forward(self, x: Tensor) -> Tensor:
            return ops.spmm(self.pattern, self.values, x)

    layer, x = Layer(), seeded(5, 2)
    with torch.no_grad():
        assert layer(x).grad_fn is None
    twice = functional_call(layer, {"values": 2 * layer.values.detach()}, (x,))
    torch.testing.assert_close(twice, 2 * layer(x))
    assert layer(x).grad_fn is not None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, v, x: ops.spmm(p, v[:-1], x), "spmm: values must have shape"),
        (lambda p, v, x: ops.spmm(p, v, x[:-1]), r"spmm: dense must have shape \[5, any\], got \[4, 3\]"),
        (lambda p, v, x: ops.spmm(p, v, x.float()), "spmm: dense must have the dtype of values"),
        (lambda p, v, x: ops.spmm(p, v.long(), x), "spmm: values must be floating point"),
        (lambda p, v, x: ops.spmm(p, v, x.to("meta")), "spmm: dense must be on the device"),
        (lambda p, v, x: ops.spmm_t(p, v, x), r"spmm_t: dense must have shape \[4, any\]"),
        (lambda p, v, x: ops.sddmm(p, x[:4], x[:, :2]), r"sddmm: right must have shape \[5, 3\]"),
        (lambda p, v, x: ops.spconv(p, v, x, GEOMETRY), "spconv: x must have shape"),
        (lambda p, v, x: ops.spmm(p, v, x, x[0]), r"spmm: bias must have shape \[4\], got \[3\]"),
        (lambda p, v, x: ops.spconv(p, v, x, GEOMETRY._replace(stride=(0, 1))), "spconv: geometry must be positive"),
        (lambda p, v, x: ops.spconv(p, v, x, GEOMETRY._replace(padding=(0, -1, 0, 0))), "not negative its padding"),
        (lambda p, v, x: ops.spconv(p, v, x, GEOMETRY._replace(groups=3)), "groups must divide the 4 outputs, got 3"),
        (lambda p, v, x: ops.masked_linear(x, x, x), "masked_linear: mask must be bool with shape"),
        (lambda p, v, x: ops.masked_linear(x, x, x > 0, v[:1]), r"masked_linear: bias must have shape \[5\]"),
        (lambda p, v, x: ops.masked_linear(x, v, v > 0), r"masked_linear: weight must have shape \[any, any\]"),
        (lambda p, v, x: ops.block_spmm(p, v.view(-1, 1, 1), x), "block_spmm: blocks must be 32, 64 or 128"),
    ],
)
def test_bad_arguments_raise_one_clear_error(call, message):
    pattern = Pattern.from_mask(mask_of(4, 5))
    with pytest.raises(ValueError, match=message):
        call(pattern, seeded(len(pattern.columns)), seeded(5, 3))
