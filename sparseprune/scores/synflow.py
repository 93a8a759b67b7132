"""SynFlow: the synaptic flow through every weight, without data, at any depth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from ._flow import Flow
from ._registry import Loss, Train, register


@register
@dataclass(frozen=True)
class SynFlow:
    """Score by synaptic flow, data-free: s = |dR/dw * w|, R = sum of the outputs of the net of absolute values.

    In eval mode, with every parameter and buffer of the state dict replaced by its absolute value and R taken on the
    inputs given (published: one sample of ones). Activations carry a power of two of their own, so that no depth
    overflows or vanishes and the order is that of exact arithmetic to rounding. Where R itself lies outside
    2^-32 ... 2^64 the scores are those of the definition times one common power of two. Where a layer's share of R is
    too small for float32 the pass is repeated in float64.

    Args:
        linear: score the linearized net: LayerNorm and other normalisations by an input's own statistics, GELU and
            other smooth activations, and softmax become the identity (attention: (q k^T / sqrt(d)) v), so that flow is
            conserved through transformers as well. False: these run as they are, as published.

    Args of `score`:
        model: its prunable weights are scored; half-precision states are taken to float32.
        batches: (input, anything) pairs; R sums over all.
        masks: bool or float, multiply the weights (in absolute value); None: dense.
        loss, seed, train: not used.

    Returns of `score`:
        parameter name -> scores >= 0, shaped like the weight, 0 where masked; float32 (float64 for float64 weights).

    Raises of `score`:
        ValueError: nothing prunable, no batch, or an output that is not one tensor.
        OverflowError: flows beyond what float64 holds, with the op or the layer.

    Cost: one forward and backward a batch. On a CPU layers of at most 32 places (pixels of an output, or samples) read
    their weights twice and write their scores; others take some four passes over the weights more.

    Reference: Tanaka et al. 2020, arXiv:2006.05467, Eq. 2 and Algorithm 1.
    """

    linear: bool = False
    name: ClassVar[str] = "synflow"
    iterations: ClassVar[int] = 100
    needs: ClassVar[str] = "inputs"
    inputs: ClassVar[str] = "ones"
    data_free: ClassVar[bool] = True

    def score(
        self,
        model: nn.Module,
        batches: Iterable[tuple[Any, Any]],
        *,
        loss: Loss | None = None,
        masks: Mapping[str, Tensor] | None = None,
        seed: int = 0,
        train: Train | None = None,
    ) -> dict[str, Tensor]:
        """Return the synaptic flow through every prunable weight, 0 where masked."""
        return Flow(self.name, linear=self.linear).scores(model, batches, masks)
