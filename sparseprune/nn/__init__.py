"""Sparse layers and the conversions between dense and sparse models."""

from .conv import SparseConv2d
from .convert import densify, sparsify
from .linear import SparseLinear

__all__ = ["SparseConv2d", "SparseLinear", "densify", "sparsify"]
