"""What scores that train share: a net whose weights pass through a function on their way into a layer."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..prunable import layers
from ._registry import Train


def given(who: str, train: Train | None) -> Train:
    """Return `train`; raise where there is none."""
    if train is None:
        raise ValueError(f"{who}: train must be a callable (model, steps, start=0) such as training.Trainer, got None")
    return train


class Times(nn.Module):
    """w -> w * mask."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the masked weight."""
        return weight * self.mask


def through(model: nn.Module, functions: Mapping[str, nn.Module]) -> None:
    """Let each named weight pass through its function in every forward, in place; the Parameter stays the same object.

    It works on every layer, those included whose weight torch reads without a call (nn.MultiheadAttention).
    """
    for name, owners in layers(model).items():
        if name in functions:
            for owner in owners:
                parametrize.register_parametrization(owner, "weight", functions[name])
