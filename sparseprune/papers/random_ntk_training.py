"""Paper 000's training experiments, E5: what randomly pruned nets learn, beside other pruning at initialization.

The paper's MNIST net and densities .8^level, its recipe shortened, every method at initialization and in one go (the
paper prunes by magnitude after training, level by level). Its accuracies are not printed in the specification: the
claims are about drops and orders.

Reference: Yang & Wang, AISTATS 2023 (arXiv 2203.14328).
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ..data import Dataset, load
from ..harness import DENSE, Job, Plan, Watcher, perform
from ..ntk import empirical, spectrum
from ..plots import accuracy_against_density
from ..results import Row
from ..summary import summarise
from ._report import Claim, Experiment, Progress, collect
from ._statistics import interval, judged
from ._training import threads_for

RANDOM, RESCALED = "random/threshold", "random/threshold_rescaled"
SCORES = ("magnitude", "snip", "grasp", "synflow")
# Every ladder has the first and the last: what the claims look at.
HIGH, LOW = 0.8**4, 0.8**16
MARGIN = 0.02  # what counts as a loss of accuracy
_EXAMPLES = 64  # of the kernel at initialization
_FIELDS = ("accuracy", "density", "collapsed", "diverged", "prune_ms", "train_seconds")


@dataclass(frozen=True)
class Size:
    """How much to train, on which net."""

    model: str
    levels: tuple[int, ...]
    seeds: int
    epochs: int

    def plan(self, dataset: str) -> Plan:
        """Return every method at every level."""
        methods = (RANDOM, RESCALED, *(f"{score}/threshold" for score in SCORES))
        densities = tuple(0.8**level for level in self.levels)
        return Plan(dataset, self.model, densities, methods, seeds=self.seeds, epochs=self.epochs)


_LADDER = tuple(range(2, 17, 2))
FULL = {"mnist": Size("lenet-300-100", _LADDER, 5, 5), "digits": Size("mlp", _LADDER, 10, 6)}
QUICK = Size("mlp", (4, 16), 4, 6)  # the digits: in seconds MNIST gives too few seeds to tell anything


class _Kernel(Watcher):
    """Measures the tangent kernel of a net on a few examples, before it is trained."""

    def __init__(self, dataset: Dataset) -> None:
        inputs, targets = zip(*dataset.scoring_batches(_EXAMPLES, seed=0), strict=True)
        self.x = torch.cat(inputs).double()
        self.y = F.one_hot(torch.cat(targets), dataset.classes).double()
        self.found: dict[str, float] = {}

    def started(self, job: Job, model: nn.Module) -> None:
        kernel = empirical(copy.deepcopy(model).double().eval(), self.x)
        plain, centred = spectrum(kernel), spectrum(kernel, y=self.y, centred=True)
        assert plain.condition is not None and centred.alignment is not None  # all eigenvalues, and targets
        self.found = {"condition": plain.condition, "rank": plain.effective_rank, "alignment": centred.alignment}


def rows(
    *, out: Path, quick: bool, data_dir: Path | None = None, progress: Progress | None = None, seed: int = 0
) -> list[Row]:
    """Train every method at every level; see `Experiment`. MNIST needs `data_dir`; else, and if quick, the digits."""
    name = "digits" if quick or data_dir is None else "mnist"
    dataset = load(name, data_dir)
    plan = (QUICK if quick else FULL[name]).plan(name)
    jobs = [replace(job, seed=job.seed + seed * plan.seeds) for job in plan.jobs(dataset)]
    kernel = _Kernel(dataset)

    def compute(key: dict[str, Any]) -> dict[str, Any]:
        outcome = perform(Job(**key), dataset, out / "checkpoints" / "E5.pt", kernel)
        return {field: outcome[field] for field in _FIELDS} | kernel.found

    def tell(done: int, total: int, _: str) -> None:
        if progress is not None:
            progress(done, total, f"E5 {jobs[done - 1]}")

    with threads_for(name):
        return collect(out / "E5.jsonl", [job.key for job in jobs], compute, tell)


def picture(rows: list[Row], path: Path) -> None:
    """Draw accuracy against density, a line a method."""
    key = rows[0]["key"]
    accuracy_against_density(summarise(rows), path, f"E5: {key['model']} on {key['dataset']}, {key['epochs']} epochs")


def claims(rows: list[Row]) -> list[Claim]:
    """Judge drops and orders by 95 % intervals of differences paired by seed."""
    dense, cells = _cell(rows, DENSE, 1.0), {}
    for method in (RANDOM, RESCALED, *(f"{score}/threshold" for score in SCORES)):
        cells |= {(method, density): _cell(rows, method, density) for density in (HIGH, LOW)}
    high, low = f"density {HIGH:.2f}", f"density {LOW:.3f}"
    points = f"{100 * MARGIN:g} points"
    found = [
        judged(f"{name} pruning to {high} loses less than {points}", dense, cells[method, HIGH], below=MARGIN)
        for name, method in (("random", RANDOM), ("rescaled random", RESCALED))
    ]
    found.append(judged(f"random pruning loses at {low}", dense, cells[RANDOM, LOW], above=0.0))
    found.append(judged(f"rescaling helps random pruning at {low}", cells[RESCALED, LOW], cells[RANDOM, LOW], above=0))
    for score in SCORES:
        better = cells[f"{score}/threshold", LOW]
        found.append(judged(f"{score} keeps more than random pruning at {low}", better, cells[RANDOM, LOW], above=0.0))
    text = "over methods and densities, accuracy falls as the {} of the kernel at initialization {}"
    found.append(_ranked(text.format("condition number", "grows"), rows, "condition", -1))
    found.append(_ranked(text.format("alignment with the classes", "falls"), rows, "alignment", 1))
    return found


def _cell(rows: list[Row], method: str, density: float) -> dict[int, float]:
    keys = [(row["key"], row["accuracy"]) for row in rows]
    return {k["seed"]: accuracy for k, accuracy in keys if (k["method"], k["density"]) == (method, density)}


def _ranked(text: str, rows: list[Row], name: str, sign: int) -> Claim:
    """Judge the sign of Spearman's correlation between accuracy and a number of the kernel, one for each seed."""
    from scipy.stats import spearmanr

    seeds: dict[int, list[Row]] = {}
    for row in rows:
        seeds.setdefault(row["key"]["seed"], []).append(row)
    found = []
    for mine in seeds.values():
        numbers = [math.inf if row[name] is None else row[name] for row in mine]  # JSON has no infinity
        correlation: Any = spearmanr(numbers, [row["accuracy"] for row in mine])
        found.append(float(correlation.statistic))
    mean, half = interval(found)
    holds = sign * mean > 0 if abs(mean) > half else None
    return Claim(text, holds, f"Spearman {mean:+.2f} ± {half:.2f} (95 %, {len(seeds)} seeds)")


EXPERIMENT = Experiment("E5", "Training: accuracy of pruned nets against density", rows, picture, claims)
