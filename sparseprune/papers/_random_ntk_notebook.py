"""The inputs of paper 000's notebook, their limits, and its numbers: at width 2^10 where nothing else is said."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..ntk import infinite

PRINTED_WIDTH = 2**10

# Read off the figure of E1: means of the rescaled net at p = .5, by width.
PRINTED_DRAWS = 64
PRINTED_MEANS = dict(
    zip([2**k for k in range(5, 14)], [3.02, 1.89, 2.45, 2.32, 2.46, 2.52, 2.44, 2.42, 2.43], strict=True)
)

# E2: the width grows as n0 alpha^-power.
LAWS = {"sqrt": 0.5, "linear": 1.0, "quadratic": 2.0}

# Read off the figure of E2: mean absolute deviation at p = 0, 1/8, ..., 7/8.
PRINTED_LAWS = {
    "sqrt": [0.256, 0.216, 0.222, 0.191, 0.220, 0.214, 0.256, 0.235],
    "linear": [0.227, 0.198, 0.229, 0.187, 0.199, 0.165, 0.173, 0.152],
    "quadratic": [0.225, 0.226, 0.169, 0.147, 0.124],
}

# Printed, E3: p = 0, .1, ..., .9.
PRINTED_MAD = [
    0.23513708, 0.23115231, 0.23681591, 0.25377920, 0.22512259,
    0.26605535, 0.27903070, 0.35046417, 0.35993114, 0.48605943,
]  # fmt: skip
PRINTED_VARIANCE = [
    0.08243147, 0.08672915, 0.08745161, 0.09382075, 0.08692919,
    0.10298052, 0.11704929, 0.18571487, 0.20634703, 0.35487553,
]  # fmt: skip


def pair(name: str) -> Tensor:
    """Return two unit inputs in fp64: the "notebook"'s `[2, 10]`, or e_1 and (1, 1)/sqrt 2 `[2, 2]`."""
    if name == "notebook":
        x = torch.from_numpy(np.random.RandomState(1).random((2, 10)))
        return x / torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return torch.tensor([[1.0, 0.0], [math.sqrt(0.5), math.sqrt(0.5)]], dtype=torch.float64)


def limit(key: dict[str, Any], *, input_pruned: bool = False) -> float:
    """Return the limit of a row's rescaled net, with the input layer pruned or not."""
    x = pair(key["pair"])
    found = infinite(x[:1], x[1:], depth=key["depth"], density=key["density"], input_pruned=input_pruned)
    assert isinstance(found, Tensor)  # ten inputs at most: never an estimate
    return found.item()
