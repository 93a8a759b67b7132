"""The papers' formulas as functions, the printed and the corrected form side by side."""

from . import lottery, random_ntk, sketching

__all__ = ["lottery", "random_ntk", "sketching"]
