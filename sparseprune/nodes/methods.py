"""Which units of a layer to keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor

from .k_dpp import k_dpp

if TYPE_CHECKING:
    from .units import Nodes


class Method(Protocol):
    """A frozen dataclass that chooses units."""

    def choose(self, nodes: Nodes, k: int, *, seed: int) -> Tensor:
        """Return the k units to keep, int64 [k], ascending."""
        ...


@dataclass(frozen=True)
class Random:
    """Keep units drawn uniformly, without replacement."""

    def choose(self, nodes: Nodes, k: int, *, seed: int) -> Tensor:
        """Return the k units to keep, int64 [k], ascending."""
        order = torch.randperm(nodes.units, generator=torch.Generator().manual_seed(seed))
        return order[:k].sort().values


@dataclass(frozen=True)
class Importance:
    """Keep the units of largest mean |outgoing weight|; of equal ones the first.

    Reference: Mariet & Sra 2016, arXiv:1511.05077. The code of Acharyya et al. 2021 ranks signed weights: not here.
    """

    def choose(self, nodes: Nodes, k: int, *, seed: int) -> Tensor:
        """Return the k units to keep, int64 [k], ascending."""
        size = nodes.outgoing.abs().double().mean((0, 2))
        return size.sort(descending=True, stable=True).indices[:k].sort().values


@dataclass(frozen=True)
class DPP:
    """Draw units from a k-DPP over their features on the data: the more units differ, the likelier they stay together.

    Args:
        kernel: "rbf": L_st = exp(-beta mean_x (a_s(x) - a_t(x))^2) + epsilon 1[s = t], or "linear": inner products,
            scaled to a mean of 1 on the diagonal, + epsilon 1[s = t], which takes a and -a for copies.
        features: "activations", what the next layer reads; or "preactivations", what the layer gives, without its bias.
        beta, epsilon: of the kernel.

    Raises:
        ValueError: another kernel or other features.

    Reference: Mariet & Sra 2016, arXiv:1511.05077 (DIVNET); Acharyya et al., UAI 2021: RBF on activations with
        beta = 10 / |T|, epsilon = .01; linear on pre-activations in the theorems.
    """

    kernel: Literal["rbf", "linear"] = "rbf"
    features: Literal["activations", "preactivations"] = "activations"
    beta: float = 10.0
    epsilon: float = 0.01

    def __post_init__(self) -> None:
        for name, allowed in (("kernel", ("rbf", "linear")), ("features", ("activations", "preactivations"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"DPP: {name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")

    def choose(self, nodes: Nodes, k: int, *, seed: int) -> Tensor:
        """Return the k units to keep, int64 [k], ascending."""
        gram = nodes.activations if self.features == "activations" else nodes.preactivations
        L = gram.rbf(self.beta, self.epsilon) if self.kernel == "rbf" else gram.linear(self.epsilon)
        return k_dpp(L, k, seed=seed)[0]


_METHODS: dict[str, Method] = {"dpp": DPP(), "random": Random(), "importance": Importance()}


def get(method: str | Method) -> Method:
    """Return a method by name, or an object as it is.

    Raises:
        ValueError: no method of that name, or an object without a `choose` method.
    """
    if isinstance(method, str) and method in _METHODS:
        return _METHODS[method]
    if isinstance(method, (str, type)) or not callable(getattr(method, "choose", None)):
        options = ", ".join(map(repr, _METHODS))
        raise ValueError(
            f"prune_nodes: method must be one of {options} or an object with a choose method, got {method!r}"
        )
    return method
