"""Where the outputs of a layer go: the one layer that reads them, and the batch norms between."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..prunable import LAYERS

Layer = nn.Linear | nn.Conv2d
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_EXAMPLES = 8  # that a surgery is proved on


@dataclass(frozen=True)
class Wiring:
    """Names of a layer, of the one that reads it, and of the batch norms between.

    Args:
        units: outputs (channels) of the layer; each is `in_features / units` inputs of a following nn.Linear.
    """

    layer: str
    following: str
    norms: tuple[str, ...]
    units: int


def name_of(who: str, model: nn.Module, layer: str | nn.Module) -> str:
    """Return the name of a layer of the model that can be pruned.

    Raises:
        ValueError: not a dense nn.Linear or nn.Conv2d of the model, or one with groups.
    """
    names = {id(module): name for name, module in model.named_modules()}
    found = dict(model.named_modules()).get(layer) if isinstance(layer, str) else layer
    if not isinstance(found, LAYERS) or id(found) not in names:
        options = [name for name, module in model.named_modules() if isinstance(module, LAYERS)]
        got = layer if isinstance(layer, str) else type(layer).__name__
        raise ValueError(f"{who}: layer must be one of {', '.join(map(repr, options))}, got {got!r}")
    check_dense(who, found)
    return names[id(found)]


def check_dense(who: str, layer: nn.Module) -> None:
    """Raise unless the layer holds a plain weight that all of its outputs share inputs of."""
    if "weight" not in layer._parameters or "weight_mask" in layer._buffers:
        raise ValueError(f"{who}: layers must be dense, got a sparse or parametrized one: densify(model) first")
    if getattr(layer, "groups", 1) != 1:
        raise ValueError(f"{who}: layers must have groups=1, got a convolution with groups={layer.groups}")


def get(model: nn.Module, name: str) -> Layer:
    """Return a layer by name."""
    return cast(Layer, model.get_submodule(name))


@contextmanager
def watching(layer: nn.Module, see: Callable[[Tensor, Tensor], None]) -> Iterator[None]:
    """Call `see(input, output)` at every forward of a layer."""

    def hook(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: Tensor) -> None:
        see(args[0] if args else kwargs["input"], output)

    handle = layer.register_forward_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def wire(model: nn.Module, layer: str, x: Any) -> Wiring:
    """Run the model (eval mode) on x, and tell by the order of calls what follows a layer: `check_removal` proves it.

    Raises:
        ValueError: the layer is called other than once, or nothing that can take its outputs follows.
    """
    called: list[str] = []
    kinds = (*LAYERS, *_NORMS)
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: called.append(name))
        for name, module in model.named_modules()
        if isinstance(module, kinds)
    ]
    try:
        with torch.no_grad():
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
    if called.count(layer) != 1:
        raise ValueError(f"prune_nodes: layer must be called once a forward, got {called.count(layer)} for {layer!r}")
    after = called[called.index(layer) + 1 :]
    modules = dict(model.named_modules())
    place = next((i for i, name in enumerate(after) if isinstance(modules[name], LAYERS)), None)
    if place is None:
        raise ValueError(f"prune_nodes: layer must feed another nn.Linear or nn.Conv2d, got the last one, {layer!r}")
    following = get(model, after[place])
    check_dense("prune_nodes", following)
    units = get(model, layer).weight.shape[0]
    if following.weight.shape[1] % units:
        raise _not_alone(layer, after[place])
    norms = (name for name in after[:place] if getattr(modules[name], "num_features", None) == units)
    return Wiring(layer, after[place], tuple(norms), units)


def by_unit(x: Tensor, layer: Layer, units: int) -> Tensor:
    """Return [rows, units] of what a layer reads or gives: positions of images and tokens are rows."""
    if isinstance(layer, nn.Conv2d):
        return x.movedim(-3, -1).reshape(-1, units)
    return x.reshape(-1, units, x.shape[-1] // units).mT.reshape(-1, units)


@torch.no_grad()
def cut(model: nn.Module, wiring: Wiring, kept: Tensor) -> None:
    """Remove, in place, every unit but `kept` from a layer, from the norms after it and from what reads it."""
    for name in (wiring.layer, *wiring.norms):
        module = model.get_submodule(name)
        for size in ("out_features", "out_channels", "num_features"):
            if hasattr(module, size):
                setattr(module, size, len(kept))
        for values in ("weight", "bias", "running_mean", "running_var"):
            if getattr(module, values, None) is not None:
                _replace(module, values, getattr(module, values)[kept])
    following = get(model, wiring.following)
    taken = following.weight.unflatten(1, (wiring.units, -1))[:, kept].flatten(1, 2)
    setattr(following, "in_channels" if isinstance(following, nn.Conv2d) else "in_features", taken.shape[1])
    _replace(following, "weight", taken)


def _replace(module: nn.Module, name: str, values: Tensor) -> None:
    old = getattr(module, name)
    new = values.detach().clone()
    setattr(module, name, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new)


@torch.no_grad()
def check_removal(model: nn.Module, wiring: Wiring, kept: Tensor, x: Any) -> None:
    """Raise unless removing units does (in float64, on a few examples) what zeroing the weights that read them does."""
    x = x[:_EXAMPLES].double() if x.is_floating_point() else x[:_EXAMPLES]
    whole, smaller = (copy.deepcopy(model).double() for _ in range(2))
    dropped = torch.ones(wiring.units, dtype=torch.bool).index_fill_(0, kept.cpu(), False)
    get(whole, wiring.following).weight.unflatten(1, (wiring.units, -1))[:, dropped.to(kept.device)] = 0.0
    cut(smaller, wiring, kept)
    try:
        torch.testing.assert_close(smaller(x), whole(x), rtol=1e-7, atol=1e-9)
    except (AssertionError, RuntimeError, ValueError, TypeError, IndexError):
        raise _not_alone(wiring.layer, wiring.following) from None


def _not_alone(layer: str, following: str) -> ValueError:
    return ValueError(
        f"prune_nodes: outputs of the layer must go to one other layer alone, unit by unit (through element-wise "
        f"functions, batch norms, pools), got more between {layer!r} and {following!r}, the next layer called"
    )
