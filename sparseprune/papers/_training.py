"""What experiments that train share: where, on how many threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch


def device(dataset: str) -> str:
    """Return "cuda" where there is one, but for the digits: their nets are too small to gain."""
    return "cuda" if torch.cuda.is_available() and dataset != "digits" else "cpu"


def threads_for(dataset: str) -> AbstractContextManager[None]:
    """Use one thread for nets on the digits: for those a second one only waits."""
    return one_thread() if dataset == "digits" else nullcontext()


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread, where the work of each operation is small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
