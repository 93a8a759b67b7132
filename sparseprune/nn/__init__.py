"""Sparse layers and the conversions between dense and sparse models."""

from .batch_last import AdaptiveAvgPool2d, AvgPool2d, BatchNorm2d, MaxPool2d
from .conv import SparseConv2d
from .convert import densify, sparsify
from .layouts import layouts
from .linear import SparseLinear

__all__ = [
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BatchNorm2d",
    "MaxPool2d",
    "SparseConv2d",
    "SparseLinear",
    "densify",
    "layouts",
    "sparsify",
]
