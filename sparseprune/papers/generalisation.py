"""Paper 003's experiment: the test loss of randomly pruned nets against the keep probability, two regimes.

Set-up and numbers beside ours are the specification's, of seeds 0 to 9: the paper's text was not at hand, and its
theorems are recalled. Ours are seeds from 10 on. The runs of a seed share examples, initial weights and the uniform
numbers behind their masks.

Reference: Yang et al., JMLR 26(84), 2025 (arXiv 2301.00335).
"""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..results import Row
from ..theory import generalisation as theory
from . import _generalisation_claims as judges
from . import _generalisation_pictures as pictures
from ._generalisation_rows import SPECIFIED, mean
from ._report import Experiment, Progress, collect, curve
from ._statistics import interval
from ._training import one_thread

Key = dict[str, Any]
_FIRST_SEED = 10
_STEP = 0.05


@dataclass(frozen=True)
class Sizes:
    """How much to compute.

    Args:
        model: data and network of the sweep.
        keep: its keep probabilities, that of over-pruning excepted, which is added.
        seeds: of the sweep; others: of each of its variants.
        tests: test examples.
    """

    model: theory.Model
    keep: tuple[float, ...]
    seeds: int
    others: int
    tests: int = 4000


FULL = Sizes(theory.Model(), (1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01), 60, 20)
QUICK = Sizes(theory.Model(), (1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01), 10, 0)
_FEW = (1.0, 0.7, 0.5, 0.3, 0.2, 0.1)


def _plan(sizes: Sizes, seed: int) -> list[Key]:
    """Return the keys: the sweep, then other noise levels, a step that does not grow as p falls, other widths."""

    def keys(
        name: str, seeds: int, keep: tuple[float, ...] | None = None, grows: bool = True, **other: Any
    ) -> list[Key]:
        model = dataclasses.replace(sizes.model, **other)
        some = [*sizes.keep, model.over] if keep is None else list(keep)
        key = {"curve": name, "keep": some, "step": _STEP, "over_p": grows, "tests": sizes.tests, **asdict(model)}
        first = _FIRST_SEED + 10_000 * seed
        return [{**key, "seed": number} for number in range(first, first + seeds)]

    noise, units = sizes.model.noise, sizes.model.units
    return [
        *keys("sweep", sizes.seeds),
        *keys("less noise", sizes.others, _FEW, noise=0.75 * noise),
        *keys("half the noise", sizes.others, _FEW, noise=0.5 * noise),
        *keys("fixed step", sizes.others, _FEW, grows=False),
        *keys("half the units", sizes.others, units=units // 2),
        *keys("twice the units", sizes.others, units=2 * units),
    ]


def _measure(key: Key) -> dict[str, Any]:
    """Train a net for every keep probability of the key, all at once, and test it."""
    model = theory.Model(**{field.name: key[field.name] for field in dataclasses.fields(theory.Model)})
    keep, stream = key["keep"], 4 * key["seed"]
    rates = [key["step"] / (p if key["over_p"] else 1) for p in keep]
    masks = theory.masks(model, keep, [stream + 2])
    x, y = theory.samples(model, model.examples, [stream])
    trained = theory.train(theory.weights(model, [stream + 1]), masks, x, y, rates)
    found = theory.evaluate(trained.weights, *theory.samples(model, key["tests"], [stream + 3]))
    fields = {
        "accuracy": found.accuracy,
        "test loss": found.loss,
        "training loss": trained.loss,
        "steps": trained.steps,
        "noise norm": theory.noise_norm(trained.weights),
        "signal": theory.signal_coefficients(trained.weights),
        "own edges": theory.own_edges(masks),
        "of class": found.of_class,
    }
    return {name: value[0].tolist() for name, value in fields.items()}


def _rows(
    *, out: Path, quick: bool, data_dir: Path | None = None, progress: Progress | None = None, seed: int = 0
) -> list[Row]:
    keys = _plan(QUICK if quick else FULL, seed)

    def tell(done: int, total: int, _: str) -> None:
        if progress is not None:
            progress(done, total, f"{keys[done - 1]['curve']}, seed {keys[done - 1]['seed']}")

    with one_thread():
        return collect(out / "sweep.jsonl", keys, _measure, tell)


def _shown(rows: list[Row]) -> list[Row]:
    """Return a line for every curve and keep probability: means, 95 % of the mean accuracy, wins over p = 1."""
    lines = []
    for name in dict.fromkeys(row["key"]["curve"] for row in rows):
        some = curve(rows, name)
        for place, p in enumerate(some[0]["key"]["keep"]):
            half = interval([row["accuracy"][place] for row in some])[1]
            wins = sum(row["accuracy"][place] > row["accuracy"][0] for row in some)
            accuracy, _, loss = SPECIFIED.get(round(p, 6), ("", "", "")) if name == "sweep" else ("", "", "")
            line = {"accuracy": mean(some, "accuracy", p)[0], "± 95 %": half, "specified": accuracy}
            line |= {"test loss": mean(some, "test loss", p)[0], "specified loss": loss}
            line |= {field: mean(some, field, p)[0] for field in ("steps", "noise norm", "own edges", "signal")}
            same = {field: some[0]["key"][field] for field in ("classes", "dimension", "examples", "signal", "tests")}
            lines.append({"key": {"curve": name, "p": p, **same}, **line, "beats p = 1": f"{wins}/{len(some)}"})
    return lines


SWEEP = Experiment(
    "sweep", "Random pruning against the keep probability", _rows, pictures.panels, judges.claims, _shown
)
EXPERIMENTS = {SWEEP.name: SWEEP}
