"""A run: what is missing of a plan, on an executor, row by row to the disk."""

from __future__ import annotations

from pathlib import Path

from .. import models
from ..data import Dataset, load
from ..results import Results, Row, identity
from ..training import gain
from .executors import EXECUTORS, check
from .plan import Job, Plan
from .units import units
from .watcher import Watcher

AUTO = "auto"
# What stacking must gain, and the most nets at once that are tried.
_WORTH, _MOST = 1.1, 16


def run(
    plan: Plan,
    *,
    out: str | Path | None = None,
    data_dir: str | Path | None = None,
    watcher: Watcher | None = None,
    stack: int | str = 1,
    executor: str = "local",
) -> list[Row]:
    """Run what is still to be run of a plan, and return the rows of all of it.

    Per seed every method gets the same initial weights, the same scoring batch and the same data order. Selectors of
    one score that trains share its trainings. A job that fails becomes a row with its error, and is tried again by the
    next run.

    Args:
        plan: what to run.
        out: the folder of results.jsonl (and of checkpoints of long trainings); None: runs/<dataset>-<model>.
        data_dir: where `sparseprune.data.load` finds the files.
        watcher: told what happens.
        stack: how many seeds of a method to train at once (masked layout; numbers then differ by rounding); "auto":
            all, at most 16, if a few timed steps say that this is faster here, else 1.
        executor: "local": in this process; "ray": tasks on a Ray cluster.

    Returns:
        One row a job, in the order of the plan: "key" and either "error" or "accuracy", "density", "kept", "total",
        "prune_ms", "collapsed" (names of layers that keep nothing), "diverged", "losses", "train_seconds", "step_ms"
        (the median), "peak_bytes" (the most that model and training added to the memory in use), "csr_layers" (how many
        have that layout), "layers" (name -> kept, total), "weights" (how many are kept of each size at initialization:
        `BINS` bins), and "stacked" (how many were trained at once) where not 1.

    Raises:
        ValueError, FileNotFoundError, ImportError: a bad argument, data or file, before anything is written.

    Cost: one pruning and one training a job.
    """
    watcher = watcher or Watcher()
    check(executor)
    if stack != AUTO and (not isinstance(stack, int) or stack < 1):
        raise ValueError(f"run: stack must be auto or at least 1, got {stack!r}")
    dataset = load(plan.dataset, data_dir)
    _nets(plan, dataset, 1)  # raises early if it must
    jobs = plan.jobs(dataset)
    folder = Path(out) if out is not None else Path("runs") / f"{plan.dataset}-{plan.model}"
    results = Results(folder / "results.jsonl")
    rows = results.load()
    pending = [job for job in jobs if "accuracy" not in rows.get(identity(job.key), {})]
    watcher.planned(jobs, len(jobs) - len(pending))
    if pending:
        at_once = _measured(plan, dataset) if isinstance(stack, str) else stack

        def deliver(job: Job, row: Row) -> None:
            results.append(row)
            watcher.finished(job, row)

        with results.writing():
            EXECUTORS[executor](units(pending, at_once), dataset, folder / "checkpoints", watcher, deliver)
        rows = results.load()
    return [rows[identity(job.key)] for job in jobs]


def _measured(plan: Plan, dataset: Dataset) -> int:
    """Return how many seeds to train at once: all, if that is faster by the clock."""
    most = min(plan.seeds, _MOST)
    if most == 1:
        return 1
    found = gain(_nets(plan, dataset, most), dataset, batch_size=plan.recipe.batch_size, device=plan.device)
    return most if found > _WORTH else 1


def _nets(plan: Plan, dataset: Dataset, count: int) -> list[models.Net]:
    shape = {"classes": dataset.classes, "input_shape": dataset.input_shape}
    return [models.build(plan.model, **shape, seed=seed) for seed in range(count)]
