"""Checkpoints of every layout into every layout, and csr models through copies, files, dtypes and devices."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from sparseprune.nn import SparseLinear, densify, sparsify

SHAPES = {"0.weight": (3, 1, 3, 3), "3.weight": (4, 12)}


def dense_net(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4))


def some_masks(seed: int = 0, kind: str = "bool") -> dict[str, torch.Tensor]:
    """Masks of 13 and 20 kept weights, whatever the seed."""
    generator = torch.Generator().manual_seed(seed)
    masks = {}
    for (name, shape), kept in zip(SHAPES.items(), (13, 20), strict=True):
        size = torch.Size(shape).numel()
        flat = torch.zeros(size)
        flat[torch.randperm(size, generator=generator)[:kept]] = 1 + torch.rand(kept, generator=generator)
        masks[name] = flat.view(shape) != 0 if kind == "bool" else flat.view(shape)
    return masks


def net(layout: str, seed: int = 0, kind: str = "bool") -> nn.Sequential:
    return sparsify(dense_net(seed), some_masks(seed, kind), scale="keep", layout=layout)


def x(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(9)).to(dtype)


def same(a: nn.Module, b: nn.Module) -> bool:
    """Equal in all that they hold, what is in no checkpoint included."""
    left, right = (dict([*m.named_parameters(), *m.named_buffers()]) for m in (a, b))
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
    model = net("csr", kind=kind)
    twin = way(model)
    assert same(model, twin) and torch.equal(model(x()), twin(x()))
    assert twin[3].layout == "csr" and twin.state_dict().keys() == model.state_dict().keys()
    with torch.no_grad():
        twin[3].values.zero_()
        twin[3].columns.zero_()
    assert model[3].values.ne(0).all() and model[3].columns.any()


@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_to_dtype(kind, dtype):
    model, original = net("csr", kind=kind).to(dtype, memory_format=torch.channels_last), net("csr", kind=kind)
    assert model[3].values.dtype == dtype and model[3].columns.dtype == torch.int32
    assert torch.equal(model[3].columns, original[3].columns)
    assert model(x(dtype)).dtype == dtype
    torch.testing.assert_close(model(x(dtype)).float(), original(x()), rtol=0.05, atol=0.05)
    assert torch.equal(net("csr").half()[3].values, original[3].values.half())


def test_meta_to_empty_and_share_memory():
    model = net("csr")
    state = model.state_dict()
    meta = copy.deepcopy(model).to("meta")
    assert "density=0.4167, layout=csr" in repr(meta[3])
    meta.load_state_dict(state, assign=True)
    assert same(meta, model) and torch.equal(meta(x()), model(x()))
    empty = copy.deepcopy(model).to("meta").to_empty(device="cpu")
    empty.load_state_dict(state)
    assert same(empty, model) and torch.equal(empty(x()), model(x()))
    assert model.share_memory()[3].values.is_shared() and model[3].order.is_shared()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda():
    cpu = net("csr")
    moved = copy.deepcopy(cpu).cuda()
    torch.testing.assert_close(moved(x().cuda()).cpu(), cpu(x()), rtol=1e-2, atol=1e-2)
    moved.load_state_dict(net("csr", 1).state_dict())
    assert same(moved.cpu(), net("csr", 1))


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("kinds", [("bool", "bool"), ("bool", "float"), ("float", "bool"), ("float", "float")])
@pytest.mark.parametrize("layouts", [("csr", "csr"), ("csr", "masked"), ("masked", "csr")])
def test_a_sparse_checkpoint_loads_its_pattern(layouts, kinds, assign):
    source, target, wanted = net(layouts[0], 1, kinds[0]), net(layouts[1], 2, kinds[1]), net(layouts[1], 1, kinds[0])
    saved = copy.deepcopy(source.state_dict())
    parameters = list(target.parameters())
    target.load_state_dict(saved, assign=assign)
    assert same(target, wanted) and torch.equal(target(x()), wanted(x()))
    assert target.state_dict().keys() == wanted.state_dict().keys()
    assert assign or all(a is b for a, b in zip(target.parameters(), parameters, strict=True))
    assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in target.parameters())
    assert list(saved) == list(source.state_dict())
    assert all(torch.equal(saved[k], v) for k, v in source.state_dict().items())
    target(x()).sum().backward()


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("kind", ["bool", "float"])
def test_a_dense_checkpoint_loads_under_the_pattern_that_is_here(kind, assign):
    model, checkpoint = net("csr", 1, kind), dense_net(2).state_dict()
    before = copy.deepcopy(checkpoint)
    model.load_state_dict(checkpoint, assign=assign)
    wanted = sparsify(dense_net(2), some_masks(1, kind), scale="keep", layout="csr")
    assert same(model, wanted)
    assert all(torch.equal(before[k], v) for k, v in checkpoint.items())


def test_a_densified_checkpoint_is_the_way_back():
    model, target = net("csr"), dense_net(3)
    expected = model(x())
    target.load_state_dict(densify(model).state_dict())
    torch.testing.assert_close(target(x()), expected)


def test_a_csr_checkpoint_loads_into_fresh_layers_and_not_into_dense_ones():
    source, target = net("csr", 1), SparseLinear(12, 4)
    target.load_state_dict({k[2:]: v for k, v in source.state_dict().items() if k.startswith("3.")})
    assert torch.equal(target.weight, source[3].weight) and torch.equal(target.weight_mask, some_masks(1)["3.weight"])
    with pytest.raises(RuntimeError, match="Unexpected key"):
        dense_net().load_state_dict(source.state_dict())


def broken(**changes) -> dict[str, torch.Tensor]:
    state = copy.deepcopy(net("csr", 1).state_dict())
    return {**state, **{f"3.{name}": change(state[f"3.{name}"]) for name, change in changes.items()}}


NOT_LOADED = [
    (lambda: sparsify(dense_net(1), {n: torch.ones(s) for n, s in SHAPES.items()}, layout="csr").state_dict(),
     r"size mismatch for 3.values: the checkpoint keeps 48 weights, the layer 20; a csr layer takes another pattern"),
    (lambda: sparsify(dense_net(1), {n: torch.ones(s) for n, s in SHAPES.items()}, layout="masked").state_dict(),
     r"size mismatch for 3.weight_mask: the checkpoint keeps 48 weights, the layer 20"),
    (lambda: {**dense_net().state_dict(), "3.weight": torch.zeros(4, 13)},
     r"size mismatch for 3.weight: the checkpoint has \[4, 13\], the layer \[4, 12\]"),
    (lambda: broken(columns=lambda c: c + 1), r"pattern of 3.values does not fit .*columns must be in 0 ... 11"),
    (lambda: broken(columns=lambda c: c.flip(0)), "does not fit a weight .*columns must"),
    (lambda: broken(row_offsets=lambda r: r.flip(0)), "row_offsets must rise from 0 to 20"),
    (lambda: broken(row_offsets=lambda r: r[1:]), "row_offsets must have 5 entries, got 4"),
    (lambda: broken(columns=lambda c: c.float()), "columns must be a vector of integers"),
    (lambda: broken(values=lambda v: v[1:]), "size mismatch for 3.values: the checkpoint keeps 19 weights"),
]  # fmt: skip


@pytest.mark.parametrize(("state", "message"), NOT_LOADED)
def test_what_does_not_fit_is_an_error_and_writes_nothing_into_the_layer(state, message):
    model = net("csr", 2)
    before = copy.deepcopy(model[3])
    with pytest.raises(RuntimeError, match=message):
        model.load_state_dict(state())
    assert same(model[3], before)


def test_a_broken_csr_checkpoint_is_refused_by_masked_layers_too():
    for change in ({"columns": lambda c: c + 1}, {"values": lambda v: v[1:]}):
        model = net("masked", 2)
        before = copy.deepcopy(model[3])
        with pytest.raises(RuntimeError, match=r"3.values (does not fit|must have the 20 entries)"):
            model.load_state_dict(broken(**change))
        assert same(model[3], before)


def test_missing_keys_are_told():
    state = net("csr", 1).state_dict()
    del state["3.columns"]
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"3.columns\""):
        net("csr", 2).load_state_dict(state)


def test_safetensors(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    source, target = net("csr", 1, "float"), net("csr", 2)
    safetensors.save_model(source, str(tmp_path / "model.safetensors"))
    target.load_state_dict(safetensors.load_file(tmp_path / "model.safetensors"))
    assert same(source, target)
    safetensors.load_model(target, str(tmp_path / "model.safetensors"))


def test_tied_layers_load_one_pattern():
    def tied(seed):
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        model[1].weight = model[0].weight
        mask = torch.zeros(16)
        mask[torch.randperm(16, generator=torch.Generator().manual_seed(seed))[:5]] = 1
        return sparsify(model, {"0.weight": mask.view(4, 4)}, layout="csr")

    source, target = tied(0), tied(1)
    target.load_state_dict(source.state_dict())
    assert same(source, target) and target[0].values is target[1].values


def test_optimizer_state_comes_back_with_the_model():
    models = [net("csr"), net("csr")]
    steps = [torch.optim.Adam(m.parameters(), lr=0.1) for m in models]
    models[0](x()).square().sum().backward()
    steps[0].step()
    models[1].load_state_dict(models[0].state_dict())
    steps[1].load_state_dict(copy.deepcopy(steps[0].state_dict()))
    for model, step in zip(models, steps, strict=True):
        step.zero_grad()
        model(x()).square().sum().backward()
        step.step()
    assert same(*models)
