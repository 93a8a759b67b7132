"""What the small nets share: a Sequential that knows its input shape, convolution blocks, initialization."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn


class Net(nn.Sequential):
    """A chain of layers with `input_shape`, the shape of one input without the batch."""

    def __init__(self, input_shape: Sequence[int], *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.input_shape = tuple(input_shape)


def conv_bn(channels: int, filters: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Chain a convolution without bias, padded to keep the size, and its batch normalization."""
    conv = nn.Conv2d(channels, filters, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(filters))


def classifier(filters: int, classes: int) -> list[nn.Module]:
    """Average over space, then one linear layer."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(filters, classes)]


def check_image(name: str, input_shape: Sequence[int], width: int = 1) -> None:
    """Raise ValueError unless `input_shape` is that of an image and `width` is positive."""
    if width < 1:
        raise ValueError(f"{name}: width must be at least 1, got {width}")
    if len(input_shape) != 3:
        raise ValueError(f"{name}: input_shape must be (channels, height, width), got {tuple(input_shape)}")


@torch.no_grad()
def initialize(model: nn.Module, seed: int | None) -> None:
    """Draw weights from N(0, 2/fan_in), in the order of the layers; biases 0.

    Args:
        model: fresh, on the CPU; batch norms keep torch's gamma 1 and beta 0.
        seed: of a generator of its own; None draws from torch's global one.

    Reference:
        He et al., "Delving Deep into Rectifiers", 2015, arXiv 1502.01852, Eq. 10.
    """
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            std = math.sqrt(2 / module.weight[0].numel())
            module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * std)
            if module.bias is not None:
                module.bias.zero_()
