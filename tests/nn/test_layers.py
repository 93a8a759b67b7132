"""SparseLinear and SparseConv2d compute what the dense layer computes with masked weights, for every option."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from sparseprune.nn import SparseConv2d, SparseLinear, layouts

EXAMPLES = settings(max_examples=40, deadline=None, derandomize=True)
LAYOUTS = st.sampled_from(["masked", "csr"])


def pattern(shape: torch.Size, kind: str, generator: torch.Generator) -> torch.Tensor:
    """A bool mask, or counts / 1.5 as a rescaled sketch has them."""
    counts = torch.randint(0, 3, tuple(shape), generator=generator)
    return counts > 0 if kind == "bool" else counts / 1.5


def masked_twin(layer: nn.Linear | nn.Conv2d, mask: torch.Tensor) -> nn.Linear | nn.Conv2d:
    """The dense layer with w*m written into it: what the sparse layer must equal."""
    twin = linear_like(layer) if isinstance(layer, nn.Linear) else conv_like(layer)
    twin.to(layer.weight.dtype)
    with torch.no_grad():
        twin.weight.copy_(layer.weight * mask)
        if twin.bias is not None:
            twin.bias.copy_(layer.bias)
    return twin


def linear_like(layer: nn.Linear) -> nn.Linear:
    return nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)


def conv_like(layer: nn.Conv2d) -> nn.Conv2d:
    return nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
        layer.bias is not None,
        layer.padding_mode,
    )


def test_golden_four_by_four():
    layer = nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(1.0, 17).view(4, 4))
    mask = torch.eye(4, dtype=torch.bool)
    mask[0, 3] = True
    sparse = SparseLinear.from_dense(layer, mask)
    assert sparse(torch.tensor([1.0, 10, 100, 1000])).tolist() == [4001.0, 60.0, 1100.0, 16000.0]
    assert sparse.weight.tolist() == [[1, 0, 0, 4], [0, 6, 0, 0], [0, 0, 11, 0], [0, 0, 0, 16]]


@EXAMPLES
@given(
    batch=st.sampled_from([(), (1,), (5,), (0,), (2, 3)]),
    size=st.tuples(st.integers(1, 17), st.integers(1, 17)),
    bias=st.booleans(),
    kind=st.sampled_from(["bool", "float"]),
    scale=st.sampled_from(["fold", "keep"]),
    layout=LAYOUTS,
    seed=st.integers(0, 99),
)
def test_linear_equals_masked_dense(batch, size, bias, kind, scale, layout, seed):
    generator = torch.Generator().manual_seed(seed)
    dense = nn.Linear(*size, bias=bias).double()
    mask = pattern(dense.weight.shape, kind, generator).to(torch.bool if kind == "bool" else torch.float64)
    x = torch.randn(*batch, size[0], dtype=torch.float64, generator=generator)
    sparse = SparseLinear.from_dense(dense, mask, scale=scale, layout=layout)
    torch.testing.assert_close(sparse(x), masked_twin(dense, mask)(x), rtol=1e-13, atol=1e-13)
    check_gradients(sparse, dense, mask, x, scale)


@EXAMPLES
@given(
    kernel=st.tuples(st.sampled_from([1, 3]), st.sampled_from([1, 2, 3])),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    padding=st.sampled_from([0, 1, (2, 1), "valid"]),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    groups=st.sampled_from([1, 2, 4]),
    bias=st.booleans(),
    mode=st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
    batch=st.sampled_from([None, 1, 3]),
    kind=st.sampled_from(["bool", "float"]),
    scale=st.sampled_from(["fold", "keep"]),
    layout=LAYOUTS,
    seed=st.integers(0, 99),
)
def test_conv_equals_masked_dense(
    kernel, stride, padding, dilation, groups, bias, mode, batch, kind, scale, layout, seed
):
    generator = torch.Generator().manual_seed(seed)
    dense = nn.Conv2d(4, 8, kernel, stride, padding, dilation, groups, bias, mode).double()
    mask = pattern(dense.weight.shape, kind, generator).to(torch.bool if kind == "bool" else torch.float64)
    shape = (4, 9, 8) if batch is None else (batch, 4, 9, 8)
    x = torch.randn(shape, dtype=torch.float64, generator=generator)
    sparse = SparseConv2d.from_dense(dense, mask, scale=scale, layout=layout)
    torch.testing.assert_close(sparse(x), masked_twin(dense, mask)(x), rtol=1e-13, atol=1e-13)
    check_gradients(sparse, dense, mask, x, scale)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")  # torch's own, of the dense layer
@pytest.mark.parametrize("layout", ["masked", "csr"])
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
def test_conv_padding_same(mode, layout):
    """An even kernel is padded by one more after than before."""
    dense = nn.Conv2d(2, 3, (4, 5), padding="same", dilation=(1, 2), padding_mode=mode).double()
    mask = pattern(dense.weight.shape, "bool", torch.Generator().manual_seed(0))
    x = torch.randn(2, 2, 9, 8, dtype=torch.float64)
    sparse = SparseConv2d.from_dense(dense, mask, layout=layout)
    assert sparse(x).shape == (2, 3, 9, 8)
    torch.testing.assert_close(sparse(x), masked_twin(dense, mask)(x), rtol=1e-13, atol=1e-13)
    check_gradients(sparse, dense, mask, x, "fold")


def check_gradients(sparse, dense, mask, x, scale):
    """With y = f(w*m): "keep" has dL/dw = m dL/d(w*m), "fold" has the pattern in the place of m; dL/dx is f's."""
    twin, x = masked_twin(dense, mask), x.clone().requires_grad_()
    others = [] if twin.bias is None else ["bias"]
    expected = torch.autograd.grad(twin(x).square().sum(), [twin.weight, x, *(getattr(twin, n) for n in others)])
    weight = sparse.weight if sparse.layout == "masked" else sparse.values
    gradients = torch.autograd.grad(sparse(x).square().sum(), [weight, x, *(getattr(sparse, n) for n in others)])
    of_weight = expected[0] * (mask if scale == "keep" else mask != 0)
    if sparse.layout == "masked":
        assert gradients[0][mask == 0].eq(0).all()
    else:
        of_weight = of_weight[mask != 0]
    for gradient, wanted in zip(gradients, (of_weight, *expected[1:]), strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 7.0])
def test_what_is_written_into_pruned_places_does_not_leak(kind, poison):
    dense = nn.Linear(6, 5)
    mask = pattern(dense.weight.shape, kind, torch.Generator().manual_seed(1))
    sparse = SparseLinear.from_dense(dense, mask, scale="keep", layout="masked")
    x = torch.randn(3, 6)
    before = sparse(x)
    sparse.weight.data[mask == 0] = poison
    after = sparse(x)
    assert torch.equal(after, before)
    after.sum().backward()
    assert sparse.weight.grad is not None
    assert sparse.weight.grad[mask == 0].eq(0).all() and sparse.weight.grad.isfinite().all()
    assert sparse.to_dense().weight[mask == 0].eq(0).all()


def test_from_dense_and_to_dense_leave_their_argument_alone():
    dense = nn.Conv2d(2, 4, 3)
    dense.register_buffer("calls", torch.zeros(()))
    weight, mask = dense.weight.clone(), torch.zeros(4, 2, 3, 3)
    mask[:2] = 2.0
    sparse = SparseConv2d.from_dense(dense, mask, scale="fold", layout="masked")
    assert type(dense) is nn.Conv2d and torch.equal(dense.weight, weight) and "weight_mask" not in dense._buffers
    assert torch.equal(sparse.weight, weight * mask) and sparse.weight_mask.dtype == torch.bool
    back = sparse.to_dense()
    assert type(back) is nn.Conv2d and type(sparse) is SparseConv2d
    assert torch.equal(back.weight, weight * mask)
    with torch.no_grad():
        back.weight.zero_()
        mask.zero_()
        sparse.calls.add_(1)
    assert dense.calls == back.calls == 0
    assert sparse.weight.ne(0).any() and sparse.weight_mask.any()


def test_from_dense_keeps_hooks_flags_and_bias():
    dense = nn.Linear(3, 2).eval()
    dense.weight.requires_grad_(False)
    calls = []
    dense.register_forward_hook(lambda module, args, output: calls.append(type(module)))
    sparse = SparseLinear.from_dense(dense, torch.ones(2, 3, dtype=torch.bool))
    sparse(torch.zeros(1, 3))
    assert calls == [SparseLinear]
    assert not sparse.training and not sparse.weight.requires_grad and sparse.bias.requires_grad
    sparse.register_forward_hook(lambda *_: calls.append(None))
    dense(torch.zeros(1, 3))
    assert calls == [SparseLinear, nn.Linear]


def test_is_a_dense_layer_and_constructs_like_one():
    linear, conv = SparseLinear(3, 2, bias=False), SparseConv2d(2, 4, 3, groups=2, dtype=torch.float64)
    assert isinstance(linear, nn.Linear) and isinstance(conv, nn.Conv2d)
    assert linear.density == conv.density == 1.0 and conv.weight.dtype == torch.float64 and linear.bias is None
    x = torch.randn(2, 3)
    assert torch.equal(linear(x), F.linear(x, linear.weight))
    assert nn.utils.skip_init(SparseLinear, 3, 2).weight.shape == (2, 3)
    meta = SparseLinear(3, 2, device="meta")
    assert "density=nan" in repr(meta) and "nan" in str(layouts(meta))


def test_reset_parameters_keeps_pruned_zero():
    for layer in (SparseLinear(8, 8), SparseConv2d(2, 4, 3)):
        layer.weight_mask.view(-1)[::2] = False
        layer.reset_parameters()
        assert layer.weight[~layer.weight_mask].eq(0).all() and layer.weight[layer.weight_mask].ne(0).all()


@pytest.mark.parametrize("layout", ["masked", "csr"])
def test_repr_shows_density_and_layout(layout):
    sparse = SparseLinear.from_dense(nn.Linear(4, 5), torch.arange(20).view(5, 4) < 3, layout=layout)
    assert sparse.density == 0.15
    assert repr(sparse) == f"SparseLinear(in_features=4, out_features=5, bias=True, density=0.15, layout={layout})"
    assert "kernel_size=(3, 3)" in repr(SparseConv2d(1, 1, 3)) and "density=1," in repr(SparseConv2d(1, 1, 3))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", ["fold", "keep"])
@pytest.mark.parametrize("layout", ["masked", "csr"])
def test_half_dtypes(dtype, scale, layout):
    dense = nn.Linear(5, 3).to(dtype)
    mask = pattern(dense.weight.shape, "float", torch.Generator().manual_seed(2))
    sparse = SparseLinear.from_dense(dense, mask, scale=scale, layout=layout)
    x = torch.randn(4, 5, dtype=dtype)
    y = sparse(x)
    assert y.dtype == dtype
    expected = F.linear(x.double(), dense.weight.double() * mask.double(), dense.bias.double())
    # m and w*m are rounded once each, the products summed in at least this precision.
    bound = 8 * torch.finfo(dtype).eps * (F.linear(x.double().abs(), (dense.weight * mask).double().abs()) + 1)
    assert (y.double() - expected).abs().le(bound).all()


BAD_MASKS = [
    (torch.ones(2, 2), r"from_dense: mask must have shape \[2, 3\] like weight, got \[2, 2\]"),
    (torch.ones(2, 3, dtype=torch.int64), "from_dense: mask must be bool or floating point, got torch.int64"),
    (torch.full((2, 3), float("nan")), "from_dense: mask must be finite in torch.float32"),
    (torch.full((2, 3), 1e-300, dtype=torch.float64), "from_dense: mask must not underflow in torch.float32"),
    ([[1, 1, 1]] * 2, "from_dense: mask must be a tensor, got list"),
]


@pytest.mark.parametrize(("mask", "message"), BAD_MASKS)
def test_bad_masks_are_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        SparseLinear.from_dense(nn.Linear(3, 2), mask, scale="keep")


def test_bad_layers_and_options_are_refused():
    mask = torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"from_dense: module must be an nn.Linear, got Conv2d"):
        SparseLinear.from_dense(nn.Conv2d(3, 2, 1), mask)
    with pytest.raises(ValueError, match="batch_size must be an integer >= 1, got 0"):
        SparseLinear.from_dense(nn.Linear(3, 2), mask, batch_size=0)
    with pytest.raises(ValueError, match="layout must be 'auto', 'masked' or 'csr', got 'coo'"):
        SparseLinear.from_dense(nn.Linear(3, 2), mask, layout="coo")
    with pytest.raises(ValueError, match="scale must be 'fold' or 'keep', got 'both'"):
        SparseLinear.from_dense(nn.Linear(3, 2), mask, scale="both")
    lazy = nn.LazyLinear(2)
    with pytest.raises(ValueError, match="module must be initialized, got a LazyLinear"):
        SparseLinear.from_dense(lazy, mask)
    parametrized = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    with pytest.raises(ValueError, match="must own a plain parameter 'weight'"):
        SparseLinear.from_dense(parametrized, mask)


def test_a_subclass_with_a_forward_of_its_own_is_refused():
    class Doubled(nn.Linear):
        def forward(self, input):
            return 2 * super().forward(input)

    with pytest.raises(ValueError, match=r"module must use nn.Linear's forward, got Doubled's own"):
        SparseLinear.from_dense(Doubled(3, 2), torch.ones(2, 3, dtype=torch.bool))
    patched = nn.Linear(3, 2)
    patched.forward = lambda input: input
    with pytest.raises(ValueError, match=r"module must use nn.Linear's forward, got Linear's own"):
        SparseLinear.from_dense(patched, torch.ones(2, 3, dtype=torch.bool))
