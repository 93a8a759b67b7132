"""Convolutions on which kernels are compared with their definitions: some chosen, some drawn from a seed."""

from typing import NamedTuple

import torch

from sparseprune.ops import Pattern
from sparseprune.ops.reference import Geometry

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# batch, channels, height, width, outputs; kernel, stride, padding, dilation, groups
CHOSEN = {
    "same size": (3, 4, 6, 5, 6, Geometry((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1)),
    "all options": (2, 6, 7, 9, 4, Geometry((3, 2), (2, 3), (0, 1, 2, 1), (1, 2), 2)),
    "depthwise": (2, 3, 7, 9, 6, Geometry((3, 3), (2, 2), (1, 1, 1, 1), (2, 2), 3)),
    "1x1": (5, 4, 7, 3, 3, Geometry((1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1)),
    "pixels that no output sees": (2, 2, 8, 11, 3, Geometry((2, 1), (3, 4), (0, 0, 0, 0), (1, 1), 1)),
    "taps on padding alone": (2, 2, 1, 2, 3, Geometry((3, 5), (1, 1), (1, 1, 3, 2), (1, 1), 1)),
    "one of everything": (1, 1, 1, 1, 1, Geometry((1, 1), (1, 1), (0, 0, 0, 0), (1, 1), 1)),
    "no images": (0, 4, 6, 5, 6, Geometry((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), 1)),
}


def drawn(seed):
    """A geometry whose output is not empty."""
    rng = torch.Generator().manual_seed(seed)

    def draw(low, high):
        return int(torch.randint(low, high, (), generator=rng))

    while True:
        g = Geometry(
            (draw(1, 5), draw(1, 4)), (draw(1, 4), draw(1, 4)),
            (draw(0, 3), draw(0, 3), draw(0, 3), draw(0, 3)), (draw(1, 3), draw(1, 3)), draw(1, 4),
        )  # fmt: skip
        height, width = draw(1, 9), draw(1, 9)
        if min(g.output_size(height, width)) > 0:
            return draw(1, 4), g.groups * draw(1, 3), height, width, g.groups * draw(1, 4), g


CASES = {**CHOSEN, **{f"drawn {seed}": drawn(seed) for seed in range(4)}}


class Case(NamedTuple):
    """The tensors of a masked convolution; `last` and `pattern` give those of the compressed one."""

    x: torch.Tensor
    weight: torch.Tensor
    mask: torch.Tensor
    bias: torch.Tensor
    grad: torch.Tensor
    geometry: list[int]

    @property
    def size(self):
        return list(self.x.shape[2:])

    @property
    def values(self):
        return self.weight[self.mask]

    @property
    def pattern(self):
        return Pattern.from_mask(self.mask, self.geometry[-1])

    @property
    def terms(self):
        """Of a sum: of an output, of an input's gradient, of a weight's gradient."""
        taps, pixels = self.weight[0].numel(), self.grad[:, :1].numel()
        return taps + 1, taps * max(1, len(self.weight) // self.x.shape[1]), pixels


def case(batch, channels, height, width, outputs, geometry, dtype=torch.float32, density=0.4, device="cpu"):
    """Normal numbers; the first output keeps all its weights, the second none."""
    rng = torch.Generator().manual_seed(1)
    weight = outputs, channels // geometry.groups, *geometry.kernel
    shapes = [
        (batch, channels, height, width), weight, (outputs,), (batch, outputs, *geometry.output_size(height, width))
    ]  # fmt: skip
    x, w, bias, grad = (torch.randn(shape, generator=rng, dtype=torch.float64).to(device, dtype) for shape in shapes)
    mask = torch.rand(weight, generator=rng) < density
    if density > 0:
        mask[:1], mask[1:2] = True, False
    return Case(x, w, mask.to(device), bias, grad, geometry.numbers)


def last(images):
    """`[B, C, H, W]` as `[C, H, W, B]`."""
    return images.permute(1, 2, 3, 0).contiguous()
