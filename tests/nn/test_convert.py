"""sparsify and densify change layers in place, keep every object, and refuse before they write."""

import copy
import functools

import pytest
import torch
import torch.nn.utils.prune
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparseprune.nn import SparseConv2d, SparseLinear, densify
from sparseprune.nn import sparsify as sparsify_in

sparsify = functools.partial(sparsify_in, layout="masked")  # test_csr.py has the other layout


def net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3)
    )


def masks_for(model: nn.Module, seed: int = 0, kind: str = "bool") -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    counts = {
        name: torch.randint(0, 3, p.shape, generator=generator) for name, p in model.named_parameters() if p.ndim > 1
    }
    return {name: c > 0 if kind == "bool" else c / 1.5 for name, c in counts.items()}


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return copy.deepcopy(model.state_dict())


def assert_unchanged(model: nn.Module, before: dict[str, torch.Tensor]) -> None:
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_sparsify_is_in_place_and_keeps_every_object():
    model = net()
    layers, parameters, masks = list(model), dict(model.named_parameters()), masks_for(model)
    model[0].register_forward_hook(lambda *_: None)
    assert sparsify(model, masks) is model
    assert [type(m) for m in model if isinstance(m, (nn.Linear, nn.Conv2d))] == [
        SparseConv2d,
        SparseLinear,
        SparseLinear,
    ]
    assert all(a is b for a, b in zip(model, layers, strict=True))
    assert all(p is parameters[name] for name, p in model.named_parameters())
    assert len(model[0]._forward_hooks) == 1
    assert all(parameters[name][~mask].eq(0).all() for name, mask in masks.items())


def test_an_optimizer_from_before_goes_on_training():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    masks = masks_for(model)
    model(torch.randn(4, 1, 4, 4)).square().sum().backward()
    sparsify(model, masks)
    before = model[4].weight.clone()
    optimizer.step()
    assert not torch.equal(model[4].weight, before)
    assert all(model.get_parameter(name)[~mask].eq(0).all() for name, mask in masks.items())


@pytest.mark.parametrize("scale", ["fold", "keep"])
@pytest.mark.parametrize("kind", ["bool", "float"])
def test_densify_returns_the_same_function(scale, kind):
    model = net().eval()
    masks, layers, parameters = masks_for(model, kind=kind), list(model), list(model.parameters())
    dense = copy.deepcopy(model)
    with torch.no_grad():
        for name, mask in masks.items():
            dense.get_parameter(name).mul_(mask)
    x = torch.randn(4, 1, 4, 4)
    sparsify(model, masks, scale=scale)
    torch.testing.assert_close(model(x), dense(x))
    assert densify(model) is model
    torch.testing.assert_close(model(x), dense(x))
    assert [type(m) for m in model] == [type(m) for m in dense]
    assert list(model.state_dict()) == list(dense.state_dict())
    assert all(a is b for a, b in zip(model, layers, strict=True))
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert all(model.get_parameter(name)[mask == 0].eq(0).all() for name, mask in masks.items())


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seeds=st.tuples(st.integers(0, 99), st.integers(0, 99)),
    kinds=st.tuples(st.sampled_from(["bool", "float"]), st.sampled_from(["bool", "float"])),
    scales=st.tuples(st.sampled_from(["fold", "keep"]), st.sampled_from(["fold", "keep"])),
)
def test_masks_compose(seeds, kinds, scales):
    """sparsify by a, then by b, is w*a*b: a pruned weight does not return."""
    model = nn.Linear(5, 4)
    weight = model.weight.detach().clone()
    first, second = (masks_for(model, seed, kind)["weight"] for seed, kind in zip(seeds, kinds, strict=True))
    sparsify(model, {"weight": first}, scale=scales[0])
    sparsify(model, {"weight": second}, scale=scales[1])
    torch.testing.assert_close(model.masked_weight(), weight * first * second)
    assert torch.equal(model.weight_mask != 0, (first != 0) & (second != 0))
    assert model.weight[model.weight_mask == 0].eq(0).all()


def test_a_single_layer_is_a_model():
    for layer, kind in ((nn.Linear(3, 2), SparseLinear), (nn.Conv2d(2, 2, 3), SparseConv2d)):
        dense = type(layer)
        assert sparsify(layer, masks_for(layer)) is layer and type(layer) is kind
        assert densify(layer) is layer and type(layer) is dense


def test_unnamed_layers_stay_dense():
    model = net()
    sparsify(model, {"4.weight": torch.ones(8, 16, dtype=torch.bool)})
    assert [type(model[i]) for i in (0, 4, 6)] == [nn.Conv2d, SparseLinear, nn.Linear]
    before = state(model)
    sparsify(model, {})
    assert_unchanged(model, before)


def test_the_masks_given_are_copied():
    model = net()
    masks = masks_for(model)
    kept = {name: mask.clone() for name, mask in masks.items()}
    sparsify(model, masks)
    for mask in masks.values():
        mask.fill_(True)
    assert torch.equal(model[0].weight_mask, kept["0.weight"])
    model[0].weight_mask.fill_(False)
    assert masks["0.weight"].all()


def test_a_shared_layer_stays_shared():
    layer = nn.Linear(4, 4)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    sparsify(model, {"0.weight": torch.eye(4, dtype=torch.bool)})
    assert model[0] is model[2] is layer and type(layer) is SparseLinear


@pytest.mark.parametrize("scale", ["fold", "keep"])
def test_layers_tied_to_one_weight_get_one_mask_and_it_counts_once(scale):
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    weight, mask = model[0].weight.detach().clone(), 2.0 * torch.eye(4)
    sparsify(model, {"0.weight": mask}, scale=scale)
    assert model[0].weight is model[2].weight
    for layer in (model[0], model[2]):
        assert type(layer) is SparseLinear
        torch.testing.assert_close(layer.masked_weight(), weight * mask)
    densify(model)
    assert model[0].weight is model[2].weight
    assert torch.equal(model[0].weight, weight * mask)


def test_layers_tied_by_hand_with_two_masks_cannot_be_densified():
    model = nn.Sequential(SparseLinear(4, 4), SparseLinear(4, 4))
    model[1].weight = model[0].weight
    model[1].weight_mask[0] = False
    before = state(model)
    with pytest.raises(ValueError, match=r"densify: '0' and '1' share a weight and must share a mask"):
        densify(model)
    assert_unchanged(model, before)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2)
        self.encoder = nn.TransformerEncoderLayer(4, 2, 8)
        self.embedding = nn.Embedding(6, 4)
        self.decoder = nn.Linear(4, 6)
        self.decoder.weight = self.embedding.weight
        self.free = nn.Linear(4, 6)


REFUSED = [
    ("nothing.weight", (4, 4), "masks must name parameters of the model, got 'nothing.weight'"),
    ("free.bias", (6,), "masks\\['free.bias'\\] must be the weight of an nn.Linear or nn.Conv2d only, got 'free.bias'"),
    ("encoder.norm1.weight", (4,), "only, got 'encoder.norm1.weight' of LayerNorm"),
    ("attention.out_proj.weight", (4, 4), "but nn.MultiheadAttention reads it without calling the layer"),
    ("encoder.self_attn.out_proj.weight", (4, 4), "but nn.MultiheadAttention reads it without calling the layer"),
    ("encoder.linear1.weight", (8, 4), "but nn.TransformerEncoderLayer's fast path reads it"),
    ("encoder.linear2.weight", (4, 8), "but nn.TransformerEncoderLayer's fast path reads it"),
    ("embedding.weight", (6, 4), "only, got 'embedding.weight' of Embedding"),
    ("decoder.weight", (6, 4), "only, got 'embedding.weight' of Embedding"),
    ("free.weight", (6, 5), "masks\\['free.weight'\\] must have shape \\[6, 4\\] like weight, got \\[6, 5\\]"),
]


@pytest.mark.parametrize(("name", "shape", "message"), REFUSED)
def test_bad_masks_are_refused_before_anything_changes(name, shape, message):
    model = Attention()
    before = state(model)
    good = {} if name == "free.weight" else {"free.weight": torch.zeros(6, 4, dtype=torch.bool)}
    with pytest.raises(ValueError, match=f"sparsify: .*{message}"):
        sparsify(model, {**good, name: torch.ones(shape, dtype=torch.bool)})
    assert_unchanged(model, before)
    assert type(model.free) is nn.Linear


def test_other_bad_input_is_refused():
    model = net()
    before = state(model)
    with pytest.raises(ValueError, match="sparsify: masks must map parameter names to tensors, got Tensor"):
        sparsify(model, torch.ones(3))
    with pytest.raises(ValueError, match=r"sparsify: masks\['4.weight'\] must be bool or floating point"):
        sparsify(model, {"4.weight": torch.ones(8, 16, dtype=torch.uint8)})
    with pytest.raises(ValueError, match="sparsify: layout must be 'auto', 'masked' or 'csr', got 'coo'"):
        sparsify(model, masks_for(model), layout="coo")
    with pytest.raises(ValueError, match="sparsify: batch_size must be an integer >= 1, got 0"):
        sparsify(model, masks_for(model), batch_size=0)
    with pytest.raises(ValueError, match="sparsify: scale must be 'fold' or 'keep', got 'rescale'"):
        sparsify(model, masks_for(model), scale="rescale")
    pruned = nn.utils.prune.l1_unstructured(nn.Linear(4, 4), "weight", 0.5)
    with pytest.raises(ValueError, match="masks must name parameters of the model, got 'weight'"):
        sparsify(pruned, {"weight": torch.ones(4, 4)})
    assert_unchanged(model, before)


def test_a_shared_parameter_is_named_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    masks = {"0.weight": torch.eye(4), "1.weight": torch.eye(4)}
    with pytest.raises(ValueError, match=r"must name a shared parameter once, got '0.weight' and '1.weight'"):
        sparsify(model, masks)
    assert type(model[0]) is nn.Linear
