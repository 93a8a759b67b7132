"""Triton kernels and their launchers. Importing this package imports triton; `import sparseprune` does not."""

from .bernoulli_tiles import bernoulli_tiles
from .draw_tiles import draw_tiles
from .key_histogram import key_histogram
from .key_mark import key_mark
from .mass_histogram import mass_histogram
from .poisson_counts import poisson_counts
from .score_tiles import score_tiles
from .split_draws import split_draws
from .systematic_tiles import systematic_tiles

__all__ = [
    "bernoulli_tiles",
    "draw_tiles",
    "key_histogram",
    "key_mark",
    "mass_histogram",
    "poisson_counts",
    "score_tiles",
    "split_draws",
    "systematic_tiles",
]
