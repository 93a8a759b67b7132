"""SNIP: connection sensitivity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch

from ..prunable import LAYERS, biases
from ._graph import MaskedModel, check_option, mean_over_batches, sum_over_batches, switched, xavier
from ._registry import register


class _Version(NamedTuple):
    mode: str = "eval"
    biases: bool = False
    redrawn: bool = False
    per_batch: bool = False


VERSIONS = {
    "paper": _Version(),
    "tensorflow": _Version(biases=True),
    "pytorch": _Version(mode="train", redrawn=True),
    "synflow": _Version(per_batch=True),
}


@register
@dataclass(frozen=True)
class SNIP:
    """Score by the effect on the loss of the weight's mask: |dL/dm| at m = 1, which is |w * dL/dw|.

    The gradient is averaged over all samples before the absolute value, so micro-batches give the scores of one batch
    (in eval mode; batch norm of a train-mode pass sees micro-batches). The published division by the sum of the scores
    changes neither order nor probabilities and is left out.

    Args:
        mode: "eval" or "train": which batch-norm statistics and dropout the pass uses; None: the reference's.
        reference: "paper"; "tensorflow", the authors' code: biases have scores too and compete for the budget;
            "pytorch" (mil-ad/snip): train mode, weights drawn anew by Xavier's rule for the scoring; "synflow"
            (ganguli-lab/Synaptic-Flow): gradients summed over batches, whatever their sizes.

    Raises:
        ValueError: another reference or mode.

    Cost: one forward and one backward a batch; memory independent of the number of batches.

    Reference: Lee, Ajanthan, Torr 2019, arXiv:1810.02340.
    """

    mode: str | None = None
    reference: str = "paper"
    name: ClassVar[str] = "snip"
    iterations: ClassVar[int] = 1
    needs: ClassVar[str] = "targets"

    def __post_init__(self) -> None:
        check_option("SNIP", "reference", self.reference, VERSIONS)
        check_option("SNIP", "mode", self.mode, ("eval", "train", None))

    @property
    def biases(self) -> bool:
        """Whether the biases of the prunable layers are scored."""
        return VERSIONS[self.reference].biases

    def score(self, model, batches, *, loss, masks, seed, train=None) -> dict[str, torch.Tensor]:
        """Return |w * dL/dw|, 0 where masked."""
        version = VERSIONS[self.reference]
        masked = MaskedModel(
            model,
            masks,
            start=xavier(model, LAYERS, seed) if version.redrawn else None,
            also=biases(model) if version.biases else (),
        )
        over_batches = sum_over_batches if version.per_batch else mean_over_batches
        with switched(model, self.mode or version.mode, seed):
            g = over_batches(batches, lambda x, y: masked.gradients(loss(masked(x), y)))
        return {name: g[name].mul_(w.detach()).abs_() for name, w in masked.weights.items()}
