"""Prune units (neurons, channels) of a trained layer, and make up for them in the layer that reads them."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ..inputs import OnDevice, check_data
from ..replica import replica, unwrapped
from ._arguments import count
from ._wiring import by_unit, check_removal, cut, get, name_of, watching, wire
from .gram import Gram
from .methods import Method
from .methods import get as get_method


class Nodes:
    """The units of a layer, observed on data once for many prunings. The model is not touched.

    Args:
        model: run in eval mode. The outputs of the layer must go to one other nn.Linear or nn.Conv2d alone, unit by
            unit: through element-wise functions, batch norms, pools, flattening.
        layer: a dense nn.Linear or nn.Conv2d (groups=1), or its name.
        data: a re-iterable of (input, target) batches.

    Raises:
        ValueError: a layer whose units cannot be removed, or bad data.
    """

    def __init__(self, model: nn.Module, layer: str | nn.Module, data: Iterable[tuple[Any, Any]]) -> None:
        model = unwrapped("prune_nodes", model)
        name = name_of("prune_nodes", model, layer)
        check_data(data)
        self.model = replica(model)
        self._running = copy.deepcopy(self.model).eval()
        self._layer = get(self._running, name)
        self._data = OnDevice(data, self._layer.weight.device)
        self._x = next(iter(self._data))[0]
        self.wiring = wire(self._running, name, self._x)
        self._following = get(self._running, self.wiring.following)

    @property
    def units(self) -> int:
        """Return how many units the layer has."""
        return self.wiring.units

    @property
    def outgoing(self) -> Tensor:
        """Return the weights that read the units: [out, units, weights of a pair]."""
        return self._following.weight.detach().unflatten(1, (self.units, -1)).flatten(2)

    @cached_property
    def activations(self) -> Gram:
        """Return the Gram matrix of what the next layer reads; positions of images are rows."""
        gram = Gram()
        with watching(self._following, lambda x, _: gram.add(by_unit(x, self._following, self.units))):
            self._run()
        return gram

    @cached_property
    def preactivations(self) -> Gram:
        """Return the Gram matrix of what the layer gives, without its bias."""
        gram, bias = Gram(), self._layer.bias

        def see(_: Tensor, y: Tensor) -> None:
            y = by_unit(y, self._layer, self.units)
            gram.add(y if bias is None else y - bias)

        with watching(self._layer, see):
            self._run()
        return gram

    def choose(self, density: float, *, method: str | Method = "dpp", seed: int = 0) -> Tensor:
        """Return the round(density * units) units to keep: int64 [k], ascending; arguments of `prune_nodes`."""
        k = count("prune_nodes", density, self.units, "units")
        return get_method(method).choose(self, k, seed=seed).to(self._layer.weight.device)

    def remove(self, kept: Tensor, *, reweight: bool = True) -> nn.Module:
        """Return a copy of the model without the other units, re-weighted or not; see `prune_nodes`.

        Args:
            kept: int64 [k], ascending.

        Raises:
            ValueError: outputs of the layer that go elsewhere too, or are mixed on the way.
        """
        check_removal(self._running, self.wiring, kept, self._x)
        smaller = copy.deepcopy(self.model)
        cut(smaller, self.wiring, kept)
        if reweight and len(kept) < self.units:
            others = torch.ones(self.units, dtype=torch.bool, device=kept.device).index_fill_(0, kept, False)
            moments = self.activations.matrix[kept][:, others]
            alpha = self.activations.regress(kept, moments)  # [kept, others]
            more = torch.einsum("kd,odr->okr", alpha, self.outgoing[:, others].double())
            weight = get(smaller, self.wiring.following).weight
            weight.data += more.reshape(weight.shape).to(weight.dtype)
        return smaller

    @torch.no_grad()
    def _run(self) -> None:
        for x, _ in self._data:
            self._running(x)


def prune_nodes(
    model: nn.Module,
    layer: str | nn.Module,
    density: float,
    *,
    data: Iterable[tuple[Any, Any]],
    method: str | Method = "dpp",
    reweight: bool = True,
    seed: int = 0,
) -> nn.Module:
    """Return a smaller model that keeps round(density * units) units of a layer.

    Re-weighting replaces each unit i removed by the combination of those kept that is nearest to it on the data:
    alpha_i = argmin ||a_i - sum_j alpha_ij a_j||, w2_j += sum_i alpha_ij w2_i. With method "dpp" this is DIVNET.

    Args:
        model: not touched; run in eval mode. See `Nodes`, which shares one look at the data between many prunings.
        layer: a dense nn.Linear or nn.Conv2d (its channels are units), or its name.
        density: share of the units to keep, in (0, 1].
        data: a re-iterable of (input, target) batches: the training inputs.
        method: "dpp", "random", "importance", or an object: `DPP(kernel="linear")`.
        reweight: whether to re-weight.
        seed: of the choice.

    Returns:
        a copy whose layer, next layer and batch norms between are that much smaller; modes as they were.

    Raises:
        ValueError: an argument outside its range, a layer whose units cannot be removed, or bad data.

    Cost: with re-weighting or "dpp", one pass over the data, rows n^2 for n units, O(n^3), and memory of n^2 numbers.

    Reference: Mariet & Sra, "Diversity Networks", ICLR 2016, arXiv:1511.05077, section 2.
    """
    nodes = Nodes(model, layer, data)
    return nodes.remove(nodes.choose(density, method=method, seed=seed), reweight=reweight)
