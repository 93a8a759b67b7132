"""One process of two in a data-parallel or sharded training, run by test_ddp.py: ddp_worker.py RANK FOLDER."""

import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from sparseprune.nn import sparsify

CASES = [("ddp", "masked"), ("ddp", "csr"), ("fsdp", "masked"), ("fsdp", "csr")]


def sparse_net(seed: int, layout: Any) -> nn.Sequential:
    """Half of the weights of each layer, others for each seed."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 4))
    masks = {}
    for i in (0, 4):
        size = model[i].weight.numel()
        masks[f"{i}.weight"] = (torch.randperm(size) < size // 2).view(model[i].weight.shape)
    return sparsify(model, masks, layout=layout)


def train(model: nn.Module, run: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> dict[str, torch.Tensor]:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, weight_decay=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        run(x).square().mean().backward()
        optimizer.step()
    return whole(model)


def whole(model: nn.Module) -> dict[str, torch.Tensor]:
    """What a model holds, gathered; what is in no checkpoint included."""
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    return {name: getattr(t, "full_tensor", lambda t=t: t)().detach().clone() for name, t in tensors.items()}


def sharded(layout: str, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Train with fully_shard, and take a sharded checkpoint into another sharded net before the result is returned."""
    mesh = init_device_mesh("cpu", (2,))
    model, other = sparse_net(0, layout).eval(), sparse_net(1, layout).eval()
    for net in (model, other):
        for i in (0, 4):
            fully_shard(net[i], mesh=mesh)
        fully_shard(net, mesh=mesh)
    trained = train(model, model, x)
    other.load_state_dict(model.state_dict())
    loaded = whole(other)
    assert all(torch.equal(loaded[name], trained[name]) for name in trained)
    try:
        sparsify(model, {"4.weight": torch.ones(4, 16)}, layout="csr")
    except ValueError as error:
        assert "spread over ranks (sparsify first, then fully_shard)" in str(error)
    else:
        raise AssertionError("a sharded weight has no entries of its own to keep")
    return trained


def main(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    x = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(7))
    results = {}
    for way, layout in CASES:
        alone = sparse_net(0, layout).eval()  # batch norms of parts of a batch are not those of the whole
        expected = train(alone, alone, x)
        if way == "ddp":
            model = sparse_net(rank, layout).eval()
            # DDP sends rank 0's weights and pattern to both.
            together = train(model, DistributedDataParallel(model), x[rank::2])
        else:
            together = sharded(layout, x[rank::2])
        results[way, layout] = expected, together
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
