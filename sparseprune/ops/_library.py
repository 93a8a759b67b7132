"""The one list of operator schemas, and the only file that touches torch.library.

Each schema has up to three implementations under one name: C++ (CPU, from the extension), Triton (CUDA), and
`reference.<name>`, which serves wherever the others are missing. All take the same arguments and give the same bits.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import reference

SCHEMAS = {
    "score_tiles": "(Tensor[] scores, Tensor[] factors, int transform) -> (Tensor, Tensor, Tensor)",
    "split_draws": "(Tensor aligned, int draws, int seed, int stream) -> Tensor",
    "draw_tiles": "(Tensor[] scores, Tensor[] factors, int transform, Tensor exponents, Tensor scales, Tensor draws, "
    "int seed, int stream, int output, Tensor[] weights, Tensor(a!)[] out) -> ()",
    "key_histogram": "(Tensor[] scores, Tensor[] factors, int transform, int low, int shift, int bits, int step) "
    "-> Tensor",
    "key_mark": "(Tensor[] scores, Tensor[] factors, int transform, int threshold, int shift, Tensor quota, "
    "int output, Tensor[] weights, Tensor(a!)[] out) -> Tensor",
}

_LIBRARY = torch.library.Library("sparseprune", "DEF")


def _tiles(scores: list[Tensor]) -> int:
    return -(-sum(score.numel() for score in scores) // reference.TILE)


def _fake_score_tiles(scores: list[Tensor], factors: list[Tensor], transform: int) -> tuple[Tensor, Tensor, Tensor]:
    tiles = _tiles(scores)
    int64 = [scores[0].new_empty(n, dtype=torch.int64) for n in (tiles, 1)]
    return scores[0].new_empty(tiles, dtype=torch.int32), int64[0], int64[1]


def _fake_key_histogram(scores, factors, transform, low, shift, bits, step) -> Tensor:
    return scores[0].new_empty((1 << bits) + 2, dtype=torch.int64)


def _fake_key_mark(scores, factors, transform, threshold, shift, quota, output, weights, out) -> Tensor:
    return torch.empty_like(quota)


_FAKES: dict[str, Callable[..., Any]] = {
    "score_tiles": _fake_score_tiles,
    "split_draws": lambda aligned, draws, seed, stream: torch.empty_like(aligned),
    "draw_tiles": lambda *args: None,
    "key_histogram": _fake_key_histogram,
    "key_mark": _fake_key_mark,
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
