"""What a run tells while it runs."""

from __future__ import annotations

from torch import nn

from ..masks import Report
from ..results import Row
from .plan import Job


def collapse(job: Job, report: Report) -> str:
    """Return the line that tells of a collapse; nothing where there is none."""
    if not report.collapsed:
        return ""
    lost = "no path from the inputs to the outputs" if report.cut else f"nothing in {', '.join(report.collapsed)}"
    return f"collapse: {job} keeps {lost}"


class Watcher:
    """What a run tells while it runs; the command line draws it. Silent by itself."""

    def planned(self, jobs: list[Job], done: int) -> None:
        """Say how many jobs there are, and how many of them have their result from before."""

    def scored(self, job: Job, done: int, total: int) -> None:
        """Say how many iterations of the scoring are done."""

    def pruned(self, job: Job, report: Report) -> None:
        """Say what a mask keeps, before its training starts."""

    def started(self, job: Job, model: nn.Module) -> None:
        """Show the net as its training starts, pruned where it is; to look at only."""

    def stepped(self, job: Job, done: int, total: int) -> None:
        """Say how far a training is; of several nets at once the last one's job, done being the steps of all."""

    def finished(self, job: Job, row: Row) -> None:
        """Say that a job's row is on the disk."""
