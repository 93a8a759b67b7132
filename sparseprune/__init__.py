"""sparseprune: sketched masks, pruning at initialization and sparse layers for PyTorch."""

__version__ = "0.1.0"
