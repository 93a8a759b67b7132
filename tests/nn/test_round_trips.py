"""Sparse models survive copies, files and dtypes."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from sparseprune.nn import SparseConv2d, SparseLinear, densify, sparsify


def dense_net(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4))


def some_masks(seed: int = 0, kind: str = "bool") -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"0.weight": (3, 1, 3, 3), "3.weight": (4, 12)}
    counts = {name: torch.randint(0, 3, shape, generator=generator) for name, shape in shapes.items()}
    return {name: c > 0 if kind == "bool" else c / 1.5 for name, c in counts.items()}


def sparse_net(seed: int = 0, kind: str = "bool") -> nn.Sequential:
    return sparsify(dense_net(seed), some_masks(seed, kind), scale="keep")


def same(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return list(left) == list(right) and all(
        torch.equal(left[k], right[k]) and left[k].dtype == right[k].dtype for k in left
    )


def through_pickle(model: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(model))


def through_torch_save(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize("way", [copy.deepcopy, through_pickle, through_torch_save])
def test_copies(kind, way):
    model = sparse_net(kind=kind)
    twin = way(model)
    x = torch.randn(2, 1, 4, 4)
    assert same(model, twin) and torch.equal(model(x), twin(x))
    assert [type(m) for m in twin] == [SparseConv2d, nn.ReLU, nn.Flatten, SparseLinear]
    twin[3].weight_mask.zero_()
    assert model[3].weight_mask.any()


@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_to_dtype_and_channels_last(kind, dtype):
    model = sparse_net(kind=kind).to(dtype, memory_format=torch.channels_last)
    pattern = some_masks(kind=kind)["3.weight"] != 0
    assert model[3].weight_mask.dtype == (torch.bool if kind == "bool" else dtype)
    assert torch.equal(model[3].weight_mask != 0, pattern)
    assert model[0].weight_mask.is_contiguous(memory_format=torch.channels_last)
    assert model(torch.randn(2, 1, 4, 4, dtype=dtype)).dtype == dtype


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["bool", "float"])
def test_on_cuda(kind):
    x, cpu = torch.randn(2, 1, 4, 4), sparse_net(kind=kind)
    moved = copy.deepcopy(cpu).cuda()
    made = sparsify(dense_net().cuda(), some_masks(kind=kind), scale="keep")
    for model in (moved, made):
        assert model[3].weight_mask.is_cuda
        torch.testing.assert_close(model(x.cuda()).cpu(), cpu(x), rtol=1e-2, atol=1e-2)
    assert same(moved.cpu(), cpu)


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("kinds", [("bool", "bool"), ("bool", "float"), ("float", "bool"), ("float", "float")])
def test_a_sparse_checkpoint_loads_its_pattern(kinds, assign):
    source, target = sparse_net(1, kinds[0]), sparse_net(2, kinds[1])
    saved = copy.deepcopy(source.state_dict())
    target.load_state_dict(saved, assign=assign)
    assert same(target, source)
    assert all(torch.equal(saved[k], v) for k, v in source.state_dict().items())


def test_a_sparse_checkpoint_loads_into_fresh_layers():
    source = sparse_net(1)
    target = nn.Sequential(SparseConv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), SparseLinear(12, 4))
    target.load_state_dict(source.state_dict())
    assert same(target, source)


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("kind", ["bool", "float"])
def test_a_dense_checkpoint_loads_under_the_pattern_that_is_here(kind, assign):
    model, masks, checkpoint = sparse_net(1, kind), some_masks(1, kind), dense_net(2).state_dict()
    before = copy.deepcopy(checkpoint)
    model.load_state_dict(checkpoint, assign=assign)
    for name, mask in masks.items():
        assert torch.equal(model.get_buffer(f"{name}_mask"), mask)
        assert torch.equal(model.get_parameter(name), torch.where(mask != 0, checkpoint[name], 0))
        assert isinstance(model.get_parameter(name), nn.Parameter)
    assert all(torch.equal(before[k], v) for k, v in checkpoint.items())


def test_a_densified_checkpoint_is_the_way_back():
    model, target = sparse_net(), dense_net(3)
    expected = model(torch.ones(1, 1, 4, 4))
    target.load_state_dict(densify(model).state_dict())
    torch.testing.assert_close(target(torch.ones(1, 1, 4, 4)), expected)


def test_a_checkpoint_of_another_size_is_refused():
    layer = SparseLinear(4, 3)
    with pytest.raises(RuntimeError, match=r"size mismatch for weight_mask: .*\[3, 5\].*\[3, 4\]"):
        layer.load_state_dict(SparseLinear(5, 3).state_dict())
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"weight\""):
        layer.load_state_dict({"bias": torch.zeros(3)})
    assert layer.weight_mask.all()


def test_safetensors(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    source, target = sparse_net(1, "float"), sparse_net(2)
    safetensors.save_model(source, str(tmp_path / "model.safetensors"))
    target.load_state_dict(safetensors.load_file(tmp_path / "model.safetensors"))
    assert same(source, target)
