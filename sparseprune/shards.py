"""DTensors: which elements of the global tensor a rank holds, the way back from local results, and numbers of all.

In torch a reduction of a DTensor is partial, and its int() or float() is that of the local part: those here see every
element once.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .ops.layout import Runs, runs_of_grid
from .ops.ranks import Ranks


def is_dtensor(x: Any) -> bool:
    """Whether x is a DTensor; torch.distributed.tensor is not imported for that."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(x, module.DTensor)


@dataclass(frozen=True)
class Shard:
    """What this rank holds of a DTensor: of dimension d the ascending indices index[d], and their outer product.

    A plain tensor is whole and the same on every rank.
    """

    like: Any
    index: list[Tensor]

    @classmethod
    def of(cls, name: str, tensor: Any) -> Shard:
        """Raises ValueError, beginning with `name`, for placements that are neither shards nor copies."""
        index = [torch.arange(size, device="cpu") for size in tensor.shape]
        if not is_dtensor(tensor):
            return cls(tensor, index)
        mesh = tensor.device_mesh
        for place, at, size in zip(tensor.placements, mesh.get_coordinate(), mesh.shape, strict=True):
            if place.is_replicate():
                continue
            if not hasattr(place, "dim"):
                raise ValueError(f"{name} must be sharded or replicated, got placement {place}")
            index[place.dim] = _split(place, index[place.dim], size, at)
        shard = cls(tensor, index)
        if tuple(tensor._local_tensor.shape) != shard.shape:
            raise ValueError(
                f"{name} must have the local shape {list(shard.shape)} that {tensor.placements} say, "
                f"got {list(tensor._local_tensor.shape)}"
            )
        return shard

    @property
    def shape(self) -> torch.Size:
        """Of the local tensor."""
        return torch.Size([len(i) for i in self.index])

    @property
    def key(self) -> tuple[Any, ...]:
        """The same for ranks that hold the same elements, and only for them: the steps of each dimension's indices."""
        return tuple(_steps(i) for i in self.index)

    def runs(self, tensor: int, start: int) -> Runs:
        """Of the local tensor, number `tensor`, where the global one begins at `start`."""
        return runs_of_grid(self.index, tuple(self.like.shape), tensor, start)

    def part(self, whole: Tensor) -> Tensor:
        """This rank's part of a plain tensor that broadcasts to the global shape."""
        lead = len(self.index) - whole.dim()
        for dim, i in enumerate(self.index[lead:]):
            if whole.shape[dim] > 1 and len(i) < whole.shape[dim]:
                whole = whole.index_select(dim, i.to(whole.device))
        return whole

    def wrap(self, local: Tensor) -> Any:
        """A DTensor of the local results, placed like this one (of a plain tensor: as they are)."""
        t = self.like
        if not is_dtensor(t):
            return local
        stride = torch.empty(t.shape, device="meta").stride()  # local results are contiguous, whatever `like` is
        return type(t).from_local(local, t.device_mesh, t.placements, run_check=False, shape=t.shape, stride=stride)


def _split(place: Any, index: Tensor, parts: int, at: int) -> Tensor:
    """The indices that part `at` of `parts` holds; a strided shard is asked itself."""
    if type(place).__name__ == "Shard":
        chunks: Sequence[Tensor] = index.chunk(parts) if len(index) else ()
    else:
        chunks, _ = place._split_tensor(index, parts, with_padding=False, contiguous=True)
    return chunks[at] if at < len(chunks) else index[:0]


def _steps(index: Tensor) -> tuple[int, ...]:
    """First and last + 1 of every row of consecutive indices."""
    if not len(index):
        return ()
    inside = index.diff() != 1
    first = torch.cat([index[:1], index[1:][inside]])
    last = torch.cat([index[:-1][inside], index[-1:]])
    return tuple(torch.stack([first, last + 1], dim=1).view(-1).tolist())


def common_groups(who: str, meshes: list[Any]) -> list[Any]:
    """The process groups, one a dimension, of that mesh which holds all ranks of the others.

    Raises: ValueError where there is none, or this rank is not in it.
    """
    widest = max(meshes, key=lambda mesh: mesh.mesh.numel())
    ranks = set(widest.mesh.view(-1).tolist())
    for mesh in meshes:
        if not ranks.issuperset(mesh.mesh.view(-1).tolist()):
            raise ValueError(f"{who}: scores must be on one mesh and parts of it, got {widest} and {mesh}")
    if widest.get_coordinate() is None:
        raise ValueError(f"{who}: scores must be on a mesh that this rank is in, got {widest}")
    return [widest.get_group(dim) for dim in range(widest.ndim)]


# ---------------------------------------------------------------- for tensors and DTensors alike
def local(tensor: Any) -> Tensor:
    """The elements on this rank."""
    return tensor.to_local() if is_dtensor(tensor) else tensor


def full(tensor: Any) -> Tensor:
    """The whole tensor, on every rank; all ranks must call this."""
    return tensor.full_tensor() if is_dtensor(tensor) else tensor


def placement(tensor: Any) -> tuple[Any, ...]:
    """What two tensors that are spread alike have in common."""
    spread = (tensor.device_mesh, tuple(tensor.placements)) if is_dtensor(tensor) else ()
    return (tuple(tensor.shape), *spread)


def like(whole: Tensor, other: Any) -> Any:
    """A plain tensor placed like `other`: itself, or where that is a DTensor this rank's part of it as a DTensor."""
    if not is_dtensor(other) or is_dtensor(whole):
        return whole
    shard = Shard.of("like: tensor", other)
    return shard.wrap(shard.part(whole).contiguous())


def nonzero(tensor: Any) -> int:
    """The number of elements that are not zero; all ranks of a DTensor must call this."""
    return int(_ranks(tensor).sum(local(tensor).count_nonzero()))


def bounds(tensor: Any) -> tuple[float, float]:
    """The least and the largest element, NaN where there is one; all ranks of a DTensor must call this."""
    mine = local(tensor)
    ends = torch.tensor([torch.inf, -torch.inf, 0.0], dtype=torch.float64, device=mine.device)
    if mine.numel():
        low, high = (x.to(torch.float64) for x in mine.aminmax())
        ends = torch.stack([low, high, low.isnan().to(torch.float64)])
    ends = (ends * ends.new_tensor([-1.0, 1.0, 1.0])).nan_to_num(posinf=torch.inf, neginf=-torch.inf)
    low, high, nan = _ranks(tensor).max(ends).tolist()
    return (math.nan, math.nan) if nan else (-low, high)


def _ranks(tensor: Any) -> Ranks:
    """Those that hold different parts of a tensor."""
    if not is_dtensor(tensor):
        return Ranks([])
    mesh = tensor.device_mesh
    return Ranks([mesh.get_group(dim) for dim, place in enumerate(tensor.placements) if not place.is_replicate()])
