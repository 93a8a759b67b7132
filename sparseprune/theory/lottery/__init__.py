"""Strong lottery tickets: masks alone turn a wide random network into a given one.

Reference: Malach, Yehudai, Shalev-Shwartz & Shamir, ICML 2020 (arXiv 2002.00585). Its appendix was not at hand.
"""

from . import errors, neurons, products, universal, weights

__all__ = ["errors", "neurons", "products", "universal", "weights"]
