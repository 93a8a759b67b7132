"""VGG-19 with batch normalization, in its CIFAR form."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ._parts import Net, check_image, classifier, conv_bn

_STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))


def vgg19(*, classes: int = 10, input_shape: Sequence[int] = (3, 32, 32)) -> Net:
    """Chain 16 3x3 convolutions (64 x2, 128 x2, 256 x4, 512 x8), batch norms, ReLU, four max-pools and one Linear.

    20,024,000 prunable weights with 10 classes. The size is halved between stages while it is 2 or more.

    Args:
        classes: outputs.
        input_shape: (channels, height, width) of one image.

    Returns:
        a model `[B, *input_shape] -> [B, classes]`.

    Reference:
        Simonyan and Zisserman, "Very Deep Convolutional Networks", 2014, arXiv 1409.1556, Table 1, E.
    """
    check_image("vgg19", input_shape)
    layers: list[nn.Module] = []
    channels, *size = input_shape
    for stage, (filters, count) in enumerate(_STAGES):
        if stage and min(size) >= 2:
            layers.append(nn.MaxPool2d(2))
            size = [side // 2 for side in size]
        for _ in range(count):
            layers += [conv_bn(channels, filters), nn.ReLU()]
            channels = filters
    return Net(input_shape, *layers, *classifier(channels, classes))
