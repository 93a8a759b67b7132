"""What a person sees of a run while it runs: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from .harness import Job, Watcher, collapse
from .masks import Report
from .results import Row

if TYPE_CHECKING:
    from rich.console import Console

_LOG_LINES = 10


class Live(Watcher):
    """Draw the progress of a run on a rich console.

    Args:
        console: on a terminal it gets a live bar, elsewhere about ten lines a run.
    """

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as Remaining

        text = TextColumn("{task.description}")
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), Remaining())
        self._console = console
        self._bar = Progress(
            *columns, text, console=console, transient=True, speed_estimate_period=600, disable=not console.is_terminal
        )
        self._task = self._bar.add_task("", total=None)
        self._done = self._total = self._before = 0

    def __enter__(self) -> Live:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def planned(self, jobs: list[Job], done: int) -> None:
        """Start the count behind what an earlier run has finished."""
        self._before, self._total = done, len(jobs)
        if done:
            self._console.print(f"{done} of {len(jobs)} results are there from before")
        self._bar.reset(self._task, total=len(jobs) - done)

    def pruned(self, job: Job, report: Report) -> None:
        """Print a collapse before the training starts."""
        if line := collapse(job, report):
            self._console.print(line, highlight=False, soft_wrap=True)

    def scored(self, job: Job, done: int, total: int) -> None:
        """Tell of a scoring of several iterations where the bar's text stands."""
        if total > 1:
            self._bar.update(self._task, description=f"{job}: scoring {done}/{total}")

    def stepped(self, job: Job, done: int, total: int) -> None:
        """Move the bar by part of a job."""
        self._bar.update(self._task, completed=self._done + done / total, description=str(job))

    def finished(self, job: Job, row: Row) -> None:
        """Move the bar by a job; print a failure."""
        self._done += 1
        self._bar.update(self._task, completed=self._done)
        if "error" in row:
            self._console.print(f"failed: {job}: {row['error']}", highlight=False, markup=False, soft_wrap=True)
        pending = self._total - self._before
        if (
            not self._console.is_terminal
            and self._done * _LOG_LINES // pending > (self._done - 1) * _LOG_LINES // pending
        ):
            self._console.print(f"{self._before + self._done}/{self._total} done: {job}", highlight=False)
