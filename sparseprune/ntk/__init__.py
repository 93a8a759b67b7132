"""Neural tangent kernels: of a network at hand, and of its limit of infinite width."""

from .empirical import Choice, choose, empirical

__all__ = ["Choice", "choose", "empirical"]
