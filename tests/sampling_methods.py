"""Every method of the sampler with its outputs, and how tests call them all alike."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparseprune import sampling

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def scores_of(*shape: int, seed: int = 1) -> Tensor:
    """Non-negative scores that float16 holds exactly, a fifth of them 0."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randint(1, 128, shape, generator=g) * 2.0 ** torch.randint(-5, 6, shape, generator=g)
    return x * (torch.rand(shape, generator=g) > 0.2)


def run(method: str, scores: Any, **options: Any) -> Any:
    """Call a method with 300 draws or kept elements."""
    if method == "top_k":
        options = {key: value for key, value in options.items() if key not in ("seed", "stream")}
    else:
        options.setdefault("seed", 5)
    return getattr(sampling, method)(scores, 300, **options)


ALL, KEPT = ("m", "counts", "weights", "bool", "indices"), ("weights", "bool", "indices")
OUTPUTS = {
    "multinomial": ALL,
    "poisson": ALL,
    "systematic": ALL,
    "priority": ALL,
    "bernoulli": ALL,
    "without_replacement": KEPT,
    "top_k": KEPT,
}
CASES = [(method, output) for method, outputs in OUTPUTS.items() for output in outputs]
METHODS = list(OUTPUTS)
RANDOM = [method for method in METHODS if method != "top_k"]
MULTIPLIERS = [method for method in METHODS if "m" in OUTPUTS[method]]
SKETCHES = ["multinomial", "poisson", "systematic"]


def flat(result: Any) -> Tensor:
    return torch.cat([r.reshape(-1) for r in result]) if isinstance(result, list) else result.reshape(-1)


def same_bytes(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))
