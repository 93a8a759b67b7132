"""Operations with a reference, a C++ and a Triton implementation each, all bit-identical."""

from . import _library, reference
from ._library import backends
from .sketch import sketch_multinomial
from .top_k import top_k


def extension_error() -> str | None:
    """Why the compiled extension is not in use, or None when it is."""
    return _library.extension_error


__all__ = ["backends", "extension_error", "reference", "sketch_multinomial", "top_k"]
