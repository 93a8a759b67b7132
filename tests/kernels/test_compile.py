"""Every kernel compiles for GPUs that are not in the machine, and rounds every product as written."""

import importlib
import os
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
DRAWS = {
    "exponents": "*i32", "scales": "*fp64", "draws": "*i64", "sums": "*i64", "counts": "*i32", "rows": "i32", **KEY,
    "LANES": 512, "num_warps": 16,
}  # fmt: skip
TILES = {"exponents": "*i32", "masses": "*i64", "bad": "*i64"}
HISTOGRAM = {"histogram": "*i64", "low": "i64", "shift": "i32", "bins": "i32", "step": "i32", "copies": "i32"}
MARK = {"quota": "*i64", "ties": "*i64", "threshold": "i64", "shift": "i32"}


def written(weight, out, output, wide=False):
    return {"weight": weight, "out": out, "OUTPUT": output, "WIDE": wide}


# module, kernel, what each argument is: a type, or the value of a constant
KERNELS = [
    ("_vector", "gather_kernel", {**FUSED, "patch": "*fp64", "SIZE": 4096}),
    ("_vector", "scatter_kernel", {"values": "*fp64", "numel": "i32", "SIZE": 4096, **written("*fp64", "*fp16", 2)}),
    ("scores", "score_tiles_kernel", {**PLAIN, **TILES}),
    ("scores", "score_tiles_kernel", {**FUSED, **TILES}),
    ("split_draws", "split_draws_kernel", {
        "draws": "*i64", "ends": "*i64", "whole": "*i64", "parts": "*i64", "below": "*i64", "level": "i32", **KEY,
        "num_warps": 1,
    }),
    ("draw_tiles", "draw_tiles_kernel", {**FUSED, **DRAWS, **written("*bf16", "*bf16", 2)}),
    ("draw_tiles", "draw_tiles_kernel", {**PATCH, **DRAWS, **written("*fp64", "*fp64", 0, True)}),
    ("keys", "key_histogram_kernel", {**FUSED, **HISTOGRAM}),
    ("keys", "key_mark_kernel", {**PLAIN, **MARK, **written("*fp16", "*fp16", 2)}),
]  # fmt: skip


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
    aligned = [i for i, (arg, kind) in enumerate(kinds.items()) if str(kind).startswith("*") or arg == "numel"]
    source = ASTSource(
        kernel, signature, constexprs=constants, attrs={(i,): [["tt.divisibility", 16]] for i in aligned}
    )
    options = {"num_warps": arguments.get("num_warps", 8), "enable_fp_fusion": fusion}
    return triton.compile(source, target=GPUTarget(*TARGETS[target]), options=options).asm


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("module", "name", "arguments"), KERNELS)
def test_compiles(triton, target, module, name, arguments):
    asm = compiled(triton, target, module, name, arguments)
    if TARGETS[target][0] == "cuda":
        ptx = asm["ptx"]
        assert ".entry" in ptx
        for contracted in ("fma.", ".ftz", ".approx", "div.full"):
            assert contracted not in ptx
    else:
        assert ".amdhsa_kernel" in asm["amdgcn"]
        if name != "draw_tiles_kernel":  # which divides: in steps of fma, correctly rounded
            assert "v_fma_f64" not in asm["amdgcn"]


def test_fusion_would_be_seen(triton):
    module, name, arguments = KERNELS[0]
    assert "fma.rn.f64" in compiled(triton, "sm_90", module, name, arguments, fusion=True)["ptx"]


def test_every_kernel_is_listed(triton):
    folder = Path(importlib.import_module("sparseprune.kernels").__file__).parent
    found = set()
    for stem in (file.stem for file in folder.glob("*.py") if file.stem != "__init__"):
        module = importlib.import_module(f"sparseprune.kernels.{stem}")
        for name, value in vars(module).items():
            if isinstance(value, triton.JITFunction) and value.__module__ == module.__name__ and "_kernel" in name:
                found.add((stem, name))
    assert found == {(module, name) for module, name, _ in KERNELS}


def test_every_launch_forbids_fusion(triton):
    vector = importlib.import_module("sparseprune.kernels._vector")
    calls = []

    class Kernel:
        def __getitem__(self, grid):
            return lambda *args, **options: calls.append((grid, options))

    vector.launch(Kernel(), 3, torch.zeros(1), SIZE=4)
    assert calls == [((3,), {"SIZE": 4, "num_warps": 8, "enable_fp_fusion": False})]
    for file in Path(vector.__file__).parent.glob("*.py"):  # kernel[grid](...) is written in one place only
        assert "_kernel[" not in file.read_text()
