"""What a training takes: milliseconds a step and bytes at its peak."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from pathlib import Path
from typing import Any

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Steps:
    """The durations of steps; on CUDA by events, so that no step waits for the device."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._marks: list[tuple[Any, Any]] = []

    def start(self) -> None:
        """Mark the start of a step."""
        self._begin = self._now()

    def stop(self) -> None:
        """Mark its end."""
        self._marks.append((self._begin, self._now()))

    def median_ms(self) -> float | None:
        """Return the median duration in milliseconds, None without a step."""
        if not self._marks:
            return None
        if self._cuda:
            torch.cuda.synchronize()
            return statistics.median(begin.elapsed_time(end) for begin, end in self._marks)
        return 1000 * statistics.median(end - begin for begin, end in self._marks)

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def in_use(device: torch.device) -> int | None:
    """Return the bytes in use now: allocated on CUDA, else resident in this process; None where nobody tells."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else _resident("VmRSS")


def reset_peak(device: torch.device) -> None:
    """Let `peak` begin at what is in use now; memory that was freed goes back to the system first."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    try:
        _RESET.write_text("5")
    except OSError:
        return


def peak(device: torch.device) -> int | None:
    """Return the most bytes in use since `reset_peak`, counted like `in_use`."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident("VmHWM")


def _resident(field: str) -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return 1024 * int(sizes[0]) if sizes else None
