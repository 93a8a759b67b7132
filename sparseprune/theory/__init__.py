"""The papers' formulas as functions, the printed and the corrected form side by side."""

from . import generalisation, lottery, random_ntk, sketching, teacher_student

__all__ = ["generalisation", "lottery", "random_ntk", "sketching", "teacher_student"]
