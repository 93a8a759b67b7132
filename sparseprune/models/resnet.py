"""Residual nets with basic blocks: ResNet-20 for CIFAR, ResNet-18 for 64x64 images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ._parts import Net, check_image, classifier, conv_bn


class BasicBlock(nn.Module):
    """Add two 3x3 convolutions to a shortcut: y = relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x)).

    The shortcut is the identity where shapes agree, else a 1x1 convolution and its batch norm.

    Args:
        channels: of the input.
        filters: of the output.
        stride: of the first convolution and of the shortcut.
    """

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.first = conv_bn(channels, filters, stride=stride)
        self.second = conv_bn(filters, filters)
        same = channels == filters and stride == 1
        self.shortcut = nn.Identity() if same else conv_bn(channels, filters, kernel=1, stride=stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return `[B, filters, H / stride, W / stride]` from `[B, channels, H, W]`."""
        return self.relu(self.second(self.relu(self.first(x))) + self.shortcut(x))


def residual_net(name: str, input_shape: Sequence[int], classes: int, widths: Sequence[int], blocks: int) -> Net:
    """Chain a 3x3 stem, a stage of basic blocks for each width (each but the first halves the size) and a Linear.

    Args:
        name: for error messages.
        input_shape: (channels, height, width) of one image.
        classes: outputs.
        widths: filters of each stage.
        blocks: basic blocks a stage.

    Returns:
        a model `[B, *input_shape] -> [B, classes]`.
    """
    check_image(name, input_shape, min(widths))
    layers: list[nn.Module] = [conv_bn(input_shape[0], widths[0]), nn.ReLU()]
    channels = widths[0]
    for stage, filters in enumerate(widths):
        for block in range(blocks):
            layers.append(BasicBlock(channels, filters, stride=2 if stage and not block else 1))
            channels = filters
    return Net(input_shape, *layers, *classifier(channels, classes))


def cifar_resnet(name: str, input_shape: Sequence[int], classes: int, depth: int, width: int) -> Net:
    """Build the CIFAR family: depth = 6 n + 2 layers in three stages of n blocks, width, 2 width and 4 width filters.

    Args:
        name: for error messages.
        input_shape: (channels, height, width) of one image.
        classes: outputs.
        depth: layers that hold weights, shortcuts not counted: 20, 32, 44, 56, 110, ...
        width: filters of the first stage.

    Returns:
        a model `[B, *input_shape] -> [B, classes]`.

    Raises:
        ValueError: a depth that is not 6 n + 2.
    """
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        raise ValueError(f"{name}: depth must be 6 n + 2 with n >= 1 (8, 14, 20, ...), got {depth}")
    return residual_net(name, input_shape, classes, (width, 2 * width, 4 * width), blocks)


def resnet20(*, classes: int = 10, input_shape: Sequence[int] = (3, 32, 32), width: int = 16) -> Net:
    """Build ResNet-20 for CIFAR, with 1x1 convolutions as shortcuts where shapes change.

    Prunable weights: 270,896 with 10 classes, 276,656 with 100; with `width=32` (the doubled net that goes under the
    same name in some published tables) 1,081,440 and 1,092,960.

    Args:
        classes: outputs.
        input_shape: (channels, height, width) of one image.
        width: filters of the first stage; the others have 2 and 4 times as many.

    Returns:
        a model `[B, *input_shape] -> [B, classes]`.

    Reference:
        He et al., "Deep Residual Learning for Image Recognition", 2015, arXiv 1512.03385, section 4.2.
    """
    return cifar_resnet("resnet20", input_shape, classes, depth=20, width=width)


def resnet18(*, classes: int = 200, input_shape: Sequence[int] = (3, 64, 64), width: int = 64) -> Net:
    """Build ResNet-18 for 64x64 images: a 3x3 stem of stride 1 and no max-pool before the four stages.

    11,261,632 prunable weights with the defaults (Tiny-ImageNet).

    Args:
        classes: outputs.
        input_shape: (channels, height, width) of one image.
        width: filters of the first stage; the others have 2, 4 and 8 times as many.

    Returns:
        a model `[B, *input_shape] -> [B, classes]`.

    Reference:
        He et al., "Deep Residual Learning for Image Recognition", 2015, arXiv 1512.03385, Table 1.
    """
    return residual_net("resnet18", input_shape, classes, (width, 2 * width, 4 * width, 8 * width), blocks=2)
