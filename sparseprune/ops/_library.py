"""The one list of operator schemas, and the only file that touches torch.library.

Each schema has up to three implementations under one name: C++ (CPU, from the extension), Triton (CUDA), and
`reference.<name>`, which serves wherever the others are missing. All take the same arguments; those of the sampler give
the same bits, products agree up to rounding.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import torch

from . import _fakes, reference

_VECTOR = "Tensor[] scores, Tensor[] factors, int transform"
_RACE = "int race, Tensor ids, int exponent, int seed, int stream"
_RESULT = "int output, Tensor[] weights, Tensor(a!)[] out"
_PATTERN = "Tensor offsets, Tensor indices"
_BY_INPUT = "Tensor column_offsets, Tensor rows, Tensor order"
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
    "transpose": "(Tensor x) -> Tensor",
    "spmm": f"(Tensor values, {_PATTERN}, Tensor? order, Tensor dense, Tensor? bias) -> Tensor",
    "sddmm": f"({_PATTERN}, Tensor? order, Tensor left, Tensor right) -> Tensor",
    "spmm_backward": f"(Tensor values, {_PATTERN}, Tensor order, Tensor dense, Tensor grad) -> (Tensor, Tensor)",
    "spconv": "(Tensor values, Tensor row_offsets, Tensor columns, Tensor x, Tensor? bias, int[] geometry) -> Tensor",
    "spconv_dx": f"(Tensor values, {_BY_INPUT}, Tensor grad, int[] size, int[] geometry) -> Tensor",
    "spconv_dw": "(Tensor row_offsets, Tensor columns, Tensor x, Tensor grad, int[] geometry) -> Tensor",
    "spconv_backward": f"(Tensor values, {_BY_INPUT}, Tensor x, Tensor grad, int[] geometry) -> (Tensor, Tensor)",
    "spconv_nchw": "(Tensor values, Tensor row_offsets, Tensor columns, Tensor x, Tensor? bias, int[] geometry) "
    "-> Tensor",
    "spconv_nchw_dx": f"(Tensor values, {_BY_INPUT}, Tensor grad, int[] size, int[] geometry) -> Tensor",
    "spconv_nchw_dw": "(Tensor row_offsets, Tensor columns, Tensor x, Tensor grad, int[] geometry) -> Tensor",
    "spconv_nchw_backward": f"(Tensor values, {_BY_INPUT}, Tensor x, Tensor grad, int[] geometry) -> (Tensor, Tensor)",
    "masked_linear": "(Tensor x, Tensor weight, Tensor mask, Tensor? bias) -> Tensor",
    "masked_linear_dx": "(Tensor grad, Tensor weight, Tensor mask) -> Tensor",
    "masked_linear_dw": "(Tensor grad, Tensor x, Tensor mask) -> Tensor",
    "masked_conv2d": "(Tensor x, Tensor weight, Tensor mask, Tensor? bias, int[] geometry) -> Tensor",
    "masked_conv2d_dx": "(Tensor grad, Tensor weight, Tensor mask, int[] size, int[] geometry) -> Tensor",
    "masked_conv2d_dw": "(Tensor grad, Tensor x, Tensor mask, int[] geometry) -> Tensor",
    "block_spmm": f"(Tensor blocks, {_PATTERN}, Tensor? order, Tensor dense, bool transposed) -> Tensor",
    "ntk_gram": f"({_PATTERN}, Tensor? squares, Tensor a, Tensor b, Tensor? a2, Tensor? b2, bool full) -> Tensor",
    "spconv_dw_each": "(Tensor row_offsets, Tensor columns, Tensor x, Tensor grad, int[] geometry) -> Tensor",
    "flow_forward": "(Tensor weight, Tensor? mask, Tensor x, int power) -> Tensor",
    "flow_backward": "(Tensor weight, Tensor? mask, Tensor x, Tensor grad, int power) -> (Tensor, Tensor, Tensor)",
    "online_sgd": "(Tensor w, Tensor v, Tensor w_star, Tensor v_star, int first, int samples, float eta, float sigma, "
    "int seed, int stream) -> (Tensor, Tensor)",
    "block_sddmm": f"({_PATTERN}, Tensor left, Tensor right, int size) -> Tensor",
}
# Without a kernel of Triton's: on a GPU dense products are as fast, steps of one sample too small, batch-last images
# as good as others.
_CPU_ONLY = {
    "flow_forward", "flow_backward", "online_sgd",
    "spconv_nchw", "spconv_nchw_dx", "spconv_nchw_dw", "spconv_nchw_backward",
}  # fmt: skip

_LIBRARY = torch.library.Library("sparseprune", "DEF")


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
        kernels = (
            importlib.import_module("sparseprune.kernels") if has_triton() and name not in _CPU_ONLY else reference
        )
        return getattr(kernels, name)(*args)

    return call


def has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


for _name, _schema in SCHEMAS.items():
    _LIBRARY.define(_name + _schema)
    torch.library.register_fake(f"sparseprune::{_name}", getattr(_fakes, _name), lib=_LIBRARY)
    _LIBRARY.impl(_name, _on_cuda(_name), "CUDA")

extension_error = _load_extension()
_COMPILED = {name for name in SCHEMAS if torch._C._dispatch_has_kernel_for_dispatch_key(f"sparseprune::{name}", "CPU")}
for _name in SCHEMAS.keys() - _COMPILED:
    _LIBRARY.impl(_name, getattr(reference, _name), "CPU")


def backends() -> dict[str, dict[str, str]]:
    """Which implementation serves each op: {op: {"cpu": "c++" | "reference", "cuda": "triton" | "reference"}}."""
    triton = SCHEMAS.keys() - _CPU_ONLY if has_triton() else set()
    return {
        name: {
            "cpu": "c++" if name in _COMPILED else "reference",
            "cuda": "triton" if name in triton else "reference",
        }
        for name in SCHEMAS
    }
