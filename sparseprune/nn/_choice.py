"""Which layout a layer gets: the one asked for, or by `choose` the one expected to be faster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from ._storage import can_be_csr, to_csr
from .choose import choose

if TYPE_CHECKING:
    from ._sparse import Sparse

_SIZE = (16, 16)


class Input(NamedTuple):
    """What a layer was seen to work on: images of `size`, or (None) vectors, `batch` of them."""

    batch: int
    size: tuple[int, int] | None


@dataclass(frozen=True)
class Seen:
    """What is known of the inputs of layers.

    Args:
        batch_size: of layers that were not observed; convolutions among them are taken to see 16x16 images.
        inputs: id of a layer -> what it was seen to work on.
    """

    batch_size: int
    inputs: dict[int, Input] = field(default_factory=dict)


@torch.no_grad()
def observe(model: nn.Module, layers: Iterable[nn.Module], inputs: Tensor, batch_size: int) -> Seen:
    """Run a model once, in eval mode and without a gradient, and note what its layers work on."""
    found: dict[int, Input] = {}

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        x = args[0]
        if isinstance(module, nn.Linear):
            found[id(module)] = Input(x.numel() // max(1, x.shape[-1]), None)
        else:
            found[id(module)] = Input(len(x) if x.ndim == 4 else 1, (x.shape[-2], x.shape[-1]))

    modes = [(module, module.training) for module in model.modules()]
    handles = [layer.register_forward_pre_hook(note) for layer in layers]
    try:
        model.eval()(inputs)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
    return Seen(batch_size, found)


def settle(layers: Sequence[Sparse], layout: str, seen: Seen) -> None:
    """Give masked layers that share one weight the layout asked for, or the one chosen."""
    auto = layout == "auto"
    if auto:
        layout = _choose(layers[0], seen) if can_be_csr(layers[0]) else "masked"
    if layout == "csr":
        to_csr(layers)
    for layer in layers:
        layer._chosen = auto


def _choose(layer: Sparse, seen: Seen) -> str:
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
        **options,
    )
