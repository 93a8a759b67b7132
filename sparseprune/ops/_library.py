"""The one list of operator schemas, and the only file that touches torch.library.

Each schema has up to three implementations under one name: C++ (CPU, from the extension), Triton (CUDA), and
`reference.<name>`, which serves wherever the others are missing. All take the same arguments and give the same bits.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from . import reference

_VECTOR = "Tensor[] scores, Tensor[] factors, int transform"
_RACE = "int race, Tensor ids, int exponent, int seed, int stream"
_RESULT = "int output, Tensor[] weights, Tensor(a!)[] out"
SCHEMAS = {
    "score_tiles": f"({_VECTOR}) -> (Tensor, Tensor, Tensor, Tensor)",
    "split_draws": "(Tensor aligned, Tensor wanted, int draws, int seed, int stream) -> Tensor",
    "poisson_counts": "(Tensor whole, Tensor fraction, Tensor ids, Tensor tails, int seed, int stream) -> Tensor",
    "draw_tiles": f"({_VECTOR}, Tensor ids, Tensor exponents, Tensor scales, Tensor draws, int seed, int stream, "
    f"{_RESULT}) -> ()",
    "systematic_tiles": f"({_VECTOR}, Tensor exponents, Tensor begins, Tensor lengths, Tensor gains, Tensor shifts, "
    f"int start, int bits, {_RESULT}) -> ()",
    "key_histogram": f"({_VECTOR}, {_RACE}, int low, int shift, int bits, int step) -> (Tensor, Tensor)",
    "key_mark": f"({_VECTOR}, {_RACE}, int threshold, int shift, int tau, Tensor quota, {_RESULT}) -> Tensor",
    "mass_histogram": f"({_VECTOR}, int exponent) -> (Tensor, Tensor)",
    "bernoulli_tiles": f"({_VECTOR}, Tensor ids, int exponent, int rate, int seed, int stream, {_RESULT}) -> ()",
}

_LIBRARY = torch.library.Library("sparseprune", "DEF")


def _tiles(scores: list[Tensor]) -> int:
    return -(-sum(score.numel() for score in scores) // reference.TILE)


def _fake_score_tiles(scores, factors, transform) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    int32, int64 = (partial(scores[0].new_empty, dtype=dtype) for dtype in (torch.int32, torch.int64))
    tiles = _tiles(scores)
    return int32(tiles), int64(tiles), int32(tiles), int64(1)


def _fake_key_histogram(*args: Any) -> tuple[Tensor, Tensor]:
    scores, race, bits = args[0], args[3], args[-2]
    int64 = partial(scores[0].new_empty, dtype=torch.int64)
    return int64((1 << bits) + 2), int64((1 << bits) if race else 0)


def _fake_mass_histogram(scores, factors, transform, exponent) -> tuple[Tensor, Tensor]:
    int64 = partial(scores[0].new_empty, dtype=torch.int64)
    return int64(2, reference.BINS), int64(1)


_FAKES: dict[str, Callable[..., Any]] = {
    "score_tiles": _fake_score_tiles,
    "split_draws": lambda aligned, *rest: torch.empty_like(aligned),
    "poisson_counts": lambda whole, *rest: torch.empty_like(whole),
    "draw_tiles": lambda *args: None,
    "systematic_tiles": lambda *args: None,
    "key_histogram": _fake_key_histogram,
    "key_mark": lambda *args: torch.empty_like(args[11]),
    "mass_histogram": _fake_mass_histogram,
    "bernoulli_tiles": lambda *args: None,
}


def _load_extension() -> str | None:
    """Import the extension, whose import registers its CPU kernels; return why that failed, or None."""
    try:
        importlib.import_module("sparseprune._C")
    except ImportError as error:
        return str(error)
    return None


def _on_cuda(name: str) -> Callable[..., Any]:
    """Triton where it is installed, else the reference; triton is first imported when a CUDA tensor arrives."""

    def call(*args: Any) -> Any:
        if has_triton():
            return getattr(importlib.import_module("sparseprune.kernels"), name)(*args)
        return getattr(reference, name)(*args)

    return call


def has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


for _name, _schema in SCHEMAS.items():
    _LIBRARY.define(_name + _schema)
    torch.library.register_fake(f"sparseprune::{_name}", _FAKES[_name], lib=_LIBRARY)
    _LIBRARY.impl(_name, _on_cuda(_name), "CUDA")

extension_error = _load_extension()
_COMPILED = {name for name in SCHEMAS if torch._C._dispatch_has_kernel_for_dispatch_key(f"sparseprune::{name}", "CPU")}
for _name in SCHEMAS.keys() - _COMPILED:
    _LIBRARY.impl(_name, getattr(reference, _name), "CPU")


def backends() -> dict[str, dict[str, str]]:
    """Which implementation serves each op: {op: {"cpu": "c++" | "reference", "cuda": "triton" | "reference"}}."""
    cuda = "triton" if has_triton() else "reference"
    return {name: {"cpu": "c++" if name in _COMPILED else "reference", "cuda": cuda} for name in SCHEMAS}
