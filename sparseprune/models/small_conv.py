"""A small convolutional net for the digits."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ._parts import Net, check_image, classifier, conv_bn


def small_conv(*, classes: int = 10, input_shape: Sequence[int] = (1, 8, 8), width: int = 16) -> Net:
    """Chain 3x3 convolutions of width, 2 width (half size) and 4 width (quarter size) filters, batch norms and ReLU.

    With the defaults: 23,824 prunable weights, fit for the 8x8 digits.

    Args:
        classes: outputs.
        input_shape: (channels, height, width) of one image.
        width: filters of the first convolution.

    Returns:
        a model `[B, *input_shape] -> [B, classes]`.
    """
    check_image("small-conv", input_shape)
    layers: list[nn.Module] = []
    channels = input_shape[0]
    for filters, stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
        layers += [conv_bn(channels, filters, stride=stride), nn.ReLU()]
        channels = filters
    return Net(input_shape, *layers, *classifier(channels, classes))
