"""Turn a model sparse, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from ._masked import Layout, Masked, Scale, attach, check_layer, check_mask, check_options, detach
from .conv import SparseConv2d
from .linear import SparseLinear

Model = TypeVar("Model", bound=nn.Module)
Layers = list[tuple[nn.Module, type[Masked]]]


def sparsify(model: Model, masks: Mapping[str, Tensor], *, layout: Layout = "auto", scale: Scale = "fold") -> Model:
    """Put masks on the weights of a model, in place: nn.Linear -> SparseLinear, nn.Conv2d -> SparseConv2d.

    Each named layer changes its class and stays the same object, with the same Parameter objects, hooks, training
    flag and `requires_grad`: optimizers, shared layers and tied weights stay as they were (layers tied to one weight
    get one mask). Layers that no mask names stay dense. Masks compose: on a layer that already is sparse the new mask
    multiplies the old one, so a pruned weight does not return (`densify` first for that). An optimizer that holds
    momentum from before can still move stored weights; the effective ones are 0 all the same.

    Args:
        model: any module, a single nn.Linear or nn.Conv2d included (its parameter is named "weight").
        masks: parameter name -> mask shaped like the parameter; bool, or float m = count/(s p). Non-zero = kept.
            Copied, and moved to the device of the weight.
        layout: "auto" or "masked"; "csr" is not in this version.
        scale: "fold" sets w <- w*m once and keeps the 0/1 pattern; "keep" uses w*m in every forward (Algorithm 1
            applied to the trained weights).

    Returns:
        `model`.

    Raises:
        ValueError: a name that is not the weight of an nn.Linear or nn.Conv2d of the model, a mask of a wrong shape or
            dtype, a weight that torch or another kind of layer uses without calling the layer's forward (the
            `out_proj` of nn.MultiheadAttention, `linear1` and `linear2` of nn.TransformerEncoderLayer, a weight tied
            to an embedding), an unknown layout or scale. Raised before anything is changed.

    Cost:
        one pass over the named weights; one bool (or float) a weight in memory.

    Reference:
        Bar and Giryes, "Pruning at Initialization - A Sketching Perspective", 2023, Algorithm 1.
    """
    check_options("sparsify", layout, scale)
    if not isinstance(masks, Mapping):
        raise ValueError(f"sparsify: masks must map parameter names to tensors, got {type(masks).__name__}")
    _check_names(model, masks)
    bypassed = _bypassed(model)
    plan = [(_layers(model, name, bypassed), mask) for name, mask in masks.items()]
    for name, mask in masks.items():
        check_mask("sparsify", f"masks[{name!r}]", mask, model.get_parameter(name), scale)
    for layers, mask in plan:
        attach(layers, mask, scale)
    return model


def densify(model: Model) -> Model:
    """Turn every sparse layer of a model back into nn.Linear or nn.Conv2d, in place, pruned weights exactly zero.

    The layers and Parameter objects stay the same ones. A float mask (`scale="keep"`) is multiplied in.

    Args:
        model: any module, a single sparse layer included.

    Returns:
        `model`, computing the same function.

    Raises:
        ValueError: layers that share a weight but not a mask (no dense weight serves both); nothing is changed.

    Cost:
        one pass over the sparse weights.
    """
    groups: dict[int, list[Masked]] = {}
    names: dict[int, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, Masked):
            group = groups.setdefault(id(module.weight), [])
            first = names.setdefault(id(module.weight), name)
            if group and not torch.equal(group[0].weight_mask, module.weight_mask):
                raise ValueError(f"densify: {first!r} and {name!r} share a weight and must share a mask, got two masks")
            group.append(module)
    for group in groups.values():
        detach(group)
    return model


def _check_names(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless the masks name parameters of the model, each once."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    seen: dict[int, str] = {}
    for name in masks:
        if name not in parameters:
            raise ValueError(f"sparsify: masks must name parameters of the model, got {name!r}")
        first = seen.setdefault(id(parameters[name]), name)
        if first != name:
            raise ValueError(f"sparsify: masks must name a shared parameter once, got {first!r} and {name!r}")


def _layers(model: nn.Module, name: str, bypassed: dict[int, str]) -> Layers:
    """Find every layer that uses the parameter `name`, each with its sparse class."""
    parameter = model.get_parameter(name)
    layers: Layers = []
    for path, module in model.named_modules():
        for attribute, value in module._parameters.items():
            if value is not parameter:
                continue
            what = f"masks[{name!r}]"
            kind = _sparse_type(module) if attribute == "weight" else None
            owner = f"{path}.{attribute}".lstrip(".")
            if kind is None:
                got = f"{owner!r} of {type(module).__name__}"
                raise ValueError(f"sparsify: {what} must be the weight of an nn.Linear or nn.Conv2d only, got {got}")
            if id(module) in bypassed:
                reason = f"{bypassed[id(module)]} reads it without calling the layer"
                raise ValueError(f"sparsify: {what} must be a weight that its layer's forward uses, but {reason}")
            check_layer("sparsify", repr(path or type(module).__name__), module)
            layers.append((module, kind))
    return layers


def _sparse_type(module: nn.Module) -> type[Masked] | None:
    if isinstance(module, Masked):
        return type(module)
    if isinstance(module, nn.Linear):
        return SparseLinear
    return SparseConv2d if isinstance(module, nn.Conv2d) else None


def _bypassed(model: nn.Module) -> dict[int, str]:
    """Find the layers whose weight torch hands to a fused attention or encoder kernel: id -> who does."""
    found: dict[int, str] = {}
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            found[id(module.out_proj)] = "nn.MultiheadAttention"
        elif isinstance(module, nn.TransformerEncoderLayer):
            for layer in (module.linear1, module.linear2):
                found[id(cast(nn.Module, layer))] = "nn.TransformerEncoderLayer's fast path"
    return found
