"""Differences of paired values: their mean, its bootstrap interval, wins, ties and losses."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_RESAMPLES = 10_000
_LEVEL = 0.95


@dataclass(frozen=True)
class Paired:
    """What the differences a_i - b_i of pairs say.

    Args:
        mean, std: of the differences; the sample standard deviation, 0 of one.
        low, high: the 95 % percentile bootstrap interval of the mean; of few pairs it is too short (3: about 75 % in
            truth, 10: about 90 %), and of one pair it is that difference.
        wins, ties, losses: how many differences are above, at and below 0.
    """

    mean: float
    std: float
    low: float
    high: float
    wins: int
    ties: int
    losses: int

    @classmethod
    def of(cls, differences: Sequence[float], *, seed: int = 0) -> Paired | None:
        """Return the statistics of the differences; None where there is none.

        Args:
            differences: one a pair.
            seed: of the resampling; 10,000 means of as many pairs, drawn with replacement.

        Reference: Efron 1979, "Bootstrap methods: another look at the jackknife".
        """
        if not len(differences):
            return None
        values = np.asarray(differences, dtype=np.float64)
        chosen = np.random.default_rng(seed).integers(len(values), size=(_RESAMPLES, len(values)))
        tail = (1 - _LEVEL) / 2
        low, high = np.quantile(values[chosen].mean(1), [tail, 1 - tail])
        wins, losses = int((values > 0).sum()), int((values < 0).sum())
        std = statistics.stdev(values.tolist()) if len(values) > 1 else 0.0
        mean = float(values.mean())
        return cls(mean, std, float(low), float(high), wins, len(values) - wins - losses, losses)
