"""Operations with a reference, a C++ and a Triton implementation each, and what drives them."""

from . import _library, reference
from ._library import backends
from .batch_last import batch_first, batch_last, transposes
from .histogram import OutOfReach, bernoulli, draws_for_nnz
from .pattern import Pattern
from .products import block_spmm, masked_conv2d, masked_linear, sddmm, spconv, spconv_nchw, spmm, spmm_t
from .reference import Geometry
from .sketch import sketch_multinomial, sketch_poisson, sketch_systematic
from .top_k import race, top_k
from .vector import BadScore, NoPositiveScore, Vector


def extension_error() -> str | None:
    """Why the compiled extension is not in use, or None when it is."""
    return _library.extension_error


__all__ = [
    "BadScore",
    "Geometry",
    "NoPositiveScore",
    "OutOfReach",
    "Pattern",
    "Vector",
    "backends",
    "batch_first",
    "batch_last",
    "bernoulli",
    "block_spmm",
    "draws_for_nnz",
    "extension_error",
    "masked_conv2d",
    "masked_linear",
    "race",
    "reference",
    "sddmm",
    "sketch_multinomial",
    "sketch_poisson",
    "sketch_systematic",
    "spconv",
    "spconv_nchw",
    "spmm",
    "spmm_t",
    "top_k",
    "transposes",
]
