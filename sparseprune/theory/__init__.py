"""The papers' formulas as functions, the printed and the corrected form side by side."""

from . import random_ntk, sketching

__all__ = ["random_ntk", "sketching"]
