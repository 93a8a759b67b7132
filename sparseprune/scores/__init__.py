"""Scores: how much each prunable weight matters, one a file, and a registry by name."""

from ._registry import Score, Train, get, names, register, steps
from .grasp import GraSP
from .imp import IMP
from .magnitude import Magnitude
from .random import Random
from .sketch import Sketch
from .snip import SNIP
from .synflow import SynFlow

__all__ = [
    "IMP",
    "SNIP",
    "GraSP",
    "Magnitude",
    "Random",
    "Score",
    "Sketch",
    "SynFlow",
    "Train",
    "get",
    "names",
    "register",
    "steps",
]
