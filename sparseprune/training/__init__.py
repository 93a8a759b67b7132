"""The training loop of the papers, and the accuracy it ends with."""

from .loop import History, evaluate, train
from .stacked import gain, train_stacked
from .trainer import Trainer

__all__ = ["History", "Trainer", "evaluate", "gain", "train", "train_stacked"]
