"""Tangent kernels of pruned networks."""

from .infinite import Estimate, infinite
from .monte_carlo import monte_carlo

__all__ = ["Estimate", "infinite", "monte_carlo"]
