"""The registry of scores, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor, nn

Loss = Callable[[Any, Any], Tensor]


class Train(Protocol):
    """Trains a model in place by some recipe: what scores that train are handed."""

    def __call__(self, model: nn.Module, steps: int | None, start: int = 0, /) -> Any:
        """Take `steps` optimizer steps (None: all that are left) as from step `start` of the recipe on.

        `start` is passed only where it is not 0, so a callable of two arguments serves scores that do not rewind.
        """
        ...


class Score(Protocol):
    """A frozen dataclass that says how much each prunable weight matters: larger = keep.

    Attributes:
        name: what `prune(score=...)` calls it.
        iterations: passes of `prune` over it by default.
        needs: "nothing", "inputs" or "targets" (inputs and targets).

    More class attributes are optional: `inputs`, the synthetic inputs to use where the caller gives neither data nor
    inputs (absent: "ones" for a score that needs only inputs, an error for one that needs targets); `data_free`
    (absent: False), whether `data` serves for its shape and moments only; `elementwise` (absent: False), whether each
    score depends on its own weight alone, so that it may be taken on the shards of DTensor parameters; `scope` (absent:
    "global"), that of `prune` by default; `trains` (absent: False), whether it needs `train`; `needs_density` (absent:
    False), whether `score` takes one more keyword, `density`, the share to keep at this iteration; `needs_budgets`
    (absent: False), whether it takes `budgets`, pairs (names, count) of how many to keep among the scores of which
    names: one pair, or one for each where counts are by layer; `biases` (absent: False), whether the layers' biases are
    scored too and compete for the budget, which then counts them (masks are of weights alone).

    So are three methods. `steps(density) -> int` stands in for `iterations` where the passes depend on the density.
    `share(density, t, total) -> float | None` is what to keep after iteration t < T where the score has a schedule of
    its own (None: it has not). `prepared(model, *, train, density) -> nn.Module` is the net that the masks belong on
    where that is not the model; the step of the recipe that it is at is the attribute `rewind` (absent: 0).
    """

    name: ClassVar[str]
    iterations: ClassVar[int]
    needs: ClassVar[str]

    def score(
        self,
        model: nn.Module,
        batches: Iterable[tuple[Any, Any]],
        *,
        loss: Loss,
        masks: Mapping[str, Tensor] | None,
        seed: int,
        train: Train | None = None,
    ) -> dict[str, torch.Tensor]:
        """Return one score tensor per prunable parameter; leave the model as it was found."""
        ...


_SCORES: dict[str, Callable[[], Any]] = {}
_Class = TypeVar("_Class", bound=type)


def register(cls: _Class) -> _Class:
    """Register a score class under its `name`.

    Raises:
        ValueError: another class has that name.
    """
    name = getattr(cls, "name")  # noqa: B009 - a plain `type` has no such attribute to a type checker
    if name in _SCORES:
        raise ValueError(f"register: name must be new, got {name!r}, which is {_SCORES[name]!r}")
    _SCORES[name] = cls
    return cls


def steps(score: Score, density: float) -> int:
    """Return how many passes of `prune` over the score are its default."""
    by_density = getattr(score, "steps", None)
    return score.iterations if by_density is None else by_density(density)


def names() -> list[str]:
    """Return the names of the registered scores, sorted."""
    return sorted(_SCORES)


def get(score: str | Score) -> Score:
    """Return the score of that name with its defaults, or the object itself.

    Raises:
        ValueError: no score of that name, or an object without a `score` method or one of `Score`'s attributes.
    """
    if isinstance(score, str) and score in _SCORES:
        return _SCORES[score]()
    if isinstance(score, (str, type)) or not callable(getattr(score, "score", None)):
        raise ValueError(f"prune: score must be one of {names()} or an object with a score method, got {score!r}")
    missing = [attribute for attribute in ("name", "iterations", "needs") if not hasattr(score, attribute)]
    if missing:
        raise ValueError(f"prune: score must have name, iterations and needs, got {score!r} without {missing}")
    return score
