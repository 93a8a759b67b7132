"""Units pruned from a trained layer (random, by importance, by a k-DPP) or its edges, the rest re-weighted."""

from .edges import Edges, prune_edges
from .gram import Gram
from .k_dpp import k_dpp
from .methods import DPP, Importance, Random
from .units import Nodes, prune_nodes

__all__ = ["DPP", "Edges", "Gram", "Importance", "Nodes", "Random", "k_dpp", "prune_edges", "prune_nodes"]
