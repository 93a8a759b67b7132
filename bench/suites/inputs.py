"""Operands of the suites' cases."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sparseprune import ops
from sparseprune.speeds import random_mask

from .. import cases


class Operands(NamedTuple):
    """A sparse weight as pattern, values and (zeros in it) dense, an input and an output's gradient, batch-last."""

    pattern: ops.Pattern
    values: Tensor
    weight: Tensor
    x: Tensor
    grad: Tensor


def linear(case: cases.Linear, density: float) -> Operands:
    weight = torch.randn(case.outputs, case.inputs)
    mask = random_mask(weight.shape, density)
    x, grad = torch.randn(case.inputs, case.batch), torch.randn(case.outputs, case.batch)
    return Operands(ops.Pattern.from_mask(mask), weight[mask], weight * mask, x, grad)


def conv(case: cases.Conv, density: float) -> Operands:
    weight = torch.randn(case.filters, case.channels, case.kernel, case.kernel)
    mask = random_mask(weight.shape, density)
    x = torch.randn(case.channels, case.side, case.side, case.batch)
    side = -(-case.side // case.stride)
    grad = torch.randn(case.filters, side, side, case.batch)
    return Operands(ops.Pattern.from_mask(mask), weight[mask], weight * mask, x, grad)


def geometry(case: cases.Conv) -> ops.Geometry:
    return ops.Geometry((case.kernel,) * 2, (case.stride,) * 2, (case.padding,) * 4, (1, 1), 1)
