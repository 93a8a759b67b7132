"""A pickle reader that can build plain arrays, lists, dicts, numbers, bytes and strings, and nothing else.

numpy's own unpickling is not reached either (a forged structured dtype would smuggle pointers into it): stand-ins
collect the shape, the dtype and the bytes, and the array is made from those.
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np

_PLAIN = frozenset(kind + size for kind in "iu" for size in "1248") | {"f2", "f4", "f8", "b1"}


class _Dtype:
    """Stands in for numpy.dtype: a plain number type, then its byte order."""

    def __init__(self, code: Any, *flags: Any) -> None:
        code = code.decode("ascii") if isinstance(code, bytes) else code
        if code not in _PLAIN:
            raise pickle.UnpicklingError(f"the dtype {code!r} is not a plain number")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """Stands in for an ndarray under construction."""

    array: np.ndarray

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        self.array = _build(raw, dtype, shape, "F" if fortran else "C")


def _build(raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if not isinstance(raw, bytes | bytearray) or not isinstance(dtype, _Dtype):
        raise pickle.UnpicklingError("an array of plain numbers must come with its bytes and its dtype")
    if len(raw) != math.prod(shape) * dtype.dtype.itemsize:
        raise pickle.UnpicklingError(f"an array of shape {shape} does not fit its {len(raw)} bytes")
    return np.frombuffer(raw, dtype.dtype).reshape(shape, order=order)


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _from_buffer(raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    return _build(raw, dtype, shape, order)


def _encode(text: str, encoding: str) -> bytes:
    """Return the bytes that protocol 2 wrote as latin1 text; no other codec is reachable."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"the codec {encoding!r} is not allowed")
    return text.encode("latin1")


_ALLOWED = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    # numpy 2 renamed its private module; files carry either spelling.
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"the global {module}.{name} is not allowed") from None


def read_pickle(path: Path) -> Any:
    """Read one pickle of plain data; a Python 2 `str` comes back as bytes.

    Args:
        path: the file.

    Returns:
        Arrays of numbers, lists, tuples, dicts, numbers, bytes, strings, as nested in the file.

    Raises:
        ValueError: any other global, or a damaged or truncated file; names the file and the reason.
    """
    with path.open("rb") as stream:
        try:
            return _unwrap(_Unpickler(stream, encoding="bytes").load())
        except Exception as error:  # a damaged pickle raises whatever its opcodes stumble on
            raise ValueError(f"load: {path} is not a readable pickle of plain arrays: {error}") from None


def _unwrap(value: Any) -> Any:
    if isinstance(value, _Array):
        return value.array
    if isinstance(value, dict):
        return {key: _unwrap(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_unwrap(item) for item in value)
    return value
