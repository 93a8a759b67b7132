"""What a run does: methods x densities x seeds, one recipe, and what identifies each training."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from .. import __version__, models
from ..data import Dataset
from ..data import names as dataset_names
from ..methods import Method, expand
from ..results import identity

DENSE = "dense"
MASKED = "masked"
LAYOUTS = (MASKED, "csr", "auto")


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to train; the papers' recipe shortened to the data set."""

    epochs: int = 160
    batch_size: int = 128
    lr: float = 0.1
    augment: bool = True


_RECIPES = {
    "digits": Recipe(epochs=6, batch_size=64, augment=False),
    "mnist": Recipe(epochs=10, augment=False),
    "fashion-mnist": Recipe(epochs=10, augment=False),
}


def recipe_of(dataset: str) -> Recipe:
    """Return the recipe of a data set, by its name."""
    return _RECIPES.get(dataset, Recipe())


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

    @property
    def way(self) -> Method:
        """Return how it prunes; the dense net has none."""
        return Method.parse(self.method)

    @property
    def name(self) -> str:
        """Return sixteen hex digits of the key, for its files."""
        return _digest(self.key)

    @property
    def scoring(self) -> str:
        """Return the same of what decides the scores: jobs that differ in selector or layout alone share it."""
        return _digest({**asdict(self), "method": self.way.ranking, "layout": None})

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
        base = recipe_of(self.dataset)
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


def _digest(key: dict[str, Any]) -> str:
    return hashlib.sha256(identity(key).encode()).hexdigest()[:16]


def fingerprint(dataset: Dataset) -> str:
    """Return twelve hex digits of the test pixels and the training labels: other files are another configuration."""
    digest = hashlib.sha256(dataset.test_pixels.numpy().tobytes())
    digest.update(dataset.train_targets.numpy().tobytes())
    return digest.hexdigest()[:12]


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
