"""Which parameters of a model can be pruned."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from torch import nn

LAYERS = (nn.Linear, nn.Conv2d)


def prunable(model: nn.Module, modules: Iterable[str | nn.Module] | None = None) -> dict[str, nn.Parameter]:
    """Return the parameters that can be pruned: the weight of every nn.Linear and nn.Conv2d.

    Args:
        model: any module; subclasses of the two layers count.
        modules: names or submodules to stay within; a container stands for every layer in it. None: the whole model.

    Returns:
        Parameter name -> parameter, in `model.named_parameters()` order; a shared parameter once, by its first name.

    Raises:
        ValueError: an entry of `modules` is not in the model or has nothing prunable in it; a layer of the
            model in the csr layout, which holds its kept weights alone.
    """
    return {name: cast(nn.Parameter, group[0].weight) for name, group in layers(model, modules).items()}


def biases(model: nn.Module, modules: Iterable[str | nn.Module] | None = None) -> dict[str, nn.Parameter]:
    """Return the biases of the layers of `prunable(model, modules)`, in the model's order; a shared one once."""
    owned = {id(layer.bias) for group in layers(model, modules).values() for layer in group}
    return {name: p for name, p in model.named_parameters() if id(p) in owned}


def layers(
    model: nn.Module, modules: Iterable[str | nn.Module] | None = None
) -> dict[str, list[nn.Linear | nn.Conv2d]]:
    """Return the layers behind each prunable parameter: several where a weight is shared.

    Args and errors are those of `prunable`.
    """
    owners: dict[int, list[nn.Linear | nn.Conv2d]] = {}
    for name, module in model.named_modules():
        if not isinstance(module, LAYERS):
            continue
        if "values" in module._parameters:
            raise ValueError(
                f"prunable: layers must hold their weights, got {name or type(module).__name__!r} in the csr layout: "
                "densify(model) first, or sparsify(model, ..., layout='masked')"
            )
        if isinstance(module._parameters.get("weight"), nn.Parameter):
            owners.setdefault(id(module.weight), []).append(module)
    found = {name: owners[id(p)] for name, p in model.named_parameters() if id(p) in owners}
    if modules is None:
        return found
    wanted = _within(model, modules, set(owners))
    return {name: group for name, group in found.items() if id(group[0].weight) in wanted}


def _within(model: nn.Module, modules: Iterable[str | nn.Module], owned: set[int]) -> set[int]:
    if isinstance(modules, (str, nn.Module)):
        modules = [modules]
    by_name = dict(model.named_modules())
    inside = set(model.modules())
    wanted: set[int] = set()
    for entry in modules:
        module = by_name.get(entry) if isinstance(entry, str) else entry
        hits = owned & {id(p) for p in module.parameters()} if module in inside and module is not None else set()
        if not hits:
            raise ValueError(f"prunable: modules must be parts of the model that hold Linear or Conv2d, got {entry!r}")
        wanted |= hits
    return wanted
