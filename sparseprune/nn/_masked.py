"""What the masked layers share: the weight that the forward uses, conversion, loading."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar, cast

import torch
from torch import Tensor, nn

Layout = Literal["auto", "masked", "csr"]
Scale = Literal["fold", "keep"]
Self = TypeVar("Self", bound="Masked")

_MASK = "weight_mask"


class Masked(nn.Module):
    """Share the masked layout: parameter `weight`, buffer `weight_mask`, product taken at every forward."""

    weight: Tensor
    weight_mask: Tensor
    dense_type: ClassVar[type[nn.Module]]

    def masked_weight(self) -> Tensor:
        """Return the weight that the forward uses, `where(m != 0, w, 0) * m`, differentiable in `weight`.

        The selection comes before the product, so that a NaN or an infinity in a pruned place stays there.

        Returns:
            a tensor like `weight`, exactly 0 where pruned.

        Cost:
            one elementwise pass over the weight (two for a float mask).
        """
        return _effective(self.weight, self.weight_mask)

    @property
    def density(self) -> float:
        """Fraction of the weights that is kept."""
        return int(self.weight_mask.count_nonzero()) / max(1, self.weight_mask.numel())

    @classmethod
    def from_dense(
        cls: type[Self], module: nn.Module, mask: Tensor, *, layout: Layout = "auto", scale: Scale = "fold"
    ) -> Self:
        """Make a sparse copy of a dense layer, w <- w*m; `module` is left as it is.

        Hooks, the training flag, `requires_grad` and every option come along; parameters are copies (`sparsify`
        is the in-place way, which keeps the parameter objects). The mask of a layer that already is sparse is
        multiplied with the new one.

        Args:
            module: an nn.Linear for SparseLinear, an nn.Conv2d for SparseConv2d.
            mask: shaped like `module.weight`; bool, or float m = count/(s p). Non-zero = kept. It is copied.
            layout: "auto" or "masked"; "csr" is not in this version.
            scale: "fold" multiplies the weights by m once and keeps the 0/1 pattern; "keep" leaves the weights and
                uses w*m in every forward.

        Returns:
            a layer of this class.

        Raises:
            ValueError: another kind of layer, a wrong mask, an unknown layout or scale; nothing is written.

        Cost:
            a copy of the layer and one pass over its weight.
        """
        check_options("from_dense", layout, scale)
        if not isinstance(module, cls.dense_type):
            raise ValueError(f"from_dense: module must be an nn.{cls.dense_type.__name__}, got {type(module).__name__}")
        check_layer("from_dense", "module", module)
        check_mask("from_dense", "mask", mask, cast(Tensor, module.weight), scale)
        twin = _copy_layer(module)
        attach([(twin, cls)], mask, scale)
        return cast(Self, twin)

    def to_dense(self) -> nn.Module:
        """Make a dense copy, with the pruned weights exactly zero and any float mask multiplied in.

        Returns:
            an nn.Linear or nn.Conv2d that computes the same function; this layer is left as it is.

        Cost:
            a copy of the layer and one pass over its weight.
        """
        twin = cast(Masked, _copy_layer(self))
        detach([twin])
        return twin

    def zero_pruned(self) -> None:
        """Write zeros into the stored weight where it is pruned."""
        # nn.Linear.__init__ resets the parameters before there is a mask.
        if self._buffers.get(_MASK) is not None:
            _zero(self.weight, self.weight_mask)

    def extra_repr(self) -> str:
        """Describe the layer, its density and its layout."""
        density = "?" if self.weight_mask.is_meta else f"{self.density:.4g}"
        return f"{super().extra_repr()}, density={density}, layout=masked"

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
        """Load a sparse checkpoint with its pattern, or a dense one under the pattern that is here.

        The weight of a dense checkpoint is taken as w: a float mask that is here multiplies it.
        """
        # torch hands each module a dict of its own, so these writes do not reach the caller's.
        mask = state_dict.setdefault(prefix + _MASK, self.weight_mask)
        if isinstance(mask, Tensor) and mask.shape == self.weight_mask.shape:
            if mask.is_floating_point() != self.weight_mask.is_floating_point():
                # copy_ into a buffer of the other kind would drop the scales, or pretend there are some.
                self.weight_mask = torch.empty_like(self.weight, dtype=_mask_dtype(mask, self.weight)).detach()
            weight = state_dict.get(prefix + "weight")
            if isinstance(weight, Tensor) and weight.shape == mask.shape:
                kept = (mask != 0).to(weight.device)
                state_dict[prefix + "weight"] = torch.where(kept, weight.detach(), 0)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


def check_options(who: str, layout: str, scale: str) -> None:
    """Raise ValueError unless `layout` and `scale` are ones this version has."""
    if layout == "csr":
        raise ValueError(f"{who}: layout must be 'auto' or 'masked', got 'csr' (not in this version)")
    if layout not in ("auto", "masked"):
        raise ValueError(f"{who}: layout must be 'auto', 'masked' or 'csr', got {layout!r}")
    if scale not in ("fold", "keep"):
        raise ValueError(f"{who}: scale must be 'fold' or 'keep', got {scale!r}")


def check_layer(who: str, what: str, module: nn.Module) -> None:
    """Raise ValueError unless swapping the class of `module` keeps what its forward does."""
    base = next(base for base in (nn.Linear, nn.Conv2d) if isinstance(module, base))
    known = type(module) if isinstance(module, Masked) else base
    for method in ("forward", "_conv_forward"):
        if method in vars(module) or getattr(type(module), method, None) is not getattr(known, method, None):
            raise ValueError(f"{who}: {what} must use nn.{base.__name__}'s {method}, got {type(module).__name__}'s own")
    weight = module._parameters.get("weight")
    if weight is None:
        raise ValueError(f"{who}: {what} must own a plain parameter 'weight', got one computed by a parametrization")
    if nn.parameter.is_lazy(weight):
        raise ValueError(f"{who}: {what} must be initialized, got a {type(module).__name__} without a shape")


def check_mask(who: str, what: str, mask: Any, weight: Tensor, scale: str) -> None:
    """Raise ValueError unless `mask` can multiply `weight`."""
    if not isinstance(mask, Tensor):
        raise ValueError(f"{who}: {what} must be a tensor, got {type(mask).__name__}")
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise ValueError(f"{who}: {what} must be bool or floating point, got {mask.dtype}")
    if mask.shape != weight.shape:
        raise ValueError(f"{who}: {what} must have shape {list(weight.shape)} like weight, got {list(mask.shape)}")
    if mask.is_floating_point() and not mask.is_meta:
        used = mask.to(_mask_dtype(mask, weight)) if scale == "keep" else mask
        if not used.isfinite().all():
            raise ValueError(f"{who}: {what} must be finite in {used.dtype}, got NaN or infinite values")
        if not torch.equal(used != 0, mask != 0):
            raise ValueError(f"{who}: {what} must not underflow in {used.dtype}, got values that become 0")


@torch.no_grad()
def attach(layers: Sequence[tuple[nn.Module, type[Masked]]], mask: Tensor, scale: str) -> None:
    """Turn dense layers that share one weight into sparse ones, in place; everything has been checked."""
    weight = cast(Tensor, layers[0][0].weight)
    mask = mask.detach().to(weight.device)
    if scale == "fold" and mask.is_floating_point():
        weight.mul_(mask)
        mask = mask != 0
    else:
        mask = mask.to(_mask_dtype(mask, weight))
    for layer, kind in layers:
        old = layer._buffers.get(_MASK)
        # A copy: loading a checkpoint writes into the buffer, and the caller's masks must not change.
        buffer = mask.clone() if old is None else _compose(old, mask)
        layer.__class__ = kind
        layer.register_buffer(_MASK, buffer)
        # A gradient from before would wake the pruned weights at the next step.
        for tensor in (weight, weight.grad):
            if tensor is not None:
                _zero(tensor, buffer)


@torch.no_grad()
def detach(layers: Sequence[Masked]) -> None:
    """Turn sparse layers that share one weight (and so one mask) back into dense ones, in place."""
    weight = layers[0].weight
    weight.copy_(_effective(weight, layers[0].weight_mask))
    for layer in layers:
        del layer._buffers[_MASK]
        cast(Any, layer).__class__ = layer.dense_type


def _effective(weight: Tensor, mask: Tensor) -> Tensor:
    if mask.dtype == torch.bool:
        return torch.where(mask, weight, 0)
    return torch.where(mask != 0, weight, 0) * mask


@torch.no_grad()
def _zero(tensor: Tensor, mask: Tensor) -> None:
    tensor.copy_(torch.where(mask != 0, tensor, 0))


def _compose(old: Tensor, new: Tensor) -> Tensor:
    return old & new if old.dtype == new.dtype == torch.bool else old * new


def _mask_dtype(mask: Tensor, weight: Tensor) -> torch.dtype:
    # A float mask in another dtype would promote the product away from the dtype of the input.
    return weight.dtype if mask.is_floating_point() else torch.bool


def _copy_layer(module: nn.Module) -> nn.Module:
    """Copy a layer: tensors and hook tables of its own, the same hooks."""
    twin = copy.copy(module)
    for name, value in module.__dict__.items():
        if isinstance(value, (dict, set)):
            twin.__dict__[name] = value.copy()
    twin._parameters = copy.deepcopy(module._parameters)
    twin._buffers = copy.deepcopy(module._buffers)
    return twin
