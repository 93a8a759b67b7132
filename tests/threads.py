"""Ranks as threads of one process: the collectives of `ops.ranks.Ranks` without torch.distributed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch


class Meeting:
    def __init__(self, size: int) -> None:
        self.size = size
        self.barrier = threading.Barrier(size, timeout=60)
        self.slots: list[Any] = [None] * size

    def exchange(self, rank: int, value: Any) -> list[Any]:
        self.slots[rank] = value
        self.barrier.wait()
        everything = list(self.slots)
        self.barrier.wait()
        return everything


class ThreadRanks:
    """The face of `Ranks` for one thread."""

    def __init__(self, meeting: Meeting, rank: int) -> None:
        self.meeting, self.rank, self.size = meeting, rank, meeting.size

    def gather(self, value: Any) -> list[Any]:
        return self.meeting.exchange(self.rank, value)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        return torch.stack(self.gather(values.clone())).sum(0)

    def max(self, values: torch.Tensor) -> torch.Tensor:
        return torch.stack(self.gather(values.clone())).amax(0)

    def rows(self, values: torch.Tensor) -> torch.Tensor:
        return torch.cat(self.gather(values.clone()))


def on_ranks(size: int, work: Callable[[ThreadRanks], Any]) -> list[Any]:
    """What `work` returns, or the exception it raises, on every rank."""
    meeting, results = Meeting(size), [None] * size

    def one(rank: int) -> None:
        try:
            results[rank] = work(ThreadRanks(meeting, rank))
        except Exception as error:
            results[rank] = error
            if not isinstance(error, ValueError):  # which all raise
                meeting.barrier.abort()

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
