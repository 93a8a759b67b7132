"""Scores: how much each prunable weight matters, one a file, and a registry by name."""

from ._registry import Score, Train, get, names, register, steps
from .edge_popup import EdgePopup
from .force import FORCE
from .grasp import GraSP
from .grasp_it import GRASPIt
from .imp import IMP
from .iter_snip import IterSNIP
from .magnitude import Magnitude
from .ntk_sap import NTKSAP
from .phew import PHEW
from .prospr import ProsPr
from .random import Random
from .sketch import Sketch
from .snip import SNIP
from .synflow import SynFlow
from .synflow_l2 import SynFlowL2

__all__ = [
    "FORCE",
    "IMP",
    "NTKSAP",
    "PHEW",
    "SNIP",
    "EdgePopup",
    "GRASPIt",
    "GraSP",
    "IterSNIP",
    "Magnitude",
    "ProsPr",
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
