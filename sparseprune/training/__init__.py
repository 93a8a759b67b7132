"""The training loop of the papers, and the accuracy it ends with."""

from .loop import History, evaluate, train

__all__ = ["History", "evaluate", "train"]
