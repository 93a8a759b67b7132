"""Neural tangent kernels: of a network at hand, and of its limit of infinite width."""

from .empirical import Choice, choose, empirical
from .infinite import Estimate, infinite
from .monte_carlo import monte_carlo

__all__ = ["Choice", "Estimate", "choose", "empirical", "infinite", "monte_carlo"]
