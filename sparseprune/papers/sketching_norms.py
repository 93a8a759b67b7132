"""Paper 001's figure 2: the norm of the initial weights that winning tickets keep, beside random masks.

A ticket here is IMP's without rewinding, on the paper's Fashion-MNIST and LeNet-300-100; a random mask keeps as many
weights in each layer as the ticket does, so that only which weights are kept differs.

Reference: Bar & Giryes 2023, arXiv 2305.17559, figure 2.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .. import models
from ..data import Dataset, load
from ..harness import fingerprint, recipe_of
from ..prunable import prunable
from ..results import Row
from ..scores import get
from ..select import Threshold
from ..training import Trainer
from . import _sketching_pictures as pictures
from ._report import Claim, Experiment, Progress, collect
from ._training import device, threads_for

KEPT = 0.8  # of a level
BINS = 60


@dataclass(frozen=True)
class Size:
    """How many levels, seeds and random masks: of every level, and of the last one."""

    dataset: str
    model: str
    levels: int
    seeds: int
    masks: int = 100
    last_masks: int = 10_000


FULL = Size("fashion-mnist", "lenet-300-100", 20, 3)  # .8^20 = .0115, the paper's 1.2 %
QUICK = Size("digits", "mlp", 12, 3)


def rows(
    *, out: Path, quick: bool, data_dir: Path | None = None, progress: Progress | None = None, seed: int = 0
) -> list[Row]:
    """Find a ticket of every level for each seed; a row a seed, see `Experiment`."""
    size = QUICK if quick else FULL
    dataset, recipe = load(size.dataset, data_dir), recipe_of(size.dataset)
    common = {"dataset": size.dataset, "data": fingerprint(dataset), "model": size.model}
    sizes = {"levels": size.levels, "masks": size.masks, "last_masks": size.last_masks, "epochs": recipe.epochs}
    keys = [common | sizes | {"seed": size.seeds * seed + index} for index in range(size.seeds)]

    def compute(key: dict[str, Any]) -> dict[str, Any]:
        def tell(level: int) -> None:
            if progress is not None:
                done = keys.index(key) * size.levels + level
                progress(done, len(keys) * size.levels, f"fig2 seed {key['seed']}, level {level}")

        folder = out / "checkpoints" / "fig2"
        found = _tickets(size, dataset, key["seed"], folder, tell)
        shutil.rmtree(folder, ignore_errors=True)  # an interrupted search goes on by it
        return found

    with threads_for(size.dataset):
        return collect(out / "fig2.jsonl", keys, compute)


def _tickets(size: Size, dataset: Dataset, seed: int, folder: Path, tell: Callable[[int], None]) -> dict[str, Any]:
    recipe = recipe_of(size.dataset)
    options = {"batch_size": recipe.batch_size, "lr": recipe.lr, "augment": recipe.augment}
    train = Trainer(dataset, recipe.epochs, seed=seed, device=device(size.dataset), checkpoints=folder, **options)
    net = models.build(size.model, classes=dataset.classes, input_shape=dataset.input_shape, seed=seed)
    weights = {name: w.detach() for name, w in prunable(net).items()}
    total = sum(w.numel() for w in weights.values())
    generator = np.random.default_rng(seed)
    imp, masks, levels = get("imp"), None, []
    for level in range(1, size.levels + 1):
        found = imp.score(net, [], loss=F.cross_entropy, masks=masks, seed=seed, train=train)
        masks = Threshold().select(found, round(KEPT**level * total))
        draws = size.last_masks if level == size.levels else size.masks
        levels.append([_norms(weights[name], mask.cpu(), draws, generator) for name, mask in masks.items()])
        tell(level)
    return {"layers": list(weights), "levels": levels}


def _norms(weights: Tensor, mask: Tensor, draws: int, generator: np.random.Generator) -> dict[str, Any]:
    """Return the Frobenius norm of the kept weights and those of random masks with as many."""
    squares, kept = weights.double().square().flatten().numpy(), int(mask.sum())
    chosen = (generator.choice(squares.size, kept, replace=False, shuffle=False) for _ in range(draws))
    random = np.sqrt([squares[some].sum() for some in chosen])
    counts, edges = np.histogram(random, BINS)
    return {
        "kept": kept,
        "ticket": float(torch.linalg.vector_norm(weights[mask].double())),
        "random": float(random.mean()),
        "std": float(random.std()),
        "lowest": float(random.min()),
        "highest": float(random.max()),
        "shares": (counts / draws).tolist(),
        "edges": [float(edges[0]), float(edges[-1])],
    }


def shown(rows: list[Row]) -> list[Row]:
    """Return a line a level and layer of the first seed."""
    row = rows[0]
    lines = []
    for level, layers in enumerate(row["levels"], start=1):
        for name, layer in zip(row["layers"], layers, strict=True):
            key = row["key"] | {"remaining %": 100 * KEPT**level, "layer": name}
            fields = {"kept": layer["kept"], "ticket": layer["ticket"], "random": layer["random"]}
            lines.append({"key": key, **fields, "deviations": _deviations(layer)})
    return lines


def _deviations(layer: dict[str, Any]) -> float:
    return (layer["ticket"] - layer["random"]) / layer["std"] if layer["std"] else 0.0


def claims(rows: list[Row]) -> list[Claim]:
    """Judge layer by layer: beyond every random mask of all levels and seeds, below one of them, or neither."""
    verdicts = []
    for index, name in enumerate(rows[0]["layers"]):
        for text, levels in (
            ("at all densities", [level for row in rows for level in row["levels"]]),
            (f"at density {KEPT ** len(rows[0]['levels']):.3f}", [row["levels"][-1] for row in rows]),
        ):
            layers = [level[index] for level in levels]
            beyond = [layer["ticket"] > layer["highest"] for layer in layers]
            under = [layer["ticket"] < layer["random"] for layer in layers]
            shown = (
                f"beyond all random masks in {sum(beyond)} of {len(layers)} tickets, below their mean in {sum(under)}"
            )
            shown += f"; {min(map(_deviations, layers)):.1f} standard deviations above it or more"
            holds = True if all(beyond) else False if any(under) else None
            verdicts.append(Claim(f"{text} the ticket's norm is above random masks': layer {name}", holds, shown))
    return verdicts


EXPERIMENT = Experiment("fig2", "Norms of winning tickets and of random masks", rows, pictures.norms, claims, shown)
