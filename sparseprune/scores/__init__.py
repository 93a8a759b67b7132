"""Scores: how much each prunable weight matters, one a file, and a registry by name."""

from ._registry import Score, Train, get, names, register, steps
from .grasp import GraSP
from .magnitude import Magnitude
from .random import Random
from .sketch import Sketch
from .snip import SNIP
from .synflow import SynFlow
from .synflow_l2 import SynFlowL2

__all__ = [
    "SNIP",
    "GraSP",
    "Magnitude",
    "Random",
    "Score",
    "Sketch",
    "SynFlow",
    "SynFlowL2",
    "Train",
    "get",
    "names",
    "register",
    "steps",
]
