"""Paper 001, pruning at initialization as sketching: its tables and figures.

Reference: Bar & Giryes 2023, arXiv 2305.17559.
"""

from __future__ import annotations

from . import sketching_norms, sketching_tables, sketching_weights

EXPERIMENTS = {
    experiment.name: experiment
    for experiment in (
        *map(sketching_tables.experiment, sketching_tables.ITEMS),
        *sketching_weights.EXPERIMENTS,
        sketching_norms.EXPERIMENT,
    )
}
