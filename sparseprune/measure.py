"""The one way to time: alternate ours and the peers, each warm, synchronise, report medians, quantiles and a ratio."""

from __future__ import annotations

import importlib.metadata
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]


_SHORT = 2e-3  # seconds: below this the clock, the call's start and what ran before it would be measured too
_MOST_CALLS = 100


def seconds(call: Callable[[], Any]) -> float:
    """Time of a call right after another one: on virtual machines memory that lay idle is slow at first.

    Calls shorter than two milliseconds are timed many in a row, after as many. A call that has an attribute `seconds`,
    which runs in another process, times itself in the same way.
    """
    elsewhere = getattr(call, "seconds", None)
    if elsewhere is not None:
        return elsewhere()
    calls = min(_MOST_CALLS, 1 + int(_SHORT / max(_seconds(call, 1), 1e-9)))
    if calls > 1:
        _seconds(call, calls)
    return _seconds(call, calls) / calls


def _seconds(call: Callable[[], Any], calls: int) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def alternate(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Times of all calls in turn, `repeats` times, so that whatever disturbs the machine disturbs each of them.

    Those in other processes come last: they leave caches cold.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    in_turn = sorted(calls, key=lambda name: hasattr(calls[name], "seconds"))
    for _ in range(repeats):
        for name in in_turn:
            times[name].append(seconds(calls[name]))
    return times


def quantiles(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    last = len(ordered) - 1
    return {
        "median_ms": round(1e3 * statistics.median(ordered), 5),
        "q10_ms": round(1e3 * ordered[round(0.1 * last)], 5),
        "q90_ms": round(1e3 * ordered[round(0.9 * last)], 5),
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
    times = alternate({"ours": ours, **peers}, repeats)
    agrees = bool(correct())
    return [row(op, case, name, times["ours"], times[name], agrees) for name in peers]


def row(op: str, case: str, peer: str, ours: list[float], theirs: list[float], agrees: bool) -> Row:
    """Set the times of ours beside a peer's; no ratio unless the results agree."""
    mine, other = quantiles(ours), quantiles(theirs)
    ratio = round(other["median_ms"] / mine["median_ms"], 2) if agrees else None
    return {"op": op, "case": case, "peer": peer, "ours": mine, "theirs": other, "ratio": ratio, "agrees": agrees}


def environment() -> Row:
    """Device and versions: what a number means nothing without."""
    info = Path("/proc/cpuinfo")
    models = (
        [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        if info.exists()
        else []
    )
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "sparseprune": _version("sparseprune"),
        "torch": torch.__version__,
        "triton": _version("triton") if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
