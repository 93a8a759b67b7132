"""Turn a model sparse, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from . import batch_last
from ._checks import Layout, Scale, check_csr, check_layer, check_mask, check_options
from ._choice import look, settle
from ._sparse import Sparse
from ._storage import VALUES, attach, detach, stored
from .conv import SparseConv2d
from .linear import SparseLinear

Model = TypeVar("Model", bound=nn.Module)
Layers = list[tuple[nn.Module, type[Sparse]]]


def sparsify(
    model: Model,
    masks: Mapping[str, Tensor],
    *,
    layout: Layout = "auto",
    scale: Scale = "fold",
    batch_size: int = 128,
    inputs: Tensor | None = None,
) -> Model:
    """Put masks on the weights of a model, in place: nn.Linear -> SparseLinear, nn.Conv2d -> SparseConv2d.

    Each named layer changes its class and stays the same object, with its hooks, training flag and `requires_grad`;
    layers tied to one weight stay tied and get one mask. Layers that no mask names stay dense. In the masked layout the
    Parameter objects stay too, so that an optimizer goes on; in the csr layout the parameter `weight` gives way to a
    new one, `values`, so make optimizers after this. Masks compose: on a layer that already is sparse the new mask
    multiplies the old one, so a pruned weight does not return (`densify` first for that), and the layout may change.
    An optimizer that holds momentum from before can still move stored weights of masked layers; the effective ones are
    0 all the same.

    Where a convolution is in the csr layout, the model's nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d and
    nn.AdaptiveAvgPool2d become those of `sparseprune.nn`, which keep its batch-last strides: same objects, state and
    numbers. Other operations that drop such strides (pad, cat, mean, layer_norm) cost a transposition each.

    Args:
        model: any module, a single nn.Linear or nn.Conv2d included (its parameter is named "weight").
        masks: parameter name ("....weight", in either layout) -> mask shaped like the weight; bool, or float
            m = count/(s p). Non-zero = kept. Copied, and moved to the device of the weight.
        layout: "masked" (w*m in a dense product), "csr" (kept weights alone), or "auto": for each layer what is
            expected to be faster, masked where csr cannot be; `sparseprune.nn.layouts(model)` tells.
        scale: "fold" sets w <- w*m once and keeps the 0/1 pattern; "keep" uses w*m in every forward (Algorithm 1
            applied to the trained weights).
        batch_size: for "auto", the examples of a forward.
        inputs: for "auto", an example batch: the model is run on it once, in eval mode, to learn what each layer works
            on. None: `batch_size` examples for each layer, and 16x16 images for convolutions.

    Returns:
        `model`.

    Raises:
        ValueError: a name that is not the weight of an nn.Linear or nn.Conv2d of the model, a mask of a wrong shape or
            dtype, a weight that torch or another kind of layer uses without calling the layer's forward (the
            `out_proj` of nn.MultiheadAttention, `linear1` and `linear2` of nn.TransformerEncoderLayer, a weight tied
            to an embedding), for "csr" a weight that is complex, on the meta device or spread over ranks, an unknown
            option. Raised before anything is changed.

    Cost:
        one pass over the named weights, and for csr a sort of the kept entries; in memory one bool (or float) a weight
        for masked, 16 bytes a kept weight for csr.

    Reference:
        Bar and Giryes, "Pruning at Initialization - A Sketching Perspective", 2023, Algorithm 1.
    """
    check_options("sparsify", layout, scale, batch_size)
    if not isinstance(masks, Mapping):
        raise ValueError(f"sparsify: masks must map parameter names to tensors, got {type(masks).__name__}")
    parameters = _parameters(model)
    _check_names(parameters, masks)
    bypassed = _bypassed(model)
    plan = [(_layers(model, name, parameters[name], bypassed), mask) for name, mask in masks.items()]
    for (layers, mask), name in zip(plan, masks, strict=True):
        weight, shape = stored(layers[0][0])
        check_mask("sparsify", f"masks[{name!r}]", mask, shape, weight.dtype, scale)
        if layout == "csr" or "weight" not in layers[0][0]._parameters:
            check_csr("sparsify", f"{name!r} and its mask", weight, mask)
    seen = look(model, inputs if layout == "auto" else None, batch_size)
    for layers, mask in plan:
        attach(layers, mask, scale)
    settle([[cast(Sparse, layer) for layer, _ in layers] for layers, _ in plan], layout, seen)
    _keep_batch_last(model)
    return model


def densify(model: Model) -> Model:
    """Turn every sparse layer of a model back into nn.Linear or nn.Conv2d, in place, pruned weights exactly zero.

    The layers stay the same objects, and the Parameter objects of masked ones; a csr layer's `values` give way to a new
    `weight`. A float mask (`scale="keep"`) is multiplied in. Batch norms and poolings are torch's again.

    Args:
        model: any module, a single sparse layer included.

    Returns:
        `model`, computing the same function.

    Raises:
        ValueError: layers that share a weight but not a mask (no dense weight serves both), or a csr layer on the meta
            device or spread over ranks; nothing is changed.

    Cost:
        one pass over the sparse weights.
    """
    groups: dict[int, list[Sparse]] = {}
    names: dict[int, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, Sparse):
            key = id(stored(module)[0])
            if module.layout == "csr":
                check_csr("densify", f"weights of {name or type(module).__name__!r}", module.values)
            group = groups.setdefault(key, [])
            first = names.setdefault(key, name)
            if group and not _same_mask(group[0], module):
                raise ValueError(f"densify: {first!r} and {name!r} share a weight and must share a mask, got two masks")
            group.append(module)
    for group in groups.values():
        detach(group)
    _keep_batch_last(model)
    return model


def _keep_batch_last(model: nn.Module) -> None:
    batch_last.swap(model, any(isinstance(m, SparseConv2d) and m.layout == "csr" for m in model.modules()))


def _same_mask(first: Sparse, second: Sparse) -> bool:
    if first.layout == "masked":
        return torch.equal(first.weight_mask, second.weight_mask)
    names = [name for name in ("row_offsets", "columns", "scale") if name in first._buffers or name in second._buffers]
    return all(
        name in first._buffers and name in second._buffers and torch.equal(getattr(first, name), getattr(second, name))
        for name in names
    )


def _parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a model by name, `values` of a csr layer under the name of its weight."""
    found = dict(model.named_parameters(remove_duplicate=False))
    for path, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, Sparse) and module.layout == "csr":
            prefix = f"{path}." if path else ""
            found[f"{prefix}weight"] = found.pop(f"{prefix}{VALUES}")
    return found


def _check_names(parameters: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless the masks name parameters of the model, each once."""
    seen: dict[int, str] = {}
    for name in masks:
        if name not in parameters:
            raise ValueError(f"sparsify: masks must name parameters of the model, got {name!r}")
        first = seen.setdefault(id(parameters[name]), name)
        if first != name:
            raise ValueError(f"sparsify: masks must name a shared parameter once, got {first!r} and {name!r}")


def _layers(model: nn.Module, name: str, parameter: nn.Parameter, bypassed: dict[int, str]) -> Layers:
    """Find every layer that uses the parameter `name`, each with its sparse class."""
    layers: Layers = []
    for path, module in model.named_modules():
        for attribute, value in module._parameters.items():
            if value is not parameter:
                continue
            what = f"masks[{name!r}]"
            is_weight = attribute == "weight" or (attribute == VALUES and isinstance(module, Sparse))
            kind = _sparse_type(module) if is_weight else None
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


def _sparse_type(module: nn.Module) -> type[Sparse] | None:
    if isinstance(module, Sparse):
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
