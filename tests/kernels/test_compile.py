"""Every kernel compiles for GPUs that are not in the machine; those of the sampler round every product as written."""

import importlib
import math
import os
import re
import struct
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.offline
TARGETS = {
    "sm_80": ("cuda", 80, 32),
    "sm_90": ("cuda", 90, 32),
    "sm_100": ("cuda", 100, 32),
    "gfx942": ("hip", "gfx942", 64),
}

VECTOR = {"listed": "*i64", "first": "i32", "skip": "i32", "period": "i32"}
PLAIN = {
    **VECTOR,
    "score": "*fp32",
    "factor": "*fp32",
    "numel": "i32",
    "TRANSFORM": 0,
    "FACTORED": False,
    "LISTED": False,
}
FUSED = {
    **VECTOR,
    "score": "*bf16",
    "factor": "*fp32",
    "numel": "i64",
    "TRANSFORM": 2,
    "FACTORED": True,
    "LISTED": False,
}
PATCH = {**PLAIN, "score": "*fp64", "factor": "*fp64", "LISTED": True}
KEY = {"k0": "i32", "k1": "i32", "stream": "i32"}
NUMBERED = {"ids": "*i64", "NUMBERED": True}
DRAWS = {
    "exponents": "*i32", "scales": "*fp64", "draws": "*i64", "sums": "*i64", "counts": "*i32", "rows": "i32", **KEY,
    **NUMBERED, "LANES": 512, "num_warps": 16,
}  # fmt: skip
TILES = {"exponents": "*i32", "masses": "*i64", "positives": "*i32", "bad": "*i64"}
LENGTHS = {
    "exponents": "*i32", "begins": "*i64", "lengths": "*i64", "gains": "*i64", "shifts": "*i64", "start": "i64",
    "bits": "i32", "num_warps": 16,
}  # fmt: skip
RACE = {**KEY, **NUMBERED, "exponent": "i32", "shift": "i32", "num_warps": 16}
HISTOGRAM = {
    **RACE, "histogram": "*i64", "sums": "*i64", "low": "i64", "bins": "i32", "step": "i32", "copies": "i32"
}  # fmt: skip
MARK = {**RACE, "quota": "*i64", "ties": "*i64", "threshold": "i64", "tau": "i64"}
COIN = {**KEY, **NUMBERED, "exponent": "i32", "rate": "i64"}


def written(weight, out, output, wide=False):
    return {"weight": weight, "out": out, "OUTPUT": output, "WIDE": wide}


WIDE = written("*fp64", "*fp64", 0, True)

LOGARITHM = {math.log(2.0), math.sqrt(0.5), *(1.0 / odd for odd in range(3, 22, 2))}  # what -log u is made of

# module, kernel, what each argument is: a type, or the value of a constant
KERNELS = [
    ("_vector", "gather_kernel", {**FUSED, "patch": "*fp64", "SIZE": 4096}),
    ("_vector", "scatter_kernel", {"values": "*fp64", "numel": "i32", "SIZE": 4096, **written("*fp64", "*fp16", 2)}),
    ("score_tiles", "score_tiles_kernel", {**PLAIN, **TILES}),
    ("score_tiles", "score_tiles_kernel", {**FUSED, **TILES}),
    ("split_draws", "split_draws_kernel", {
        "draws": "*i64", "ends": "*i64", "whole": "*i64", "parts": "*i64", "below": "*i64", "level": "i32", **KEY,
        "num_warps": 1,
    }),
    ("poisson_counts", "poisson_counts_kernel", {
        "owners": "*i64", "starts": "*i64", "whole": "*i64", "fraction": "*i64", "ids": "*i64", "tails": "*i64",
        "result": "*i64", **KEY, "VARIATES": 64, "num_warps": 1,
    }),
    ("draw_tiles", "draw_tiles_kernel", {**FUSED, **DRAWS, **written("*bf16", "*bf16", 2)}),
    ("draw_tiles", "draw_tiles_kernel", {**PATCH, **DRAWS, **WIDE, "NUMBERED": False}),
    ("systematic_tiles", "systematic_tiles_kernel", {**FUSED, **LENGTHS, **written("*bf16", "*bf16", 2)}),
    ("systematic_tiles", "systematic_tiles_kernel", {**PATCH, **LENGTHS, **WIDE}),
    ("key_histogram", "key_histogram_kernel", {**FUSED, **HISTOGRAM, "RACE": 0, "NUMBERED": False}),
    ("key_histogram", "key_histogram_kernel", {**PLAIN, **HISTOGRAM, "RACE": 1}),
    ("key_histogram", "key_histogram_kernel", {**PATCH, **HISTOGRAM, "RACE": 2}),
    ("key_mark", "key_mark_kernel", {**PLAIN, **MARK, **written("*fp16", "*fp16", 2), "RACE": 0, "NUMBERED": False}),
    ("key_mark", "key_mark_kernel", {**FUSED, **MARK, **written("*fp32", "*u8", 3), "RACE": 2}),
    ("key_mark", "key_mark_kernel", {**PATCH, **MARK, **WIDE, "RACE": 1}),
    ("mass_histogram", "mass_histogram_kernel", {**FUSED, "histogram": "*i64", "bad": "*i64", "exponent": "i32"}),
    ("mass_histogram", "mass_histogram_kernel", {**PATCH, "histogram": "*i64", "bad": "*i64", "exponent": "i32"}),
    ("bernoulli_tiles", "bernoulli_tiles_kernel", {**FUSED, **COIN, **written("*bf16", "*bf16", 2)}),
    ("bernoulli_tiles", "bernoulli_tiles_kernel", {**PATCH, **COIN, **WIDE}),
]  # fmt: skip

DOTS = {"fp32": (32, 64, 32), "fp64": (32, 64, 16), "bf16": (64, 128, 64), "fp16": (64, 128, 64)}


def tensors(kind, *names):
    return dict.fromkeys(names, f"*{kind}")


def tile(kind):
    """The largest tile of a dot, as the launchers choose it."""
    return {**dict(zip(("BM", "BN", "BK"), DOTS[kind], strict=True)), "UPCAST": False, "num_warps": 4}


PATTERN = {"offsets": "*i32", "indices": "*i32", "order": "*i32", "batch": "i32", "num_warps": 4}


def gathered(kind, **options):
    names = ("values", "dense", "left", "right", "grad", "bias", "y", "dx", "dvalues")
    return {**PATTERN, **tensors(kind, *names), "rows": "i32", "shares": "i32", "ORDERED": True, **options}


def masked(kind, **options):
    keep = "*i32" if kind == "fp64" else "*u8"
    sizes = dict.fromkeys(("m", "n", "k", "stride_n", "stride_k", "down", "across"), "i32")
    floats = tensors(kind, "x", "weight", "bias", "y", "grad", "dw")
    return {**floats, "keep": keep, **sizes, "GROUP": 8, **tile(kind), **options}


def blocked(kind, size, **options):
    rows, columns, inner = DOTS[kind]
    fitted = {"BM": min(size, rows), "BN": min(size, columns), "BK": min(size, inner), "SIZE": size}
    floats = tensors(kind, "blocks", "dense", "left", "right", "y")
    return {**PATTERN, **floats, "parts": "i32", "shares": "i32", **tile(kind), **fitted, **options}


PRODUCTS = [
    ("transpose", "transpose_kernel", {
        "x": "*bf16", "y": "*bf16", "rows": "i32", "columns": "i32", "across": "i32", "TILE": 64, "num_warps": 4
    }),
    ("spmm", "spmm_kernel", gathered("fp32", BIASED=True, CHUNK=16, TILE=128)),
    ("spmm", "spmm_kernel", gathered("bf16", BIASED=False, CHUNK=16, TILE=128, ORDERED=False)),
    ("spmm", "spmm_kernel", gathered("fp64", BIASED=True, CHUNK=128, TILE=1)),
    ("sddmm", "sddmm_kernel", gathered("fp16", CHUNK=16, TILE=128)),
    ("sddmm", "sddmm_kernel", gathered("fp64", CHUNK=128, TILE=1, ORDERED=False)),
    ("spmm_backward", "spmm_backward_kernel", gathered("bf16", CHUNK=4, TILE=512)),
    ("spmm_backward", "spmm_backward_kernel", gathered("fp64", CHUNK=128, TILE=1)),
    *(("masked_linear", "masked_linear_kernel", masked(kind, stride_k=1, BIASED=True)) for kind in DOTS),
    *(("masked_linear", "masked_linear_kernel", masked(k, stride_n=1, BIASED=False)) for k in ("fp32", "fp64", "bf16")),
    ("masked_linear", "masked_linear_kernel", masked("bf16", stride_k=1, BIASED=True, BM=16, BN=32)),
    *(("masked_linear", "masked_linear_dw_kernel", masked(kind)) for kind in DOTS),
    ("blocks", "block_spmm_kernel", blocked("fp32", 128, ORDERED=False, TRANSPOSED=False)),
    ("blocks", "block_spmm_kernel", blocked("fp64", 64, ORDERED=True, TRANSPOSED=True)),
    ("blocks", "block_spmm_kernel", blocked("bf16", 128, ORDERED=True, TRANSPOSED=True)),
    ("blocks", "block_spmm_kernel", blocked("fp16", 32, ORDERED=False, TRANSPOSED=False)),
    ("blocks", "block_sddmm_kernel", blocked("fp32", 32)),
    ("blocks", "block_sddmm_kernel", blocked("fp64", 128)),
    ("blocks", "block_sddmm_kernel", blocked("bf16", 128)),
]  # fmt: skip
NUMBERS = (
    "height width out_height out_width stride_h stride_w top left dilation_h dilation_w phase_height phase_width "
    "images outputs channels per_group groups x_stride y_stride grad_stride dx_stride part kept first batch"
)
GEOMETRY = {**dict.fromkeys(NUMBERS.split(), "i32"), "KH": 3, "KW": 3}


def masked_images(kind, widest=128, **options):
    rows, columns, depth, warps = {"fp32": (32, 64, 16, 4), "fp64": (32, 32, 16, 4)}.get(kind, (64, widest, 32, 8))
    held = {"BM": rows, "BN": columns, "BK": depth, "num_warps": warps, "UPCAST": False, "BIASED": True}
    floats = tensors(kind, "x", "weight", "bias", "y", "grad", "dx", "dw")
    return {**floats, "mask": "*i32" if kind == "fp64" else "*u8", **GEOMETRY, **held, **options}


def sparse_images(kind, **options):
    floats = tensors(kind, "values", "x", "bias", "y", "grad", "dx")
    patterns = tensors("i32", "row_offsets", "columns", "column_offsets", "rows", "order")
    held = {"PIXELS": 16 if kind == "fp64" else 32, "BATCH": 64, "BIASED": True, "WEIGHTS": True, "num_warps": 4}
    return {**floats, **patterns, "partial": "*fp64" if kind == "fp64" else "*fp32", **GEOMETRY, **held, **options}


WIDTHS, UNIT = ("fp32", "fp64", "bf16"), {"stride_h": 1, "stride_w": 1, "KH": 1, "KW": 1}
CONVOLUTIONS = [
    *(("masked_conv2d", "masked_conv2d_kernel", masked_images(kind)) for kind in WIDTHS),
    ("masked_conv2d", "masked_conv2d_kernel", masked_images("fp16", BIASED=False, **UNIT)),
    *(("masked_conv2d_dx", "masked_conv2d_dx_kernel", masked_images(kind)) for kind in WIDTHS),
    ("masked_conv2d_dx", "masked_conv2d_dx_kernel", masked_images("fp16", **UNIT)),
    *(("masked_conv2d_dw", "masked_conv2d_dw_kernel", masked_images(kind, widest=64)) for kind in WIDTHS),
    ("masked_conv2d_dw", "masked_conv2d_dw_kernel", masked_images("fp16", widest=64, dw="*fp32", **UNIT)),
    *(("spconv", "spconv_kernel", sparse_images(kind)) for kind in WIDTHS),
    ("spconv", "spconv_kernel", sparse_images("fp16", batch=1, PIXELS=2048, BATCH=1, BIASED=False)),
    *(("spconv_dw", "spconv_dw_kernel", sparse_images(kind)) for kind in WIDTHS),
    *(("spconv_backward", "spconv_backward_kernel", sparse_images(kind)) for kind in WIDTHS),
    ("spconv_backward", "spconv_backward_kernel", sparse_images("fp16", WEIGHTS=False, **UNIT)),
]


def gram(kind, **options):
    """A tangent kernel's Gram matrix, its tile as the launcher chooses it where fp32 is not emulated."""
    patterns, floats = tensors("i32", "offsets", "indices"), tensors(kind, "squares", "a", "b", "a2", "b2", "partial")
    sizes = dict.fromkeys(("rows", "outputs", "batch", "batch2", "tiles", "across", "shares"), "i32")
    flags = {"SQUARED": True, "SYMMETRIC": True, "FULL": False, "EMULATED": False, "BO": 16}
    return {**patterns, **floats, **sizes, **flags, **tile(kind), **options}


WHOLE = {"FULL": True, "BM": 32, "BN": 32, "num_warps": 8}
GRADIENTS = [
    ("ntk_gram", "ntk_gram_kernel", gram("fp32")),
    ("ntk_gram", "ntk_gram_kernel", gram("fp64", SQUARED=False)),
    ("ntk_gram", "ntk_gram_kernel", gram("fp32", **WHOLE)),
    ("ntk_gram", "ntk_gram_kernel", gram("fp64", **WHOLE, BO=4)),
    *(
        ("spconv_dw_each", "spconv_dw_each_kernel", sparse_images(
            kind, values=f"*{kind}", rows="i32", shares="i32", CHUNK=chunk, BO=4
        ))
        for kind, chunk in (("fp32", 8), ("fp64", 4))
    ),
]  # fmt: skip
# fp32 as three products of tf32, for the targets that have them.
EMULATED = [gram("fp32", **options, EMULATED=True) for options in ({"BM": 64, "BN": 64}, WHOLE)]
ALIGNED = {
    "numel",
    "batch",
    "batch2",
    "m",
    "n",
    "k",
    "stride_n",
    "stride_k",
}  # sizes whose multiples of 16 Triton tells apart
SHARED = {"cuda": 99 << 10, "hip": 64 << 10}  # bytes that a program may have on every device of the kind


@pytest.fixture(scope="session")
def triton():
    triton = pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("the compiler is its own process: no TRITON_INTERPRET")
    return triton


def compiled(triton, target, module, name, arguments, fusion=False):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(importlib.import_module(f"sparseprune.kernels.{module}"), name)
    kinds = {arg: arguments[arg] for arg in kernel.arg_names}
    signature = {arg: kind if isinstance(kind, str) else "constexpr" for arg, kind in kinds.items()}
    constants = {(i,): kind for i, kind in enumerate(kinds.values()) if not isinstance(kind, str)}
    aligned = [
        i for i, (arg, kind) in enumerate(kinds.items()) if str(kind).startswith("*") or (arg in ALIGNED and kind != 1)
    ]
    source = ASTSource(
        kernel, signature, constexprs=constants, attrs={(i,): [["tt.divisibility", 16]] for i in aligned}
    )
    options = {"num_warps": arguments.get("num_warps", 8), "enable_fp_fusion": fusion}
    return triton.compile(source, target=GPUTarget(*TARGETS[target]), options=options)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("module", "name", "arguments"), KERNELS)
def test_compiles(triton, target, module, name, arguments):
    asm = compiled(triton, target, module, name, arguments).asm
    assert not re.search(r"= f(add|sub|mul|div) [a-z ]*(contract|fast|reassoc|arcp|afn)", asm["llir"])
    if TARGETS[target][0] == "cuda":
        ptx = asm["ptx"]
        assert ".entry" in ptx
        for contracted in ("fma.", ".ftz", ".approx", "div.full", "rcp."):
            assert contracted not in ptx
    else:
        assert ".amdhsa_kernel" in asm["amdgcn"]
        if "fdiv" not in asm["llir"]:  # division is steps of fma there, correctly rounded
            assert "v_fma_f64" not in asm["amdgcn"]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("module", "name", "arguments"), PRODUCTS + CONVOLUTIONS + GRADIENTS)
def test_products_compile(triton, target, module, name, arguments):
    kernel = compiled(triton, target, module, name, arguments, fusion=True)
    backend = TARGETS[target][0]
    code = kernel.asm["ptx" if backend == "cuda" else "amdgcn"]
    assert (".entry" if backend == "cuda" else ".amdhsa_kernel") in code
    assert kernel.metadata.shared <= SHARED[backend]
    for inexact in ("tf32", "xf32", ".ftz", ".approx"):
        assert inexact not in code
    if "tt.dot" in kernel.asm["ttir"] and not {"*fp32", "*fp64"} & set(map(str, arguments.values())):
        assert re.search(r"mma\.sync|wgmma|tcgen05\.mma|v_mfma", code)


@pytest.mark.parametrize("target", [target for target, (backend, *_) in TARGETS.items() if backend == "cuda"])
@pytest.mark.parametrize("arguments", EMULATED)
def test_fp32_is_three_products_of_tf32(triton, target, arguments):
    kernel = compiled(triton, target, "ntk_gram", "ntk_gram_kernel", arguments, fusion=True)
    asked = re.findall(r"tt\.dot .*inputPrecision = (\w+)", kernel.asm["ttir"])
    assert set(asked) == {"tf32x3"} and len(asked) == (1 if arguments["FULL"] else 2)
    products = re.findall(r"tt\.dot |ttng\.warp_group_dot |ttng\.tc_gen5_mma ", kernel.asm["ttgir"])
    assert len(products) == 3 * len(asked)
    assert kernel.metadata.shared <= SHARED["cuda"]


def constants(ptx):
    return {struct.unpack(">d", bytes.fromhex(word))[0] for word in re.findall(r"\b0d([0-9A-F]{16})\b", ptx)}


def odd_constants(ptx):
    """Those that are neither 0 nor a power of two."""
    return {x for x in constants(ptx) if x != 0 and abs(math.frexp(x)[0]) != 0.5}


@pytest.mark.parametrize(("module", "name", "arguments"), KERNELS)
def test_fp64_stays_fp64(triton, module, name, arguments):
    asm = compiled(triton, "sm_90", module, name, arguments).asm
    successive = arguments.get("RACE") == 2
    assert odd_constants(asm["ptx"]) == (LOGARITHM if successive else set())
    if arguments.get("RACE"):
        assert {2.0**-1022, 2.0**-64, 2.0**-32} <= constants(asm["ptx"])
        assert asm["ptx"].count("div.rn.f64") > 0
    if not any(kind in ("*fp32", "*fp16", "*bf16") for kind in arguments.values()):
        assert not re.search(r"\bf(32|16)\b", asm["ttir"])


@pytest.mark.parametrize(("module", "name", "arguments"), KERNELS + PRODUCTS + CONVOLUTIONS + GRADIENTS)
def test_addresses_are_64_bits_wide(triton, module, name, arguments):
    ttir = compiled(triton, "sm_90", module, name, arguments).asm["ttir"]
    programs = re.findall(r"(%\w+) = tt\.get_program_id", ttir)
    assert programs
    for program in programs:  # widened before anything is computed from it
        uses = [line for line in ttir.splitlines() if re.search(rf"{program}\b", line) and "get_program_id" not in line]
        assert all(f"arith.extsi {program} : i32 to i64" in use for use in uses)


def test_fusion_would_be_seen(triton):
    module, name, arguments = KERNELS[0]
    assert "fma.rn.f64" in compiled(triton, "sm_90", module, name, arguments, fusion=True).asm["ptx"]


def test_every_kernel_is_listed(triton):
    folder = Path(importlib.import_module("sparseprune.kernels").__file__).parent
    found = set()
    for stem in (file.stem for file in folder.glob("*.py") if file.stem != "__init__"):
        module = importlib.import_module(f"sparseprune.kernels.{stem}")
        for name, value in vars(module).items():
            if isinstance(value, triton.JITFunction) and value.__module__ == module.__name__ and "_kernel" in name:
                found.add((stem, name))
    assert found == {(module, name) for module, name, _ in KERNELS + PRODUCTS + CONVOLUTIONS + GRADIENTS}


def test_launches_of_the_sampler_forbid_fusion(triton):
    vector, products = (importlib.import_module(f"sparseprune.kernels.{name}") for name in ("_vector", "_products"))
    calls = []

    class Kernel:
        def __getitem__(self, grid):
            return lambda *args, **options: calls.append((grid, options))

    vector.launch(Kernel(), 3, torch.zeros(1), SIZE=4)
    assert calls == [((3,), {"SIZE": 4, "num_warps": 8, "enable_fp_fusion": False})]
    products.launch(Kernel(), 3, torch.zeros(1), SIZE=4)
    products.launch(Kernel(), 0, torch.zeros(1), SIZE=4)  # nothing to do is no launch
    assert calls[1:] == [((3,), {"SIZE": 4, "num_warps": 4, "enable_fp_fusion": True})]
    for file in Path(vector.__file__).parent.glob("*.py"):  # kernel[grid](...) is written in these two places only
        assert "_kernel[" not in file.read_text()
