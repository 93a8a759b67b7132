"""Which parameters a tangent kernel counts, and which models have none."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from ..nn._sparse import Sparse

# By their classes' common bases, so that what a user derives from them counts.
BATCH_NORM = nn.modules.batchnorm._BatchNorm
_INSTANCE_NORM = nn.modules.instancenorm._InstanceNorm
_NORMS = (BATCH_NORM, _INSTANCE_NORM, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.LocalResponseNorm)
_DTYPES = (torch.float32, torch.float64)


def included(model: nn.Module, *, biases: bool, norms: bool) -> dict[str, nn.Parameter]:
    """The parameters that require grad, without biases of layers or the affine parameters of norms if so asked."""
    owners = {id(p): (module, name) for module, name, p in reversed(list(_owned(model)))}
    found: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        module, attribute = owners[id(parameter)]
        is_norm = isinstance(module, _NORMS)
        wanted = norms if is_norm else biases or "bias" not in attribute
        if parameter.requires_grad and wanted:
            found[name] = parameter
    return found


def check_model(model: nn.Module, parameters: str) -> None:
    """Raise ValueError unless the output of one example depends on that example alone, the same at every call."""
    for name, parameter in model.named_parameters():
        if parameter.dtype not in _DTYPES:
            raise ValueError(f"empirical: model must be float32 or float64, got {name!r} in {parameter.dtype}")
    for name, module in model.named_modules():
        what = f"{name or 'the model'!r} ({type(module).__name__})"
        if isinstance(module, BATCH_NORM) and (module.training or module.running_mean is None):
            why = "in training mode: model.eval() first" if module.training else "without running statistics"
            raise ValueError(f"empirical: model must not use statistics of a batch, got {what} {why}")
        random = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
        moving = isinstance(module, _INSTANCE_NORM) and module.track_running_stats
        if module.training and (random or moving):
            raise ValueError(f"empirical: model must be in eval mode, got {what} in training mode: model.eval() first")
        if parameters == "all" and isinstance(module, Sparse) and module.layout == "csr":
            raise ValueError(
                f"empirical: parameters='all' must have the pruned weights at hand, got {what} in the csr layout: "
                "densify(model) first, or sparsify(model, ..., layout='masked')"
            )


def _owned(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                yield module, name, parameter
