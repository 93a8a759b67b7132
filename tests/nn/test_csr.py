"""The csr layout: what changes in a layer and what stays, its read-only weight, shared weights, optimizer state."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import sparseprune as sp
from sparseprune import models
from sparseprune.nn import SparseConv2d, SparseLinear, densify, layouts, sparsify


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, groups=2),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Flatten(),
        nn.Linear(16, 8),
        nn.Linear(8, 3),
    )


def masks_for(model: nn.Module, seed: int = 0, kind: str = "bool") -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    counts = {n: torch.randint(0, 3, p.shape, generator=generator) for n, p in model.named_parameters() if p.ndim > 1}
    return {name: c > 0 if kind == "bool" else c / 1.5 for name, c in counts.items()}


def test_layers_stay_the_same_objects_with_hooks_flags_and_places_of_parameters():
    model = net()
    layers, masks, weight = list(model), masks_for(net()), model[4].weight.detach().clone()
    model[4].register_forward_hook(lambda *_: None)
    model[4].eval()
    model[5].weight.requires_grad_(False)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    assert sparsify(model, masks, layout="csr") is model
    assert all(a is b for a, b in zip(model, layers, strict=True))
    assert [type(model[i]) for i in (0, 4, 5)] == [SparseConv2d, SparseLinear, SparseLinear]
    assert isinstance(model[0], nn.Conv2d) and isinstance(model[4], nn.Linear)
    assert len(model[4]._forward_hooks) == 1 and not model[4].training
    assert not model[5].values.requires_grad and model[5].bias.requires_grad
    assert model[0].values.grad.eq(1).all() and len(model[0].values.grad) == masks["0.weight"].sum()
    assert [n for n, _ in model.named_parameters()] == [
        *("0.values", "0.bias", "1.weight", "1.bias", "4.values", "4.bias", "5.values", "5.bias")
    ]
    assert torch.equal(model[4].values, weight[masks["4.weight"]])
    assert model[4].layout == "csr" and model[4].density == masks["4.weight"].sum() / 128
    assert all(model[4].get_buffer(name).dtype == torch.int32 for name in ("row_offsets", "columns", "rows", "order"))
    assert not {"4.rows", "4.order", "4.column_offsets"} & model.state_dict().keys()


@pytest.mark.parametrize("scale", ["fold", "keep"])
@pytest.mark.parametrize("kind", ["bool", "float"])
def test_from_one_layout_to_the_other_and_back_is_the_same_function(scale, kind):
    model = net().double().eval()
    masks, x = masks_for(model, kind=kind), torch.randn(4, 2, 4, 4).double()
    masked = sparsify(copy.deepcopy(model), masks, scale=scale, layout="masked")
    expected, state = masked(x), copy.deepcopy(masked.state_dict())
    everything = {name: torch.ones_like(mask, dtype=torch.bool) for name, mask in masks.items()}
    csr = sparsify(masked, everything, layout="csr")
    assert csr is masked and csr[4].layout == "csr" and ("scale" in csr[4]._buffers) == (kind + scale == "floatkeep")
    torch.testing.assert_close(csr(x), expected)
    torch.testing.assert_close(csr[4].masked_weight(), model[4].weight * masks["4.weight"])
    twin = csr[4].to_dense()
    assert type(twin) is nn.Linear and torch.equal(twin.weight, csr[4].masked_weight()) and csr[4].layout == "csr"
    sparsify(csr, everything, layout="masked")
    assert all(torch.equal(value, state[name]) for name, value in csr.state_dict().items())
    assert list(csr.state_dict()) == list(state)
    densify(sparsify(csr, everything, layout="csr"))
    torch.testing.assert_close(csr(x), expected)
    assert list(csr.state_dict()) == list(model.state_dict()) and not csr[4]._non_persistent_buffers_set


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seeds=st.tuples(st.integers(0, 99), st.integers(0, 99)),
    kinds=st.tuples(st.sampled_from(["bool", "float"]), st.sampled_from(["bool", "float"])),
    scales=st.tuples(st.sampled_from(["fold", "keep"]), st.sampled_from(["fold", "keep"])),
)
def test_masks_compose(seeds, kinds, scales):
    model = nn.Linear(5, 4)
    weight = model.weight.detach().clone()
    first, second = (masks_for(model, seed, kind)["weight"] for seed, kind in zip(seeds, kinds, strict=True))
    sparsify(model, {"weight": first}, scale=scales[0], layout="csr")
    sparsify(model, {"weight": second}, scale=scales[1], layout="csr")
    torch.testing.assert_close(model.masked_weight(), weight * first * second)
    assert len(model.values) == ((first != 0) & (second != 0)).sum()


@pytest.mark.parametrize("shape", [(4, 3), (1, 1), (0, 3)])
def test_empty_masks_and_empty_batches(shape):
    layer = nn.Linear(shape[1], max(1, shape[0]))
    sparsify(layer, {"weight": torch.zeros(layer.weight.shape, dtype=torch.bool)}, layout="csr")
    x = torch.randn(shape, requires_grad=True)
    y = layer(x)
    assert torch.equal(y, layer.bias.expand_as(y))
    y.sum().backward()
    assert x.grad.eq(0).all() and layer.values.grad.shape == (0,)
    conv = sparsify(nn.Conv2d(2, 3, 3), {"weight": torch.zeros(3, 2, 3, 3)}, layout="csr")
    assert conv(torch.randn(0, 2, 5, 5)).shape == (0, 3, 3, 3) and conv.density == 0


def test_the_weight_is_a_differentiable_view_that_refuses_writes():
    layer = SparseLinear.from_dense(nn.Linear(4, 3), torch.tril(torch.ones(3, 4)), layout="csr")
    layer.weight.square().sum().backward()
    torch.testing.assert_close(layer.values.grad, 2 * layer.values.detach())
    assert type(layer.weight * 2) is type(layer.weight.sum(0)) is torch.Tensor
    assert torch.equal(torch.stack(list(layer.weight)), layer.weight)
    assert nn.functional.linear(torch.ones(2, 2, 4), layer.weight).relu_().shape == (2, 2, 3), "not read-only"
    assert layer.weight.shape == (3, 4)
    before = layer.weight.detach().clone()
    message = "weight of a layer in the csr layout is read-only"
    with torch.no_grad():
        for write in (
            nn.init.kaiming_normal_,
            lambda w: w.mul_(2),
            lambda w: w.data.zero_(),
            lambda w: w.detach().copy_(before),
            lambda w: w.__setitem__(0, 1.0),
            lambda w: w.__iadd__(1),
            lambda w: torch.mul(before, 2, out=w),
            lambda w: torch._foreach_mul_([w], 2.0),
            lambda w: w[0].zero_(),
            lambda w: w.t().mul_(2),
            lambda w: [row.zero_() for row in w],
            lambda w: w.data[0].zero_(),
            lambda w: setattr(w, "data", before),
        ):
            with pytest.raises(RuntimeError, match=message):
                write(layer.weight)
    for value in (before, nn.Parameter(before)):
        with pytest.raises(AttributeError, match="SparseLinear: weight is read-only in the csr layout; write to `val"):
            layer.weight = value
    assert torch.equal(layer.weight, before)


def test_reset_parameters_draws_as_the_dense_layer_does():
    for dense, kind in ((nn.Linear(6, 4), SparseLinear), (nn.Conv2d(4, 4, 3, groups=2), SparseConv2d)):
        mask = torch.rand(dense.weight.shape) < 0.4
        layer = kind.from_dense(dense, mask, layout="csr")
        torch.manual_seed(3)
        dense.reset_parameters()
        torch.manual_seed(3)
        layer.reset_parameters()
        assert torch.equal(layer.weight, dense.weight * mask) and torch.equal(layer.bias, dense.bias)
        assert list(layer._parameters) == ["values", "bias"] and layer.values.requires_grad


def test_tied_weights_share_one_vector_and_come_back_tied():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    weight, mask = model[0].weight.detach().clone(), 2.0 * torch.eye(4)
    sparsify(model, {"0.weight": mask}, scale="keep", layout="csr")
    assert model[0].values is model[2].values and model[0].columns is model[2].columns
    assert len(list(model.parameters())) == 3
    twin = copy.deepcopy(model)
    assert twin[0].values is twin[2].values is not model[0].values
    with pytest.raises(ValueError, match=r"must name a shared parameter once, got '0.weight' and '2.weight'"):
        sparsify(model, {"0.weight": mask, "2.weight": mask})
    sparsify(model, {"2.weight": torch.ones(4, 4)}, layout="csr")
    densify(model)
    assert model[0].weight is model[2].weight and torch.equal(model[0].weight, weight * mask)


def test_tied_convolutions_of_different_groups():
    model = nn.ModuleList([nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, groups=2)])
    model[1].weight = model[0].weight
    dense = copy.deepcopy(model).double()
    mask = torch.rand(4, 2, 3, 3) < 0.5
    sparsify(model.double(), {"0.weight": mask}, layout="csr")
    with torch.no_grad():
        dense[0].weight.mul_(mask)
    for layer, twin, channels in zip(model, dense, (2, 4), strict=True):
        x = torch.randn(3, channels, 5, 5, dtype=torch.float64, requires_grad=True)
        torch.testing.assert_close(layer(x), twin(x))
        grads = [torch.autograd.grad(f(x).square().sum(), x)[0] for f in (layer, twin)]
        torch.testing.assert_close(*grads)


def test_what_cannot_be_csr_is_refused_before_anything_changes_and_masked_under_auto():
    for weight in (torch.empty(2, 3, device="meta"), torch.zeros(2, 3, dtype=torch.complex64)):
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
        model[1].weight = nn.Parameter(weight)
        masks = {"0.weight": torch.eye(3), "1.weight": torch.ones(2, 3, dtype=torch.bool)}
        with pytest.raises(
            ValueError, match=r"sparsify: '1.weight' and its mask must be plain real tensors for the csr"
        ):
            sparsify(model, masks, layout="csr")
        assert type(model[0]) is nn.Linear
        assert sparsify(model, masks, layout="auto")[1].layout == "masked"
    with pytest.raises(ValueError, match="from_dense: weight and mask must be plain real tensors for the csr layout"):
        SparseLinear.from_dense(nn.Linear(3, 2, device="meta"), torch.ones(2, 3, device="meta"), layout="csr")


def test_prune_says_what_to_do_with_a_csr_model():
    model = sparsify(net(), {"4.weight": torch.ones(8, 16)}, layout="csr")
    with pytest.raises(
        ValueError, match=r"prunable: layers must hold their weights, got '4' in the csr layout: densify"
    ):
        sp.prune(model, 0.5)
    assert len(sp.prune(densify(model), 0.5)) == 3


def test_inputs_of_a_wrong_dtype_or_shape_raise_as_torch_does():
    layer = SparseLinear.from_dense(nn.Linear(4, 3), torch.ones(3, 4), layout="csr")
    conv = SparseConv2d.from_dense(nn.Conv2d(2, 3, 3), torch.ones(3, 2, 3, 3), layout="csr")
    reflecting = nn.Conv2d(2, 3, 3, padding=4, padding_mode="reflect")
    reflecting = SparseConv2d.from_dense(reflecting, torch.ones(3, 2, 3, 3), layout="csr")
    for module, x, message in (
        (layer, torch.zeros(2, 4).double(), "dense must have the dtype of values, torch.float32, got torch.float64"),
        (layer, torch.zeros(2, 5), r"dense must have shape \[4, any\], got \[5, 2\]"),
        (conv, torch.zeros(2, 3, 5, 5), r"x must have shape \[any, 2, any, any\]"),
        (conv, torch.zeros(2, 2, 2, 2), "at least as large as the kernel"),
        (conv, torch.zeros(2, 5), r"input must have shape \[B, C, H, W\] or \[C, H, W\], got \[2, 5\]"),
        (reflecting, torch.zeros(2, 2, 4, 4), "reflect padding must be at most 3 here, got 4"),
    ):
        with pytest.raises(ValueError, match=message):
            module(x)
        with pytest.raises((ValueError, RuntimeError)):
            module.to_dense()(x)


def test_in_place_operations_on_the_output():
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(27, 4), nn.ReLU(inplace=True)
    )
    model, x = model.double(), torch.randn(2, 2, 5, 5).double()
    expected = model(x)
    gradient = torch.autograd.grad(expected.sum(), model[0].weight)[0]
    sparsify(model, {name: torch.ones_like(p) for name, p in model.named_parameters() if p.ndim > 1}, layout="csr")
    y = model(x)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), model[0].values)[0], gradient.flatten())


@pytest.mark.parametrize("name", ["lenet-300-100", "resnet20"])
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)])
def test_optimizer_state_of_a_5_percent_model_is_under_8_percent(name, optimizer):
    sizes = []
    for density in (None, 0.05):
        model = models.build(name, seed=0, **({"input_shape": (3, 8, 8)} if name == "resnet20" else {}))
        if density is not None:
            sparsify(model, sp.prune(model, density), layout="csr")
        step = optimizer(model.parameters())
        model(torch.randn(2, *model.input_shape)).square().sum().backward()
        step.step()
        state = [t for entry in step.state.values() for t in entry.values() if isinstance(t, torch.Tensor) and t.ndim]
        sizes.append(sum(t.numel() * t.element_size() for t in state))
    assert sizes[1] < 0.08 * sizes[0]


def test_layouts_tells_each_layers():
    model = sparsify(net(), masks_for(net()), layout="csr")
    found = layouts(model)
    assert list(found) == ["0", "4", "5"] and found["4"].layout == "csr" and not found["4"].auto
    assert found["4"].shape == (8, 16) and found["4"].density == model[4].density
    assert [line.split() for line in str(found).splitlines()][:2] == [
        ["layer", "shape", "density", "layout", "chosen", "by"],
        ["0", "4x1x3x3", f"{model[0].density:.4g}", "csr", "caller"],
    ]
