"""The ranks among which a logical vector is spread: the few collectives that the sampler needs.

Every method returns the same on every rank, and must be called by all of them in the same order.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Ranks:
    """Collectives over all ranks of some process groups, applied one after another.

    Args:
        groups: one process group, or those of every dimension of a device mesh, which together reach all its ranks.
    """

    def __init__(self, groups: list[Any]) -> None:
        self.groups = groups
        self.rank = 0  # in the order of `gather`: the last group varies slowest
        self.size = 1
        for group in groups:
            self.rank += self.size * dist.get_rank(group)
            self.size *= dist.get_world_size(group)

    def max(self, values: Tensor) -> Tensor:
        """The largest of every element; may write into `values`."""
        return self._reduce(values, dist.ReduceOp.MAX)

    def sum(self, values: Tensor) -> Tensor:
        """The sum of every element; integers wrap; may write into `values`."""
        return self._reduce(values, dist.ReduceOp.SUM)

    def gather(self, value: Any) -> list[Any]:
        """Every rank's picklable object, in rank order."""
        gathered = [value]
        for group in self.groups:
            parts: list[Any] = [None] * dist.get_world_size(group)
            dist.all_gather_object(parts, gathered, group=group)
            gathered = [x for part in parts for x in part]
        return gathered

    def rows(self, values: Tensor) -> Tensor:
        """The rows of all ranks' int64 matrices, in rank order; each rank has its own number of rows."""
        for group in self.groups:
            place = self._place(group, values)
            size = torch.tensor([len(values)], device=place)
            sizes = [torch.empty_like(size) for _ in range(dist.get_world_size(group))]
            dist.all_gather(sizes, size, group=group)
            numbers = [int(n) for n in sizes]
            padded = values.new_zeros((max(numbers), *values.shape[1:]), device=place)
            padded[: len(values)] = values
            parts = [torch.empty_like(padded) for _ in numbers]
            dist.all_gather(parts, padded, group=group)
            values = torch.cat([part[:n] for part, n in zip(parts, numbers, strict=True)]).to(values.device)
        return values

    def _reduce(self, values: Tensor, op: Any) -> Tensor:
        for group in self.groups:
            moved = values.to(self._place(group, values)).contiguous()
            dist.all_reduce(moved, op=op, group=group)
            values = moved.to(values.device)
        return values

    @staticmethod
    def _place(group: Any, values: Tensor) -> torch.device:
        """Where a group can reduce: NCCL only on a GPU, gloo best on the CPU."""
        backend = str(dist.get_backend(group))
        if backend == "nccl":
            return values.device if values.is_cuda else torch.device("cuda", torch.cuda.current_device())
        return torch.device("cpu") if backend == "gloo" else values.device
