"""GraSP: gradient signal preservation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ._graph import MaskedModel, check_option, mean_over_batches, sum_over_batches, switched, xavier
from ._registry import register


class _Version(NamedTuple):
    mode: str = "eval"
    redrawn: bool = False
    per_batch: bool = False


VERSIONS = {
    "paper": _Version(),
    "authors": _Version(mode="train", redrawn=True, per_batch=True),
    "synflow": _Version(per_batch=True),
}


@register
@dataclass(frozen=True)
class GraSP:
    """Score by w * (H g): how much of the gradient's squared norm is lost with the weight; larger = keep, of any sign.

    g is the gradient of the mean loss over all samples (outputs divided by the temperature) and H its Hessian, both
    over the prunable weights. The authors' code ranks -w * (H g) and removes the largest, Synaptic-Flow's ranks
    w * (H g) and removes the smallest: the same order. A first pass over the batches accumulates g; a second one
    accumulates d/dw <g, dL_b/dw> with g constant. In eval mode this equals one batch of all samples.

    Args:
        temperature: what outputs are divided by before the loss.
        mode: "eval" or "train": which batch-norm statistics and dropout the passes use; None: the reference's.
        reference: "paper"; "authors" (alecwangcq/GraSP): train mode, the weights of nn.Linear drawn anew by Xavier's
            rule for the scoring, both passes summed over batches, whatever their sizes; "synflow"
            (ganguli-lab/Synaptic-Flow): the sums alone.

    Raises:
        ValueError: another reference or mode, or a temperature that is not positive.

    Cost: two passes over the batches, the second with a double backward; memory independent of the number of batches.

    Reference: Wang, Zhang, Grosse 2020, arXiv:2002.07376.
    """

    temperature: float = 200.0
    mode: str | None = None
    reference: str = "paper"
    name: ClassVar[str] = "grasp"
    iterations: ClassVar[int] = 1
    needs: ClassVar[str] = "targets"

    def __post_init__(self) -> None:
        check_option("GraSP", "reference", self.reference, VERSIONS)
        check_option("GraSP", "mode", self.mode, ("eval", "train", None))
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise ValueError(f"GraSP: temperature must be positive, got {self.temperature}")

    def score(self, model, batches, *, loss, masks, seed, train=None) -> dict[str, torch.Tensor]:
        """Return w * (H g), signed, 0 where masked."""

        def gradient(x: Any, y: Any, create_graph: bool = False) -> dict[str, Tensor]:
            return masked.gradients(loss(masked(x) / self.temperature, y), create_graph=create_graph)

        def product(x: Any, y: Any) -> dict[str, Tensor]:
            inner = [(g[name] * g_b).sum() for name, g_b in gradient(x, y, create_graph=True).items()]
            return masked.gradients(torch.stack(inner).sum())

        version = VERSIONS[self.reference]
        mode = self.mode or version.mode
        over_batches = sum_over_batches if version.per_batch else mean_over_batches
        masked = MaskedModel(model, masks, start=xavier(model, nn.Linear, seed) if version.redrawn else None)
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
            with switched(model, mode, seed):
                g = over_batches(batches, gradient)
            # seeded again: the second pass meets the dropout of the first
            with switched(model, mode, seed):
                hg = over_batches(batches, product)
        return {name: hg[name].mul_(w.detach()) for name, w in masked.weights.items()}
