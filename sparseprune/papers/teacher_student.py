"""Paper 004's simulations: students of a random teacher, trained online, then pruned by units or by edges.

Ours are of several teachers; the printed numbers are of one student. Reference: Acharyya et al., UAI 2021, "Statistical
Mechanical Analysis of Neural Network Pruning", section 5.1, Table 3, figures 2, 5 and 6.
"""

from __future__ import annotations

from . import _teacher_student_claims as judges
from . import _teacher_student_dynamics, _teacher_student_matrices
from . import _teacher_student_pictures as pictures
from ._report import Experiment
from ._teacher_student_rows import BOTH, NORMALISED, Plan, experiment, measure_errors, pruned
from ._teacher_student_students import (
    DIVNET,
    DPP_NODE,
    IMPORTANCE_EDGE,
    IMPORTANCE_NODE,
    RANDOM_EDGE,
    RANDOM_NODE,
    SCALED_EDGE,
    UNPRUNED,
)

_PRINTED = (DPP_NODE, RANDOM_EDGE, RANDOM_NODE, IMPORTANCE_EDGE, IMPORTANCE_NODE)


def _order_parameters(curve: str, methods: tuple[str, ...]) -> Plan:
    return lambda sizes: [
        (sizes.three, 0.0, {"curve": curve, "method": method, "k": k}) for method in methods for k in sizes.three.units
    ]


EXPERIMENTS: dict[str, Experiment] = {
    one.name: one
    for one in (
        experiment(
            "table3",
            "Errors after pruning, beside Table 3 and the closed forms",
            lambda sizes: [
                *pruned(sizes.three, BOTH, (*_PRINTED, DIVNET, SCALED_EDGE, UNPRUNED)),
                *pruned(sizes.three, BOTH, _PRINTED, NORMALISED),
            ],
            {"errors": measure_errors},
            pictures.table3,
            judges.of_table3,
        ),
        experiment(
            "fig2",
            "Errors after pruning, Z = 3 and Z = 4, and kernels",
            lambda sizes: [
                *pruned(sizes.three, BOTH, _PRINTED),
                *pruned(sizes.four, BOTH, (DPP_NODE, RANDOM_EDGE, DIVNET, SCALED_EDGE, UNPRUNED)),
                (sizes.three, 0.0, {"curve": "kernels", "method": DPP_NODE, "k": 2}),
            ],
            {"errors": measure_errors, "kernels": _teacher_student_matrices.kernels},
            pictures.fig2,
            judges.of_fig2,
        ),
        experiment(
            "fig5",
            "Order parameters after node pruning",
            _order_parameters("nodes", (RANDOM_NODE, IMPORTANCE_NODE, DPP_NODE)),
            {"nodes": _teacher_student_matrices.nodes},
            pictures.heat_maps,
            judges.of_fig5,
        ),
        experiment(
            "fig6",
            "Order parameters after edge pruning, beside their closed forms",
            _order_parameters("edges", (RANDOM_EDGE, IMPORTANCE_EDGE)),
            {"edges": _teacher_student_matrices.edges},
            pictures.heat_maps,
            judges.of_fig6,
        ),
        _teacher_student_dynamics.EXPERIMENT,
    )
}
