"""Triton kernels and their launchers. Importing this package imports triton; `import sparseprune` does not."""

from .bernoulli_tiles import bernoulli_tiles
from .blocks import block_sddmm, block_spmm
from .draw_tiles import draw_tiles
from .key_histogram import key_histogram
from .key_mark import key_mark
from .masked_linear import masked_linear, masked_linear_dw, masked_linear_dx
from .mass_histogram import mass_histogram
from .poisson_counts import poisson_counts
from .score_tiles import score_tiles
from .sddmm import sddmm
from .split_draws import split_draws
from .spmm import spmm
from .spmm_backward import spmm_backward
from .systematic_tiles import systematic_tiles
from .transpose import transpose

__all__ = [
    "bernoulli_tiles",
    "block_sddmm",
    "block_spmm",
    "draw_tiles",
    "key_histogram",
    "key_mark",
    "masked_linear",
    "masked_linear_dw",
    "masked_linear_dx",
    "mass_histogram",
    "poisson_counts",
    "score_tiles",
    "sddmm",
    "split_draws",
    "spmm",
    "spmm_backward",
    "systematic_tiles",
    "transpose",
]
