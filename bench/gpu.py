"""What a GPU shows: its tests, the samplers' golden hashes and the side-by-side timings; a table and one JSON file.

python -m bench.gpu [--device cuda] [--out FOLDER]      (make gpu builds first)
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sparseprune import ops, sampling
from sparseprune.measure import Row, quantiles, seconds

from . import gpu_ntk, gpu_products, sampler, synflow
from .run import RESULTS, save, table

ROOT = Path(__file__).parent.parent
LIMIT = 9 * 60  # seconds, for everything
TESTS = [
    "tests/kernels/test_gpu.py",
    "tests/kernels/test_gpu_convolutions.py",
    "tests/kernels/test_gpu_gram.py",
    "tests/kernels/test_gpu_products.py",
    "tests/ops/test_golden.py",
    "tests/test_prune.py",
    "tests/nn/test_layers.py",
]


def gpu_tests(timeout: float) -> str:
    """The closing line of the tests marked gpu."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "--import-mode=importlib", "-p", "no:cacheprovider", *TESTS]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return f"FAILED: not done in {timeout:.0f} s"
    lines = [line for line in done.stdout.splitlines() if line.strip()] or done.stderr.splitlines() or ["no output"]
    print("\n".join(line for line in lines if "FAILED" in line or "Error" in line))
    return lines[-1] if done.returncode == 0 else f"FAILED: {lines[-1]}"


def golden_hashes(device: str) -> dict[str, bool]:
    """Whether each of the samplers' results on the device has the bits that every other backend has."""
    spec = importlib.util.spec_from_file_location("golden", ROOT / "tests/ops/test_golden.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    expected = json.loads(module.GOLDEN.read_text())
    return {name: value == expected[name] for name, value in module.results(device).items()}


METHODS = ("multinomial", "top_k", "poisson", "systematic", "bernoulli", "priority", "without_replacement")


def billion(device: str, numel: int, repeats: int = 5) -> list[Row]:
    """Every method on 1e9 fp32 weights beside one product of them, the floor of memory."""
    w = torch.randn(numel, device=device)
    out = torch.empty_like(w)
    k = numel // 10
    rows = []
    for name in METHODS:
        seed = {} if name == "top_k" else {"seed": 1}
        call = partial(getattr(sampling, name), w, k, transform="abs", output="weights", out=out, **seed)
        call()
        torch.mul(w, w, out=out)
        ours = quantiles([seconds(call) for _ in range(repeats)])
        floor = quantiles([seconds(lambda: torch.mul(w, w, out=out)) for _ in range(repeats)])
        ratio = round(floor["median_ms"] / ours["median_ms"], 3)
        case = f"d = {numel}, k = s = .1 d, {device}"
        peer = "floor: torch.mul(a, b, out=c)"
        rows.append(
            {"op": name, "case": case, "peer": peer, "ours": ours, "theirs": floor, "ratio": ratio, "agrees": True}
        )
    return rows


def main() -> None:
    start = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--numel", type=int, default=10**9)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    device = arguments.device
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("make gpu: needs a CUDA device, torch sees none")
    hashes = golden_hashes(device)
    wrong = [name for name, same in hashes.items() if not same]
    print(
        f"golden hashes on {device}: {len(hashes) - len(wrong)} of {len(hashes)} equal"
        + (f"; WRONG: {wrong}" if wrong else "")
    )
    tests = gpu_tests(min(270, LIMIT - 60))
    print(f"gpu tests: {tests}")
    rows: list[Row] = []
    suites: list[Any] = [
        lambda: sampler.rows(5, device),
        lambda: billion(device, arguments.numel),
        lambda: synflow.rows(1, device),
        *gpu_ntk.suites(2, device),
        *gpu_products.suites(5, device),
    ]
    failed: list[str] = []
    for number, suite in enumerate(suites):
        if time.monotonic() - start > LIMIT - 100:  # what no longer fits is left out, and said
            print(f"left out for time: {len(suites) - number} of {len(suites)} suites of benches")
            break
        try:
            rows += suite()
        except Exception as error:  # a peer may lack a dtype: the other rows stay, and the failure is told
            failed.append(f"{getattr(suite, 'args', '')} {type(error).__name__}: {error}")
            print(f"FAILED: {failed[-1]}")
    print(table(rows))
    about: dict[str, Any] = {"golden": hashes, "tests": tests, "backends": ops.backends(), "failed": failed}
    print(f"written to {save(rows, 'gpu', arguments.out, **about)} in {time.monotonic() - start:.0f} s")
    if wrong or failed or tests.startswith("FAILED") or not re.search(r"\d+ passed", tests):
        raise SystemExit("make gpu: FAILED")


if __name__ == "__main__":
    main()
