"""sparseprune: sketched masks, pruning at initialization and sparse layers for PyTorch."""

from . import models, nn, nodes, ntk, sampling, scores, select, theory
from .masks import Masks
from .nn import densify, sparsify
from .prune import prune

__version__ = "0.1.0"

__all__ = [
    "Masks",
    "densify",
    "models",
    "nn",
    "nodes",
    "ntk",
    "prune",
    "sampling",
    "scores",
    "select",
    "sparsify",
    "theory",
]
