"""The one way to time: alternate ours and the peers, each warm, synchronise, report medians, quantiles and a ratio."""

from __future__ import annotations

import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]


def seconds(call: Callable[[], Any]) -> float:
    """Time of a call right after another one: on virtual machines memory that lay idle is slow at first."""
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def quantiles(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    last = len(ordered) - 1
    return {
        "median_ms": round(1e3 * statistics.median(ordered), 4),
        "q10_ms": round(1e3 * ordered[round(0.1 * last)], 4),
        "q90_ms": round(1e3 * ordered[round(0.9 * last)], 4),
        "runs": len(ordered),
    }


def status_bytes(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])


def peak_extra_bytes(call: Callable[[], Any]) -> int | None:
    """Memory that a call takes beside what was there before it, at its peak; None where the system does not tell.

    Where memory is kept by the process for later calls, only the first call of a process shows all of it.
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    if not Path("/proc/self/clear_refs").exists():
        return None
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = status_bytes("VmHWM")
    call()
    return status_bytes("VmHWM") - before


def side_by_side(
    op: str,
    case: str,
    ours: Callable[[], Any],
    peers: dict[str, Callable[[], Any]],
    correct: Callable[[], bool],
    repeats: int = 7,
) -> list[Row]:
    """One row a peer: ours and all peers in turn, `repeats` times; no ratio unless `correct()`."""
    times: dict[str, list[float]] = {name: [] for name in ("ours", *peers)}
    for _ in range(repeats):
        times["ours"].append(seconds(ours))
        for name, peer in peers.items():
            times[name].append(seconds(peer))
    agrees = bool(correct())
    mine = quantiles(times["ours"])
    rows = []
    for name in peers:
        theirs = quantiles(times[name])
        ratio = round(theirs["median_ms"] / mine["median_ms"], 2) if agrees else None
        rows.append(
            {"op": op, "case": case, "peer": name, "ours": mine, "theirs": theirs, "ratio": ratio, "agrees": agrees}
        )
    return rows


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def environment() -> Row:
    """Device, versions and commit: what a number means nothing without."""
    info = Path("/proc/cpuinfo")
    models = (
        [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    triton = _output("python3", "-c", "import triton; print(triton.__version__)") if torch.cuda.is_available() else None
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "triton": triton,
        "python": platform.python_version(),
        "commit": _output("git", "rev-parse", "--short", "HEAD"),
        "dirty": bool(_output("git", "status", "--porcelain")),
        "date": time.strftime("%Y-%m-%d"),
    }
