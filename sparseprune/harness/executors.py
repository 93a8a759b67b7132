"""Where units run: in this process, or on a Ray cluster."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from ..data import Dataset
from ..masks import Report
from ..results import Row
from .job import warmed
from .plan import Job
from .units import Deliver, Unit, run_unit
from .watcher import Watcher, collapse


def local(units: list[Unit], dataset: Dataset, folder: Path, watcher: Watcher, deliver: Deliver) -> None:
    """Run one unit after another; see `run_unit`."""
    device = units[0][0].device
    dataset = dataset.to(device)
    with warmed(units[0][0], dataset):
        for unit in units:
            run_unit(unit, dataset, folder, watcher, deliver)


def ray(units: list[Unit], dataset: Dataset, folder: Path, watcher: Watcher, deliver: Deliver) -> None:
    """Run units as tasks of one core (and one GPU, on cuda) each, as many at once as the cluster holds.

    Joins the cluster of this process or of RAY_ADDRESS, else starts one of this machine's cores. Rows come back unit by
    unit; `folder` must be one that all machines see for checkpoints to be found again.
    """
    import ray as engine  # pyright: ignore[reportMissingImports] - an extra

    started = not engine.is_initialized()
    if started:
        engine.init(include_dashboard=False, logging_level=logging.WARNING)
    gpus = int(torch.device(units[0][0].device).type == "cuda")
    task: Any = engine.remote(num_cpus=1, num_gpus=gpus)(_remotely)
    try:
        data = engine.put(dataset)
        waiting = {task.remote(unit, data, folder.resolve()): unit for unit in units}
        while waiting:
            [done], _ = engine.wait(list(waiting), num_returns=1)
            for job, row in _rows(waiting.pop(done), lambda done=done: engine.get(done)):
                deliver(job, row)
    finally:
        if started:
            engine.shutdown()


def _rows(unit: Unit, get: Callable[[], list[tuple[Job, Row]]]) -> list[tuple[Job, Row]]:
    """Return what a task gives; a task that was lost (a machine gone, memory exceeded) is its jobs' error."""
    try:
        return get()
    except Exception as error:  # the engine's own kinds
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"
        return [(job, {"key": job.key, "error": reason}) for job in unit]


def _remotely(unit: Unit, dataset: Dataset, folder: Path) -> list[tuple[Job, Row]]:
    """What a worker does: the unit's jobs one after another."""
    torch.set_num_threads(1)  # the core that the task was given
    dataset = dataset.to(unit[0].device)
    rows: list[tuple[Job, Row]] = []
    with warmed(unit[0], dataset):
        run_unit(unit, dataset, folder, _Told(), lambda job, row: rows.append((job, row)))
    return rows


class _Told(Watcher):
    """Print a collapse before the training; the engine shows workers' lines where the run was started."""

    def pruned(self, job: Job, report: Report) -> None:
        if line := collapse(job, report):
            print(line, flush=True)


def check(name: str) -> None:
    """Raise where there is no executor of that name, or not what it needs."""
    if name not in EXECUTORS:
        raise ValueError(f"run: executor must be one of {', '.join(EXECUTORS)}, got {name!r}")
    if name == "ray" and find_spec("ray") is None:
        raise ImportError('run: executor ray needs ray: pip install "sparseprune[ray]"')


EXECUTORS: dict[str, Callable[[list[Unit], Dataset, Path, Watcher, Deliver], None]] = {"local": local, "ray": ray}
