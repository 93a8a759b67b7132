"""A tensor that is computed from something else, so that writing into it would be lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

# Methods that end in _ and write nothing but flags.
_HARMLESS = ("requires_grad_", "rename_", "share_memory_")


class View(Tensor):
    """A tensor that refuses writes, `torch.nn.init` among them, as its views do; what is computed from it is plain."""

    @staticmethod
    def of(tensor: Tensor) -> Tensor:
        """Guard a tensor; inside torch.compile and torch.func, which rewrite in-place operations, it stays plain."""
        if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
            return tensor
        return tensor.as_subclass(View)

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run `func`, unless it writes into a View."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        first = args[0] if args else None
        several = first if isinstance(first, (list, tuple)) else [first]  # torch._foreach_mul_ takes a list
        written = [*several, kwargs.get("tensor"), kwargs.get("out")]
        if any(isinstance(x, View) for x in written) and (_writes(name) or isinstance(kwargs.get("out"), View)):
            raise RuntimeError(
                f"{name}: weight of a layer in the csr layout is read-only, made from `values` when it is asked for; "
                "write to `values`, or densify first"
            )
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)

        def guard(x: Any) -> Any:
            """Views and .data share memory that is about to be dropped."""
            shared = isinstance(x, Tensor) and any(isinstance(v, View) and _shares(v, x) for v in written)
            return x.as_subclass(View) if shared else x

        # unbind and split give a plain tuple or list; max and sort a named one of fresh tensors.
        return type(result)(map(guard, result)) if type(result) in (list, tuple) else guard(result)


_shares = getattr(torch._C, "_is_alias_of")  # noqa: B009 - missing in torch's stubs


def _writes(name: str) -> bool:
    if name.startswith("__"):
        return name in ("__setitem__", "__set__") or (
            name.startswith("__i") and name not in ("__invert__", "__index__", "__int__", "__iter__")
        )
    return name.endswith("_") and name not in _HARMLESS
