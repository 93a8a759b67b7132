"""The wide residual net of the sketching paper's CIFAR experiments."""

from __future__ import annotations

from collections.abc import Sequence

from ._parts import Net
from .resnet import cifar_resnet


def wide_resnet(
    *, classes: int = 10, input_shape: Sequence[int] = (3, 32, 32), depth: int = 20, width: int = 32
) -> Net:
    """Build WideResNet-depth-width; by default WideResNet-20-32.

    Here `depth` counts the layers that hold weights (6 n + 2) and `width` the filters of the first stage, 2 and 4
    times as many in the others: 20-32 is ResNet-20 with twice the filters, 1,081,440 prunable weights with 10
    classes. In Zagoruyko and Komodakis's WRN-d-k the second number is a factor on 16 filters instead, and depth is
    6 n + 4: the sketching paper names WideResNet-20-32 without defining it, and 20 is no depth of theirs.

    Args:
        classes: outputs.
        input_shape: (channels, height, width) of one image.
        depth: 6 n + 2.
        width: filters of the first stage.

    Returns:
        a model `[B, *input_shape] -> [B, classes]`.

    Raises:
        ValueError: a depth that is not 6 n + 2.

    Reference:
        Bar and Giryes, "Pruning at Initialization - A Sketching Perspective", 2023, section 8.
    """
    return cifar_resnet("wide-resnet", input_shape, classes, depth, width)
