"""SynFlow-L2: the flow of squared weights, which is the path kernel's trace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from ..prunable import prunable
from ._flow import Flow
from ._registry import Loss, Train, register


@register
@dataclass(frozen=True)
class SynFlowL2:
    """Score by the flow of squares, data-free: s = dR/d(w^2) w^2, R = sum of the outputs of the net of squared weights.

    Of the linearized net in eval mode; prunable weights are squared, all other state is taken absolute. Else as
    `SynFlow`, whose arguments and errors those of `score` are.

    Args:
        reference: "phew": as above. "px": s = dR/d(w^2) |w|, a gradient by the square times the weight itself.

    Reference: Patil & Dovrolis 2021, arXiv:2010.11354; Iurada et al. 2024, arXiv:2406.01820 ("px").
    """

    reference: Literal["phew", "px"] = "phew"
    name: ClassVar[str] = "synflow_l2"
    iterations: ClassVar[int] = 100
    needs: ClassVar[str] = "inputs"
    inputs: ClassVar[str] = "ones"
    data_free: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.reference not in ("phew", "px"):
            raise ValueError(f"SynFlowL2: reference must be 'phew' or 'px', got {self.reference!r}")

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
        """Return the flow of squares through every prunable weight, 0 where masked."""
        scores = Flow(self.name, power=2, linear=True).scores(model, batches, masks)
        if self.reference == "px":
            for name, w in prunable(model).items():
                v = w.detach().abs() if masks is None or name not in masks else (w.detach() * masks[name]).abs()
                scores[name] = (scores[name] / v).nan_to_num_(0.0)  # 0/0 where masked
        return scores
