"""Small nets of the papers, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ._parts import Net, initialize
from .mlp import lenet_300_100, mlp
from .resnet import resnet18, resnet20
from .small_conv import small_conv
from .vgg import vgg19
from .wide_resnet import wide_resnet

MODELS: dict[str, Callable[..., Net]] = {
    "mlp": mlp,
    "lenet-300-100": lenet_300_100,
    "small-conv": small_conv,
    "vgg19": vgg19,
    "resnet20": resnet20,
    "wide-resnet": wide_resnet,
    "resnet18": resnet18,
}

__all__ = ["MODELS", "Net", "build"]


def build(
    name: str,
    *,
    classes: int | None = None,
    input_shape: Sequence[int] | None = None,
    seed: int | None = None,
    **options: Any,
) -> Net:
    """Build a model on the CPU: weights ~ N(0, 2/fan_in) (Kaiming), biases 0, batch norms with gamma 1 and beta 0.

    Args:
        name: one of `MODELS`: "mlp", "lenet-300-100", "small-conv", "vgg19", "resnet20", "wide-resnet", "resnet18".
        classes: outputs; None: the model's own number, 10 (resnet18: 200).
        input_shape: of one input, without the batch; None: the model's own.
        seed: makes the weights, leaving the global generators alone; None draws them from torch's global generator.
        **options: the model's own, e.g. `hidden=(300, 100)` for "mlp", `width=32` for "resnet20".

    Returns:
        a model `[B, *input_shape] -> [B, classes]` in training mode, with the attribute `input_shape`.

    Raises:
        ValueError: an unknown name, numbers below 1, a shape or depth that the model cannot have.
        TypeError: an option that the model does not have.

    Cost:
        one draw per weight.
    """
    if name not in MODELS:
        raise ValueError(f"build: name must be one of {', '.join(MODELS)}, got {name!r}")
    if classes is not None and classes < 1:
        raise ValueError(f"build: classes must be at least 1, got {classes}")
    if input_shape is not None and (not input_shape or min(input_shape) < 1):
        raise ValueError(f"build: input_shape must hold positive sizes, got {tuple(input_shape)}")
    for key, value in (("classes", classes), ("input_shape", input_shape)):
        if value is not None:
            options[key] = value
    # torch's layers draw once when they are made: that draw must neither count nor show.
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        model = MODELS[name](**options)
    with torch.device("cpu"):
        initialize(model, seed)
    return model
