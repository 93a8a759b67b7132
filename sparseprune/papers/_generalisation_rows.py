"""What is read from rows of `generalisation`, each a seed's runs, one for every keep probability."""

from __future__ import annotations

import numpy as np

from ..results import Row
from ..theory.generalisation import Model
from ._statistics import mean_error

# Test accuracy, its deviation over seeds, and test cross-entropy by keep probability, of seeds 0 to 9.
SPECIFIED_SEEDS = 10
SPECIFIED = {
    1.0: (0.852, 0.014, 0.694),
    0.7: (0.895, 0.011, 0.630),
    0.5: (0.925, 0.014, 0.578),
    0.3: (0.935, 0.021, 0.567),
    0.2: (0.925, 0.032, 0.567),
    0.1: (0.883, 0.068, 0.596),
    0.05: (0.853, 0.106, 0.591),
    0.02: (0.681, 0.202, 0.800),
    0.01: (0.470, 0.235, 1.284),
    round(Model().over, 6): (0.272, 0.070, 5.754),
}
# Means in the variants: (curve, field, seeds) -> by keep probability. Of other noise levels seeds 0 to 2 are spoken of.
SPECIFIED_VARIANTS = {
    ("fixed step", "accuracy", 10): {1.0: 0.852, 0.7: 0.900, 0.5: 0.933, 0.3: 0.938, 0.2: 0.908, 0.1: 0.865},
    ("less noise", "accuracy", 3): {1.0: 0.982, 0.3: 0.997},
    ("half the noise", "test loss", 3): {1.0: 0.0756, 0.5: 0.0600},
}


def model(rows: list[Row]) -> Model:
    """Return the data and network of a curve."""
    return Model(**{name: rows[0]["key"][name] for name in Model.__dataclass_fields__})


def keeps(rows: list[Row]) -> list[float]:
    """Return the keep probabilities of a curve, from 1 down."""
    return rows[0]["key"]["keep"]


def values(rows: list[Row], field: str) -> np.ndarray:
    """Return a field of a curve's rows, [seeds, keep probabilities]; of lists over classes their mean."""
    found = np.array([row[field] for row in rows], dtype=float)
    return found.mean(2) if found.ndim == 3 else found


def at(rows: list[Row], field: str, keep: float) -> np.ndarray:
    """Return a field at a keep probability, [seeds]."""
    return values(rows, field)[:, keeps(rows).index(keep)]


def mean(rows: list[Row], field: str, keep: float) -> tuple[float, float]:
    """Return a field's mean over seeds and its standard error."""
    return mean_error(at(rows, field, keep).tolist())


def paired(rows: list[Row], field: str, keep: float, other: float) -> tuple[float, float]:
    """Return the mean over seeds of a field at `keep` minus that at `other`, and its standard error."""
    return mean_error((at(rows, field, keep) - at(rows, field, other)).tolist())
