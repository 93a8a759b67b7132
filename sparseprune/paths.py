"""Which kept weights lie on a path from the inputs to the outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .inputs import sample_shape
from .prunable import prunable
from .replica import replica, unwrapped
from .scores import SynFlow


def effective(
    model: nn.Module, masks: Mapping[str, Tensor], *, input_shape: Sequence[int] | None = None
) -> dict[str, int]:
    """Count the kept weights of each layer that lie on a path of non-zero weights from the inputs to the outputs.

    Those through which synaptic flow is positive once biases and running means are zero: a unit that only a bias
    reaches is on no path. Padding counts as no input.

    Args:
        model: not touched; a copy is looked at.
        masks: name of a parameter -> mask.
        input_shape: of one sample, where the model does not tell.

    Returns:
        name -> how many; all 0: the net is cut in two, and its outputs are constant.

    Raises:
        ValueError: no way to tell the input's shape. OverflowError: see `SynFlow`.

    Cost: one forward and backward of one sample.

    Reference: Vysogorets & Kempe 2023, arXiv:2107.02306, effective sparsity.
    """
    net = replica(unwrapped("effective", model))
    with torch.no_grad():
        for name, tensor in (*net.named_parameters(), *net.named_buffers()):
            if name.rpartition(".")[2] in ("bias", "running_mean"):
                tensor.zero_()
    weight = next(iter(prunable(net).values()))
    ones = torch.ones(1, *sample_shape(net, input_shape=input_shape), device=weight.device)
    flow = SynFlow().score(net, [(ones, None)], masks=masks)
    return {name: int((flow[name] > 0).sum()) for name in masks}
