"""Jobs that share work: one scoring that trains for several selectors, one training for several seeds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..data import Dataset
from ..results import Row
from ..training import train_stacked
from .job import CHECKPOINT_SECONDS, Rankings, ends, forget, now, options, perform, prepare
from .plan import DENSE, MASKED, Job
from .watcher import Watcher

Unit = list[Job]
Deliver = Callable[[Job, Row], None]


def units(jobs: list[Job], stack: int = 1) -> list[Unit]:
    """Return the jobs in groups that one process runs, in the order of their first ones.

    Jobs of one scoring that trains go together, and so do up to `stack` seeds of one method and layout.
    """
    found: dict[tuple[Any, ...], Unit] = {}
    for job in jobs:
        shared = job.method != DENSE and getattr(job.way.score, "trains", False)
        same = (job.way.ranking,) if shared else (job.method, job.layout)
        found.setdefault((job.seed // stack, job.density, *same), []).append(job)
    return list(found.values())


def run_unit(unit: Unit, dataset: Dataset, folder: Path, watcher: Watcher, deliver: Deliver) -> None:
    """Run the jobs of a unit, masked ones that differ in the seed alone at once, and deliver each one's row.

    Args:
        unit: of `units`.
        dataset: on the jobs' device.
        folder: of checkpoints.
        watcher: told what happens.
        deliver: called with each job and its row as soon as it is there.
    """
    alike: dict[tuple[str, str], list[Job]] = {}
    for job in unit:
        alike.setdefault((job.method, job.layout), []).append(job)
    rankings: Rankings = {}
    failed = False
    for jobs in alike.values():
        for together in [jobs] if jobs[0].layout == MASKED else [[job] for job in jobs]:
            for job, row in zip(together, _attempt(together, dataset, folder, watcher, rankings), strict=True):
                failed |= "error" in row
                deliver(job, row)
    if not failed:  # else the next run tries again, from where the scoring was
        for job in unit:
            forget(job, folder)


def _attempt(jobs: list[Job], dataset: Dataset, folder: Path, watcher: Watcher, rankings: Rankings) -> list[Row]:
    """Run jobs at once and return their rows, with the error in them if they failed."""
    try:
        if len(jobs) == 1:
            outcomes = [perform(jobs[0], dataset, folder / f"{jobs[0].name}.pt", watcher, rankings)]
        else:
            outcomes = _perform_stacked(jobs, dataset, folder, watcher, rankings)
    except Exception as error:  # one failing method must not take the others' hours with it
        outcomes = [{"error": f"{type(error).__name__}: {error}"} for _ in jobs]
    return [{"key": job.key, **outcome} for job, outcome in zip(jobs, outcomes, strict=True)]


def _perform_stacked(
    jobs: list[Job], dataset: Dataset, folder: Path, watcher: Watcher, rankings: Rankings
) -> list[dict[str, Any]]:
    """Prune one by one, train at once; rows say how many nets shared a step, of which step_ms is the share."""
    ready = [prepare(job, dataset, folder, watcher, rankings) for job in jobs]
    for job, net in zip(jobs, ready, strict=True):
        watcher.started(job, net.model)
    begin = now(jobs[0].device)
    checkpoint = folder / f"{jobs[0].name}-{len(jobs)}.pt"
    histories = train_stacked(
        [net.model for net in ready],
        dataset,
        **options(jobs[0]),
        seeds=[job.seed for job in jobs],
        start=ready[0].start,
        progress=lambda done, total: watcher.stepped(jobs[-1], len(jobs) * done, total),
        checkpoint=checkpoint,
        checkpoint_seconds=CHECKPOINT_SECONDS,
    )
    checkpoint.unlink(missing_ok=True)
    shared = {"peak_bytes": None, "stacked": len(jobs), "train_seconds": (now(jobs[0].device) - begin) / len(jobs)}
    return [{**net.outcome, **ends(history), **shared} for net, history in zip(ready, histories, strict=True)]
