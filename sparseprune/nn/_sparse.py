"""What the sparse layers share: two layouts of the weight, conversion, loading."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar, cast

import torch
from torch import Tensor, nn

from ..ops import Pattern
from . import _state
from ._checks import Layout, Scale, check_csr, check_layer, check_mask, check_options
from ._choice import Seen, settle
from ._storage import MASK, SCALE, VALUES, attach, copy_layer, detach, effective, stored, zero
from ._view import View

Self = TypeVar("Self", bound="Sparse")


class Sparse(nn.Module):
    """Share the two layouts.

    masked: parameter `weight`, buffer `weight_mask`, their product taken at every forward. csr: parameter `values`, the
    kept weights alone, with its pattern in buffers; `weight` is then a view made when asked for.
    """

    weight: Tensor
    weight_mask: Tensor
    values: Tensor
    row_offsets: Tensor
    columns: Tensor
    column_offsets: Tensor
    rows: Tensor
    order: Tensor
    dense_type: ClassVar[type[nn.Module]]
    _chosen = False

    @property
    def layout(self) -> str:
        """How the weight is stored, "masked" or "csr"."""
        return "csr" if VALUES in self._parameters else "masked"

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """The shape of the dense weight."""
        raise NotImplementedError

    @property
    def weight_groups(self) -> int:
        """The groups of a convolution, else 1."""
        raise NotImplementedError

    @property
    def pattern(self) -> Pattern:
        """Where a csr layer's `values` stand in the weight."""
        found = self._buffers  # past __getattr__, five times at every forward
        return Pattern(*[cast(Tensor, found[name]) for name in Pattern._fields])

    def masked_weight(self) -> Tensor:
        """Return the weight that the forward uses, `where(m != 0, w, 0) * m`, differentiable.

        The selection comes before the product, so that a NaN or an infinity in a pruned place stays there.

        Returns:
            a dense tensor, exactly 0 where pruned.

        Cost:
            one elementwise pass over the weight (two for a float mask).
        """
        if self.layout == "csr":
            return self.pattern.dense(self.kept_values(), self.weight_shape)
        return effective(self.weight, self.weight_mask)

    def kept_values(self) -> Tensor:
        """Return the values that a csr layer's forward uses: `values`, times `scale` where there is one."""
        scale = self._buffers.get(SCALE)
        return self.values if scale is None else self.values * scale.to(self.values.dtype)

    @property
    def density(self) -> float:
        """Fraction of the weights that is kept; NaN for a mask on the meta device."""
        if self.layout == "csr":
            return len(self.values) / max(1, torch.Size(self.weight_shape).numel())
        if self.weight_mask.is_meta:
            return math.nan
        return int(self.weight_mask.count_nonzero()) / max(1, self.weight_mask.numel())

    @classmethod
    def from_dense(
        cls: type[Self],
        module: nn.Module,
        mask: Tensor,
        *,
        layout: Layout = "auto",
        scale: Scale = "fold",
        batch_size: int = 128,
    ) -> Self:
        """Make a sparse copy of a dense layer, w <- w*m; `module` is left as it is.

        Hooks, the training flag, `requires_grad` and every option come along; parameters are copies (`sparsify` is the
        in-place way). The mask of a layer that already is sparse is multiplied with the new one.

        Args:
            module: an nn.Linear for SparseLinear, an nn.Conv2d for SparseConv2d.
            mask: shaped like `module.weight`; bool, or float m = count/(s p). Non-zero = kept. It is copied.
            layout: "masked" (w*m in a dense product), "csr" (kept weights alone), or "auto": what is expected to be
                faster for this weight between layers that are not csr.
            scale: "fold" multiplies the weights by m once and keeps the 0/1 pattern; "keep" leaves the weights and
                uses w*m in every forward.
            batch_size: for "auto", the examples of a forward; a convolution is taken to see 16x16 images.

        Returns:
            a layer of this class.

        Raises:
            ValueError: another kind of layer, a wrong mask, an unknown option; nothing is written.

        Cost:
            a copy of the layer and one pass over its weight; for csr a sort of the kept entries.
        """
        check_options("from_dense", layout, scale, batch_size)
        if not isinstance(module, cls.dense_type):
            raise ValueError(f"from_dense: module must be an nn.{cls.dense_type.__name__}, got {type(module).__name__}")
        check_layer("from_dense", "module", module)
        weight, shape = stored(module)
        check_mask("from_dense", "mask", mask, shape, weight.dtype, scale)
        if layout == "csr" or VALUES in module._parameters:
            check_csr("from_dense", "weight and mask", weight, mask)
        twin = copy_layer(module)
        attach([(twin, cls)], mask, scale)
        settle([[cast(Sparse, twin)]], layout, Seen(batch_size))
        return cast(Self, twin)

    def to_dense(self) -> nn.Module:
        """Make a dense copy, with the pruned weights exactly zero and any float mask multiplied in.

        Returns:
            an nn.Linear or nn.Conv2d that computes the same function; this layer is left as it is.

        Cost:
            a copy of the layer and one pass over its weight.
        """
        twin = cast(Sparse, copy_layer(self))
        detach([twin])
        return twin

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the parameters again as the dense layer does; the pattern stays and pruned weights stay zero."""
        reset = cast(Any, super()).reset_parameters
        if self.layout == "masked":
            reset()
            # nn.Linear.__init__ resets the parameters before there is a mask.
            if self._buffers.get(MASK) is not None:
                zero(self.weight, self.weight_mask)
            return
        weight = self.values.new_empty(self.weight_shape)
        self._parameters["weight"] = nn.Parameter(weight, requires_grad=False)
        try:
            reset()
        finally:
            del self._parameters["weight"]
        self.values.copy_(weight.view(-1)[self.pattern.places(weight[:1].numel())])

    def extra_repr(self) -> str:
        """Describe the layer, its density and its layout."""
        chosen = " (auto)" if self._chosen else ""
        return f"{super().extra_repr()}, density={self.density:.4g}, layout={self.layout}{chosen}"

    def __getattr__(self, name: str) -> Any:
        """Make `weight` of a csr layer: dense, differentiable in `values`, a fresh tensor each time."""
        own = self.__dict__.get("_parameters", {})
        if name == "weight" and VALUES in own and name not in own:
            return View.of(self.pattern.dense(self.values, self.weight_shape))
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "weight" and VALUES in self.__dict__.get("_parameters", {}):
            raise AttributeError(
                f"{type(self).__name__}: weight is read-only in the csr layout; write to `values`, or densify first"
            )
        super().__setattr__(name, value)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Load a sparse checkpoint of either layout with its pattern, or a dense one under the pattern that is here.

        The weight of a dense checkpoint is taken as w: a float mask that is here multiplies it.
        """
        # torch hands each module a dict of its own, so these writes do not reach the caller's.
        if self.layout == "csr":
            assign = bool(local_metadata.get("assign_to_params_buffers", False))
            error = _state.into_csr(self, state_dict, prefix, assign)
        else:
            error = _state.into_masked(self, state_dict, prefix)
        if error is not None:
            error_msgs.append(error)
            return
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
