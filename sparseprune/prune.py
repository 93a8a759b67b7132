"""prune(model, density): score the weights, select which to keep, in one pass or many."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import densities, scores
from . import inputs as inputs_
from . import select as select_
from .masks import Masks
from .prunable import biases, layers, prunable
from .replica import is_spread, replica, unwrapped
from .shards import bounds, full, like, nonzero

SCOPES = ("global", "layer")
SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "exponential": lambda density, done: density**done,
    "linear": lambda density, done: 1 - (1 - density) * done,
}
SELECT_AT = ("end", "each")
Progress = bool | Callable[[int, int], Any] | None


@dataclass(frozen=True)
class Ranking:
    """The scores of the last iteration, from which any selector makes masks.

    Args:
        scores: name -> scores, shaped like the weights.
        kept: how many to keep: one global count, or name -> count.
        before: the masks that the scores were taken under; None: the dense net.
        seed: given to `rank`; `draw`: of the last selection.
        groups: name of a weight -> groups of its convolution; what else was scored has no mask.
    """

    scores: Mapping[str, Tensor]
    kept: select_.Kept
    before: Mapping[str, Tensor] | None
    seed: int
    draw: int
    groups: Mapping[str, int]

    def masks(self, select: str | select_.Selector = "threshold") -> Masks:
        """Select: `prune(...)` is `rank(...).masks(select)`.

        Raises:
            ValueError: an unknown selector, or more asked for than it can give.
        """
        chosen = _select(select_.get(select), self.scores, self.kept, self.before, self.draw)
        return Masks({name: chosen[name] for name in self.groups}, seed=self.seed, groups=self.groups)


def prune(
    model: nn.Module,
    density: float,
    *,
    score: str | scores.Score = "magnitude",
    select: str | select_.Selector = "threshold",
    select_at: str = "end",
    scope: str | None = None,
    distribution: str | None = None,
    iterations: int | None = None,
    schedule: str | None = None,
    data: Iterable[tuple[Any, Any]] | None = None,
    inputs: str | Tensor | None = None,
    redraw: bool | None = None,
    input_shape: Sequence[int] | None = None,
    loss: Callable[[Any, Any], Tensor] | None = None,
    train: scores.Train | None = None,
    modules: Iterable[str | nn.Module] | None = None,
    seed: int = 0,
    progress: Progress = None,
) -> Masks:
    """Return masks that keep a fraction `density` of the prunable weights; the model is not touched.

    For t = 1 ... T: score the net masked so far, keep the share d_t, d_t = density^(t/T) (exponential) or
    1 - (1 - density) t/T (linear). Until t = T the hard threshold selects; `select` does at t = T.

    Args:
        model: any module with nn.Linear or nn.Conv2d in it; a copy on its own device is scored. Also one in
            DistributedDataParallel, or spread over ranks by fully_shard (FSDP2) or tensor parallel: see below.
        density: fraction kept, in (0, 1].
        score: a name (`sparseprune.scores.names()`) or an object with a `score` method.
        select: a name (`sparseprune.select.names()`) or an object with a `select` method.
        select_at: "end", or "each": `select` at every iteration. The factors of rescaled masks then multiply up: each
            is a sketch of the weights sketched so far.
        scope: "global": one ranking over all layers; "layer": the same density in every layer; None: the score's
            published one, for most "global".
        distribution: per-layer densities: "uniform", "erk" or "balanced"; overrides `scope`.
        iterations: T; None: the score's published default.
        schedule: "exponential" or "linear"; None: the score's published one, for most "exponential".
        data: a re-iterable of (input, target) batches. A data-free score takes only shape and moments from it.
        inputs: "ones", "normal", "chi", "sparse" or a tensor [B, ...]: score on these, with random labels.
        redraw: whether synthetic inputs are drawn anew at each iteration; None: "chi" is, as published.
        input_shape: of one sample, where neither data nor the model tells.
        loss: loss(output, target) -> scalar mean over the batch; None: cross-entropy.
        train: for scores that train: train(model, steps) takes steps of the recipe in place, None: all of them; see
            `sparseprune.scores.Train`.
        modules: names or submodules to prune; None: all.
        seed: of everything random.
        progress: True for a bar where rich is installed, or a callable (done, total).

    Returns:
        Masks; `.kept == round(density * total)` for threshold, without_replacement and priority; on average so for
        multinomial.

    Raises:
        ValueError: an argument outside its range or of an unknown name, weights or scores that are not finite, nothing
            to prune, an empty loader, inputs that cannot be made, or no `train` for a score that trains.

    Cost: T times the score's cost and a selection's (a few passes over the weights).

    Distributed: all ranks call this with the same arguments, the same data included, and get the masks of one process
    with the whole model, bit for bit. DistributedDataParallel: names are those of the module inside, masks plain. Where
    parameters are DTensors (FSDP2, tensor parallel) masks are DTensors placed like them (`Masks.full()` gathers them),
    each rank selects among its own weights; scores that look at one weight at a time (magnitude, random) are taken on
    the shards, all others on a whole copy of the model on every rank, in the precision of the parameters.
    """
    _one_of("select_at", select_at, SELECT_AT)
    selector = select_.get(select)
    return rank(
        model,
        density,
        score=score,
        each=selector if select_at == "each" else None,
        scope=scope,
        distribution=distribution,
        iterations=iterations,
        schedule=schedule,
        data=data,
        inputs=inputs,
        redraw=redraw,
        input_shape=input_shape,
        loss=loss,
        train=train,
        modules=modules,
        seed=seed,
        progress=progress,
    ).masks(selector)


def rank(
    model: nn.Module,
    density: float,
    *,
    score: str | scores.Score = "magnitude",
    each: str | select_.Selector | None = None,
    scope: str | None = None,
    distribution: str | None = None,
    iterations: int | None = None,
    schedule: str | None = None,
    data: Iterable[tuple[Any, Any]] | None = None,
    inputs: str | Tensor | None = None,
    redraw: bool | None = None,
    input_shape: Sequence[int] | None = None,
    loss: Callable[[Any, Any], Tensor] | None = None,
    train: scores.Train | None = None,
    modules: Iterable[str | nn.Module] | None = None,
    seed: int = 0,
    progress: Progress = None,
) -> Ranking:
    """Return the scores of `prune`'s last iteration, for several selectors to share: see there for the arguments.

    Args:
        each: what selects before the last iteration; None: the hard threshold.
    """
    model = unwrapped("prune", model)
    found = layers(model, modules)
    names = list(found)
    scorer, selector = scores.get(score), select_.get("threshold" if each is None else each)
    _check_density(density)
    steps = iterations if iterations is not None else scores.steps(scorer, density)
    over: str = getattr(scorer, "scope", "global") if scope is None else scope
    _check(model, names, density, over, distribution, steps, schedule, seed)
    if getattr(scorer, "trains", False) and train is None:
        raise ValueError(f"prune: train must be given for score {scorer.name!r}, got none")
    parts = {name: p for name, p in prunable(model).items() if name in found}
    if getattr(scorer, "biases", False):
        parts |= biases(model, [layer for group in found.values() for layer in group])
    shapes = {name: p.shape for name, p in parts.items()}
    on_shards = is_spread(model) and getattr(scorer, "elementwise", False)
    work = model if on_shards else replica(model)
    masks: Mapping[str, Tensor] | None = None
    ranked, kept = {}, 0
    with _seeded(_derived(seed, 3, 0)), _reporting(progress, steps) as report:
        batches = inputs_.source(
            work,
            scorer,
            data=data,
            inputs=inputs,
            redraw=redraw,
            input_shape=input_shape,
            seed=lambda t: _derived(seed, 2, t),
        )
        for t in range(1, steps + 1):
            whole = masks if on_shards or masks is None else {name: full(mask) for name, mask in masks.items()}
            share = _share(scorer, schedule, density, t, steps, shapes) if t < steps else density
            kept = _counts(shapes, share, over, distribution)
            wanted: dict[str, Any] = {"density": share} if getattr(scorer, "needs_density", False) else {}
            if getattr(scorer, "needs_budgets", False):
                wanted["budgets"] = _budgets(list(shapes), kept)
            raw = scorer.score(
                work,
                batches(t),
                loss=loss or F.cross_entropy,
                masks=whole,
                seed=_derived(seed, 0, t),
                train=train,
                **wanted,
            )
            ranked = {name: like(s, parts[name]) for name, s in _ranked(scorer.name, raw, shapes).items()}
            if t < steps:
                try:
                    masks = _select(selector, ranked, kept, masks, _derived(seed, 1, t))
                except ValueError:
                    _check_finite(scorer.name, ranked)
                    raise
                ranked = {}
            del raw, whole  # half of the peak memory, while the next scores are made
            report(t)
    _check_finite(scorer.name, ranked)
    groups = {name: getattr(owners[0], "groups", 1) for name, owners in found.items()}
    return Ranking(ranked, kept, masks, int(seed), _derived(seed, 1, steps), groups)


def _select(
    selector: select_.Selector,
    scores: Mapping[str, Tensor],
    kept: select_.Kept,
    masks: Mapping[str, Tensor] | None,
    seed: int,
) -> dict[str, Tensor]:
    """Select among scores that were taken under `masks`, whose factors multiply up."""
    if isinstance(selector, select_.Threshold):
        chosen = _threshold(scores, kept, masks)
    else:
        chosen = selector.select(scores, kept if masks is None else _left(kept, masks), seed=seed)
    if masks is None or not any(mask.is_floating_point() for mask in masks.values()):
        return chosen
    # what comes back after being pruned has no factor from before
    return {name: torch.where(masks[name] != 0, m * masks[name], m.to(masks[name].dtype)) for name, m in chosen.items()}


def _left(kept: select_.Kept, masks: Mapping[str, Tensor]) -> select_.Kept:
    """No more than is left: a sketch at an iteration before may by chance have kept fewer than are wanted now."""
    left = {name: nonzero(mask) for name, mask in masks.items()}
    if isinstance(kept, int):
        return min(kept, sum(left.values()))
    return {name: min(k, left[name]) for name, k in kept.items()}


def _threshold(
    scores: Mapping[str, Tensor], kept: select_.Kept, masks: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    """Select by rank; a pruned weight of score zero must not pass one that is still there (ties, or signed scores)."""
    chosen = select_.Threshold().select(scores, kept)
    if masks is None or not any(nonzero(chosen[name] > masks[name]) for name in chosen):
        return chosen
    floor = 2 * min(bounds(s)[0] for s in scores.values()) - 1
    last = {name: s.masked_fill((s == 0) & (masks[name] == 0), floor) for name, s in scores.items()}
    return select_.Threshold().select(last, kept)


def _counts(shapes: densities.Shapes, density: float, scope: str, distribution: str | None) -> select_.Kept:
    if distribution is None and scope == "global":
        return round(density * sum(math.prod(shape) for shape in shapes.values()))
    return densities.RULES[distribution or "uniform"](shapes, density)


def _budgets(names: list[str], kept: select_.Kept) -> list[tuple[list[str], int]]:
    """Which scores compete for how many places."""
    return [(names, kept)] if isinstance(kept, int) else [([name], count) for name, count in kept.items()]


def _share(scorer: Any, schedule: str | None, density: float, t: int, steps: int, shapes: densities.Shapes) -> float:
    """What is kept after iteration t of the weights: by the schedule, or by the score's own where none is given."""
    total = sum(math.prod(shape) for shape in shapes.values())
    own = scorer.share(density, t, total) if schedule is None and hasattr(scorer, "share") else None
    return SCHEDULES[schedule or "exponential"](density, t / steps) if own is None else own


def _derived(seed: int, purpose: int, step: int) -> int:
    """A seed of its own for each purpose (0 score, 1 selector, 2 inputs, 3 the global generator) and iteration."""
    sequence = np.random.SeedSequence(int(seed) % (1 << 64), spawn_key=(purpose, step))
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global CPU generator and put it back after; a DataLoader draws from it at every start."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _check_density(density: float) -> None:
    if isinstance(density, bool) or not isinstance(density, numbers.Real) or not 0 < density <= 1:
        raise ValueError(f"prune: density must be in (0, 1], got {density!r}")


def _check(
    model: nn.Module,
    names: list[str],
    density: float,
    scope: str,
    distribution: str | None,
    steps: int,
    schedule: str | None,
    seed: int,
) -> None:
    _one_of("scope", scope, SCOPES)
    if schedule is not None:
        _one_of("schedule", schedule, SCHEDULES)
    if distribution is not None:
        _one_of("distribution", distribution, densities.RULES)
    if isinstance(steps, bool) or not isinstance(steps, numbers.Integral) or steps < 1:
        raise ValueError(f"prune: iterations must be an integer >= 1, got {steps!r}")
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral):
        raise ValueError(f"prune: seed must be an integer, got {seed!r}")
    if not names:
        raise ValueError(f"prune: model must hold an nn.Linear or nn.Conv2d, got {type(model).__name__} with none")
    parameters = dict(model.named_parameters())
    for name, p in parameters.items():
        if nn.parameter.is_lazy(p) or p.is_meta:
            raise ValueError(f"prune: model must be initialized, got {name!r} without values (lazy or on device meta)")
        values = torch.view_as_real(p.detach()) if p.is_complex() else p.detach()
        if p.numel() and not all(map(math.isfinite, bounds(values))):
            raise ValueError(f"prune: weights must be finite, got NaN or infinity in {name!r}")
    total = sum(parameters[name].numel() for name in names)
    if round(density * total) < 1:
        raise ValueError(f"prune: density must keep at least one of {total} weights, got {density!r}")


def _one_of(argument: str, value: object, allowed: Iterable[str]) -> None:
    if value not in (options := list(allowed)):
        raise ValueError(f"prune: {argument} must be one of {', '.join(map(repr, options))}, got {value!r}")


def _ranked(score: str, raw: Mapping[str, Tensor], shapes: densities.Shapes) -> dict[str, Tensor]:
    """The scores of what is pruned, checked: a score may be anyone's."""
    for name, shape in shapes.items():
        if name not in raw or raw[name].shape != shape:
            got = f"shape {list(raw[name].shape)}" if name in raw else "none"
            raise ValueError(f"prune: scores of {name!r} must have shape {list(shape)}, got {got} from {score!r}")
    return {name: raw[name] for name in shapes}


def _check_finite(score: str, ranked: Mapping[str, Tensor]) -> None:
    for name, values in ranked.items():
        low, high = bounds(values)
        if values.numel() and not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"prune: scores must be finite, got {low} ... {high} from {score!r} in {name!r}")


@contextmanager
def _reporting(progress: Progress, total: int) -> Iterator[Callable[[int], Any]]:
    """Give what is called with the number of iterations done."""
    if callable(progress):
        yield lambda done: progress(done, total)
        return
    bar = None
    if progress:
        try:
            from rich.progress import Progress as Bar
        except ImportError:
            pass
        else:
            bar = Bar(transient=True)
    if bar is None:
        yield lambda done: None
        return
    with bar:
        task = bar.add_task("pruning", total=total)
        yield lambda done: bar.update(task, completed=done)
