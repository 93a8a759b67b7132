"""Which layout a layer gets: the one asked for, or by `choose` the one expected to be faster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from ._storage import VALUES, can_be_csr, to_csr
from .choose import choose

if TYPE_CHECKING:
    from ._sparse import Sparse

_SIZE = (16, 16)


class Input(NamedTuple):
    """What a layer was seen to work on: `batch` images of `size`, or (None) vectors."""

    batch: int
    size: tuple[int, int] | None


@dataclass(frozen=True)
class Seen:
    """What is known of the inputs of layers.

    Args:
        batch_size: of layers that were not observed; convolutions among them are taken to see 16x16 images.
        chain: every nn.Linear and nn.Conv2d of the model, in the order in which they are called.
        inputs: id of a layer -> what it was seen to work on.
    """

    batch_size: int
    chain: Sequence[nn.Module] = ()
    inputs: dict[int, Input] = field(default_factory=dict)


def look(model: nn.Module, inputs: Tensor | None, batch_size: int) -> Seen:
    """Learn what the layers of a model work on: by one run on `inputs`, in eval mode and without a gradient.

    Without inputs the layers are taken to be called in the order of the model's modules.
    """
    layers = [module for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    if inputs is None:
        return Seen(batch_size, layers)
    chain: list[nn.Module] = []
    found: dict[int, Input] = {}

    def note(module: nn.Module, args: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        x = args[0] if args else named["input"]
        chain.append(module)
        if isinstance(module, nn.Linear):
            found[id(module)] = Input(x.numel() // max(1, x.shape[-1]), None)
        else:
            found[id(module)] = Input(len(x) if x.ndim == 4 else 1, (x.shape[-2], x.shape[-1]))

    modes = [(module, module.training) for module in model.modules()]
    handles = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in layers]
    try:
        with torch.no_grad():
            model.eval()(inputs)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
    return Seen(batch_size, chain, found)


def settle(groups: Sequence[Sequence[Sparse]], layout: str, seen: Seen) -> None:
    """Give masked layers, in groups that share one weight, the layout asked for or the one chosen."""
    auto = layout == "auto"
    chosen = _decide(groups, seen) if auto else list(groups) if layout == "csr" else []
    for layers in chosen:
        to_csr(layers)
    for layers in groups:
        for layer in layers:
            layer._chosen = auto


def _decide(groups: Sequence[Sequence[Sparse]], seen: Seen) -> list[Sequence[Sparse]]:
    """Which groups are expected to be faster in csr, those without a csr neighbour with their transposes paid."""
    wanted = [layers for layers in groups if can_be_csr(layers[0]) and _choose(layers[0], seen, alone=False) == "csr"]
    csr = {id(layer) for layers in wanted for layer in layers}
    csr |= {id(module) for module in seen.chain if VALUES in module._parameters}
    # Leaving one out makes no other lonely: it had no csr neighbour.
    linked = {id(m) for pair in pairwise(seen.chain) if all(id(m) in csr for m in pair) for m in pair}
    return [
        layers
        for layers in wanted
        if any(id(layer) in linked for layer in layers) or _choose(layers[0], seen, alone=True) == "csr"
    ]


def _choose(layer: Sparse, seen: Seen, *, alone: bool) -> str:
    is_conv = isinstance(layer, nn.Conv2d)
    batch, size = seen.inputs.get(id(layer), Input(seen.batch_size, _SIZE if is_conv else None))
    options: dict[str, Any] = {}
    if is_conv:
        options = {"size": size, "stride": layer.stride, "groups": layer.groups, "dilation": layer.dilation}
    return choose(
        "conv2d" if is_conv else "linear",
        shape=layer.weight_shape,
        density=layer.density,
        batch=batch,
        dtype=layer.weight.dtype,
        device=layer.weight.device,
        alone=alone,
        **options,
    )
