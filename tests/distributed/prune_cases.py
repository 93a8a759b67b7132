"""What every rank of a real process group checks of sparseprune.prune; worker.py runs it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

import sparseprune as sp


class Net(nn.Module):
    """A convolution with batch norm, a linear layer used twice, and a first row too short for four ranks."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.conv = nn.Conv2d(1, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.shared = nn.Linear(12, 12)
        self.up = nn.Linear(12, 40)
        self.down = nn.Linear(40, 12)
        self.head = nn.Linear(12, 4)
        for p in self.parameters():
            p.data.normal_(std=0.4, generator=generator)  # ProsPr's steps of lr .5 must not diverge

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.conv(x)).relu().flatten(1)
        x = self.shared(self.shared(x).relu())
        return self.head(self.down(self.up(x).relu()) + x)


def batches() -> list[Any]:
    generator = torch.Generator().manual_seed(7)
    return [(torch.randn(8, 1, 4, 4, generator=generator), torch.arange(8) % 4) for _ in range(2)]


def prune(model: nn.Module, density: float = 0.3, **options: Any) -> sp.Masks:
    return sp.prune(model, density, data=batches(), train=lambda model, *steps: None, seed=5, **options)


def plain() -> nn.Module:
    return Net()


def sharded() -> nn.Module:
    model = Net()
    for layer in (model.conv, model.shared, model.up, model.down):
        fully_shard(layer)
    return fully_shard(model)


def hybrid() -> nn.Module:
    size = dist.get_world_size()
    mesh = init_device_mesh("cpu", (2, size // 2), mesh_dim_names=("copies", "shards"))
    model = Net()
    fully_shard([model.up, model.down], mesh=mesh)
    return fully_shard(model, mesh=mesh)


def two_dimensional() -> nn.Module:
    """Tensor parallel in two layers, FSDP2 over all: strided shards, and parameters on a part of the mesh."""
    size = dist.get_world_size()
    mesh = init_device_mesh("cpu", (size // 2, 2), mesh_dim_names=("dp", "tp"))
    model = Net()
    parallelize_module(model, mesh["tp"], {"up": ColwiseParallel(), "down": RowwiseParallel()})
    for layer in (model.up, model.down):
        fully_shard(layer, mesh=mesh["dp"])
    return fully_shard(model, mesh=mesh["dp"])


def tensor_parallel() -> nn.Module:
    """Only two layers are spread; the others are plain on every rank."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    return parallelize_module(Net(), mesh, {"up": ColwiseParallel(), "down": RowwiseParallel()})


SPREAD = [sharded, hybrid, two_dimensional]


def check(masks: sp.Masks, expected: sp.Masks, model: nn.Module) -> None:
    parameters = dict(model.named_parameters())
    assert list(masks) == list(expected) and masks.groups == expected.groups
    for name, mask in masks.items():
        assert isinstance(mask, DTensor) and mask.placements == parameters[name].placements
        assert torch.equal(mask.full_tensor(), expected[name]), name
    assert masks == expected and masks.full() == expected and not isinstance(masks.full()["up.weight"], DTensor)
    assert (masks.kept, masks.total, masks.collapsed) == (expected.kept, expected.total, expected.collapsed)
    assert str(masks.report()) == str(expected.report())


def quick(score: str) -> dict[str, int]:
    """A few iterations where the default is many."""
    return {"iterations": 4} if sp.scores.get(score).iterations > 4 else {}


def case_data_parallel() -> None:
    for score in sp.scores.names():
        model = DistributedDataParallel(plain())
        masks = prune(model, score=score, **quick(score))
        assert list(masks) == [f"{name}.weight" for name in ("conv", "shared", "up", "down", "head")]
        assert masks == prune(plain(), score=score, **quick(score))
    assert prune(DistributedDataParallel(plain()), modules=["up"]) == prune(plain(), modules=["up"])


def case_every_score_on_every_kind_of_shards() -> None:
    for score in sp.scores.names():
        expected = prune(plain(), score=score, **quick(score))
        for make in SPREAD:
            model = make()
            before = [p.to_local().clone() for p in model.parameters()]
            check(prune(model, score=score, **quick(score)), expected, model)
            for p, b in zip(model.parameters(), before, strict=True):
                assert torch.equal(p.to_local(), b)


def case_all_ranks_save_to_one_path() -> None:
    path: list[Any] = [tempfile.mkdtemp() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(path)
    file = Path(path[0], "masks.safetensors")
    os.getpid, getpid = (lambda: 7), os.getpid  # as in containers
    try:
        masks = prune(sharded())
        for _ in range(5):
            masks.save(file)
            assert sp.Masks.load(file) == masks.full()
    finally:
        os.getpid = getpid
    dist.barrier()
    assert list(file.parent.iterdir()) == [file]
    dist.barrier()
    if dist.get_rank() == 0:
        shutil.rmtree(file.parent)


def case_every_selector() -> None:
    model = two_dimensional()
    for select in sp.select.names():
        for options in ({}, {"scope": "layer", "score": "snip"}):
            check(prune(model, select=select, **options), prune(plain(), select=select, **options), model)


def case_iterations_and_distributions() -> None:
    model = sharded()
    for options in (
        {"score": "snip", "iterations": 3},
        {"iterations": 3, "schedule": "linear"},
        {"distribution": "erk"},
        {"score": "grasp", "iterations": 2, "select": "priority"},
        {"modules": ["up", "head"], "score": "synflow", "iterations": 2},
        {"score": "random", "iterations": 2, "density": 0.05},
    ):
        check(prune(model, **options), prune(plain(), **options), model)


def case_after_a_training_step() -> None:
    models = [plain(), sharded()]
    for model in models:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for x, y in batches():
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        model(x)  # leaves the parameters of the root unsharded
    alone, spread = models
    for p, q in zip(alone.parameters(), prune_free(spread), strict=True):
        p.data.copy_(q)  # sums of gradients round differently
    for b, c in zip(alone.buffers(), spread.buffers(), strict=True):
        b.copy_(c)
    check(prune(spread, score="snip"), prune(alone, score="snip"), spread)
    out = spread(x)
    out.sum().backward()  # it still trains
    assert torch.allclose(out, alone(x), atol=1e-5)


def prune_free(model: nn.Module) -> list[torch.Tensor]:
    for module in model.modules():
        if hasattr(module, "reshard"):
            module.reshard()
    return [p.full_tensor() for p in model.parameters()]


def case_mixed_precision_scores_the_stored_parameters() -> None:
    model = fully_shard(plain(), mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))
    check(prune(model, score="snip"), prune(plain(), score="snip"), model)


def case_partly_spread() -> None:
    for score in ("magnitude", "snip"):
        masks, expected = prune(tensor_parallel(), score=score), prune(plain(), score=score)
        assert isinstance(masks["up.weight"], DTensor) and not isinstance(masks["head.weight"], DTensor)
        assert masks == expected and masks.kept == expected.kept
    only = prune(tensor_parallel(), modules=["head"])
    assert only == prune(plain(), modules=["head"])


def case_errors_are_the_same_everywhere() -> None:
    def error_of(model: nn.Module, **options: Any) -> str:
        try:
            prune(model, **options)
        except ValueError as error:
            return str(error)
        raise AssertionError("no error")

    def everywhere(text: str) -> str:
        texts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(texts, text)
        assert len(set(texts)) == 1, texts
        return text

    model = sharded()
    down = model.down.weight
    if dist.get_rank() == 1:
        down.detach().to_local()[1, 2] = torch.nan
    assert "weights must be finite, got NaN or infinity in 'down.weight'" in everywhere(error_of(model))
    assert "density" in everywhere(error_of(sharded(), density=2.0))
    mostly_zero = sharded()
    mostly_zero.up.weight.detach().to_local().zero_()
    assert "Priority: kept must be at most" in everywhere(error_of(mostly_zero, select="priority", density=0.8))
    older = FullyShardedDataParallel(plain(), device_id=torch.device("cpu"))
    assert "FullyShardedDataParallel at 'the root'" in everywhere(error_of(older))


CASES = {name.removeprefix("case_"): f for name, f in list(globals().items()) if name.startswith("case_")}
# These prove more on four ranks than on two; all others run on two.
FOUR = ("every_score_on_every_kind_of_shards", "partly_spread")
