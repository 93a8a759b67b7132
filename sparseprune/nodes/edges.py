"""Prune edges of a trained layer, as many for each unit, and make up for them in those that are kept."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import cached_property
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..inputs import OnDevice, check_data
from ..nn import sparsify
from ..replica import replica, unwrapped
from ..scores.sketch import padded
from ._arguments import count
from ._wiring import get, name_of, watching
from .gram import Gram

_METHODS = ("random", "importance")
_NUMBERS = 2**24  # of the systems solved at once

EdgeMethod = Literal["random", "importance"]


class Edges:
    """The edges into the units of a layer, observed on data once for many prunings. The model is not touched.

    Args:
        model: run in eval mode.
        layer: a dense nn.Linear or nn.Conv2d (groups=1), or its name.
        data: a re-iterable of (input, target) batches.

    Raises:
        ValueError: another layer, or bad data.
    """

    def __init__(self, model: nn.Module, layer: str | nn.Module, data: Iterable[tuple[Any, Any]]) -> None:
        model = unwrapped("prune_edges", model)
        self.name = name_of("prune_edges", model, layer)
        check_data(data)
        self.model = replica(model)
        self._weight = get(self.model, self.name).weight.detach()
        self._data = OnDevice(data, self._weight.device)

    @cached_property
    def inputs(self) -> Gram:
        """Return the Gram matrix of what the layer reads; a convolution reads patches, [C kh kw] a position."""
        running, gram = copy.deepcopy(self.model).eval(), Gram()
        layer = get(running, self.name)
        with watching(layer, lambda x, _: gram.add(_patches(layer, x))), torch.no_grad():
            for x, _ in self._data:
                running(x)
        if not gram.rows:
            raise ValueError(f"prune_edges: layer must be called in a forward, got no call of {self.name!r}")
        return gram

    def choose(self, density: float, *, method: EdgeMethod = "random", seed: int = 0) -> Tensor:
        """Return the mask, bool like the weight, of round(density * fan_in) edges a unit; see `prune_edges`."""
        if method not in _METHODS:
            raise ValueError(f"prune_edges: method must be one of {', '.join(map(repr, _METHODS))}, got {method!r}")
        flat = self._weight.flatten(1)
        k = count("prune_edges", density, flat.shape[1], "edges of a unit")
        if method == "random":
            generator = torch.Generator().manual_seed(seed)
            ranked = torch.rand(flat.shape, dtype=torch.float64, generator=generator).to(flat.device)
        else:
            ranked = flat.abs()
        kept = ranked.sort(dim=1, descending=True, stable=True).indices[:, :k]
        return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, kept, True).view_as(self._weight)

    def remove(self, mask: Tensor, *, reweight: bool = True) -> nn.Module:
        """Return a copy of the model without the other edges, re-weighted or not; see `prune_edges`.

        Args:
            mask: bool, like the weight, with as many edges for each unit.

        Raises:
            ValueError: another mask.
        """
        if mask.shape != self._weight.shape or mask.dtype != torch.bool or mask.flatten(1).sum(1).unique().numel() != 1:
            raise ValueError("prune_edges: mask must be bool, like the weight, with as many edges for each unit")
        sparse = copy.deepcopy(self.model)
        if reweight and not mask.all():
            get(sparse, self.name).weight.data = self._reweighted(mask.flatten(1)).view_as(self._weight)
        return sparsify(sparse, {f"{self.name}.weight": mask}, layout="masked")

    def _reweighted(self, mask: Tensor) -> Tensor:
        """Return w + delta [units, fan_in], delta_S = argmin ||X_S delta - X_D w_D|| for each unit."""
        w = self._weight.flatten(1).double()
        kept = mask.nonzero()[:, 1].view(len(mask), -1)
        moments = torch.where(mask, 0.0, w) @ self.inputs.matrix
        moments = moments.gather(1, kept)[..., None]
        at_once = max(1, _NUMBERS // kept.shape[1] ** 2)
        solved = [
            self.inputs.regress(some, right)
            for some, right in zip(kept.split(at_once), moments.split(at_once), strict=True)
        ]
        return w.scatter_add(1, kept, torch.cat(solved).squeeze(2)).to(self._weight.dtype)


def _patches(layer: nn.Module, x: Tensor) -> Tensor:
    """Return [rows, fan_in] of what the layer multiplies its weight with."""
    if not isinstance(layer, nn.Conv2d):
        return x.reshape(-1, x.shape[-1])
    x = padded(layer, x if x.dim() == 4 else x[None])
    columns = F.unfold(x, layer.kernel_size, layer.dilation, 0, layer.stride)
    return columns.mT.reshape(-1, columns.shape[1])


def prune_edges(
    model: nn.Module,
    layer: str | nn.Module,
    density: float,
    *,
    data: Iterable[tuple[Any, Any]],
    method: EdgeMethod = "random",
    reweight: bool = True,
    seed: int = 0,
) -> nn.Module:
    """Return a copy of the model that keeps round(density * fan_in) edges into each unit of a layer.

    Re-weighting moves the edges kept to where the unit's pre-activation is nearest to the old one on the data:
    w_S += argmin_delta ||X_S delta - X_D w_D||, S kept, D dropped.

    Args:
        model: not touched; run in eval mode. See `Edges`, which shares one look at the data between many prunings.
        layer: a dense nn.Linear or nn.Conv2d (groups=1), or its name.
        density: share of each unit's edges to keep, in (0, 1].
        data: a re-iterable of (input, target) batches: the training inputs.
        method: "random", or "importance": the largest |w|, of equal ones the first.
        reweight: whether to re-weight.
        seed: of the choice.

    Returns:
        a copy whose layer is a SparseLinear or SparseConv2d in the masked layout; modes as they were.

    Raises:
        ValueError: an argument outside its range, a layer that cannot be pruned, or bad data.

    Cost: with re-weighting, one pass over the data, rows fan_in^2, and k^3/3 for each unit that keeps k edges.

    Reference: Acharyya et al., "Statistical Mechanical Analysis of Neural Network Pruning", UAI 2021, section 5.2.
    """
    edges = Edges(model, layer, data)
    return edges.remove(edges.choose(density, method=method, seed=seed), reweight=reweight)
