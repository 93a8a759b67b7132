"""The definition of every operation, in torch: what C++ and Triton must reproduce.

Products (products.py, convolution.py, masked.py, blocks.py, gram.py) agree up to rounding, the sampler's operations bit
for bit. For these `scores` is a list of contiguous tensors seen as one logical vector in tiles of TILE elements;
`factors` is empty or holds one contiguous tensor per score tensor, repeated along its leading dimensions. `ids`, where
it is not empty, holds the numbers of the tiles in the one vector of which these are a rank's share. Integers are exact,
fp64 steps are single IEEE operations in the order written. Law and proofs: docs/sampler.md.
"""

# ruff: noqa: F401  (what is imported here is the face of the package)
from .bernoulli import BINS, bernoulli_tiles, mass_histogram
from .blocks import block_sddmm, block_spmm
from .convolution import (
    Geometry,
    spconv,
    spconv_backward,
    spconv_dw,
    spconv_dx,
    spconv_nchw,
    spconv_nchw_backward,
    spconv_nchw_dw,
    spconv_nchw_dx,
)
from .draws import draw_in_tiles, draw_tiles
from .flow import flow_backward, flow_forward
from .gram import ntk_gram, spconv_dw_each
from .keys import (
    PLAIN,
    PRIORITY_RACE,
    SUCCESSIVE_RACE,
    key_histogram,
    key_mark,
    negative_log,
    order_keys,
    race_values,
    uniforms,
)
from .masked import (
    masked_conv2d,
    masked_conv2d_dw,
    masked_conv2d_dx,
    masked_linear,
    masked_linear_dw,
    masked_linear_dx,
)
from .normals import normals
from .online_sgd import online_sgd
from .philox import (
    BERNOULLI,
    DRAW,
    NODE,
    NORMAL,
    POISSON,
    PRIORITY,
    SUCCESSIVE,
    SYSTEMATIC,
    mulhi64,
    philox,
    popcount32,
    random_bits,
    unsigned_less,
)
from .poisson import poisson_counts, poisson_table
from .products import sddmm, spmm, spmm_backward, transpose
from .scores import ABS, GIVEN, SQUARE, TILE, quantize, rescale, score_tiles, score_values, tile_blocks, values_between
from .systematic import systematic_tiles
from .tree import binomial, split_draws
from .writer import BOOL, COUNTS, WEIGHTS, FlatWriter, M
