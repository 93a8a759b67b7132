"""Batch norm and pooling that work on batch-last images without a copy: torch's own, seen through other strides."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn


def is_batch_last(x: Tensor) -> bool:
    """Whether images `[B, C, H, W]` lie in memory as `[C, H, W, B]`."""
    return x.ndim == 4 and not x.is_contiguous() and x.permute(1, 2, 3, 0).is_contiguous()


class BatchNorm2d(nn.BatchNorm2d):
    """An nn.BatchNorm2d that keeps batch-last strides: the same numbers and running statistics.

    Args:
        num_features, eps, momentum, affine, track_running_stats, device, dtype: as for nn.BatchNorm2d.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised input `[B, C, H, W]`, with its strides if they are batch-last."""
        if not is_batch_last(input):
            return super().forward(input)
        channels, height, width, batch = input.permute(1, 2, 3, 0).shape
        # A channel's pixels of all images in one row: what is averaged over is the same set.
        rows = input.permute(1, 2, 3, 0).view(1, channels, height * width, batch)
        return super().forward(rows).view(channels, height, width, batch).permute(3, 0, 1, 2)


class _Pool(nn.Module):
    """Pool batch-last images as `[C, B, H, W]` in channels_last: pooling treats every plane alike."""

    def forward(self, input: Tensor) -> Any:
        """Return what the torch layer does, with batch-last strides if the input has them."""
        pool = cast(Any, super()).forward
        if not is_batch_last(input):
            return pool(input)
        pooled = pool(input.transpose(0, 1))
        # return_indices gives two tensors.
        return tuple(x.transpose(0, 1) for x in pooled) if isinstance(pooled, tuple) else pooled.transpose(0, 1)


class MaxPool2d(_Pool, nn.MaxPool2d):
    """An nn.MaxPool2d that keeps batch-last strides."""


class AvgPool2d(_Pool, nn.AvgPool2d):
    """An nn.AvgPool2d that keeps batch-last strides."""


class AdaptiveAvgPool2d(_Pool, nn.AdaptiveAvgPool2d):
    """An nn.AdaptiveAvgPool2d that keeps batch-last strides."""


_TWINS: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm2d: BatchNorm2d,
    nn.MaxPool2d: MaxPool2d,
    nn.AvgPool2d: AvgPool2d,
    nn.AdaptiveAvgPool2d: AdaptiveAvgPool2d,
}
_ORIGINALS = {twin: original for original, twin in _TWINS.items()}


def swap(model: nn.Module, batch_last: bool) -> None:
    """Give torch's own batch norms and poolings of a model the classes above, or back; objects and state stay.

    Subclasses (SyncBatchNorm among them) and modules with a forward of their own are left as they are.
    """
    classes = _TWINS if batch_last else _ORIGINALS
    for module in model.modules():
        other = classes.get(type(module))
        if other is not None and "forward" not in vars(module):
            cast(Any, module).__class__ = other
