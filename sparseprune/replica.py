"""Models in wrappers: what they wrap, and a plain copy of one that is spread over ranks."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import nn

from .shards import full, is_dtensor


def unwrapped(who: str, model: nn.Module) -> nn.Module:
    """The module inside DistributedDataParallel or DataParallel; FSDP2 modules with their parameters sharded.

    Raises: ValueError for the older FullyShardedDataParallel.
    """
    while isinstance(model, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
        model = model.module
    for name, module in model.named_modules():
        if isinstance(module, _fsdp("FullyShardedDataParallel")):
            raise ValueError(
                f"{who}: model must be plain, DistributedDataParallel or sharded with fully_shard (FSDP2), "
                f"got FullyShardedDataParallel at {name or 'the root'!r}"
            )
        if isinstance(module, _fsdp("FSDPModule")):
            cast(Any, module).reshard()  # after a forward pass the root may hold whole parameters still
    return model


def is_spread(model: nn.Module) -> bool:
    """Whether some parameters or buffers are DTensors."""
    return any(is_dtensor(t) for t in _state(model))


def replica(model: nn.Module) -> nn.Module:
    """A deep copy; of a model spread over ranks (FSDP2, tensor parallel) a plain one, whole on every rank.

    Hooks of torch.distributed are left out; the copy computes what the model did before it was spread. All ranks must
    call this.

    Cost: the whole model in the memory of every rank.
    """
    if not is_spread(model):
        return copy.deepcopy(model)
    # Filled in advance, so that deepcopy puts these where it meets modules and tensors.
    memo: dict[int, Any] = {id(m): object.__new__(_plain_class(m)) for m in model.modules()}
    for t in _state(model):
        if is_dtensor(t) and id(t) not in memo:
            whole = full(t.detach())
            memo[id(t)] = nn.Parameter(whole, t.requires_grad) if isinstance(t, nn.Parameter) else whole
    for module in model.modules():
        state = {k: v for k, v in vars(module).items() if not k.startswith("__composable_api")}
        for name in [name for name in state if name.endswith("_hooks")]:
            hooks = state[name]
            state[name] = type(hooks)((k, hook) for k, hook in hooks.items() if not _is_distributed(hook))
        vars(memo[id(module)]).update(copy.deepcopy(state, memo))
    return memo[id(model)]


def _fsdp(name: str) -> Any:
    """A class of torch.distributed.fsdp, () where that is not in use."""
    return getattr(sys.modules.get("torch.distributed.fsdp"), name, ())


def _state(model: nn.Module) -> Iterator[torch.Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _plain_class(module: nn.Module) -> type:
    """The class that fully_shard has put its own before."""
    own = type(module)
    return own.__bases__[1] if _fsdp("FSDPModule") in own.__bases__ else own


def _is_distributed(hook: Any) -> bool:
    hook = getattr(hook, "hook", hook)  # as nn.Module wraps those of state dicts
    hook = getattr(hook, "func", hook)
    return str(getattr(hook, "__module__", "")).startswith("torch.distributed")
