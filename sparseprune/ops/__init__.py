"""Operations with a reference, a C++ and a Triton implementation each, all bit-identical, and what drives them."""

from . import _library, reference
from ._library import backends
from .histogram import OutOfReach, bernoulli, draws_for_nnz
from .sketch import sketch_multinomial, sketch_poisson, sketch_systematic
from .top_k import race, top_k
from .vector import BadScore, NoPositiveScore, Vector


def extension_error() -> str | None:
    """Why the compiled extension is not in use, or None when it is."""
    return _library.extension_error


__all__ = [
    "BadScore",
    "NoPositiveScore",
    "OutOfReach",
    "Vector",
    "backends",
    "bernoulli",
    "draws_for_nnz",
    "extension_error",
    "race",
    "reference",
    "sketch_multinomial",
    "sketch_poisson",
    "sketch_systematic",
    "top_k",
]
