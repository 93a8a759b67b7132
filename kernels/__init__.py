"""Triton kernels and their launchers. Importing this package imports triton; `import sparseprune` does not."""

from .bernoulli_tiles import bernoulli_tiles
from .blocks import block_sddmm, block_spmm
from .draw_tiles import draw_tiles
from .key_histogram import key_histogram
from .key_mark import key_mark
from .masked_conv2d import masked_conv2d
from .masked_conv2d_dw import masked_conv2d_dw
from .masked_conv2d_dx import masked_conv2d_dx
from .masked_linear import masked_linear, masked_linear_dw, masked_linear_dx
from .mass_histogram import mass_histogram
from .ntk_gram import ntk_gram
from .poisson_counts import poisson_counts
from .score_tiles import score_tiles
from .sddmm import sddmm
from .spconv import spconv
from .spconv_backward import spconv_backward, spconv_dx
from .spconv_dw import spconv_dw
from .spconv_dw_each import spconv_dw_each
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
    "masked_conv2d",
    "masked_conv2d_dw",
    "masked_conv2d_dx",
    "masked_linear",
    "masked_linear_dw",
    "masked_linear_dx",
    "mass_histogram",
    "ntk_gram",
    "poisson_counts",
    "score_tiles",
    "sddmm",
    "spconv",
    "spconv_backward",
    "spconv_dw",
    "spconv_dw_each",
    "spconv_dx",
    "split_draws",
    "spmm",
    "spmm_backward",
    "systematic_tiles",
    "transpose",
]
