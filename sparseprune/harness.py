"""The main job: methods x densities x seeds, pruned at initialization, trained, compared with the dense net."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from . import __version__, models, scores, select
from .data import Dataset, load
from .data import names as dataset_names
from .masks import Report
from .nn import layouts, sparsify
from .prune import prune
from .results import Results, Row, identity
from .training import train, usage

DENSE = "dense"
MASKED = "masked"
LAYOUTS = (MASKED, "csr", "auto")
# The hard threshold, Algorithm 1 with its 1/(s p) folded into the weights, and the paper's binary random mask.
SELECTS = ("threshold", "multinomial", "without_replacement")
_CHECKPOINT_SECONDS = 30.0
_SCORING_SAMPLES = 256


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to train; the papers' recipe shortened to the data set."""

    epochs: int = 160
    batch_size: int = 128
    lr: float = 0.1
    augment: bool = True


RECIPES = {
    "digits": Recipe(epochs=6, batch_size=64, augment=False),
    "mnist": Recipe(epochs=10, augment=False),
    "fashion-mnist": Recipe(epochs=10, augment=False),
}


@dataclass(frozen=True)
class Job:
    """One training: what decides its result, and so what identifies its row."""

    dataset: str
    data: str
    model: str
    method: str
    density: float
    seed: int
    epochs: int
    batch_size: int
    lr: float
    augment: bool
    device: str
    version: str = __version__
    layout: str = MASKED

    @property
    def key(self) -> dict[str, Any]:
        """Return the configuration as the JSON lines carry it; no layout is the masked one, as in older files."""
        return {name: value for name, value in asdict(self).items() if (name, value) != ("layout", MASKED)}

    def __str__(self) -> str:
        if self.method == DENSE:
            return f"{self.method} seed {self.seed}"
        layout = "" if self.layout == MASKED else f" {self.layout}"
        return f"{self.method} {self.density:g}{layout} seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """What to run; None takes the data set's recipe.

    Raises:
        ValueError: anything outside its range or of an unknown name, before anything is loaded or written.
    """

    dataset: str = "digits"
    model: str = "small-conv"
    densities: Sequence[float] = (0.5, 0.2, 0.1, 0.05)
    methods: Sequence[str] = ("magnitude", "snip", "grasp", "synflow")
    seeds: int = 3
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    device: str = "cpu"
    layouts: Sequence[str] = (MASKED,)
    pairs: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        if self.dataset not in dataset_names():
            raise ValueError(f"run: dataset must be one of {', '.join(dataset_names())}, got {self.dataset!r}")
        if self.model not in models.MODELS:
            raise ValueError(f"run: model must be one of {', '.join(models.MODELS)}, got {self.model!r}")
        for density in self.densities:
            if not 0 < density <= 1:
                raise ValueError(f"run: density must be in (0, 1], got {density}")
        if not self.densities:
            raise ValueError("run: density must name at least one density, got none")
        if not self.methods:
            raise ValueError("run: method must name at least one method, got none")
        if not self.layouts:
            raise ValueError("run: layout must name at least one layout, got none")
        for layout in self.layouts:
            if layout not in LAYOUTS:
                raise ValueError(f"run: layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
        for name, value, least in (
            ("seeds", self.seeds, 1),
            ("epochs", self.epochs, 0),
            ("batch_size", self.batch_size, 1),
        ):
            if value is not None and value < least:
                raise ValueError(f"run: {name} must be at least {least}, got {value}")
        if self.lr is not None and not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"run: lr must be a finite number > 0, got {self.lr}")
        _check_device(self.device)
        object.__setattr__(self, "pairs", tuple(dict.fromkeys(p for m in self.methods for p in expand(m))))

    @property
    def recipe(self) -> Recipe:
        """Return the recipe of the data set, with what was given in place of it."""
        base = RECIPES.get(self.dataset, Recipe())
        return Recipe(
            base.epochs if self.epochs is None else self.epochs,
            base.batch_size if self.batch_size is None else self.batch_size,
            base.lr if self.lr is None else self.lr,
            base.augment,
        )

    def jobs(self, dataset: Dataset) -> list[Job]:
        """Return every training, seed by seed, so that an interrupted run has whole seeds to compare."""
        cells = [(DENSE, 1.0, MASKED)]
        for density in dict.fromkeys(self.densities):
            cells += [(pair, density, layout) for pair in self.pairs for layout in dict.fromkeys(self.layouts)]
        common = {"dataset": dataset.name, "data": fingerprint(dataset), "model": self.model, "device": self.device}
        return [
            Job(method=method, density=density, layout=layout, seed=seed, **common, **asdict(self.recipe))
            for seed in range(self.seeds)
            for method, density, layout in cells
        ]


class Watcher:
    """What a run tells while it runs; the command line draws it."""

    def planned(self, jobs: list[Job], done: int) -> None:
        """Say how many jobs there are, and how many of them have their result from before."""

    def pruned(self, job: Job, report: Report) -> None:
        """Say what a mask keeps, before its training starts."""

    def started(self, job: Job, model: nn.Module) -> None:
        """Show the net as its training starts, pruned where it is; to look at only."""

    def stepped(self, job: Job, done: int, total: int) -> None:
        """Say how far a training is."""

    def finished(self, job: Job, row: Row) -> None:
        """Say that a job's row is on the disk."""


def expand(method: str) -> list[str]:
    """Return the "score/select" pairs of a method: one if it names both, else one for each of `SELECTS`.

    Raises:
        ValueError: a name outside the registries.
    """
    score, slash, selector = method.partition("/")
    if score not in scores.names():
        raise ValueError(f"run: method must name a score among {', '.join(scores.names())}, got {method!r}")
    if slash and selector not in select.names():
        raise ValueError(f"run: method must name a selector among {', '.join(select.names())}, got {method!r}")
    return [method] if slash else [f"{score}/{each}" for each in SELECTS]


def fingerprint(dataset: Dataset) -> str:
    """Return twelve hex digits of the test pixels and the training labels: other files are another configuration."""
    digest = hashlib.sha256(dataset.test_pixels.numpy().tobytes())
    digest.update(dataset.train_targets.numpy().tobytes())
    return digest.hexdigest()[:12]


def run(
    plan: Plan, *, out: str | Path | None = None, data_dir: str | Path | None = None, watcher: Watcher | None = None
) -> list[Row]:
    """Run what is still to be run of a plan, and return the rows of all of it.

    Per seed every method gets the same initial weights, the same scoring batch and the same data order. A job that
    fails becomes a row with its error, and is tried again by the next run.

    Args:
        plan: what to run.
        out: the folder of results.jsonl (and of checkpoints of long trainings); None: runs/<dataset>-<model>.
        data_dir: where `sparseprune.data.load` finds the files.
        watcher: told what happens.

    Returns:
        One row a job, in the order of the plan: "key" and either "error" or "accuracy", "density", "kept", "total",
        "prune_ms", "collapsed" (names of layers that keep nothing), "diverged", "losses", "train_seconds", "step_ms"
        (the median), "peak_bytes" (the most that model and training added to the memory in use), "csr_layers" (how many
        have that layout).

    Raises:
        ValueError, FileNotFoundError: a bad plan, data or file, before anything is written.

    Cost: one pruning and one training a job.
    """
    watcher = watcher or Watcher()
    dataset = load(plan.dataset, data_dir)
    models.build(
        plan.model, classes=dataset.classes, input_shape=dataset.input_shape, seed=0
    )  # raises early if it must
    jobs = plan.jobs(dataset)
    folder = Path(out) if out is not None else Path("runs") / f"{plan.dataset}-{plan.model}"
    results = Results(folder / "results.jsonl")
    rows = results.load()
    pending = [job for job in jobs if "accuracy" not in rows.get(identity(job.key), {})]
    watcher.planned(jobs, len(jobs) - len(pending))
    if pending:
        dataset = dataset.to(plan.device)
        _warm(plan, dataset)
        with results.writing():
            for job in pending:
                name = hashlib.sha256(identity(job.key).encode()).hexdigest()[:16]
                row = attempt(job, dataset, folder / "checkpoints" / f"{name}.pt", watcher)
                results.append(row)
                watcher.finished(job, row)
        rows = results.load()
    return [rows[identity(job.key)] for job in jobs]


def _warm(plan: Plan, dataset: Dataset) -> None:
    """Take one step of a net that is dropped: what libraries load and keep must not count for the first job."""
    model = models.build(plan.model, classes=dataset.classes, input_shape=dataset.input_shape, seed=0)
    inputs, targets = next(iter(dataset.batches(plan.recipe.batch_size, seed=0)))
    optimizer = torch.optim.SGD(model.to(plan.device).parameters(), lr=0.1)  # imports much at its first step
    torch.nn.functional.cross_entropy(model(inputs), targets).backward()
    optimizer.step()


def attempt(job: Job, dataset: Dataset, checkpoint: Path, watcher: Watcher) -> Row:
    """Run one job and return its row, with the error in it if it failed."""
    try:
        outcome = perform(job, dataset, checkpoint, watcher)
    except Exception as error:  # one failing method must not take the others' hours with it
        outcome = {"error": f"{type(error).__name__}: {error}"}
    return {"key": job.key, **outcome}


def perform(job: Job, dataset: Dataset, checkpoint: Path, watcher: Watcher) -> dict[str, Any]:
    """Build, prune, train and measure; the checkpoint of a finished training is removed."""
    device = torch.device(job.device)
    usage.reset_peak(device)
    before = usage.in_use(device)
    model = models.build(job.model, classes=dataset.classes, input_shape=dataset.input_shape, seed=job.seed)
    model.to(job.device)
    outcome: dict[str, Any] = {"density": 1.0, "prune_ms": 0.0, "collapsed": [], "csr_layers": 0}
    if job.method != DENSE:
        outcome = _prune(model, job, dataset, watcher)
    watcher.started(job, model)
    start = _now(job.device)
    history = train(
        model,
        dataset,
        epochs=job.epochs,
        batch_size=job.batch_size,
        lr=job.lr,
        augment=job.augment,
        seed=job.seed,
        device=job.device,
        progress=lambda done, total: watcher.stepped(job, done, total),
        checkpoint=checkpoint,
        checkpoint_seconds=_CHECKPOINT_SECONDS,
    )
    outcome |= {"accuracy": history.accuracy, "diverged": history.diverged, "losses": list(history.losses)}
    grown = None if history.peak_bytes is None or before is None else history.peak_bytes - before
    outcome |= {"step_ms": history.step_ms, "peak_bytes": grown}
    checkpoint.unlink(missing_ok=True)
    return {**outcome, "train_seconds": _now(job.device) - start}


def _prune(model: nn.Module, job: Job, dataset: Dataset, watcher: Watcher) -> dict[str, Any]:
    """Prune a fresh model and make it sparse in the job's layout; return what a row says of that."""
    score, _, selector = job.method.partition("/")
    batches = dataset.scoring_batches(_SCORING_SAMPLES, seed=job.seed)
    start = _now(job.device)
    masks = prune(model, job.density, score=score, select=selector, data=batches, seed=job.seed)
    milliseconds = 1000 * (_now(job.device) - start)
    report = masks.report()
    watcher.pruned(job, report)
    example, _ = next(iter(dataset.batches(job.batch_size, seed=job.seed)))
    sparsify(model, masks, layout=cast(Any, job.layout), scale="fold", inputs=example)
    outcome = {"density": report.density, "kept": report.kept, "total": report.total}
    in_csr = sum(layer.layout == "csr" for layer in layouts(model).values())
    return outcome | {"prune_ms": milliseconds, "collapsed": list(report.collapsed), "csr_layers": in_csr}


def _now(device: str) -> float:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _check_device(device: str) -> None:
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise ValueError(f"run: device must be cpu, cuda or cuda:N, got {device!r}") from None
    if kind not in ("cpu", "cuda"):
        raise ValueError(f"run: device must be cpu, cuda or cuda:N, got {device!r}")
    if kind == "cuda" and (torch.device(device).index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"run: device must be there, got {device!r}; CUDA devices torch sees: {torch.cuda.device_count()}"
        )
