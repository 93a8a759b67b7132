"""Pruning of a student that learned a teacher online: order parameters, their dynamics, generalisation errors.

Reference: Acharyya et al., UAI 2021, "Statistical Mechanical Analysis of Neural Network Pruning"; Goldt et al. 2019.
"""

from . import edge_pruning, integrals, networks, node_pruning, odes, order_parameters, simulate

__all__ = ["edge_pruning", "integrals", "networks", "node_pruning", "odes", "order_parameters", "simulate"]
