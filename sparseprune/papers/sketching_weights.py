"""Paper 001's figure 1: which initial weights masks keep, and which scores.

The paper names neither the density nor the two layers of figure 1a: here it is .1, and they are the second layer and
the middle one. By default both figures are of the paper's VGG-19; figure 1b needs no data, but the shape of CIFAR-10's.

Reference: Bar & Giryes 2023, arXiv 2305.17559, figure 1.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import models
from ..data import load
from ..harness import fingerprint, recipe_of
from ..methods import Method
from ..prunable import prunable
from ..prune import prune, rank
from ..results import Row
from ..training import Trainer
from . import _sketching_pictures as pictures
from ._report import Claim, Experiment, Progress, collect
from ._statistics import judged
from ._training import device, threads_for

DENSITY = 0.1
SEEDS = 3
UNIFORM, SYNFLOW, IMP = "random/threshold", "synflow/threshold", "imp(rewind={rewind})/threshold"
END, EACH = "synflow/without_replacement", "synflow/without_replacement(at=each)"
ALL = "all"
BINS = 40
SHOWN_SCORES = 1000  # weights of figure 1b's histograms
NEARLY = 0.9  # the share in common that makes masks nearly the same
_REWIND = {"cifar10": 1000, "digits": 4}


def _weights(
    *, out: Path, quick: bool, data_dir: Path | None = None, progress: Progress | None = None, seed: int = 0
) -> list[Row]:
    name, model = ("digits", "small-conv") if quick else ("cifar10", "vgg19")
    dataset, recipe = load(name, data_dir), recipe_of(name)
    methods = UNIFORM, SYNFLOW, str(Method.parse(IMP.format(rewind=_REWIND[name])))
    common = {"dataset": name, "data": fingerprint(dataset), "model": model, "density": DENSITY}
    keys = [
        common | {"method": method, "seed": SEEDS * seed + index, "epochs": recipe.epochs}
        for index in range(SEEDS)
        for method in methods
    ]

    folder = out / "checkpoints" / "fig1a"

    def compute(key: dict[str, Any]) -> dict[str, Any]:
        net = models.build(model, classes=dataset.classes, input_shape=dataset.input_shape, seed=key["seed"])
        method = Method.parse(key["method"])
        trainer = Trainer(
            dataset,
            recipe.epochs,
            recipe.batch_size,
            recipe.lr,
            seed=key["seed"],
            device=device(name),
            augment=recipe.augment,
            checkpoints=folder,
        )
        masks = prune(net, DENSITY, score=method.score, select=method.select, train=trainer, seed=key["seed"])
        shutil.rmtree(folder, ignore_errors=True)  # an interrupted search for a ticket goes on by it
        return _kept_weights({name: (w.detach(), masks[name].cpu()) for name, w in prunable(net).items()})

    with threads_for(name):
        return collect(out / "fig1a.jsonl", keys, compute, _named("fig1a", progress))


def _kept_weights(layers: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """Return how much larger than the layer's the kept weights are, and two layers' histograms."""
    names = list(layers)
    larger = {n: float(w[m].abs().mean() / w.abs().mean()) for n, (w, m) in layers.items() if m.any()}
    histograms = {}
    for name in (names[1], names[len(names) // 2]):
        weights, mask = layers[name]
        edge = 4 * float(weights.std())
        counts = torch.histc(weights[mask], BINS, -edge, edge)
        histograms[name] = {"edge": edge, "shares": (counts / mask.sum().clamp_min(1)).tolist()}
    return {"larger": sum(larger.values()) / len(larger), "layers": larger, "histograms": histograms}


def _named(name: str, progress: Progress | None) -> Progress | None:
    return progress and (lambda done, total, what: progress(done, total, f"{name} {what}"))


def _claims_1a(rows: list[Row]) -> list[Claim]:
    """Judge the mean over layers of mean |w| kept / mean |w|, seed by seed."""
    found = {method: _by_seed(rows, "larger", method) for method in (UNIFORM, SYNFLOW, "imp")}
    pairs = (
        ("SynFlow keeps larger weights than a uniform mask", SYNFLOW, UNIFORM),
        ("IMP keeps larger weights than a uniform mask", "imp", UNIFORM),
        ("SynFlow's bias to large weights is stronger than IMP's", SYNFLOW, "imp"),
    )
    return [judged(text, found[one], found[other], above=0.0, percent=False) for text, one, other in pairs]


def _by_seed(rows: list[Row], field: str, method: str) -> dict[int, float]:
    return {row["key"]["seed"]: row[field] for row in rows if row["key"]["method"].startswith(method)}


def _scores(
    *, out: Path, quick: bool, data_dir: Path | None = None, progress: Progress | None = None, seed: int = 0
) -> list[Row]:
    model, shape = ("small-conv", (1, 8, 8)) if quick else ("vgg19", (3, 32, 32))
    keys = [
        {"model": model, "shape": list(shape), "density": DENSITY, "method": method, "seed": SEEDS * seed + index}
        for index in range(SEEDS)
        for method in (ALL, SYNFLOW, END, EACH)
    ]

    def compute(key: dict[str, Any]) -> dict[str, Any]:
        net = models.build(model, input_shape=shape, seed=key["seed"])
        dense = _flat(rank(net, 1.0, score="synflow", iterations=1, seed=key["seed"]).scores)
        hard = _flat(prune(net, DENSITY, score="synflow", seed=key["seed"]))
        mask = torch.ones_like(hard) if key["method"] == ALL else hard
        if key["method"] in (END, EACH):
            method = Method.parse(key["method"])
            arguments = {"score": method.score, "select": method.select, **method.arguments}
            mask = _flat(prune(net, DENSITY, seed=key["seed"], **arguments))
        return _kept_scores(dense / dense.mean(), mask, hard, key["seed"])

    with threads_for("digits" if quick else "cifar10"):
        return collect(out / "fig1b.jsonl", keys, compute, _named("fig1b", progress))


def _flat(tensors: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors.values()])


def _kept_scores(scores: Tensor, mask: Tensor, hard: Tensor, seed: int) -> dict[str, Any]:
    """Return the scores, over their mean, of the kept among some weights chosen uniformly, and of all kept."""
    generator = torch.Generator().manual_seed(seed)
    some = torch.randperm(scores.numel(), generator=generator)[:SHOWN_SCORES]
    logs = scores[mask].clamp_min(torch.finfo(scores.dtype).tiny).log10()
    return {
        "mean_log10": float(logs.double().mean()),
        "in_hard_mask": float((mask & hard).sum() / mask.sum()),
        "scores": scores[some][mask[some]].tolist(),
    }


def _claims_1b(rows: list[Row]) -> list[Claim]:
    """Judge mean log10 of the dense net's scores of what is kept, and how much of it the hard mask keeps too."""

    def of(method: str, field: str = "mean_log10") -> dict[int, float]:
        return {row["key"]["seed"]: row[field] for row in rows if row["key"]["method"] == method}

    one = dict.fromkeys(of(END), NEARLY)
    text = "drawn at the last iteration only, the random mask is nearly the hard one: more than {:g} in common"
    return [
        judged("SynFlow's mask keeps large scores", of(SYNFLOW), of(ALL), above=0.0, percent=False),
        judged("a mask drawn at each iteration keeps smaller scores", of(EACH), of(SYNFLOW), below=0.0, percent=False),
        judged("it keeps larger ones than the net has", of(EACH), of(ALL), above=0.0, percent=False),
        judged(text.format(NEARLY), of(END, "in_hard_mask"), one, above=0.0, percent=False),
    ]


EXPERIMENTS: tuple[Experiment, ...] = (
    Experiment("fig1a", "Initial weights kept by uniform, SynFlow and IMP", _weights, pictures.weights, _claims_1a),
    Experiment("fig1b", "SynFlow's scores of what hard and random masks keep", _scores, pictures.scores, _claims_1b),
)
