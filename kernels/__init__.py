"""Triton kernels and their launchers. Importing this package imports triton; `import sparseprune` does not."""

from .draw_tiles import draw_tiles
from .keys import key_histogram, key_mark
from .scores import score_tiles
from .split_draws import split_draws

__all__ = ["draw_tiles", "key_histogram", "key_mark", "score_tiles", "split_draws"]
