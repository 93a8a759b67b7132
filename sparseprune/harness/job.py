"""One job: build, prune, train, measure."""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from .. import models
from ..data import Dataset
from ..masks import Masks
from ..nn import layouts, sparsify
from ..prunable import prunable
from ..prune import Ranking, rank
from ..training import History, Trainer, train, usage
from .plan import DENSE, Job
from .watcher import Watcher

CHECKPOINT_SECONDS = 30.0
_SCORING_SAMPLES = 256
# Weights in units of their layer's root mean square: the bins of a row's "weights", the outer ones open.
BINS, WIDEST = 32, 4.0

# Rankings of scores that train, by text and seed, with the milliseconds they took: selectors share them.
Rankings = dict[tuple[str, int], tuple[Ranking, float]]


@dataclass
class Prepared:
    """A net that is ready to be trained, with what its row says so far.

    Args:
        model: pruned, on its device.
        start: the step of the recipe that its weights are of.
        outcome: of the pruning.
        before: bytes in use before it was built.
    """

    model: nn.Module
    start: int
    outcome: dict[str, Any]
    before: int | None


def perform(
    job: Job, dataset: Dataset, checkpoint: Path, watcher: Watcher, rankings: Rankings | None = None
) -> dict[str, Any]:
    """Run one job and return what its row says; the checkpoint of a finished training is removed.

    Args:
        job: what to run.
        dataset: on the job's device.
        checkpoint: of the training; a scoring that trains keeps its nets beside it.
        watcher: told what happens.
        rankings: what jobs of one ranking share; None: nothing.
    """
    ready = prepare(job, dataset, checkpoint.parent, watcher, rankings)
    watcher.started(job, ready.model)
    begin = now(job.device)
    history = train(
        ready.model,
        dataset,
        **options(job),
        seed=job.seed,
        start=ready.start,
        progress=lambda done, total: watcher.stepped(job, done, total),
        checkpoint=checkpoint,
        checkpoint_seconds=CHECKPOINT_SECONDS,
    )
    checkpoint.unlink(missing_ok=True)
    if rankings is None:
        forget(job, checkpoint.parent)
    grown = None if history.peak_bytes is None or ready.before is None else history.peak_bytes - ready.before
    return {**ready.outcome, **ends(history), "peak_bytes": grown, "train_seconds": now(job.device) - begin}


def prepare(job: Job, dataset: Dataset, folder: Path, watcher: Watcher, rankings: Rankings | None = None) -> Prepared:
    """Build a job's net and prune it; arguments are those of `perform`, `folder` the checkpoint's."""
    device = torch.device(job.device)
    usage.reset_peak(device)
    before = usage.in_use(device)
    model = models.build(job.model, classes=dataset.classes, input_shape=dataset.input_shape, seed=job.seed)
    model.to(job.device)
    outcome: dict[str, Any] = {"density": 1.0, "prune_ms": 0.0, "collapsed": [], "csr_layers": 0}
    if job.method == DENSE:
        return Prepared(model, 0, outcome | _kept(model, None), before)
    ranking, milliseconds = _ranking(model, job, dataset, folder, watcher, rankings)
    begin = now(job.device)
    masks = ranking.masks(job.way.select)
    milliseconds += 1000 * (now(job.device) - begin)
    report = masks.report(model, input_shape=dataset.input_shape)
    watcher.pruned(job, report)
    kept = _kept(model, masks)
    score = cast(Any, job.way.score)
    if hasattr(score, "prepared"):
        model = score.prepared(model, train=_trainer(job, dataset, folder), density=job.density)
    example, _ = next(iter(dataset.batches(job.batch_size, seed=job.seed)))
    sparsify(model, masks, layout=cast(Any, job.layout), scale=cast(Any, job.way.scale), inputs=example)
    in_csr = sum(layer.layout == "csr" for layer in layouts(model).values())
    outcome = {"density": report.density, "kept": report.kept, "total": report.total, "csr_layers": in_csr}
    outcome |= {"prune_ms": milliseconds, "collapsed": list(report.collapsed), **kept}
    return Prepared(model, getattr(score, "rewind", 0), outcome, before)


def forget(job: Job, folder: Path) -> None:
    """Remove what a job's scoring kept on the disk."""
    if job.method != DENSE:
        shutil.rmtree(folder / job.scoring, ignore_errors=True)


@contextmanager
def warmed(job: Job, dataset: Dataset) -> Iterator[None]:
    """Take one step of a net that is dropped: what libraries load and keep must not count for the first job.

    Nor must each job's measure of memory walk it: meanwhile the collector leaves it alone.
    """
    model = models.build(job.model, classes=dataset.classes, input_shape=dataset.input_shape, seed=0)
    inputs, targets = next(iter(dataset.batches(job.batch_size, seed=0)))
    optimizer = torch.optim.SGD(model.to(job.device).parameters(), lr=0.1)  # imports much at its first step
    torch.nn.functional.cross_entropy(model(inputs), targets).backward()
    optimizer.step()
    del model, inputs, targets, optimizer
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def options(job: Job) -> dict[str, Any]:
    """Return the recipe of a job as keywords of `train`."""
    names = ("epochs", "batch_size", "lr", "augment", "device")
    return {name: getattr(job, name) for name in names}


def ends(history: History) -> dict[str, Any]:
    """Return what a row says of a training."""
    found = {"accuracy": history.accuracy, "diverged": history.diverged, "losses": list(history.losses)}
    return found | {"step_ms": history.step_ms}


def now(device: str) -> float:
    """Return the time in seconds at which all that was asked of the device is done."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _ranking(
    model: nn.Module, job: Job, dataset: Dataset, folder: Path, watcher: Watcher, rankings: Rankings | None
) -> tuple[Ranking, float]:
    """Score a job's net, or take the scores that a job before it left."""
    shared = (job.way.ranking, job.seed)
    if rankings and shared in rankings:
        return rankings[shared]
    arguments = dict(job.way.arguments)
    each = job.way.select if arguments.pop("select_at", "end") == "each" else None
    trainer = _trainer(job, _trained_on(job, dataset), folder)
    begin = now(job.device)
    ranking = rank(
        model,
        job.density,
        score=job.way.score,
        each=each,
        data=dataset.scoring_batches(_SCORING_SAMPLES, seed=job.seed),
        train=trainer,
        seed=job.seed,
        progress=lambda done, total: watcher.scored(job, done, total),
        **arguments,
    )
    found = ranking, 1000 * (now(job.device) - begin)
    if rankings is not None and getattr(job.way.score, "trains", False):
        rankings[shared] = found
    return found


def _trained_on(job: Job, dataset: Dataset) -> Dataset:
    """Return what a scoring trains on: random data of the same size where the method has inputs=normal."""
    inputs = job.way.arguments.get("inputs") if getattr(job.way.score, "trains", False) else None
    if inputs not in (None, "normal"):
        raise ValueError(f"run: inputs of a score that trains must be normal, got {inputs!r} in {job.method!r}")
    return dataset if inputs is None else dataset.normal(job.seed)


def _trainer(job: Job, dataset: Dataset, folder: Path) -> Trainer:
    return Trainer(dataset, **options(job), seed=job.seed, checkpoints=folder / job.scoring)


@torch.no_grad()
def _kept(model: nn.Module, masks: Masks | None) -> dict[str, Any]:
    """Return how many weights of each layer, and of each size at initialization, are kept."""
    layers, sizes = {}, torch.zeros(BINS)
    for name, weight in prunable(model).items():
        mask = torch.ones_like(weight, dtype=torch.bool) if masks is None else masks[name] != 0
        layers[name] = [int(mask.sum()), mask.numel()]
        size = weight.square().mean().sqrt().clamp_min(torch.finfo(weight.dtype).tiny)
        sizes += torch.histc((weight / size)[mask].float().cpu().clamp(-WIDEST, WIDEST), BINS, -WIDEST, WIDEST)
    return {"layers": layers, "weights": [int(count) for count in sizes]}
