"""`sparseprune prune`: a mask for a named model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._shared import DATA_DIR, NET, SCORE, SELECT, load_weights

if TYPE_CHECKING:
    from ..data import Dataset
    from ..training import Trainer

FLAGS = {
    "density": "fraction of the weights to keep, in (0, 1]; required",
    "model": NET,
    "score": SCORE,
    "select": SELECT,
    "scope": "global: one ranking over all layers; layer: the same density in every layer; default: the score's own",
    "distribution": "densities of layers, in place of --scope: uniform, erk or balanced",
    "iterations": "steps to the density; default: the score's own (synflow 100, force 60, snip 1, ...)",
    "inputs": "ones, normal, chi or sparse: score on these in place of data",
    "dataset": "digits, mnist, fashion-mnist, cifar10, cifar100 or tiny-imagenet: 256 examples to score on",
    "epochs": "of scores that train; default: the data set's recipe",
    "data_dir": DATA_DIR,
    "classes": "outputs of the net where no --dataset says; default: the model's own",
    "weights": "a saved state_dict of the net to score; default: fresh weights drawn from --seed",
    "seed": "of everything random",
    "out": "file for the mask (safetensors)",
}


def prune(
    density: float | None = None,
    model: str = "small-conv",
    score: str = "magnitude",
    select: str = "threshold",
    scope: str | None = None,
    distribution: str | None = None,
    iterations: int | None = None,
    inputs: str | None = None,
    dataset: str | None = None,
    epochs: int | None = None,
    data_dir: Path | None = None,
    classes: int | None = None,
    weights: Path | None = None,
    seed: int = 0,
    out: Path | None = None,
) -> None:
    """Make a mask for a named model at initialization, or for its --weights (a saved state_dict); print its report.

    --dataset gives scores that need data their batch, and the model its shape; --inputs ones, normal, chi or sparse
    does without data. --out writes the mask as safetensors.
    """
    from rich.console import Console
    from rich.progress import Progress

    from .. import models
    from ..data import load
    from ..prune import prune as prune_model

    if density is None:
        raise ValueError("prune: density must be given, e.g. --density 0.05")
    data = load(dataset, data_dir) if dataset is not None else None
    if data is not None:
        net = models.build(model, seed=seed, classes=data.classes, input_shape=data.input_shape)
    else:
        net = models.build(model, seed=seed, classes=classes)
    if weights is not None:
        load_weights("prune", net, weights)
    if out is not None and not out.parent.is_dir():
        raise ValueError(f"prune: out must be in an existing folder, got {out}")
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"{score}/{select}")
        masks = prune_model(
            net,
            density,
            score=score,
            select=select,
            scope=scope,
            distribution=distribution,
            iterations=iterations,
            inputs=inputs,
            data=data.scoring_batches(seed=seed) if data is not None else None,
            train=_trainer(data, epochs, seed) if data is not None else None,
            seed=seed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    print(masks.report(net))
    if out is not None:
        masks.save(out)
        print(f"written to {out}")


def _trainer(data: Dataset, epochs: int | None, seed: int) -> Trainer:
    from dataclasses import asdict

    from ..harness import recipe_of
    from ..training import Trainer

    recipe: dict[str, Any] = asdict(recipe_of(data.name))
    if epochs is not None:
        recipe["epochs"] = epochs
    return Trainer(data, **recipe, seed=seed)
