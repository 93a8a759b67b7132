"""Fully connected ReLU networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from ._parts import Net


def mlp(*, classes: int = 10, input_shape: Sequence[int] = (1, 8, 8), hidden: Sequence[int] = (128, 128)) -> Net:
    """Chain Flatten, a Linear and ReLU for each hidden size, and a Linear, all with biases.

    Args:
        classes: outputs.
        input_shape: of one input, any rank.
        hidden: the width of each hidden layer; `()` gives a linear model.

    Returns:
        a model `[B, *input_shape] -> [B, classes]`.

    Raises:
        ValueError: a hidden size below 1.
    """
    if hidden and min(hidden) < 1:
        raise ValueError(f"mlp: hidden must hold positive sizes, got {tuple(hidden)}")
    layers: list[nn.Module] = [nn.Flatten()]
    sizes = [math.prod(input_shape), *hidden]
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return Net(input_shape, *layers, nn.Linear(sizes[-1], classes))


def lenet_300_100(*, classes: int = 10, input_shape: Sequence[int] = (1, 28, 28)) -> Net:
    """Chain hidden layers of 300 and 100 units: 266,200 prunable weights on MNIST.

    Args:
        classes: outputs.
        input_shape: of one input, any rank.

    Returns:
        a model `[B, *input_shape] -> [B, classes]`.

    Reference:
        LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998.
    """
    return mlp(classes=classes, input_shape=input_shape, hidden=(300, 100))
