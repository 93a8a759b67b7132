"""One process of two in a data-parallel training, run by test_ddp.py: ddp_worker.py RANK FOLDER."""

import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from sparseprune.nn import sparsify


def sparse_net(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4))
    masks = {name: torch.rand_like(p) < 0.5 for name, p in model.named_parameters() if p.ndim > 1}
    return sparsify(model, masks)


def train(model: nn.Module, run: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        run(x).square().mean().backward()
        optimizer.step()
    return model.state_dict()


def main(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    x = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(7))
    alone, model = sparse_net(0), sparse_net(rank)
    # DDP sends rank 0's weights and pattern to both.
    together = train(model, DistributedDataParallel(model), x[rank::2])
    torch.save((train(alone, alone, x), together), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
